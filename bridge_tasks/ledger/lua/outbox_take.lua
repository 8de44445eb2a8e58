-- Gives messages whose time has come, each to one who asks, and hides them for a while: whoever has them sends them, and takes
-- them out. What is over is dropped. KEYS: the outbox. ARGV: at most how many, for how long they are hidden (microseconds).
-- Returns of each its id, the message, and under which time it is in the outbox now.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local hidden, taken = string.format('%.0f', now + ARGV[2]), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[1])) do
  local known = redis.call('HMGET', 'bridge:job:' .. id, 'state', 'message')
  if known[2] and (known[1] == 'waiting' or known[1] == 'running') then
    redis.call('ZADD', KEYS[1], hidden, id)
    taken[#taken + 1] = {id, known[2], hidden}
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return taken
