-- Says what came of all jobs so far, and how many are open. KEYS: totals, examples, queues, when lost messages were last
-- looked for. Returns the time, totals and examples as fields and values, of each list its name, how many open records it
-- has and how many of those run, and the time of that look.
local time = redis.call('TIME')
local queues = {}
for _, queue in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  queues[#queues + 1] = {queue, redis.call('ZCARD', 'bridge:open:' .. queue), redis.call('SCARD', 'bridge:running:' .. queue)}
end
return {
  string.format('%.0f', time[1] * 1000000 + time[2]), redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), queues,
  redis.call('GET', KEYS[4]) or '',
}
