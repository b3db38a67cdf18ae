-- Keep the lease: only while this token is the record's and the job still runs.
local record = redis.call('HMGET', KEY_RECORD, 'state', 'token', 'cancel')
if record[1] == 'running' and record[2] == ARGV[2] then
  redis.call('HSET', KEY_RECORD, 'lease_until', int(now_us() + tonumber(ARGV[3])))
  return {'kept', record[3] or ''}
end
return {'lost', record[1] or 'none'}
