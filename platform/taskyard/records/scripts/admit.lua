-- Admission: the records of new jobs, or those that their ids already have; one reply a job.
-- KEYS: the four of every script for the first job, the delay store's two, then record and result
-- of each further job. ARGV: nine values a job. Without a list the text before the epoch is the
-- first message as the record keeps it until the broker has confirmed it.
local DELAYED, MESSAGES, WIDTH = KEYS[5], KEYS[6], 9

-- Raises where a message could not be published for its keys' types. A script is not undone: the
-- record would stand, and its message be nowhere.
local function check_place(list, delay_us)
  if list == '' then return end
  redis.call('LLEN', list)
  if delay_us > 0 then
    redis.call('ZCARD', DELAYED)
    redis.call('HLEN', MESSAGES)
  end
end

-- Where records and broker share this Redis, the message is published in the same step.
local function publish(job_id, list, message, due_us)
  if due_us == nil then
    redis.call('LPUSH', list, message)
    return
  end
  local member = job_id .. ':0:0'
  redis.call('HSET', MESSAGES, member, list .. '\n' .. message)
  redis.call('ZADD', DELAYED, int(math.floor(due_us / 1000)), member)
end

local function admit(at, now)
  local job_id, job_type, queue, priority = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local unique_us, list, delay_us = tonumber(ARGV[at + 4]), ARGV[at + 5], tonumber(ARGV[at + 8])
  local record = read(KEY_RECORD)
  local reusable = record.state and TERMINAL[record.state] and now >= num(record.unique_until)
  if record.state and not reusable then
    return {'0', record.state, record.epoch, record.generation, record.seq, record.published or '0'}
  end

  check_place(list, delay_us)
  -- A second life of the same id must sort after the first, also when the clock stepped back.
  local epoch = int(math.max(now, num(record.epoch) + 1))
  local token = record.token
  record = birth(epoch, '0', '0', job_type, queue, priority, now)
  record.token = token
  record.unique_until = int(now + unique_us)
  record.published = list ~= '' and '1' or '0'
  if list == '' and ARGV[at + 6] ~= '' then record.unsent = ARGV[at + 6] end
  remove(KEY_RECORD, KEY_RESULT, KEY_RECORD .. ':deliveries')
  move(job_id, record, 'admit', now, {'type', job_type, 'queue', queue, 'priority', priority})
  write(KEY_RECORD, record, {'state', 'epoch', 'generation', 'seq', 'version', 'type', 'queue',
        'priority', 'admitted', 'unique_until', 'token', 'published', 'unsent'})
  if list ~= '' then
    local message = ARGV[at + 6] .. epoch .. ARGV[at + 7]
    publish(job_id, list, message, delay_us > 0 and now + delay_us or nil)
  end
  return {'1', record.state, epoch, '0', '0', record.published}
end

local replies = {}
local now = now_us()
for job = 0, #ARGV / WIDTH - 1 do
  if job > 0 then KEY_RECORD, KEY_RESULT = KEYS[5 + 2 * job], KEYS[6 + 2 * job] end
  replies[#replies + 1] = admit(1 + WIDTH * job, now)
end
return replies
