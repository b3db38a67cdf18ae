-- Check whether an entry lacks its other half and, if asked to, repair it in the same step.
-- KEYS: hash of messages, sorted set of times. ARGV: what is lacking ('message' or 'time'),
-- 'look' or 'mend', units a second, member. Answers 1 if the other half is missing.
local messages, times, lacks, member = KEYS[1], KEYS[2], ARGV[1], ARGV[4]
local has_message = redis.call('HEXISTS', messages, member) == 1
local has_time = redis.call('ZSCORE', times, member)

if lacks == 'message' then
  if has_message or not has_time then return 0 end
  if ARGV[2] == 'mend' then redis.call('ZREM', times, member) end
  return 1
end
if has_time or not has_message then return 0 end
if ARGV[2] == 'mend' then
  local time = redis.call('TIME')
  local now = (tonumber(time[1]) + tonumber(time[2]) / 1000000) * tonumber(ARGV[3])
  redis.call('ZADD', times, string.format('%.0f', now), member)
end
return 1
