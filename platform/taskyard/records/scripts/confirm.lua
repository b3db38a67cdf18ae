-- The broker has confirmed the publication of this life's first message: no copy is needed.
local stored = redis.call('HMGET', KEY_RECORD, 'epoch', 'published')
if stored[1] == ARGV[2] then
  -- What a failed publication left ends by itself; this one has not failed.
  if stored[2] == '0' then redis.call('PERSIST', KEY_RECORD) end
  redis.call('HSET', KEY_RECORD, 'published', '1')
  redis.call('HDEL', KEY_RECORD, 'unsent')
  return 1
end
return 0
