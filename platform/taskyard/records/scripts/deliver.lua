-- Count one more pop of a redelivered message; the count lives with the record, or beside its absence.
if redis.call('EXISTS', KEY_RECORD) == 1 then return redis.call('HINCRBY', KEY_RECORD, 'deliveries', 1) end
local count = redis.call('INCR', KEY_RECORD .. ':deliveries')
redis.call('PEXPIRE', KEY_RECORD .. ':deliveries', ARGV[2])
return count
