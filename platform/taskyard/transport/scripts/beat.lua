-- Say that this owner lives, with the server's time and what it describes itself by.
-- KEYS: heartbeats. ARGV: owner, description.
local time = redis.call('TIME')
local us = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
redis.call('HSET', KEYS[1], ARGV[1], us .. ' ' .. ARGV[2])
