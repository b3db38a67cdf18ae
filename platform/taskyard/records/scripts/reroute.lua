-- Move a job to another queue: its next generation. Its message is where it was, and whoever takes
-- it forwards it. The caller stops the attempt that `worker` and `token` name, if one runs.
local to = ARGV[9]
local record = read(KEY_RECORD)
local now = now_us()
local reply
record, reply = open_verb(record, now)
if reply then return reply end

-- Why the job stays where it is; nil if it moves. A record that has just been made is in no queue.
local function obstacle()
  if not target(record, 'reroute') then return 'state' end
  if STORED.state and record.queue == to then return 'queue' end
  if record.cancel then return 'cancel' end
  -- Its producer may never publish it, and reconcile repairs only an accepted job.
  if record.published == '0' then return 'unpublished' end
  if record.state == 'running' and is_watched(record) then return 'observed' end
end

-- The first position at which a message of the job may be.
local function first_position()
  if record.moved_from then return record.moved_from end
  -- A lost record does not know how far its job had come, nor perhaps in which life.
  if not STORED.state then return (wanted.epoch ~= '' and record.epoch or '0') .. ':0:0' end
  local seq = num(record.seq)
  -- The retry's message may not be published yet.
  if record.state == 'retrying' then seq = seq - 1 end
  return record.epoch .. ':' .. record.generation .. ':' .. int(seq)
end

local why = obstacle()
if why then return refused(why, record) end
local from, next_message = first_position(), record.next
local holder = record.holder or record.decided_holder or record.moved_holder
if record.state == 'running' then record.ended_attempt = 'protected' end
open_generation(record, num(record.generation) + 1)
record.queue, record.moved_from, record.moved_holder = to, from, holder
record.verb, record.published, record.next = request, '1', next_message
move(job_id, record, 'reroute', now, event_of(record))
write(KEY_RECORD, record, {'state', 'version', 'epoch', 'generation', 'seq', 'type', 'queue', 'priority',
      'attempts', 'deaths', 'deliveries', 'begins', 'admitted', 'token', 'published', 'next', 'verb',
      'moved_from', 'moved_holder', 'ended_attempt'})
redis.call('PERSIST', KEY_RECORD)
return answer('applied', record, false)
