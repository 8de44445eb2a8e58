-- Ends a record, and with it the part and the job that it belongs to, each once; tells whoever waits.
--
-- KEYS: the record. ARGV: id, state (succeeded, failed, cancelled), outcome (JSON), seconds to keep, dead letters kept,
-- the state that it must be in ('' for any). Returns how many dead letters were dropped, or -1 if it had ended before.
local id, state, outcome, keep, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])

local function over(known) return known == 'succeeded' or known == 'failed' or known == 'cancelled' end

local function finish(name, ending, why)
  local key = 'bridge:job:' .. name
  if over(redis.call('HGET', key, 'state')) then return false end
  redis.call('HSET', key, 'state', ending, 'outcome', why or outcome, 'ended', now)
  redis.call('EXPIRE', key, keep)
  local waiting = redis.call('HGET', key, 'to')
  if waiting then
    for channel in string.gmatch(waiting, '%S+') do redis.call('PUBLISH', channel, name) end
    redis.call('HDEL', key, 'to')
  end
  return true
end

local known = redis.call('HMGET', KEYS[1], 'state', 'queue', 'job', 'part', 'item', 'task', 'correlation_id')
if not known[1] then return 0 end
if ARGV[6] ~= '' and ARGV[6] ~= known[1] then return -1 end
if not finish(id, state) then return -1 end
redis.call('HDEL', KEYS[1], 'worker', 'lease')
if known[2] then
  redis.call('ZREM', 'bridge:open:' .. known[2], id)
  redis.call('SREM', 'bridge:running:' .. known[2], id)
  redis.call('HINCRBY', 'bridge:totals', state .. '|' .. known[6], 1)
end
local dropped = 0
if state == 'failed' then
  redis.call('ZADD', 'bridge:dead', now, id)
  dropped = math.max(0, redis.call('ZCARD', 'bridge:dead') - most)
  if dropped > 0 then
    redis.call('ZPOPMIN', 'bridge:dead', dropped)
    redis.call('HINCRBY', 'bridge:totals', 'dropped|', dropped)
  end
  redis.call('HSET', 'bridge:examples', 'failed|' .. (known[6] or ''), now .. ' ' .. (known[7] or ''))
else
  redis.call('HDEL', KEYS[1], 'message')
end

if known[5] then
  local run, number, index = item_of(known[5])
  change_chunk(run, number, now, keep, function(chunk)
    if index ~= '' then
      redis.call('HSET', chunk, 'alone:' .. index, state .. ' ' .. outcome)
    elseif state ~= 'succeeded' and redis.call('HEXISTS', chunk, 'outcomes') == 0 then
      redis.call('HSET', chunk, 'error', state .. ' ' .. outcome)
    end
  end)
end

if state ~= 'succeeded' then -- and with it the task that had put this one in its place
  local place = redis.call('HGET', KEYS[1], 'place')
  while place do
    if not finish(place, state) then break end
    place = redis.call('HGET', 'bridge:job:' .. place, 'place')
  end
end

local job, part = known[3], known[4] or ''
if not job or job == id or part == '-' then return dropped end -- a callback is nothing that a job waits for
if part == '' then -- several parts were to follow it
  if state ~= 'succeeded' then finish(job, state) end
  return dropped
end
if part ~= id and state ~= 'succeeded' then finish(part, state) end
if part ~= job and (part == id or state ~= 'succeeded') then
  local whole, left = 'bridge:job:' .. job, 'bridge:left:' .. job
  redis.call('SREM', left, part)
  if state ~= 'succeeded' and redis.call('HSETNX', whole, 'trouble', state) == 1 then
    redis.call('HSET', whole, 'why', outcome)
  end
  if redis.call('SCARD', left) == 0 then
    local trouble = redis.call('HMGET', whole, 'trouble', 'why')
    finish(job, trouble[1] or 'succeeded', trouble[2] or '')
  end
end
return dropped
