-- Make a bounded batch of a switch's messages due, in the order in which they were parked.
-- KEYS: due times, messages, switches with messages, names of this switch. ARGV: switch, how many.
-- Answers how many names there were.
local names = redis.call('ZRANGE', KEYS[4], 0, ARGV[2] - 1, 'WITHSCORES')
for i = 1, #names, 2 do
  -- When it was parked is in the past, and keeps the order. What has gone on since has no due time.
  local due = string.format('%.0f', math.floor(tonumber(names[i + 1]) / 1000))
  redis.call('ZADD', KEYS[1], 'XX', due, names[i])
  redis.call('ZREM', KEYS[4], names[i])
end
if redis.call('EXISTS', KEYS[4]) == 0 then redis.call('SREM', KEYS[3], ARGV[1]) end
return #names / 2
