-- Says which records run nowhere: whoever began them is dead, or has had its time. KEYS: the queue's running records.
-- Returns of each its id and when its message was queued, in turn.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local found = {}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local known = redis.call('HMGET', 'bridge:job:' .. id, 'worker', 'lease', 'queued')
  local lives = known[1] and redis.call('EXISTS', 'bridge:worker:' .. known[1]) == 1
  if known[3] and not (lives and now < tonumber(known[2] or 0)) then
    found[#found + 1] = id
    found[#found + 1] = known[3]
  end
end
return found
