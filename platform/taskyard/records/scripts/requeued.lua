-- The broker has confirmed the message of a rerouted job in its new queue.
local job_id, epoch, generation = ARGV[1], ARGV[2], ARGV[3]
local record = read(KEY_RECORD)
-- The message has begun already, or an operator has decided again.
if record.state ~= 'rerouted' or record.epoch ~= epoch or record.generation ~= generation then
  return 0
end
requeue(job_id, record, now_us())
write(KEY_RECORD, record, {'state', 'version'})
return 1
