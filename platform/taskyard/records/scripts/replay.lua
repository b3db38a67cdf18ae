-- Open an operator's replay: the next generation of the same life, from the captured message.
local job_id, epoch, generation, request = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local job_type, queue, priority = ARGV[5], ARGV[6], ARGV[7]
local record = read(KEY_RECORD)
local now = now_us()

local function refuse(why)
  return {'refused', why, record.state or 'none'}
end

if record.request == request then return {'ok', record.generation, '1', int(now)} end
-- There is no record, or only one of an earlier life: the dead letter proves that this life died.
if not record.state or (num(record.epoch) < num(epoch) and TERMINAL[record.state]) then
  local token = record.token
  remove(KEY_RECORD, KEY_RESULT)
  record = reborn({epoch = epoch, generation = generation, seq = '0', type = job_type, queue = queue,
                   priority = priority}, now)
  record.token = token
end
if num(record.epoch) ~= num(epoch) then
  return refuse('the job has another life, ' .. record.epoch .. '; this letter is of ' .. epoch)
end
-- A record may be older than the dead letter, if a failover lost an earlier replay. It may be replayed
-- all the same, if it is dead-lettered.
if num(record.generation) > num(generation) then
  return refuse('the job is already at generation ' .. record.generation)
end
if not target(record, 'replay') then return refuse('the job is ' .. record.state) end

if num(record.generation) < num(generation) then skip_versions(record, now) end
open_generation(record, num(generation) + 1)
record.queue, record.priority, record.request = queue, priority, request
move(job_id, record, 'replay', now, {'type', record.type or job_type, 'queue', queue})
write(KEY_RECORD, record, {'state', 'version', 'epoch', 'generation', 'seq', 'type', 'queue', 'priority',
      'attempts', 'deaths', 'deliveries', 'begins', 'request', 'admitted', 'token'})
redis.call('PERSIST', KEY_RECORD)
redis.call('DEL', KEY_RESULT)
return {'ok', record.generation, '0', int(now)}
