-- Give the right to run one attempt, or return the reason for the refusal. KEYS: the four of every
-- script, and the switches.
local job_id, holder, worker = ARGV[1], ARGV[5], ARGV[6]
local lease_us, death_limit = tonumber(ARGV[7]), tonumber(ARGV[8])
local window_us, sent_us = tonumber(ARGV[9]), tonumber(ARGV[10])
local message = {epoch = ARGV[2], generation = ARGV[3], seq = ARGV[4], holder = holder,
                 type = ARGV[11], queue = ARGV[12], nesting = ARGV[14], domain = ARGV[15]}
local process = ARGV[13]
local LEASE_EXPIRED = 'the lease was not renewed'
local PROCESS_GONE = 'its process was gone before the worker knew that it had begun'

local record = read(KEY_RECORD)
local now = now_us()
-- The record of a failed publication expires, unless the message arrives all the same.
local ending = record.published == '0'
if not record.state and sent_us > 0 and now - sent_us > window_us then return {'unknown_history'} end

-- An attempt that is only observed runs all the same.
local switched = process ~= '' and held_by_switch(record, message, sent_us, now)
local found, answer = place(job_id, record, message, now, switched)
if answer then
  if answer == switched then forget_deliveries(record) end
  return answer
end
record = found

if TERMINAL[record.state] then note_seen(record, now) end
if record.state == 'completed' then return {'done', redis.call('GET', KEY_RESULT)} end
if record.state == 'dead_lettered' then
  return {'decided', 'dead_lettered', record.seq, '0', record.epoch, record.generation}
end
if not target(record, 'begin') then return {'ended', record.state} end

local function run()
  return {'run', record.begins, record.token, record.epoch, record.generation, record.seq,
          record.attempts, record.cancel or ''}
end

-- The same process repeats the call for the same delivery, because the first answer was lost.
-- Another process has the same delivery: the first one died, and the pool passed the job on.
local same_delivery = record.state == 'running' and record.holder == holder
if same_delivery and (record.process or '') == process then
  redis.call('HSET', KEY_RECORD, 'lease_until', int(now + lease_us))
  return run()
end

local deaths = num(record.deaths)
local evidence = same_delivery and PROCESS_GONE or LEASE_EXPIRED
local code = same_delivery and 'worker_lost' or 'lease_expired'
if record.cancel then return cancel_as_requested(job_id, record, now, code, evidence) end
if switched then
  forget_deliveries(record)
  return switched
end
note_lost(record, now, code, evidence)
if deaths >= death_limit then
  return poison(job_id, record, 'deaths', deaths, death_limit, evidence, now)
end

if record.unsent then drop(record, {'unsent'}) end
if record.decision or record.released then
  drop(record, DECISION)
  drop(record, {'released'})
end
for _, name in ipairs({'type', 'queue'}) do record[name] = record[name] or message[name] end
note_domain(record, message)
record.token = int(math.max(num(record.token) + 1, now))
record.begins = int(num(record.begins) + 1)
record.deaths = int(deaths + 1)
record.attempts = record.attempts or '0'
-- The message has reached a worker that could begin it; from here on deaths are counted.
record.deliveries = '0'
record.holder, record.worker, record.process = holder, worker, process
record.started = int(now)
record.lease_until = int(now + lease_us)
record.published = '1'
move(job_id, record, 'begin', now, {'attempt', record.begins, 'worker', worker, 'token', record.token,
     'type', record.type, 'queue', record.queue})
write(KEY_RECORD, record, {'state', 'epoch', 'generation', 'seq', 'version', 'type', 'queue',
      'admitted', 'token', 'begins', 'deaths', 'attempts', 'deliveries', 'holder', 'worker', 'process', 'started',
      'lease_until', 'published', 'history', 'domain', unpack(NESTING)})
if ending then redis.call('PERSIST', KEY_RECORD) end
return run()
