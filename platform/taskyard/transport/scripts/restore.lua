-- Put one unacknowledged message back into a list, unless it was acknowledged meanwhile.
-- KEYS: unacked hash, unacked index, list. ARGV: tag, message, 'next' or 'last'.
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call(ARGV[3] == 'next' and 'RPUSH' or 'LPUSH', KEYS[3], ARGV[2])
return 1
