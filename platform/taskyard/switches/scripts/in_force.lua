-- For scripts that ask whether a switch is on. `value`: what HGET or HMGET answers for its field.
-- Returns mode, until_us and since_us if the switch is in force at `now`, else nil.
local function switch_in_force(value, now)
  if not value then
    return nil
  end
  local mode, until_us, since_us = string.match(value, '^(%l+) (%d+) (%d+) %d+ {')
  if mode == 'off' then
    return nil
  end
  -- Another program or a newer version wrote it. A job that waits in vain is not lost, a job that
  -- runs in vain may do harm.
  if mode ~= 'refuse' and mode ~= 'hold' then
    return 'hold', 0, 0
  end
  if tonumber(until_us) > 0 and now >= tonumber(until_us) then
    return nil
  end
  return mode, tonumber(until_us), tonumber(since_us)
end
