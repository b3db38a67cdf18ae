-- Complete a job with the operator's result. Whoever takes its message continues its chain with it.
local result, kept_key = ARGV[9], ARGV[10]
local record = read(KEY_RECORD)
local now = now_us()
local reply
record, reply = open_verb(record, now)
if reply then return reply end
return end_now(record, 'force_complete', now, result, kept_key)
