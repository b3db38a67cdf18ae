-- Put one message into the delay store and note which switch holds it. One that is parked again keeps
-- its place among those of the switch.
-- KEYS: due times, messages, switches with messages, names of this switch. ARGV: name, due time (ms),
-- message, switch.
-- Raises before any write where a key is of another type: a script is not undone.
redis.call('ZCARD', KEYS[1])
redis.call('SMEMBERS', KEYS[3])
redis.call('ZCARD', KEYS[4])
local time = redis.call('TIME')
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[4], 'NX', time[1] .. string.format('%06d', time[2]), ARGV[1])
redis.call('SADD', KEYS[3], ARGV[4])
return 1
