-- Puts a message into its queue again: one that got lost, or a dead letter.
--
-- KEYS: the record, the queue. ARGV: id, envelope, queue, seconds to keep, then what must still hold: state, when it was
-- queued, runs; and 1 for a dead letter, which begins anew. Returns 1 if it was put there.
local id, envelope, queue, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
local known = redis.call('HMGET', KEYS[1], 'state', 'queued', 'runs', 'job', 'part', 'key', 'item')
if known[1] ~= ARGV[5] or known[2] ~= ARGV[6] or (known[3] or '0') ~= ARGV[7] then return 0 end

local function revive(name)
  local key = 'bridge:job:' .. name
  if redis.call('HGET', key, 'state') ~= 'failed' then return end
  redis.call('HSET', key, 'state', 'waiting', 'accepted', now)
  redis.call('HDEL', key, 'outcome', 'ended', 'trouble')
  redis.call('EXPIRE', key, keep)
  local submitted = redis.call('HGET', key, 'key')
  if submitted then redis.call('SET', 'bridge:key:' .. submitted, name, 'EX', keep) end
end

if ARGV[8] == '1' then
  redis.call('ZREM', 'bridge:dead', id)
  redis.call('HSET', KEYS[1], 'rank', 0)
  revive(id)
  if known[7] then
    local run, number, index = item_of(known[7])
    change_chunk(run, number, now, keep, function(chunk)
      redis.call('HDEL', chunk, index == '' and 'error' or 'alone:' .. index)
    end)
  end
  local job, part = known[4], known[5]
  if part and part ~= '' and part ~= id then revive(part) end
  if job and job ~= id then
    if part and part ~= '' and part ~= job then redis.call('SADD', 'bridge:left:' .. job, part) end
    revive(job)
  end
end
redis.call('HSET', KEYS[1], 'state', 'waiting', 'message', envelope, 'queued', now)
redis.call('HINCRBY', KEYS[1], 'requeued', 1)
redis.call('EXPIRE', KEYS[1], keep)
redis.call('ZADD', 'bridge:open:' .. queue, now, id)
redis.call('LPUSH', KEYS[2], envelope)
return 1
