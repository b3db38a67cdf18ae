-- A message dies before any attempt could decide: expired, invalid, unknown, delivered too often.
local job_id, epoch, generation, seq = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local job_type, queue, priority = ARGV[5], ARGV[6], ARGV[7]
local cause, code, category, message = ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local record = read(KEY_RECORD)
local now = now_us()

if not record.state then
  record = birth(epoch ~= '' and epoch or int(now), generation, seq, job_type, queue, priority, now)
else
  local order = compare(record, epoch ~= '' and epoch or record.epoch, generation, seq)
  if order < 0 then return {'stale', record.state} end
  if record.state == 'dead_lettered' then
    return {'decided', 'dead_lettered', record.seq, '0', record.epoch, record.generation}
  end
  if record.state == 'running' and num(record.lease_until) > now then
    return {'held', int(num(record.lease_until) - now)}
  end
end
if not target(record, 'fail') then return {'ended', record.state} end

record.cause, record.decision, record.decided = cause, 'dead_lettered', int(now)
record.first_failure = record.first_failure or int(now)
note(record, now, 'dead_lettered', code, message)
move(job_id, record, 'fail', now, {'type', record.type or job_type, 'queue', record.queue or queue,
     'code', code, 'category', category, 'error', message})
write(KEY_RECORD, record, {'state', 'version', 'epoch', 'generation', 'seq', 'type', 'queue', 'priority',
      'admitted', 'decision', 'decided', 'cause', 'history', 'first_failure'})
redis.call('HDEL', KEY_RECORD, 'holder', 'lease_until')
redis.call('PERSIST', KEY_RECORD)
return {'decided', 'dead_lettered', record.seq, '0', record.epoch, record.generation}
