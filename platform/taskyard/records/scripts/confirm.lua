-- The broker has confirmed the publication of this life's first message.
if redis.call('HGET', KEY_RECORD, 'epoch') == ARGV[2] then
  redis.call('HSET', KEY_RECORD, 'published', '1')
  return 1
end
return 0
