-- The broker has confirmed the publication of this life's first message: no copy is needed.
if redis.call('HGET', KEY_RECORD, 'epoch') == ARGV[2] then
  redis.call('HSET', KEY_RECORD, 'published', '1')
  redis.call('HDEL', KEY_RECORD, 'unsent')
  return 1
end
return 0
