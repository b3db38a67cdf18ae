-- Create the record of a job that its producer has published by itself, unless the job has a record in
-- any state. Admission would begin another life of an ended job. Here the job may have ended before its
-- producer reports the publication.
local job_id, job_type, queue, published = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local window_ms = ARGV[5]

local record = read(KEY_RECORD)
if record.state then
  -- An earlier publication failed: only such a record expires without being a tombstone.
  if published == '1' and record.state == 'accepted' and redis.call('PERSIST', KEY_RECORD) == 1 then
    redis.call('HSET', KEY_RECORD, 'published', '1')
  end
  return 0
end

local now = now_us()
record = birth(int(now), '0', '0', job_type, queue ~= '' and queue or nil, nil, now)
record.published = published
move(job_id, record, 'admit', now, {'type', job_type, 'queue', queue})
write(KEY_RECORD, record, {'state', 'epoch', 'generation', 'seq', 'version', 'type', 'queue',
      'admitted', 'published'})
-- The publication failed, and the caller got the error: the record may expire. But the message may be
-- at the broker all the same, so the record is kept until then.
if published ~= '1' then redis.call('PEXPIRE', KEY_RECORD, window_ms) end
return 1
