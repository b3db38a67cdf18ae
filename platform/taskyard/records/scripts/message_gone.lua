-- The message of a job that an operator has ended was taken out of its queue: no worker will see it.
-- The record need not wait for it any longer. ARGV: job, the epoch in which it was ended.
local record = read(KEY_RECORD)
if not TERMINAL[record.state] or num(record.epoch) ~= num(ARGV[2]) then return 0 end
note_seen(record, now_us())
return 1
