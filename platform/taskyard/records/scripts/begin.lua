-- The right to run one attempt, or the reason why not.
local job_id, epoch, generation, seq = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local holder, worker, lease_us, death_limit = ARGV[5], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local window_us, sent_us = tonumber(ARGV[9]), tonumber(ARGV[10])
local job_type, queue, priority = ARGV[11], ARGV[12], ARGV[13]

local record = read(KEY_RECORD)
local now = now_us()

if not record.state then
  if sent_us > 0 and now - sent_us > window_us then return {'unknown_history'} end
  record = birth(epoch ~= '' and epoch or int(now), generation, seq, job_type, queue, priority, now)
else
  -- A message of a plain producer carries no stamp: it belongs to the life there is, at its start.
  local order = compare(record, epoch ~= '' and epoch or record.epoch, generation, seq)
  if order < 0 then
    -- Its own decision was a retry: repeat that publication, it may never have happened.
    local same_life = epoch == '' or num(epoch) == num(record.epoch)
    if same_life and record.state == 'retrying' and num(generation) == num(record.generation)
       and num(seq) == num(record.seq) - 1 then
      return {'decided', 'retrying', record.seq, record.due, record.epoch, record.generation}
    end
    return {'stale', record.state}
  end
  if order > 0 then
    -- The record forgot (a failover lost its last writes): the message proves the later position.
    if epoch ~= '' and num(epoch) > num(record.epoch) then
      local token = record.token
      record = birth(epoch, generation, seq, job_type, queue, priority, now)
      record.token = token
      redis.call('DEL', KEY_RECORD, KEY_RESULT)
    else
      if record.state == 'dead_lettered' or TERMINAL[record.state] then
        if num(generation) == num(record.generation) then return {'ended', record.state} end
        record.state = 'accepted'
        redis.call('DEL', KEY_RESULT)
        redis.call('PERSIST', KEY_RECORD)
      end
      record.generation, record.seq = generation, seq
    end
  end
end

if record.state == 'completed' then return {'done', redis.call('GET', KEY_RESULT)} end
if record.state == 'dead_lettered' then
  return {'decided', 'dead_lettered', record.seq, '0', record.epoch, record.generation}
end
if not target(record, 'begin') then return {'ended', record.state} end

if record.state == 'running' then
  -- The same delivery asks again: its first answer was lost on the way.
  if record.holder == holder then
    return {'run', record.begins, record.token, record.epoch, record.generation, record.seq,
            record.attempts or '0', record.cancel or ''}
  end
  local remaining = num(record.lease_until) - now
  if remaining > 0 then return {'held', int(remaining)} end
end

local deaths = num(record.deaths)
if deaths >= death_limit then
  poison(job_id, record, 'deaths', deaths, death_limit, now)
  return {'decided', 'dead_lettered', record.seq, '0', record.epoch, record.generation}
end

record.token = int(math.max(num(record.token) + 1, now))
record.begins = int(num(record.begins) + 1)
record.deaths = int(deaths + 1)
record.attempts = record.attempts or '0'
record.holder, record.worker = holder, worker
record.started = int(now)
record.lease_until = int(now + lease_us)
record.published = '1'
move(job_id, record, 'begin', now, {'attempt', record.begins, 'worker', worker, 'token', record.token,
     'type', record.type or job_type, 'queue', record.queue or queue})
write(KEY_RECORD, record, {'state', 'epoch', 'generation', 'seq', 'version', 'type', 'queue', 'priority',
      'admitted', 'token', 'begins', 'deaths', 'attempts', 'holder', 'worker', 'started',
      'lease_until', 'published'})
return {'run', record.begins, record.token, record.epoch, record.generation, record.seq,
        record.attempts, record.cancel or ''}
