-- Shared by every script. Python puts TRANSITIONS, TERMINAL (from the state table) and
-- STREAM_THIN before it. Times are microseconds of the server's clock; bodies are opaque bytes.
local KEY_RECORD, KEY_STREAM, KEY_GAPS, KEY_RESULT = KEYS[1], KEYS[2], KEYS[3], KEYS[4]


local function int(number)
  -- Lua prints 1.7e+15 where we need every digit; doubles hold microseconds until the year 2255.
  return string.format('%.0f', number)
end

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function read(key)
  local flat = redis.call('HGETALL', key)
  local record = {}
  for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
  return record
end

local function num(value)
  return tonumber(value) or 0
end

-- The state that `event` leads to, or nil where the table has no such row.
local function target(record, event)
  return TRANSITIONS[(record.state or 'none') .. ':' .. event]
end

-- What must be in the history even when the stream's budget is short.
local ESSENTIAL = {fail = true, replay = true, cancel = true, abort = true,
                   force_complete = true, delete = true, undelete = true}

-- Append one event with the job's own version. Over the budget only essential ones, the rest is counted.
local function emit(job_id, record, event, now, extra)
  local length = redis.call('XLEN', KEY_STREAM)
  if length >= STREAM_THIN and not ESSENTIAL[event] then
    redis.call('HINCRBY', KEY_GAPS, event, 1)
    return
  end
  redis.call('XADD', KEY_STREAM, '*', 'job', job_id, 'epoch', record.epoch, 'version', record.version,
             'event', event, 'state', record.state, 'at', int(now), 'generation', record.generation,
             'seq', record.seq, unpack(extra))
end

-- Move the record: state and version change together, in the same step as their event.
local function move(job_id, record, event, now, extra)
  record.state = target(record, event)
  record.version = int(num(record.version) + 1)
  emit(job_id, record, event, now, extra)
end

local function write(key, record, names)
  local flat = {}
  for _, name in ipairs(names) do
    if record[name] ~= nil then
      flat[#flat + 1] = name
      flat[#flat + 1] = record[name]
    end
  end
  redis.call('HSET', key, unpack(flat))
end

-- A record that did not exist: as admission would have made it.
local function birth(epoch, generation, seq, job_type, queue, priority, now)
  return {epoch = epoch, generation = generation, seq = seq, version = '0', type = job_type,
          queue = queue, priority = priority, admitted = int(now)}
end

-- -1 where the message is older than the record, 1 where it is newer, 0 where they agree.
local function compare(record, epoch, generation, seq)
  local pairs_ = {{num(epoch), num(record.epoch)}, {num(generation), num(record.generation)},
                  {num(seq), num(record.seq)}}
  for _, pair in ipairs(pairs_) do
    if pair[1] < pair[2] then return -1 end
    if pair[1] > pair[2] then return 1 end
  end
  return 0
end

-- What is left of an ended job: enough to recognise a late duplicate, nothing more.
local TOMBSTONE = {'state', 'epoch', 'generation', 'seq', 'version', 'type', 'queue', 'token',
                   'decision', 'unique_until', 'ended'}

local function bury(key, record, now, window_us)
  record.ended = int(now)
  redis.call('DEL', key)
  write(key, record, TOMBSTONE)
  local keep_us = math.max(window_us, num(record.unique_until) - now)
  redis.call('PEXPIRE', key, int(math.ceil(keep_us / 1000)))
end

-- One line of the attempts' history; numbers go as strings, cjson would round them.
local function note(record, now, outcome, code, message)
  local line = cjson.encode({
    attempt = record.begins or '0', worker = record.worker or '', started_us = record.started or int(now),
    ended_us = int(now), outcome = outcome, code = code, error = message})
  record.history = (record.history or '') .. line .. '\n'
end

-- A job that ran over one of the counters dies by the table's `fail`, with the counter as its cause.
local function poison(job_id, record, counter, count, limit, now)
  local letter_cause = {
    category = 'poison', code = 'poison', error_class = 'PoisonJob',
    message = counter .. ' reached ' .. count .. ', the limit is ' .. limit,
    evidence = {counter = counter, count = count, limit = limit, last_worker = record.worker}}
  record.cause = cjson.encode(letter_cause)
  record.decision = 'dead_lettered'
  record.decided = int(now)
  note(record, now, 'dead_lettered', 'poison', letter_cause.message)
  move(job_id, record, 'fail', now, {'code', 'poison', 'category', 'poison', 'type', record.type,
       'queue', record.queue, 'worker', record.worker or '', 'error', letter_cause.message})
  write(KEY_RECORD, record, {'epoch', 'generation', 'seq', 'type', 'queue', 'priority', 'admitted',
        'state', 'version', 'cause', 'decision', 'decided', 'history'})
  redis.call('HDEL', KEY_RECORD, 'holder', 'lease_until')
  redis.call('PERSIST', KEY_RECORD)
end
