-- The decision about one attempt. Refused only if another attempt has the token: a lease that
-- merely expired never discards good work. The main process has no token and proves itself by
-- its delivery (`holder`).
local job_id, token, holder, decision = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local epoch, generation, seq = ARGV[5], ARGV[6], ARGV[7]
local result, result_ttl_ms, window_us = ARGV[8], ARGV[9], tonumber(ARGV[10])
local delay_us, cause, code, category = tonumber(ARGV[11]), ARGV[12], ARGV[13], ARGV[14]
local message, channel = ARGV[15], ARGV[16]
local EVENT = {completed = 'complete', retrying = 'retry', dead_lettered = 'fail'}

local record = read(KEY_RECORD)
local now = now_us()
if not record.state then
  -- The record was lost under a running attempt (flushed, or a failover): what it decides stands.
  record = birth(epoch, generation, seq, '', '', '', now)
  record.state, record.token, record.holder, record.deaths, record.begins = 'running', token, holder, '1', '1'
end

local mine = (token ~= '' and record.token == token) or (token == '' and record.holder == holder)
if not mine or record.epoch ~= epoch then return {'superseded', record.state, record.version} end
if record.state ~= 'running' then
  -- The same decision again: its first answer was lost on the way.
  if record.decision == decision and num(record.generation) == num(generation) then
    return {'ok', record.state, record.version, record.seq, record.due or '0', record.decided or int(now)}
  end
  return {'superseded', record.state, record.version}
end

record.deaths = int(math.max(num(record.deaths) - 1, 0))
record.decision = decision
record.decided = int(now)
local extra = {'attempt', record.begins, 'worker', record.worker or '', 'type', record.type or '',
               'queue', record.queue or '', 'started', record.started or int(now)}

if decision == 'completed' then
  move(job_id, record, 'complete', now, extra)
  bury(KEY_RECORD, record, now, window_us)
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
else
  record.cause = cause
  extra[#extra + 1] = 'category'
  extra[#extra + 1] = category
end
move(job_id, record, EVENT[decision], now, extra)
write(KEY_RECORD, record, {'state', 'version', 'epoch', 'generation', 'seq', 'deaths', 'decision', 'decided',
      'attempts', 'history', 'due', 'cause', 'first_failure', 'token', 'type', 'queue', 'priority', 'admitted'})
redis.call('HDEL', KEY_RECORD, 'holder', 'lease_until')
return {'ok', record.state, record.version, record.seq, record.due or '0', record.decided}
