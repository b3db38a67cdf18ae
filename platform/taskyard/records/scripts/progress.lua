-- Progress is written only by the attempt that holds the lease.
local record = redis.call('HMGET', KEY_RECORD, 'state', 'token')
if record[1] == 'running' and record[2] == ARGV[2] then
  redis.call('HSET', KEY_RECORD, 'progress', ARGV[3])
  return 1
end
return 0
