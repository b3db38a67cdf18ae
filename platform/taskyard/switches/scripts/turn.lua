-- Turn a switch without Postgres: set its next state, and append the event that the mirror brings to
-- Postgres. A form is taken once.
-- KEYS: switches, lifecycle stream, and with a form the key of its nonce.
-- ARGV: field, mode, how long it lasts (us, 0 for no end), who and why (JSON), how far ahead a
-- version may be (us), how long the nonce is kept (ms), and fields and values of the event.
-- Answers: what came of it, and the state that it made: `turned`, `used` (the form, before) or `off`
-- (so it cannot be turned off).
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local field, mode, lasts = ARGV[1], ARGV[2], tonumber(ARGV[3])

local function int(number)
  return string.format('%.0f', number)
end

if KEYS[3] then
  local made = redis.call('GET', KEYS[3])
  if made then
    return {'used', made}
  end
end

local stored = redis.call('HGET', KEYS[1], field) or ''
-- One that is not readable counts as on (in_force.lua), so it can be turned off.
local was, until_us, since, last = string.match(stored, '^(%l+) (%d+) (%d+) (%d+) {')
last = tonumber(last) or 0
local readable = was == 'off' or was == 'refuse' or was == 'hold'
if not readable or last > now + tonumber(ARGV[5]) then
  last = 0
end
if mode == 'off' and (stored == '' or was == 'off') then
  return {'off', stored}
end

-- As next_version and SwitchState.since in Python.
local version = math.max(last + 1, now)
if version % 2 == 0 then
  version = version + 1
end
local over = until_us and tonumber(until_us) > 0 and now >= tonumber(until_us)
-- No switch is on since a time to come: the mirror would refuse the event. Another program wrote that
-- time, or the clock was set back since.
local goes_on = last > 0 and mode ~= 'off' and was ~= 'off' and not over and tonumber(since) <= now
if not goes_on then
  since = int(now)
end
local ends = lasts > 0 and int(now + lasts) or '0'
local value = mode .. ' ' .. ends .. ' ' .. since .. ' ' .. int(version) .. ' ' .. ARGV[4]

-- A server whose memory is full refuses these as the first write of a script, but not after another.
redis.call('HDEL', KEYS[1], field)
redis.call('XADD', KEYS[2], '*', 'switch', field, 'state', value, 'at', int(now), unpack(ARGV, 7))
redis.call('HSET', KEYS[1], field, value)
if KEYS[3] then
  redis.call('SET', KEYS[3], value, 'PX', ARGV[6])
end
return {'turned', value}
