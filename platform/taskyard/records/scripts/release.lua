-- The attempt of this delivery ends without a decision. `release` (drain) costs nothing;
-- `lose` (the child died) counts as a death of the job's process; too many make a poison letter.
local job_id, holder, event, death_limit, evidence = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local record = read(KEY_RECORD)
local now = now_us()
if record.state == 'dead_lettered' or record.state == 'retrying' then
  return {'decided', record.state, record.seq, record.due or '0', record.epoch, record.generation}
end
-- The caller repeats the same request, because the first answer was lost.
if record.state == 'accepted' and record.released == holder then return {'requeue', record.state} end
-- An operator has ended this delivery's attempt, so its message has nothing left to do.
if record.ended_holder == holder then return {'ended', record.state} end
if record.state == 'rerouted' and record.moved_holder == holder then return forward(record) end
if record.state ~= 'running' or record.holder ~= holder then
  return {'not_held', record.state or 'none'}
end
if record.cancel then
  local code = event == 'release' and 'released' or 'worker_lost'
  return cancel_as_requested(job_id, record, now, code, evidence)
end
if event == 'release' then
  record.deaths = int(math.max(num(record.deaths) - 1, 0))
else
  note(record, now, 'lost', 'worker_lost', evidence)
  if num(record.deaths) >= death_limit then
    return poison(job_id, record, 'deaths', num(record.deaths), death_limit, evidence, now)
  end
end
move(job_id, record, event, now, {'attempt', record.begins, 'worker', record.worker or '', 'error', evidence})
record.released = holder
write(KEY_RECORD, record, {'state', 'version', 'deaths', 'history', 'released'})
drop(record, LEASE)
return {'requeue', record.state}
