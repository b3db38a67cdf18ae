-- Admission: the record of a new job, or the one that its id already has.
local job_id, job_type, queue, priority = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local unique_us = tonumber(ARGV[5])
local list, head, tail, delay_us = ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
local record = read(KEY_RECORD)
local now = now_us()
local reusable = record.state and TERMINAL[record.state] and now >= num(record.unique_until)

if record.state and not reusable then
  return {'0', record.state, record.epoch, record.generation, record.seq, record.published or '0'}
end

-- A second life of the same id must sort after the first, also when the clock stepped back.
local epoch = int(math.max(now, num(record.epoch) + 1))
local token = record.token
record = birth(epoch, '0', '0', job_type, queue, priority, now)
record.token = token
record.unique_until = int(now + unique_us)
redis.call('DEL', KEY_RECORD, KEY_RESULT, KEY_RECORD .. ':deliveries')
move(job_id, record, 'admit', now, {'type', job_type, 'queue', queue, 'priority', priority})
write(KEY_RECORD, record, {'state', 'epoch', 'generation', 'seq', 'version', 'type', 'queue',
      'priority', 'admitted', 'unique_until', 'token'})
if list == '' then return {'1', record.state, epoch, '0', '0', '0'} end

-- Records and broker share this Redis: the message is published in the same step.
local message = head .. epoch .. tail
if delay_us > 0 then
  local member = job_id .. ':0:0'
  redis.call('HSET', KEYS[6], member, list .. '\n' .. message)
  redis.call('ZADD', KEYS[5], int(math.floor((now + delay_us) / 1000)), member)
else
  redis.call('LPUSH', list, message)
end
redis.call('HSET', KEY_RECORD, 'published', '1')
return {'1', record.state, epoch, '0', '0', '1'}
