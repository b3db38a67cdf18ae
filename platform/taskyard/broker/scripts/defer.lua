-- Put one message into the delay store; the same (job, generation, seq) replaces itself.
-- Raises where the times are of another type: a script is not undone, and the message would stay
-- without a time.
redis.call('ZCARD', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
