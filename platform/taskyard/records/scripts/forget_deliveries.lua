-- Set the deliveries of a message back to 0: it returned to its queue for a switch.
if redis.call('EXISTS', KEY_RECORD) == 1 then redis.call('HSET', KEY_RECORD, 'deliveries', '0') end
redis.call('DEL', KEY_RECORD .. ':deliveries')
return 1
