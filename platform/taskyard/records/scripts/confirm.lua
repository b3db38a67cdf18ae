-- The broker has confirmed the first message of this life, so the record needs no copy of it.
local stored = redis.call('HMGET', KEY_RECORD, 'epoch', 'published')
if stored[1] == ARGV[2] then
  -- The record of a failed publication expires; this publication has not failed.
  if stored[2] == '0' then redis.call('PERSIST', KEY_RECORD) end
  redis.call('HSET', KEY_RECORD, 'published', '1')
  redis.call('HDEL', KEY_RECORD, 'unsent')
  return 1
end
return 0
