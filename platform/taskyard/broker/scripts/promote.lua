-- Move a bounded batch of due messages to their queues, each in one step with its removal.
-- KEYS: due times, messages. ARGV: how many, how long one whose list is none waits (ms).
-- Answers how many were due, then the keys that are no lists.
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, ARGV[1])
local answer = {#due}
for _, member in ipairs(due) do
  local entry = redis.call('HGET', KEYS[2], member)
  local pushed = 0
  if entry then
    local cut = string.find(entry, '\n', 1, true)
    local list = string.sub(entry, 1, cut - 1)
    pushed = redis.pcall('LPUSH', list, string.sub(entry, cut + 1))
    if type(pushed) == 'table' then
      if not string.find(pushed.err, 'WRONGTYPE', 1, true) then return pushed end
      -- It must not stand in the way of all that is due after it.
      redis.call('ZADD', KEYS[1], now_ms + ARGV[2], member)
      answer[#answer + 1] = list
    else
      redis.call('HDEL', KEYS[2], member)
    end
  end
  if type(pushed) ~= 'table' then redis.call('ZREM', KEYS[1], member) end
end
return answer
