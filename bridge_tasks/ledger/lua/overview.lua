-- Says what is going on, in one look. KEYS: none. ARGV: how many of each are told, and from how many bytes on a message
-- is not read. Returns the time, how many dead letters came within the last hour, the lists that hold open records
-- with the number of those, the oldest open records, the latest dead letters, and the latest runs; each record as its
-- id, its fields (without message and steps), and what its message tells of its arguments.
local most, heavy = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local FIELDS = {'state', 'task', 'correlation_id', 'subject', 'accepted', 'queued', 'begun', 'ended', 'runs',
  'requeued', 'queue', 'job', 'outcome', 'worker'}

local function told(name)
  local key, fields = 'bridge:job:' .. name, {}
  local values = redis.call('HMGET', key, unpack(FIELDS))
  for at, field in ipairs(FIELDS) do
    if values[at] then
      fields[#fields + 1] = field
      fields[#fields + 1] = values[at]
    end
  end
  local arguments = ''
  local size = redis.call('HSTRLEN', key, 'message')
  if size > 0 then
    fields[#fields + 1] = 'kept'
    fields[#fields + 1] = '1'
    if size < heavy then
      local read, message = pcall(cjson.decode, redis.call('HGET', key, 'message'))
      local headers = read and type(message) == 'table' and message.headers
      if type(headers) == 'table' and type(headers.kwargsrepr) == 'string' then arguments = headers.kwargsrepr end
    end
  end
  return {name, fields, arguments}
end

local lists, open, dead, runs = {}, {}, {}, {}
for _, list in ipairs(redis.call('SMEMBERS', 'bridge:queues')) do
  local key = 'bridge:open:' .. list
  lists[#lists + 1] = list
  lists[#lists + 1] = redis.call('ZCARD', key)
  for _, name in ipairs(redis.call('ZRANGE', key, 0, most - 1)) do open[#open + 1] = told(name) end
end
for _, name in ipairs(redis.call('ZREVRANGE', 'bridge:dead', 0, most - 1)) do dead[#dead + 1] = told(name) end
for _, name in ipairs(redis.call('ZREVRANGE', 'bridge:runs', 0, most - 1)) do
  runs[#runs + 1] = {name, redis.call('HGETALL', 'bridge:run:' .. name)}
end
local lately = redis.call('ZCOUNT', 'bridge:dead', string.format('%.0f', now - 3600000000), '+inf')
return {string.format('%.0f', now), lately, lists, open, dead, runs}
