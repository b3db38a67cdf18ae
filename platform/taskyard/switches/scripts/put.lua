-- Set a switch to a state that has a greater version than the stored one. Repeats change nothing,
-- and any order of calls ends with the same state.
-- KEYS: switches. ARGV: field, value. Answers: 1 if the value was set, and the stored value.
local function version(value)
  return tonumber(string.match(value, '^%l+ %d+ %d+ (%d+) {')) or 0
end

local stored = redis.call('HGET', KEYS[1], ARGV[1])
-- A value that no program of ours wrote has no version, so that any state replaces it.
if stored and version(stored) >= version(ARGV[2]) then
  return {0, stored}
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {1, ARGV[2]}
