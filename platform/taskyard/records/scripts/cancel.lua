-- Cancel a job gracefully. A running attempt is asked to stop, and the job is cancelled when the
-- attempt has ended; every other job is cancelled now.
local record = read(KEY_RECORD)
local now = now_us()
local reply
record, reply = open_verb(record, now)
if reply then return reply end

if record.state == 'cancelled' then return answer('applied', record, true) end
local asked = record.state == 'running' and not is_watched(record) and num(record.lease_until) > now
if asked then
  local already = record.cancel ~= nil
  if not already then
    record.cancel, record.cancel_at = request, int(now)
    move(job_id, record, 'request_cancel', now, event_of(record))
    write(KEY_RECORD, record, {'version', 'cancel', 'cancel_at'})
  end
  return answer('requested', record, already)
end
-- An id that was never seen is forbidden: it must not be enqueued later.
if not record.state then record.unique_until = int(now + KEEP_US) end
-- The request that came first is the one that is carried out.
request = record.cancel or request
return end_now(record, 'cancel', now)
