-- Return the messages that must go back to their queues: those of dead owners at once, those of
-- every other owner after the visibility timeout.
-- KEYS: unacked hash, unacked index, heartbeats, mutex. ARGV: how long an owner may be silent (us),
-- visibility timeout (s), limit, interval (ms). Answers tag, stored value, owner's description, ...
if not redis.call('SET', KEYS[4], '1', 'NX', 'PX', ARGV[4]) then
  -- A mutex without an end, or with a later end than Taskyard's, belongs to kombu or another client.
  -- Kombu's mutex lasts five minutes, even if its worker was killed. Two sweeps at once do no harm:
  -- only one of them finds each message.
  local left = redis.call('PTTL', KEYS[4])
  if left >= 0 and left <= tonumber(ARGV[4]) then return {} end
  redis.call('SET', KEYS[4], '1', 'PX', ARGV[4])
end
local limit = tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local oldest = now / 1000000 - tonumber(ARGV[2])
local tags, taken = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', oldest, 'LIMIT', 0, limit), {}
for _, tag in ipairs(tags) do taken[tag] = true end

-- A sweep removes an owner only after it has searched that owner's messages. This sweep searches two
-- keys; other owners share the heartbeats and keep their messages under other keys.
local function holds_here(description)
  local read, described = pcall(cjson.decode, description)
  return read and type(described) == 'table' and described.unacked == KEYS[1]
         and described.index == KEYS[2]
end

local descriptions, dead, any = {}, {}, false
local beats = redis.pcall('HGETALL', KEYS[3])
for i = 1, beats.err and 0 or #beats, 2 do
  local us, description = string.match(beats[i + 1], '^(%d+) (.*)$')
  if us then
    descriptions[beats[i]] = description
    if now - tonumber(us) > tonumber(ARGV[1]) and holds_here(description) then
      dead[beats[i]] = true
      any = true
    end
  end
end
if any then
  local left = {}
  for _, tag in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    local owner = string.match(tag, '^(.*):%d+$')
    if owner and dead[owner] then
      left[owner] = true
      if #tags < limit and not taken[tag] then tags[#tags + 1] = tag end
    end
  end
  for owner in pairs(dead) do
    if not left[owner] then redis.call('HDEL', KEYS[3], owner) end
  end
end

local found = {}
for _, tag in ipairs(tags) do
  local stored = redis.call('HGET', KEYS[1], tag)
  if stored then
    found[#found + 1] = tag
    found[#found + 1] = stored
    found[#found + 1] = descriptions[string.match(tag, '^(.*):%d+$') or ''] or ''
  else
    redis.call('ZREM', KEYS[2], tag)
  end
end
return found
