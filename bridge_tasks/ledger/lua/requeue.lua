-- Puts a message into its queue again: one that got lost, or a dead letter.
--
-- KEYS: the record, the queue. ARGV: id, envelope, queue, seconds to keep, then what must still hold: state, when it was
-- queued, runs; 1 for a dead letter, which begins anew; and 1 where the queue is another broker's: then it is put into the
-- outbox, to be sent now. Returns 1 if it was put there.
local id, envelope, queue, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
local known = redis.call('HMGET', KEYS[1], 'state', 'queued', 'runs', 'job', 'part', 'key', 'item', 'worker', 'lease',
  'task', 'correlation_id')
if known[1] ~= ARGV[5] or known[2] ~= ARGV[6] or (known[3] or '0') ~= ARGV[7] then return 0 end
if known[1] == 'running' and tonumber(now) < tonumber(known[9] or 0)
  and redis.call('EXISTS', 'bridge:worker:' .. (known[8] or '')) == 1 then
  return 0 -- its message is gone, and its run goes on
end

local function revive(name)
  local key = 'bridge:job:' .. name
  if redis.call('HGET', key, 'state') ~= 'failed' then return end
  redis.call('HSET', key, 'state', 'waiting', 'accepted', now)
  redis.call('HDEL', key, 'outcome', 'ended', 'trouble', 'why')
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
  local place = redis.call('HGET', KEYS[1], 'place')
  while place do
    revive(place)
    place = redis.call('HGET', 'bridge:job:' .. place, 'place')
  end
  local job, part = known[4], known[5] or ''
  if job and job ~= id and part ~= '-' then
    if part ~= '' and part ~= id then revive(part) end
    revive(job)
    if part ~= '' and part ~= job then
      redis.call('SADD', 'bridge:left:' .. job, part)
      redis.call('EXPIRE', 'bridge:left:' .. job, keep)
      -- It fails again in the end if another part of it has failed: that one was not sent again.
      for _, other in ipairs(cjson.decode(redis.call('HGET', 'bridge:job:' .. job, 'parts') or '[]')) do
        local ended = redis.call('HMGET', 'bridge:job:' .. other, 'state', 'outcome')
        if other ~= part and (ended[1] == 'failed' or ended[1] == 'cancelled') then
          redis.call('HSET', 'bridge:job:' .. job, 'trouble', ended[1], 'why', ended[2] or '')
        end
      end
    end
  end
end
redis.call('HSET', KEYS[1], 'state', 'waiting', 'message', envelope, 'queued', now)
redis.call('HINCRBY', KEYS[1], 'requeued', 1)
redis.call('SREM', 'bridge:running:' .. queue, id)
local what = (ARGV[8] == '1' and 'replayed|' or 'requeued|') .. (known[10] or '')
redis.call('HINCRBY', 'bridge:totals', what, 1)
redis.call('HSET', 'bridge:examples', what, now .. ' ' .. (known[11] or ''))
redis.call('EXPIRE', KEYS[1], keep)
redis.call('ZADD', 'bridge:open:' .. queue, now, id)
if ARGV[9] == '1' then
  redis.call('ZADD', 'bridge:outbox', now, id)
else
  redis.call('LPUSH', KEYS[2], envelope)
end
return 1
