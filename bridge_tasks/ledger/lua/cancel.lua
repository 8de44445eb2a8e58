-- Cancels a job: what has not begun never will. KEYS: the job's record. ARGV: seconds to keep.
-- Returns the state that it is in now; a single task that runs goes on.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
local known = redis.call('HMGET', KEYS[1], 'state', 'parts', 'queue', 'worker', 'to')
local state = known[1]
if not state then return '' end
local name = string.sub(KEYS[1], #'bridge:job:' + 1)
if state ~= 'waiting' and state ~= 'running' then return state end
if known[4] then return state end -- it is a task, and a worker runs it

local function cancelled(id)
  local key = 'bridge:job:' .. id
  local one = redis.call('HMGET', key, 'state', 'queue', 'worker', 'to', 'task')
  if id ~= name and (one[1] ~= 'waiting' or one[3]) then return end
  redis.call('HSET', key, 'state', 'cancelled', 'ended', now)
  redis.call('HDEL', key, 'message', 'to')
  redis.call('EXPIRE', key, ARGV[1])
  if one[2] and (one[1] == 'waiting' or one[1] == 'running') then
    redis.call('ZREM', 'bridge:open:' .. one[2], id)
    redis.call('SREM', 'bridge:running:' .. one[2], id)
    redis.call('HINCRBY', 'bridge:totals', 'cancelled|' .. (one[5] or ''), 1)
  end
  for channel in string.gmatch(one[4] or '', '%S+') do redis.call('PUBLISH', channel, id) end
end

for _, part in ipairs(cjson.decode(known[2] or '[]')) do cancelled(part) end
cancelled(name)
return 'cancelled'
