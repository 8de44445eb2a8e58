-- Says whether a message that a worker holds is to be run, and notes who runs it.
--
-- KEYS: the record. ARGV: id, rank of the message, worker, lease and greatest age in microseconds.
-- Returns {'run', runs before this one}, {'busy'}, {'old'}, or {how it ended, its outcome}.
local id, rank, worker = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local lease, age = tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local known = redis.call('HMGET', KEYS[1], 'state', 'rank', 'worker', 'lease', 'job', 'accepted', 'runs', 'outcome',
  'queue', 'task')
local state = known[1]
if not state then return {'run', 0} end -- nobody wrote a record: it came from elsewhere, or Redis was emptied
if state == 'succeeded' or state == 'failed' or state == 'cancelled' then return {state, known[8] or ''} end

local accepted = known[6]
if known[5] and known[5] ~= id then
  local job = 'bridge:job:' .. known[5]
  local whole = redis.call('HMGET', job, 'state', 'accepted')
  if whole[1] == 'cancelled' then
    redis.call('HSET', KEYS[1], 'state', 'cancelled', 'ended', string.format('%.0f', now))
    redis.call('HDEL', KEYS[1], 'message')
    redis.call('ZREM', 'bridge:open:' .. (known[9] or ''), id)
    redis.call('SREM', 'bridge:running:' .. (known[9] or ''), id)
    redis.call('HINCRBY', 'bridge:totals', 'cancelled|' .. (known[10] or ''), 1)
    return {'cancelled', ''}
  end
  accepted = whole[2] or accepted
  if whole[1] == 'waiting' then redis.call('HSET', job, 'state', 'running') end
end
if rank < tonumber(known[2] or 0) then return {'busy'} end -- a retry took its place
if now - tonumber(accepted or now) > age then return {'old'} end
if state == 'running' and rank == tonumber(known[2] or 0) and now < tonumber(known[4] or 0)
  and redis.call('EXISTS', 'bridge:worker:' .. (known[3] or '')) == 1 then
  return {'busy'}
end
local runs = tonumber(known[7] or 0)
redis.call('HSET', KEYS[1], 'state', 'running', 'rank', rank, 'worker', worker,
  'lease', string.format('%.0f', now + lease), 'begun', string.format('%.0f', now), 'runs', runs + 1)
if known[9] then redis.call('SADD', 'bridge:running:' .. known[9], id) end
redis.call('HINCRBY', 'bridge:totals', 'begun|' .. (known[10] or ''), 1)
return {'run', runs}
