-- Acknowledge what is done and pop the next batch, recording it as unacknowledged in the same step.
-- KEYS: unacked hash, unacked index, heartbeats, then the lists in the order of service.
-- ARGV: owner, its description, first serial, how many to pop, number of lists, a stored suffix for
--       each list (`, "", "<queue>"]`), then the tags to acknowledge.
-- Answers list number, raw message, ...; -number, error for a key that is no list.
local owner, serial, wanted = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local lists = tonumber(ARGV[5])
local first = serial

-- Redis does not undo a script: a message that is popped before a refused write would be lost. So
-- the script first writes to both keys; without tags it removes a member that does not exist.
-- Reading the size instead would track the keys, and every change would wake this connection.
if #ARGV == 5 + lists then ARGV[6 + lists] = '' end
for i = 6 + lists, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
  redis.call('ZREM', KEYS[2], ARGV[i])
end
if wanted == 0 then return {} end

local time = redis.call('TIME')
local score = time[1] .. '.' .. string.format('%06d', time[2])
-- An owner that no sweep knows must not hold a message. A late pop from a lost connection may come
-- after a sweep has removed its owner. Without the key of heartbeats, the visibility timeout returns
-- the message.
redis.pcall('HSETNX', KEYS[3], owner,
            string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2])) .. ' ' .. ARGV[2])
local found = {}
for i = 1, lists do
  local raws = redis.pcall('RPOP', KEYS[i + 3], wanted)
  if raws and raws.err then
    -- The key is not a list. An error here would lose the messages that were popped before.
    found[#found + 1] = -i
    found[#found + 1] = raws.err
  elseif raws then
    for _, raw in ipairs(raws) do
      -- A message that is not a JSON object is stored as a JSON text, so that the hash stays readable.
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
-- All lists are empty: reading them makes the server notify this connection when one is filled.
if serial == first then redis.call('EXISTS', unpack(KEYS, 4)) end
return found
