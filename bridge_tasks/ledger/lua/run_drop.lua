-- Ends chunks of a run that was stopped which nobody has begun, and their tasks; nobody begins them meanwhile, since whoever
-- begins one looks whether the run was stopped. KEYS: chunks and their tasks' records, in turn. ARGV: run, outcome (JSON),
-- seconds to keep, then the chunks' numbers. Returns the numbers of those of which files go on alone.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
local going_on = {}
for index = 1, #KEYS, 2 do
  local job, number = KEYS[index + 1], ARGV[3 + (index + 1) / 2]
  local known = redis.call('HMGET', job, 'state', 'queue', 'task')
  if not known[1] or known[1] == 'waiting' then -- no record: the submitter died before it sent the message
    if known[1] then
      redis.call('HSET', job, 'state', 'cancelled', 'outcome', ARGV[2], 'ended', now)
      redis.call('HDEL', job, 'message', 'worker', 'lease')
      redis.call('EXPIRE', job, ARGV[3])
      if known[2] then
        redis.call('ZREM', 'bridge:open:' .. known[2], string.sub(job, #'bridge:job:' + 1))
        redis.call('HINCRBY', 'bridge:totals', 'cancelled|' .. (known[3] or ''), 1)
      end
    end
    change_chunk(ARGV[1], number, now, ARGV[3], function(chunk)
      if redis.call('HEXISTS', chunk, 'outcomes') == 0 then redis.call('HSETNX', chunk, 'error', 'cancelled ' .. ARGV[2]) end
    end)
  end
  if string.find(redis.call('HGET', KEYS[index], 'decided') or '', '-', 1, true) then
    table.insert(going_on, number)
  end
end
return going_on
