-- Read all switches and the time of the server.
-- KEYS: switches. Answers: seconds, microseconds, and the hash as a list.
local time = redis.call('TIME')
return {time[1], time[2], redis.call('HGETALL', KEYS[1])}
