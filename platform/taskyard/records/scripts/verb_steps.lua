-- The first steps of every operator verb. ARGV: job, the epoch, generation and version that the
-- operator saw ('' for any), the request, who asks, then type and queue for a job without a record.
local job_id, request, operator = ARGV[1], ARGV[5], ARGV[6]
local wanted = {epoch = ARGV[2], generation = ARGV[3], version = ARGV[4]}
local job_type, queue = ARGV[7], ARGV[8]

-- The reply to the job's service belongs to the request that was carried out, and to no other one.
local function answer(kind, record, already)
  local reply = record.verb == ARGV[5] and record.reply_to
  return {kind, record.state, record.epoch, record.generation, record.version, already and '1' or '0',
          record.worker or '', record.token or '0', record.lease_until or '0',
          record.decision == 'dead_lettered' and '1' or '0', record.ended_attempt or '',
          reply or '', reply and record.correlation_id or '', record.seq or '0'}
end

local function refused(why, record)
  return {'refused', why, record.state or 'none', record.epoch or '0', record.generation or '0',
          record.version or '0'}
end

local function differs(name, record)
  return wanted[name] ~= '' and num(wanted[name]) ~= num(record[name])
end

-- Return the record that the operator means; or nil and the final answer. Where Redis has no record,
-- or only that of an earlier life, a new one takes its place: the message must find the verb.
local function open_verb(record, now)
  if record.verb == request then return nil, answer('applied', record, true) end
  local earlier = TERMINAL[record.state] and wanted.epoch ~= ''
                  and num(record.epoch) < num(wanted.epoch)
  if not record.state or earlier then
    if wanted.version ~= '' then return nil, refused('version', record) end
    local token = record.token
    if earlier then remove(KEY_RECORD, KEY_RESULT) end
    local generation = wanted.generation ~= '' and wanted.generation or '0'
    record = reborn({epoch = wanted.epoch, generation = generation, seq = '0', type = job_type,
                     queue = queue}, now)
    record.token = token
    return record
  end
  for _, name in ipairs({'epoch', 'generation', 'version'}) do
    if differs(name, record) then return nil, refused(name, record) end
  end
  return record
end

-- The fields of a verb's event.
local function event_of(record)
  return {'request', request, 'by', operator, 'type', record.type or '', 'queue', record.queue or '',
          'worker', record.worker or ''}
end

-- End the job now. No message of a dead-lettered one waits in a queue, but that of one which is
-- completed by hand is published again, so that a worker continues its chain.
local function end_now(record, event, now, result, kept_key)
  if not target(record, event) then return refused('state', record) end
  local kept = record.state ~= 'dead_lettered' or event == 'force_complete'
  end_by_operator(job_id, record, event, request, now, event_of(record), kept, result, kept_key)
  return answer('applied', record, false)
end
