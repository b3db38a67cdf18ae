-- The decision about one attempt. Refused only if another attempt has the token: a lease that
-- merely expired never discards good work. The main process has no token and proves itself by
-- its delivery (`holder`).
local job_id, token, holder, decision = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local epoch, generation, seq = ARGV[5], ARGV[6], ARGV[7]
local result, result_ttl_ms, window_us = ARGV[8], ARGV[9], tonumber(ARGV[10])
local delay_us, cause, code, category = tonumber(ARGV[11]), ARGV[12], ARGV[13], ARGV[14]
local message, channel, stopped = ARGV[15], ARGV[16], ARGV[17] == '1'
local EVENT = {completed = 'complete', retrying = 'retry', dead_lettered = 'fail'}

-- Whether this is the attempt that the two fields name.
local function mine(record, token_field, holder_field)
  if token ~= '' then return record[token_field] == token end
  return record[holder_field] == holder
end

local record = read(KEY_RECORD)
local now = now_us()
if not record.state then
  -- The record was lost while the attempt ran (a flush or a failover): its decision is accepted.
  record = reborn({epoch = epoch, generation = generation, seq = seq}, now)
  record.token, record.holder, record.deaths = token ~= '' and token or nil, holder, '1'
  record.begins = int(num(seq) + 1)
  move(job_id, record, 'begin', now, {'attempt', record.begins, 'token', token})
end

-- An operator has moved the job: this delivery's message goes to its new queue, and runs there.
if record.state == 'rerouted' and (is_left(record, epoch, generation, seq)
                                   or holder ~= '' and record.moved_holder == holder) then
  return forward(record)
end
if record.epoch ~= epoch then return {'superseded', record.state, record.version} end
if record.state ~= 'running' or not mine(record, 'token', 'holder') then
  -- The caller repeats the same decision, because the first answer was lost.
  if record.state == TRANSITIONS['running:' .. EVENT[decision]] and record.decision == decision
     and mine(record, 'decided_token', 'decided_holder') then
    return {'ok', record.state, record.version, record.seq, record.due or '0', record.decided}
  end
  return {'superseded', record.state, record.version}
end

-- A handler that did not see the request has done its work. One that saw it has stopped.
if record.cancel and (decision ~= 'completed' or stopped) then
  record.decided_token, record.decided_holder = record.token, record.holder
  cancel_as_requested(job_id, record, now, code, message)
  return {'superseded', record.state, record.version}
end

record.deaths = int(math.max(num(record.deaths) - 1, 0))
record.decision = decision
record.decided = int(now)
record.decided_token, record.decided_holder = record.token, record.holder
local extra = {'attempt', record.begins, 'worker', record.worker or '', 'type', record.type or '',
               'queue', record.queue or '', 'started', record.started or int(now)}

if decision == 'completed' then
  move(job_id, record, 'complete', now, extra)
  write_tombstone(KEY_RECORD, record, now, window_us)
  redis.call('SET', KEY_RESULT, result, 'PX', result_ttl_ms)
  redis.call('PUBLISH', channel, result)
  return {'ok', record.state, record.version, record.seq, '0', record.decided}
end

record.attempts = int(num(record.attempts) + 1)
record.first_failure = record.first_failure or int(now)
note(record, now, decision, code, message)
for _, item in ipairs({'code', code, 'error', message}) do extra[#extra + 1] = item end
if decision == 'retrying' then
  record.seq = int(num(record.seq) + 1)
  record.due = int(now + delay_us)
  extra[#extra + 1] = 'due'
  extra[#extra + 1] = record.due
  -- The retry's message differs from the message before it, so this script publishes the retry.
  if cause ~= '' then record.next = cause elseif record.next then drop(record, {'next'}) end
else
  record.cause = cause
  extra[#extra + 1] = 'category'
  extra[#extra + 1] = category
end
move(job_id, record, EVENT[decision], now, extra)
write(KEY_RECORD, record, {'state', 'version', 'epoch', 'generation', 'seq', 'deaths', 'begins', 'decision',
      'decided', 'decided_token', 'decided_holder', 'attempts', 'history', 'due', 'cause', 'first_failure',
      'token', 'type', 'queue', 'priority', 'admitted', 'next'})
drop(record, LEASE)
return {'ok', record.state, record.version, record.seq, record.due or '0', record.decided}
