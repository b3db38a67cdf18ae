-- A job that a producer has published by itself: its record, unless it has one, of whatever state.
-- Admission would begin another life of an ended job; here the message may have come to its end
-- before its producer tells of it.
local job_id, job_type, queue, published = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local record = read(KEY_RECORD)
if record.state then return 0 end

local now = now_us()
record = birth(int(now), '0', '0', job_type, queue ~= '' and queue or nil, nil, now)
record.published = published
move(job_id, record, 'admit', now, {'type', job_type, 'queue', queue})
write(KEY_RECORD, record, {'state', 'epoch', 'generation', 'seq', 'version', 'type', 'queue',
      'admitted', 'published'})
return 1
