-- Set a switch to a state that has a greater version than the stored one. Repeats change nothing,
-- and any order of calls ends with the same state.
-- KEYS: switches. ARGV: field, value, how far ahead a version may be (us). Answers: whether the value
-- was set, 1 or 0.
local time = redis.call('TIME')
local latest = tonumber(time[1]) * 1000000 + tonumber(time[2]) + tonumber(ARGV[3])

local MODES = {off = true, refuse = true, hold = true}

-- 0 for what SwitchState.parse cannot read either.
local function version(value)
  local mode, found = string.match(value, '^(%l+) %d+ %d+ (%d+) {')
  return MODES[mode or ''] and tonumber(found) or 0
end

local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
  local last = version(stored)
  -- What no program of ours wrote has no version, or one that no clock gives: any state replaces it.
  if last <= latest and last >= version(ARGV[2]) then
    return 0
  end
end
-- A server whose memory is full refuses HSET as the first write of a script, but not after another.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
