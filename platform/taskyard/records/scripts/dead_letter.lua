-- Dead-letter a message before an attempt: it is expired, invalid, unknown or redelivered too often.
local job_id = ARGV[1]
local message = {epoch = ARGV[2], generation = ARGV[3], seq = ARGV[4], type = ARGV[5], queue = ARGV[6],
                 nesting = ARGV[11], domain = ARGV[12]}
local cause, code, category, text = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local record = read(KEY_RECORD)
local now = now_us()

local answer
record, answer = place(job_id, record, message, now)
if answer then return answer end

local decided = {'decided', 'dead_lettered', record.seq, '0', record.epoch, record.generation}
if record.state == 'dead_lettered' then return decided end
if TERMINAL[record.state] then note_seen(record, now) end
if not target(record, 'fail') then return {'ended', record.state} end
if record.cancel then return cancel_as_requested(job_id, record, now, code, text) end

note_lost(record, now, 'lease_expired', 'the lease was not renewed')
drop(record, DECISION)
record.cause, record.decision, record.decided = cause, 'dead_lettered', int(now)
record.first_failure = record.first_failure or int(now)
note(record, now, 'dead_lettered', code, text)
note_domain(record, message)
move(job_id, record, 'fail', now, {'type', record.type or message.type, 'queue',
     record.queue or message.queue, 'code', code, 'category', category, 'error', text})
lay_down(record)
return decided
