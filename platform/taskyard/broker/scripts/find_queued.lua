-- Return the messages with a text in one bounded piece of a list, those that are popped next first.
-- KEYS: list. ARGV: text, how many messages from the list's right end are skipped, how many are read.
local skip, count = tonumber(ARGV[2]), tonumber(ARGV[3])
local found = {}
local piece = redis.call('LRANGE', KEYS[1], -skip - count, -skip - 1)
for i = #piece, 1, -1 do
  if string.find(piece[i], ARGV[1], 1, true) then found[#found + 1] = piece[i] end
end
return {#piece, unpack(found)}
