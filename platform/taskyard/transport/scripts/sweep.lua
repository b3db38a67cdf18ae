-- What must go back: messages of dead owners at once, anyone's after the visibility timeout.
-- KEYS: unacked hash, unacked index, owners set, mutex. ARGV: heartbeat key prefix,
-- visibility timeout (s), limit, interval (ms). Answers tag, stored value, tag, ...
if not redis.call('SET', KEYS[4], '1', 'NX', 'PX', ARGV[4]) then
  -- One that never ends is nobody's: whatever put it there, sweeping must go on.
  if redis.call('PTTL', KEYS[4]) ~= -1 then return {} end
  redis.call('SET', KEYS[4], '1', 'PX', ARGV[4])
end
local limit = tonumber(ARGV[3])
local time = redis.call('TIME')
local oldest = tonumber(time[1]) + tonumber(time[2]) / 1000000 - tonumber(ARGV[2])
local tags = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', oldest, 'LIMIT', 0, limit)

local dead, any = {}, false
for _, owner in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  if redis.call('EXISTS', ARGV[1] .. owner) == 0 then
    dead[owner] = true
    any = true
  end
end
if any then
  local left = {}
  for _, tag in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    local owner = string.match(tag, '^(.*):%d+$')
    if owner and dead[owner] then
      left[owner] = true
      if #tags < limit then tags[#tags + 1] = tag end
    end
  end
  for owner in pairs(dead) do
    if not left[owner] then redis.call('SREM', KEYS[3], owner) end
  end
end

local found = {}
for _, tag in ipairs(tags) do
  local stored = redis.call('HGET', KEYS[1], tag)
  if stored then
    found[#found + 1] = tag
    found[#found + 1] = stored
  else
    redis.call('ZREM', KEYS[2], tag)
  end
end
return found
