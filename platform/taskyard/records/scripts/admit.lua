-- Admission: make records of new jobs, or read the records that their ids have; one reply a job.
-- KEYS: the four of every script for the first job, the delay store's two, the switches, then record
-- and result of each further job. ARGV: twelve values a job. Without a list key, the text before the
-- epoch is the first message, which the record keeps until the broker has confirmed it. The twelfth
-- are the kill switches that refuse the job, one a line. After all jobs, three values for each job
-- whose service waits for a reply: its index from 0, queue and correlation id.
local DELAYED, MESSAGES, SWITCHES, WIDTH = KEYS[5], KEYS[6], KEYS[7], 12
local JOBS = (#KEYS - 5) / 2

local REPLIES = {}
for at = WIDTH * JOBS + 1, #ARGV, 3 do
  REPLIES[tonumber(ARGV[at])] = {queue = ARGV[at + 1], correlation_id = ARGV[at + 2]}
end

-- A value of many megabytes is none of ours; it must not go into every answer.
local LONGEST_STATE = 20000

-- The answers to jobs that are refused, by their list of kill switches; the first that is in force is
-- named. Each distinct switch is read once, and all in one command.
local function find_refusals(now)
  local lists, fields, asked = {}, {}, {}
  for job = 1, JOBS do
    local list = ARGV[WIDTH * job]
    if not lists[list] then
      lists[list] = true
      for field in string.gmatch(list, '[^\n]+') do
        if not asked[field] then fields[#fields + 1], asked[field] = field, true end
      end
    end
  end
  local refusals, on = {}, {}
  if #fields == 0 then return refusals end
  for i, value in ipairs(redis.call('HMGET', SWITCHES, unpack(fields))) do
    if value and switch_in_force(value, now) then
      on[fields[i]] = {'refused', fields[i], string.sub(value, 1, LONGEST_STATE), int(now)}
    end
  end
  if next(on) == nil then return refusals end
  for list in pairs(lists) do
    for field in string.gmatch(list, '[^\n]+') do refusals[list] = refusals[list] or on[field] end
  end
  return refusals
end

-- Raise an error before any write if a key of the publication has a wrong type. Redis does not undo
-- a script that fails in the middle: the job would have a record and no message.
local function check_place(list, delay_us)
  if list == '' then return end
  redis.call('LLEN', list)
  if delay_us > 0 then
    redis.call('ZCARD', DELAYED)
    redis.call('HLEN', MESSAGES)
  end
end

-- This id was made for this very call, so no key of an earlier life can exist.
local OWN_ID = '-'

-- Where records and broker share this Redis, the message is published in the same step. A command
-- costs more than its work, so all messages for one list are pushed at once, in the jobs' order.
local LISTS, MESSAGES_OF = {}, {}

local function publish(job_id, list, message, due_us)
  if due_us == nil then
    if not MESSAGES_OF[list] then
      LISTS[#LISTS + 1], MESSAGES_OF[list] = list, {}
    end
    table.insert(MESSAGES_OF[list], message)
    return
  end
  local member = job_id .. ':0:0'
  redis.call('HSET', MESSAGES, member, list .. '\n' .. message)
  redis.call('ZADD', DELAYED, int(math.floor(due_us / 1000)), member)
end

local function push()
  for _, list in ipairs(LISTS) do redis.call('LPUSH', list, unpack(MESSAGES_OF[list])) end
end

local function admit(at, now, reply, refusals)
  local job_id, job_type, queue, priority = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local unique_us, list, delay_us = tonumber(ARGV[at + 4]), ARGV[at + 5], tonumber(ARGV[at + 8])
  local call, domain = ARGV[at + 9], ARGV[at + 10]
  local record = read(KEY_RECORD)
  -- The caller that made the job repeats the call, because the first reply was lost. This branch
  -- also answers if the job has ended since: a new record would run the job a second time.
  local repeated = call ~= '' and record.call == call
  local reusable = record.state and TERMINAL[record.state] and now >= num(record.unique_until)
  if record.state and (repeated or not reusable) then
    return {repeated and '1' or '0', record.state, record.epoch, record.generation, record.seq,
            record.published or '0'}
  end
  -- A job that exists is no new work: its caller finds it, whatever was turned on since.
  local refusal = refusals[ARGV[at + 11]]
  if refusal then return refusal end

  check_place(list, delay_us)
  -- Redis refuses this write when its memory is full. Redis checks only the first write of a script,
  -- and a deletion passes this check: without this write a full server would accept jobs until the
  -- kernel's OOM killer stops it.
  redis.call('SETRANGE', KEY_RECORD .. ':deliveries', 0, '')
  -- A second life of the same id must sort after the first, also when the clock stepped back.
  local epoch = int(math.max(now, num(record.epoch) + 1))
  local token = record.token
  record = birth(epoch, '0', '0', job_type, queue, priority, now)
  record.token = token
  record.unique_until = int(now + unique_us)
  record.published = list ~= '' and '1' or '0'
  if call ~= '' then record.call = call end
  if domain ~= '' then record.domain = domain end
  if reply then record.reply_to, record.correlation_id = reply.queue, reply.correlation_id end
  if list == '' and ARGV[at + 6] ~= '' then record.unsent = ARGV[at + 6] end
  if call ~= OWN_ID then remove(KEY_RECORD, KEY_RESULT, KEY_RECORD .. ':deliveries') end
  move(job_id, record, 'admit', now, {'type', job_type, 'queue', queue, 'priority', priority})
  write(KEY_RECORD, record, {'state', 'epoch', 'generation', 'seq', 'version', 'type', 'queue',
        'priority', 'admitted', 'unique_until', 'token', 'published', 'unsent', 'call', 'domain',
        'reply_to', 'correlation_id'})
  if list ~= '' then
    local message = ARGV[at + 6] .. epoch .. ARGV[at + 7]
    publish(job_id, list, message, delay_us > 0 and now + delay_us or nil)
  end
  return {'1', record.state, epoch, '0', '0', record.published}
end

local function admit_all()
  local replies, now = {}, now_us()
  local refusals = find_refusals(now)
  for job = 0, JOBS - 1 do
    if job > 0 then KEY_RECORD, KEY_RESULT = KEYS[6 + 2 * job], KEYS[7 + 2 * job] end
    replies[#replies + 1] = admit(1 + WIDTH * job, now, REPLIES[job], refusals)
  end
  return replies
end

-- A job whose record cannot be written must not stop the publication of the jobs before it.
local done, answer = pcall(admit_all)
push()
if not done then error(answer, 0) end
return answer
