-- Put one unacknowledged message back into its lists, unless it was acknowledged meanwhile.
-- KEYS: unacked hash, unacked index, lists. ARGV: tag, message, 'next' or 'last'.
for i = 3, #KEYS do
  -- Redis does not undo a script: a message that is removed before a refused push would be lost.
  local length = redis.pcall('LLEN', KEYS[i])
  if type(length) == 'table' then return length end
end
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
for i = 3, #KEYS do
  redis.call(ARGV[3] == 'next' and 'RPUSH' or 'LPUSH', KEYS[i], ARGV[2])
end
return 1
