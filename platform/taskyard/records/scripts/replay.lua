-- An operator's replay: the next generation of the same life, from the captured message.
local job_id, epoch, generation, request = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local job_type, queue, priority = ARGV[5], ARGV[6], ARGV[7]
local record = read(KEY_RECORD)
local now = now_us()
if not record.state then
  record = birth(epoch, generation, '0', job_type, queue, priority, now)
end
if record.request == request then
  return {'ok', record.generation, '1', int(now)}
end
if record.epoch ~= epoch then return {'refused', 'the job has a later life', record.state or 'none'} end
if num(record.generation) ~= num(generation) then
  return {'refused', 'the job is already at generation ' .. record.generation, record.state or 'none'}
end
if not target(record, 'replay') then return {'refused', 'the job is ' .. record.state, record.state} end

record.generation = int(num(generation) + 1)
record.seq, record.attempts, record.deaths, record.deliveries, record.begins = '0', '0', '0', '0', '0'
record.queue, record.priority, record.request = queue, priority, request
move(job_id, record, 'replay', now, {'type', record.type or job_type, 'queue', queue})
write(KEY_RECORD, record, {'state', 'version', 'epoch', 'generation', 'seq', 'type', 'queue', 'priority',
      'attempts', 'deaths', 'deliveries', 'begins', 'request', 'admitted', 'token'})
redis.call('HDEL', KEY_RECORD, 'cause', 'decision', 'decided', 'history', 'due', 'first_failure', 'published',
           'progress')
redis.call('PERSIST', KEY_RECORD)
redis.call('DEL', KEY_RESULT)
return {'ok', record.generation, '0', int(now)}
