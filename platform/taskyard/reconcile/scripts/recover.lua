-- Give the right to publish a job's message again: the record has not changed since it was read, no
-- worker runs the job, and no other process got this right within the last minute.
-- KEYS: record. ARGV: state, epoch, generation, seq, version.
local record = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'generation', 'seq', 'version',
                          'lease_until', 'recovered')
for i = 1, 5 do
  if record[i] ~= ARGV[i] then return 0 end
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
if record[1] == 'running' and tonumber(record[6] or '0') > now then return 0 end
if now - tonumber(record[7] or '0') < 60000000 then return 0 end
redis.call('HSET', KEYS[1], 'recovered', string.format('%.0f', now))
return 1
