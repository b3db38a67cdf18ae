-- Count one more pop of a redelivered message; the record has the count, or a key of its own.
if redis.call('EXISTS', KEY_RECORD) == 1 then return redis.call('HINCRBY', KEY_RECORD, 'deliveries', 1) end
local count = redis.call('INCR', KEY_RECORD .. ':deliveries')
redis.call('PEXPIRE', KEY_RECORD .. ':deliveries', ARGV[2])
return count
