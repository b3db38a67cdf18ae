-- Acknowledge what is done and pop the next batch, recording it as unacknowledged in the same step.
-- KEYS: unacked hash, unacked index, heartbeats, then the lists in the order of service.
-- ARGV: owner, its description, first serial, how many to pop, number of lists, a stored suffix for
--       each list (`, "", "<queue>"]`), then the tags to acknowledge.
-- Answers list number, raw message, ...; -number, error for a key that is no list.
local owner, serial, wanted = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local lists = tonumber(ARGV[5])
local first = serial

-- A script is not undone: what is popped before a write that is refused would be nowhere. So both
-- keys are written to first, without tags by removing what is not there. Asked for their size they
-- would be tracked, and every change of them would wake this connection.
if #ARGV == 5 + lists then ARGV[6 + lists] = '' end
for i = 6 + lists, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
  redis.call('ZREM', KEYS[2], ARGV[i])
end
if wanted == 0 then return {} end

local time = redis.call('TIME')
local score = time[1] .. '.' .. string.format('%06d', time[2])
-- Nothing is held by an owner that no sweep knows: a pop that comes late, from a connection that was
-- lost, may find its owner swept and forgotten. Without that key the visibility timeout remains.
redis.pcall('HSETNX', KEYS[3], owner,
            string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2])) .. ' ' .. ARGV[2])
local found = {}
for i = 1, lists do
  local raws = redis.pcall('RPOP', KEYS[i + 3], wanted)
  if raws and raws.err then
    -- Not a list. An error here would hide what was popped before it.
    found[#found + 1] = -i
    found[#found + 1] = raws.err
  elseif raws then
    for _, raw in ipairs(raws) do
      -- What is no JSON object is stored as a JSON text, so that the hash stays readable.
      local stored = string.byte(raw, 1) == 123 and raw or cjson.encode(raw)
      local tag = owner .. ':' .. string.format('%.0f', serial)
      redis.call('HSET', KEYS[1], tag, '[' .. stored .. ARGV[5 + i])
      redis.call('ZADD', KEYS[2], score, tag)
      found[#found + 1] = i
      found[#found + 1] = raw
      serial = serial + 1
      wanted = wanted - 1
    end
    if wanted == 0 then return found end
  end
end
-- Nothing there: reading the lists makes the server tell this connection when one is filled.
if serial == first then redis.call('EXISTS', unpack(KEYS, 4)) end
return found
