-- Says what waits and who works. ARGV: what separates a queue's name from a priority, how many priorities there are, the
-- priorities, queues. There are no KEYS: whoever may only read the queues could not name them there. No priorities where the
-- queues are another broker's: then it is told which records have not ended and do not run.
-- Returns the time, how many dead letters there are, the workers that live, and of each queue how many messages wait
-- and since when the oldest does (0: nobody noted it).
local time = redis.call('TIME')
local workers = {}
for _, name in ipairs(redis.call('SMEMBERS', 'bridge:workers')) do
  if redis.call('EXISTS', 'bridge:worker:' .. name) == 1 then workers[#workers + 1] = name end
end

local queues = {}
local last = 2 + tonumber(ARGV[2])
for place = last + 1, #ARGV do
  local queue, depth, oldest = ARGV[place], 0, nil
  if last == 2 then
    local open, running = 'bridge:open:' .. queue, 'bridge:running:' .. queue
    depth = math.max(0, redis.call('ZCARD', open) - redis.call('SCARD', running))
    for _, id in ipairs(depth > 0 and redis.call('ZRANGE', open, 0, 99) or {}) do -- what runs is among the oldest
      if redis.call('SISMEMBER', running, id) == 0 then
        oldest = tonumber(redis.call('ZSCORE', open, id))
        break
      end
    end
  end
  for step = 3, last do
    local list = ARGV[step] == '0' and queue or queue .. ARGV[1] .. ARGV[step]
    local length = redis.call('LLEN', list)
    if length > 0 then
      depth = depth + length
      local read, message = pcall(cjson.decode, redis.call('LINDEX', list, -1))
      local id = read and type(message) == 'table' and type(message.headers) == 'table' and message.headers.id
      local queued = type(id) == 'string' and tonumber(redis.call('HGET', 'bridge:job:' .. id, 'queued'))
      if queued and (not oldest or queued < oldest) then oldest = queued end
    end
  end
  queues[#queues + 1] = {depth, string.format('%.0f', oldest or 0)}
end
return {string.format('%.0f', time[1] * 1000000 + time[2]), redis.call('ZCARD', 'bridge:dead'), workers, queues}
