-- Abort a job now. The caller stops the attempt that `worker` and `token` name, if one runs.
local record = read(KEY_RECORD)
local now = now_us()
local reply
record, reply = open_verb(record, now)
if reply then return reply end
return end_now(record, 'abort', now)
