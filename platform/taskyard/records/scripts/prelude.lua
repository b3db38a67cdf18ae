-- Shared by every script. Python puts TRANSITIONS, TERMINAL (from the state table) and the limits
-- STREAM_THIN, HISTORY_LINES, WINDOW_US, RESULT_TTL_MS and KEEP_US before it. Times are microseconds of the server's clock; bodies are opaque bytes.
local KEY_RECORD, KEY_STREAM, KEY_GAPS, KEY_RESULT = KEYS[1], KEYS[2], KEYS[3], KEYS[4]


-- The number that `int` printed last, and its text: most writes of a call print the same time.
local PRINTED, PRINTED_TEXT = false, ''

local function int(number)
  -- Lua prints 1.7e+15 where we need every digit; doubles hold microseconds until the year 2255.
  if number ~= PRINTED then
    PRINTED, PRINTED_TEXT = number, string.format('%.0f', number)
  end
  return PRINTED_TEXT
end

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- The record's fields in Redis now, so that only changed fields are written.
local STORED = {}

local function read(key)
  local flat = redis.call('HGETALL', key)
  local record = {}
  STORED = {}
  for i = 1, #flat, 2 do
    record[flat[i]] = flat[i + 1]
    STORED[flat[i]] = flat[i + 1]
  end
  return record
end

local function remove(...)
  STORED = {}
  redis.call('DEL', ...)
end

local function num(value)
  return tonumber(value) or 0
end

-- The state that `event` leads to, or nil where the table has no such row.
local function target(record, event)
  return TRANSITIONS[(record.state or 'none') .. ':' .. event]
end

-- Events that must be in the history even when the stream is over its budget.
local ESSENTIAL = {fail = true, replay = true, reroute = true, request_cancel = true, cancel = true,
                   abort = true, force_complete = true, delete = true, undelete = true}

-- The length of the stream, read once in a call.
local LENGTH

-- Append one event with the job's own version. Over the budget only essential ones, the rest is counted.
local function emit(job_id, record, event, now, extra)
  LENGTH = LENGTH or redis.call('XLEN', KEY_STREAM)
  -- The end of a replayed job is an operator's answer, so it is essential too.
  local essential = ESSENTIAL[event] or (event == 'complete' and num(record.generation) > 0)
  if LENGTH >= STREAM_THIN and not essential then
    redis.call('HINCRBY', KEY_GAPS, event, 1)
    return
  end
  if record.domain then
    extra[#extra + 1] = 'domain'
    extra[#extra + 1] = record.domain
  end
  LENGTH = LENGTH + 1
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
    if record[name] ~= nil and record[name] ~= STORED[name] then
      flat[#flat + 1] = name
      flat[#flat + 1] = record[name]
      STORED[name] = record[name]
    end
  end
  if #flat > 0 then redis.call('HSET', key, unpack(flat)) end
end

-- Make a record that did not exist, as admission would have made it.
local function birth(epoch, generation, seq, job_type, queue, priority, now)
  return {epoch = epoch, generation = generation, seq = seq, version = '0', type = job_type,
          queue = queue, priority = priority, admitted = int(now)}
end

-- Continue the version at a number that was never used: a life has fewer events than microseconds.
-- A version that starts again at 1 would make the ledger drop the next events as known ones.
local function skip_versions(record, now)
  record.version = int(math.max(num(record.version), now - num(record.epoch)))
end

-- A record made from a message. A stamped one had a record that is lost: each retry it has behind
-- it was an attempt and an outcome, so the policy's bound holds across the loss.
local function reborn(message, now)
  local stamped = message.epoch ~= ''
  local record = birth(stamped and message.epoch or int(now), message.generation, message.seq,
                       message.type, message.queue, message.priority, now)
  record.attempts, record.begins = message.seq, message.seq
  if stamped then skip_versions(record, now) end
  redis.call('DEL', KEY_RECORD .. ':deliveries')
  return record
end

-- Return -1 if the message is older than the record, 1 if it is newer, 0 if both are equal.
local function compare(record, epoch, generation, seq)
  local pairs_ = {{num(epoch), num(record.epoch)}, {num(generation), num(record.generation)},
                  {num(seq), num(record.seq)}}
  for _, pair in ipairs(pairs_) do
    if pair[1] < pair[2] then return -1 end
    if pair[1] > pair[2] then return 1 end
  end
  return 0
end

local function drop(record, names)
  local stored = {}
  for _, name in ipairs(names) do
    record[name] = nil
    if STORED[name] ~= nil then stored[#stored + 1] = name end
    STORED[name] = nil
  end
  if #stored > 0 then redis.call('HDEL', KEY_RECORD, unpack(stored)) end
end

-- The decision and the attempt that made it; removed as soon as another attempt runs.
local DECISION = {'decision', 'decided', 'decided_token', 'decided_holder', 'due'}
local LEASE = {'holder', 'process', 'lease_until'}
-- The operator's request to cancel the attempt that runs, and when it came.
local CANCEL = {'cancel', 'cancel_at'}
-- The first position from which an operator has moved the job, and the attempt that ran it there.
local MOVED = {'moved_from', 'moved_holder', 'ended_attempt'}
-- How often the job has put another task in its place, and where the first message of that stood.
local NESTING = {'nesting', 'nested_generation', 'nested_seq'}

-- Counters, causes and requests belong to one generation.
local function open_generation(record, generation)
  record.generation, record.seq = int(num(generation)), '0'
  record.attempts, record.deaths, record.deliveries, record.begins = '0', '0', '0', '0'
  drop(record, DECISION)
  drop(record, LEASE)
  drop(record, {'cause', 'history', 'first_failure', 'published', 'progress', 'released', 'next'})
  drop(record, CANCEL)
end

-- Whether a message is one that a reroute has left in another queue. Of several reroutes the record
-- keeps the first position, since the messages of all of them are at or after it.
local function is_left(record, epoch, generation, seq)
  if not record.moved_from or compare(record, epoch, generation, seq) >= 0 then return false end
  local first = {string.match(record.moved_from, '^(%d+):(%d+):(%d+)$')}
  local from = {epoch = first[1], generation = first[2], seq = first[3]}
  return compare(from, epoch, generation, seq) >= 0
end

-- The answer to whoever has a message that a reroute has left: publish it where the job is now.
local function forward(record)
  return {'forward', record.queue, record.epoch, record.generation, record.seq}
end

-- The message of a rerouted job is in its new queue, so what is left elsewhere is stale.
local function requeue(job_id, record, now)
  move(job_id, record, 'requeue', now, {'type', record.type or '', 'queue', record.queue or ''})
  drop(record, MOVED)
end

-- The message is older than the record. If its own decision was a retry, the retry's message may
-- never have been published.
local function behind(record, epoch, generation, seq)
  if record.state == 'rerouted' and is_left(record, epoch, generation, seq) then
    return forward(record)
  end
  local last = num(epoch) == num(record.epoch) and num(generation) == num(record.generation)
               and num(seq) == num(record.seq) - 1
  if last and record.state == 'retrying' then
    return {'decided', 'retrying', record.seq, record.due, record.epoch, record.generation}
  end
  return {'stale', record.state}
end

-- Whether a message that is newer than the record moves the job on. A job that has ended within this
-- life stays ended.
local function moves_on(record, message)
  if num(message.epoch) > num(record.epoch) then return true end
  local later = num(message.generation) > num(record.generation)
  return not (TERMINAL[record.state] or (record.state == 'dead_lettered' and not later))
end

-- The message is newer than the record: a failover lost the record's last writes, and the message
-- proves the later position.
local function ahead(job_id, record, message, now)
  if num(message.epoch) > num(record.epoch) then
    local token = record.token
    remove(KEY_RECORD, KEY_RESULT)
    record = reborn(message, now)
    record.token = token
    return record
  end
  if not moves_on(record, message) then return record end
  local later = num(message.generation) > num(record.generation)
  skip_versions(record, now)
  drop(record, {'next'})
  if record.state == 'rerouted' then requeue(job_id, record, now) end
  if later then
    local state = record.state
    open_generation(record, message.generation)
    if state == 'dead_lettered' then
      move(job_id, record, 'replay', now, {'type', record.type or '', 'queue', record.queue or ''})
    end
  end
  record.seq = message.seq
  record.attempts = int(math.max(num(record.attempts), num(message.seq)))
  record.begins = int(math.max(num(record.begins), num(message.seq)))
  return record
end

-- A message without a stamp that names another task is no message of this job: its producer has
-- used one id for two jobs. A message with a stamp of this life may name another task if a task has
-- replaced itself, and so may a message that Celery has counted as a replacement.
local function reuses(record, message)
  local named, known = message.type or '', record.type or ''
  return message.epoch == '' and num(message.nesting) == 0 and named ~= '' and known ~= ''
         and named ~= known
end

local function note_nesting(record, message, seq)
  if num(message.nesting) <= num(record.nesting) then return end
  record.nesting = message.nesting
  record.nested_generation, record.nested_seq = message.generation, int(seq)
end

-- Compare a message without a stamp by its replacements. Return -1 if another task has replaced the
-- job since, 1 if the message is the first message of that other task, 0 if the position decides.
-- A worker without Taskyard, or one that only observes, counts a replacement and writes no stamp.
local function nest(record, message)
  local nesting, known = num(message.nesting), num(record.nesting)
  if message.epoch ~= '' or (nesting == 0 and known == 0) then return 0 end
  if nesting < known then return -1 end
  if nesting > known then return 1 end
  message.generation = record.nested_generation
  message.seq = int(num(record.nested_seq) + num(message.seq))
  return 0
end

-- The fields that an ended job keeps: only those that recognise a late duplicate. A repeated call
-- gets its first answer from `request` (replay), `decided...` (finish) or `call` (admission).
local TOMBSTONE = {'state', 'epoch', 'generation', 'seq', 'version', 'type', 'queue', 'token', 'decision',
                   'decided', 'decided_token', 'decided_holder', 'request', 'unique_until', 'ended',
                   'call', 'verb'}

local function expire(key, record, now, keep_us)
  local left_us = math.max(keep_us, num(record.unique_until) - now)
  redis.call('PEXPIRE', key, int(math.ceil(left_us / 1000)))
end

local function write_tombstone(key, record, now, window_us)
  record.ended = int(now)
  remove(key)
  write(key, record, TOMBSTONE)
  expire(key, record, now, window_us)
end

-- The tombstone of a job that an operator ended has these fields too: the worker (`worker`) and the
-- delivery (`ended_holder`) of the last attempt; how that attempt ran if it had not ended (`ended_attempt`:
-- protected or observed); `kept`, if the record stays until a worker has seen the job's message;
-- `moved_from`, the first position from which an operator moved the job; and the queue in which the
-- job's service waits for a reply, which the relay sends, because no handler does.
local OPERATOR_TOMBSTONE = {'worker', 'ended_holder', 'ended_attempt', 'kept', 'moved_from', 'reply_to',
                            'correlation_id', unpack(TOMBSTONE)}

-- Celery's result of a job that an operator has ended without a result.
local function revoked(job_id, state)
  local id = cjson.encode(job_id)
  return '{"status": "REVOKED", "result": {"exc_type": "JobFailed", "exc_message": [' .. id .. ', "' ..
         state .. '", ""], "exc_module": "taskyard.errors"}, "traceback": null, "children": [], ' ..
         '"date_done": null, "task_id": ' .. id .. '}'
end

-- An attempt that a worker only observes has no `process`. The attempt may have ended long ago: the
-- worker reports its end later.
local function is_watched(record)
  return (record.process or '') == ''
end

-- End a job for an operator's request, with its result, and wake up whoever waits for it. With
-- `kept` the record lasts until a worker has seen the job's message: it may wait in a queue for
-- longer than any duplicate. `kept_key` is the copy for an installed app, whose own results are
-- elsewhere.
local function end_by_operator(job_id, record, event, request, now, extra, kept, result, kept_key)
  record.verb, record.ended_holder = request, record.holder or record.moved_holder
  if record.state == 'running' then
    record.ended_attempt = is_watched(record) and 'observed' or 'protected'
  end
  if kept then record.kept = '1' end
  move(job_id, record, event, now, extra)
  record.ended = int(now)
  remove(KEY_RECORD)
  write(KEY_RECORD, record, OPERATOR_TOMBSTONE)
  expire(KEY_RECORD, record, now, kept and math.max(KEEP_US, WINDOW_US) or WINDOW_US)
  local ttl_ms = RESULT_TTL_MS
  -- The worker that sees the message of a completed job continues its chain with this result.
  if result and kept then ttl_ms = math.max(ttl_ms, KEEP_US / 1000) end
  result = result or revoked(job_id, record.state)
  for _, key in ipairs({KEY_RESULT, kept_key}) do
    redis.call('SET', key, result, 'PX', int(ttl_ms))
    redis.call('PUBLISH', key, result)
  end
end

-- The attempt of a job that an operator has cancelled is over: carry the request out.
local function cancel_as_requested(job_id, record, now, code, text)
  local extra = {'request', record.cancel, 'type', record.type or '', 'queue', record.queue or '',
                 'attempt', record.begins or '0', 'worker', record.worker or ''}
  for _, item in ipairs({'code', code, 'error', text}) do extra[#extra + 1] = item end
  end_by_operator(job_id, record, 'cancel', record.cancel, now, extra, false)
  return {'ended', record.state}
end

-- A worker has seen the message of a job that an operator has ended: what comes now is a duplicate.
local function note_seen(record, now)
  if not record.kept then return end
  drop(record, {'kept'})
  expire(KEY_RECORD, record, now, WINDOW_US)
end

-- Keep the first attempt and the last ones: a policy without a limit may have made any number.
local function shortened(history)
  local _, lines = string.gsub(history, '\n', '')
  if lines <= HISTORY_LINES then return history end
  local first = string.find(history, '\n', 1, true)
  local second = string.find(history, '\n', first + 1, true)
  return string.sub(history, 1, first) .. string.sub(history, second + 1)
end

-- One line of the attempts' history; numbers go as strings, cjson would round them.
local function note(record, now, outcome, code, message)
  local line = cjson.encode({
    attempt = record.begins or '0', worker = record.worker or '', started_us = record.started or int(now),
    ended_us = int(now), outcome = outcome, code = code, error = message})
  record.history = shortened((record.history or '') .. line .. '\n')
end

-- How long this message must wait for the running attempt of another holder; 0 if none runs. The end of
-- an attempt that is only observed is reported late, so the message asks again soon.
local LOOK_AGAIN_US = 1000000
local function held_us(record, message, now)
  if record.state ~= 'running' or record.holder == message.holder then return 0 end
  local left = math.max(num(record.lease_until) - now, 0)
  return is_watched(record) and math.min(left, LOOK_AGAIN_US) or left
end

-- Another task has replaced the job, and is the job's next step. The attempt that published this
-- task has ended, even if the record does not show its end yet.
local function replaced(job_id, record, message, now)
  if TERMINAL[record.state] or record.state == 'dead_lettered' then return record end
  local code, text = 'replaced', 'replaced by ' .. (message.type or '')
  message.generation = record.generation
  local seq = num(record.seq) + 1
  record.seq = int(seq + num(message.seq))
  if record.state == 'running' then
    record.deaths = int(math.max(num(record.deaths) - 1, 0))
    record.attempts = int(num(record.attempts) + 1)
    note(record, now, 'retrying', code, text)
    move(job_id, record, 'retry', now, {'attempt', record.begins, 'worker', record.worker or '', 'type',
         record.type or '', 'queue', record.queue or '', 'code', code, 'error', text})
    drop(record, LEASE)
  elseif record.state == 'rerouted' then
    requeue(job_id, record, now)
  end
  drop(record, {'next'})
  note_nesting(record, message, seq)
  return record
end

-- Return the record that a message finds or creates; or nil and the final answer to the message.
-- `switched` is that answer if the job must not run now: no record is made or changed then.
local function place(job_id, record, message, now, switched)
  if not record.state then
    if switched then return nil, switched end
    local seq = message.seq
    record = reborn(message, now)
    note_nesting(record, message, seq)
    return record
  end
  if reuses(record, message) then
    return nil, {'reused', record.type, record.state, record.epoch}
  end
  local nested = nest(record, message)
  if nested < 0 then return nil, {'stale', record.state} end
  local held = held_us(record, message, now)
  if nested > 0 then
    -- A protected attempt decides before another task replaces it. Any client can write the count of
    -- replacements, so the count does not end the lease of such an attempt.
    if held > 0 and not is_watched(record) then return nil, {'held', int(held)} end
    if switched and not (TERMINAL[record.state] or record.state == 'dead_lettered') then
      return nil, switched
    end
    return replaced(job_id, record, message, now)
  end
  -- A message of a producer without Taskyard has no stamp: it is the first one of the present life.
  local epoch = message.epoch ~= '' and message.epoch or record.epoch
  local order = compare(record, epoch, message.generation, message.seq)
  if order < 0 then
    -- The end of a rerouted job may find its message where it was.
    local ended = TERMINAL[record.state] and is_left(record, epoch, message.generation, message.seq)
    if not ended then return nil, behind(record, epoch, message.generation, message.seq) end
  end
  if held > 0 then return nil, {'held', int(held)} end
  if order > 0 then
    if switched and moves_on(record, message) then return nil, switched end
    record = ahead(job_id, record, message, now)
  elseif record.state == 'rerouted' then
    if switched then return nil, switched end
    -- It came from the new queue before its publication was confirmed.
    requeue(job_id, record, now)
  end
  note_nesting(record, message, message.seq)
  return record
end

-- The running attempt ended without a decision: its lease has expired or its process has died.
local function note_lost(record, now, code, evidence)
  if record.state == 'running' then note(record, now, 'lost', code, evidence) end
end

-- The worker's catalogue decides which domain owns the type: a client's domain may be old or false.
local function note_domain(record, message)
  if (message.domain or '') ~= '' then record.domain = message.domain end
end

-- The fields of a record that has just become a dead letter.
local function lay_down(record)
  drop(record, LEASE)
  drop(record, {'due', 'released'})
  write(KEY_RECORD, record, {'epoch', 'generation', 'seq', 'type', 'queue', 'priority', 'admitted', 'state',
        'version', 'attempts', 'deaths', 'deliveries', 'begins', 'cause', 'decision', 'decided', 'history',
        'first_failure', 'token', 'domain', unpack(NESTING)})
  redis.call('PERSIST', KEY_RECORD)
end

-- A job over the limit of a counter ends with the event `fail`; its cause names the counter.
local function poison(job_id, record, counter, count, limit, evidence, now)
  local letter_cause = {
    category = 'poison', code = 'poison', error_class = 'PoisonJob',
    message = counter .. ' reached ' .. count .. ', the limit is ' .. limit,
    evidence = {counter = counter, count = count, limit = limit, last_worker = record.worker,
                last_evidence = evidence}}
  drop(record, DECISION)
  record.cause = cjson.encode(letter_cause)
  record.decision = 'dead_lettered'
  record.decided = int(now)
  record.first_failure = record.first_failure or int(now)
  move(job_id, record, 'fail', now, {'code', 'poison', 'category', 'poison', 'type', record.type or '',
       'queue', record.queue or '', 'worker', record.worker or '', 'error', letter_cause.message})
  lay_down(record)
  return {'decided', 'dead_lettered', record.seq, '0', record.epoch, record.generation}
end
