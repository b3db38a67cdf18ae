-- Which switch keeps a job from running. Goes before `begin`, after `switch_in_force`.
local OPS_QUEUE = 'ops'

-- When the job was admitted. The epoch is that time; a message without one was perhaps sent by a
-- producer without Taskyard.
local function admitted_us(record, message, sent_us, now)
  local epoch = num(message.epoch ~= '' and message.epoch or record.epoch)
  if epoch > 0 then return epoch end
  return sent_us > 0 and sent_us or now
end

-- The answer to the message of a job that a switch keeps from running; nil if none does. One that
-- holds the whole queue goes before the others, so that the message stays in its queue. A switch
-- that only refuses holds what came after it: not every producer asks before it publishes.
local function held_by_switch(record, message, sent_us, now)
  local domain = message.domain
  if (domain or '') == '' then domain = record.domain or '' end
  local fields = {'pause queue:' .. message.queue, 'kill queue:' .. message.queue}
  if message.queue ~= OPS_QUEUE then fields[#fields + 1] = 'kill all' end
  local of_queue = #fields
  fields[#fields + 1] = 'kill type:' .. message.type
  if domain ~= '' then fields[#fields + 1] = 'kill domain:' .. domain end
  local values = redis.call('HMGET', KEYS[5], unpack(fields))
  local found
  for i = 1, #fields do
    local mode, until_us, since_us
    if values[i] then mode, until_us, since_us = switch_in_force(values[i], now) end
    if mode and (mode == 'hold' or admitted_us(record, message, sent_us, now) >= since_us) then
      local answer = {'switched', fields[i], int(until_us), mode}
      if mode == 'hold' and i <= of_queue then return answer end
      if not found or (found[4] ~= 'hold' and mode == 'hold') then found = answer end
    end
  end
  return found
end

-- A switch is no fault of the message, so that how often it has come back is forgotten.
local function forget_deliveries(record)
  if num(record.deliveries) > 0 then redis.call('HSET', KEY_RECORD, 'deliveries', '0') end
  redis.call('DEL', KEY_RECORD .. ':deliveries')
end
