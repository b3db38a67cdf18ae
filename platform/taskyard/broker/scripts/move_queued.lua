-- Put a message to another queue in the place of one that waits, if that still waits. One in the
-- delay store keeps its due time, but one that a switch holds is due now.
-- KEYS: list, delay store's times and messages, other list, switches with parked messages. ARGV: the
-- message, its member in the delay store ('' if it is in the list), the other message and its member.
-- Answers 1 if it was moved.
-- Redis does not undo a script that fails in the middle.
redis.call('LLEN', KEYS[4])
if ARGV[2] == '' then
  if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 0 then return 0 end
  redis.call('LPUSH', KEYS[4], ARGV[3])
  return 1
end
local due = redis.call('ZSCORE', KEYS[2], ARGV[2])
if not due or redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[1] then return 0 end
for _, switch in ipairs(redis.call('SMEMBERS', KEYS[5])) do
  if redis.call('ZREM', KEYS[5] .. ':' .. switch, ARGV[2]) == 1 then due = 0 end
end
redis.call('HSET', KEYS[3], ARGV[4], KEYS[4] .. '\n' .. ARGV[3])
redis.call('ZADD', KEYS[2], due, ARGV[4])
if ARGV[4] ~= ARGV[2] then
  redis.call('HDEL', KEYS[3], ARGV[2])
  redis.call('ZREM', KEYS[2], ARGV[2])
end
return 1
