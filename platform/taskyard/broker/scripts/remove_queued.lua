-- Remove messages that wait in lists or in the delay store.
-- KEYS: the delay store's times and messages, then the lists. ARGV: for each message the number of
-- its list and the message; or '', its member in the delay store and its entry there.
-- Answers 1 for each that was removed, 0 for one that was gone or is another one now.
local removed, at = {}, 1
while at <= #ARGV do
  local list = tonumber(ARGV[at])
  local done
  if list then
    -- Those that are taken next are at the right end.
    done = redis.call('LREM', KEYS[2 + list], -1, ARGV[at + 1])
    at = at + 2
  else
    done = redis.call('HGET', KEYS[2], ARGV[at + 1]) == ARGV[at + 2] and 1 or 0
    if done == 1 then
      redis.call('HDEL', KEYS[2], ARGV[at + 1])
      redis.call('ZREM', KEYS[1], ARGV[at + 1])
    end
    at = at + 3
  end
  removed[#removed + 1] = done
end
return removed
