-- Writes a message's record and puts the message into its queue: both, or neither.
--
-- KEYS: the record, the queue, the queue's open records; and the outbox, where the queue is another broker's: the message is
-- put there instead, to be sent by whoever finds it when its time has come, unless it was sent and taken out before.
-- ARGV: id, envelope, queue (its list for the message's priority), task, correlation id, subject, rank, seconds to
-- keep, job, part, item; then, where this is
-- the first message of a job that is being submitted: the record of the job, its key, 1 if an outcome counts,
-- 1 to submit it anyway, its parts (JSON), its title, the digest of its file, 1 if this message is all of it, its steps.
-- With an outbox, the last two: for how long nobody else is to send it, and when that is to be at the earliest (or 0);
-- microseconds both.
-- Returns {1, id, 'waiting'}, or {0, who stands in its place, its state}; with an outbox, and a message that is in there still,
-- also under which time.
local id, envelope, queue, task, cid, subject = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local rank, keep, job, part, item = tonumber(ARGV[7]), ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])

local function record(name) return 'bridge:job:' .. name end
local function over(state) return state == 'succeeded' or state == 'failed' or state == 'cancelled' end

local outbox, last = KEYS[4], #ARGV
if outbox then last = last - 2 end

local submitted = last >= 12 and ARGV[12]
if submitted then
  local key, counts, force, parts, title, file = ARGV[13], ARGV[14], ARGV[15], ARGV[16], ARGV[17], ARGV[18]
  local holder = redis.call('GET', 'bridge:key:' .. key)
  if holder and holder ~= submitted and force ~= '1' then
    local held = redis.call('HMGET', record(holder), 'state', 'whole', 'accepted')
    local state = held[1]
    -- A submitter that died halfway leaves a job that never ends: after a minute, another may do it.
    if state == 'waiting' and held[2] == '0' and now - tonumber(held[3]) > 60000000 then state = nil end
    if state == 'waiting' or state == 'running' or (state == 'succeeded' and counts == '1') then
      return {0, holder, state}
    end
  end
  redis.call('SET', 'bridge:key:' .. key, submitted, 'EX', keep)
  redis.call('ZADD', 'bridge:cid:' .. cid, now, submitted)
  redis.call('EXPIRE', 'bridge:cid:' .. cid, keep)
  if file ~= '' then redis.call('SET', 'bridge:file:' .. file, submitted, 'EX', keep) end
  redis.call('HSET', record(submitted), 'state', 'waiting', 'task', title, 'correlation_id', cid,
    'subject', subject, 'accepted', now, 'parts', parts, 'key', key, 'whole', ARGV[19])
  if ARGV[20] ~= '' then redis.call('HSET', record(submitted), 'title', title, 'steps', ARGV[20]) end
  redis.call('EXPIRE', record(submitted), keep)
  local members = cjson.decode(parts)
  if #members > 1 or members[1] ~= submitted then
    for _, member in ipairs(members) do redis.call('SADD', 'bridge:left:' .. submitted, member) end
    redis.call('EXPIRE', 'bridge:left:' .. submitted, keep)
  end
end

local known = redis.call('HMGET', KEYS[1], 'state', 'rank', 'message', 'queue', 'handed')
if over(known[1]) then return {0, id, known[1]} end
if known[1] and known[3] and not known[5] and rank <= tonumber(known[2] or -1) then
  local unsent = outbox and rank == tonumber(known[2]) and redis.call('ZSCORE', outbox, id)
  return {0, id, known[1], unsent and string.format('%.0f', unsent) or nil}
end

redis.call('HSET', KEYS[1], 'state', 'waiting', 'message', envelope, 'queue', queue, 'task', task,
  'correlation_id', cid, 'subject', subject, 'rank', rank, 'queued', now)
redis.call('HDEL', KEYS[1], 'worker', 'lease', 'handed')
if known[4] and known[4] ~= queue then redis.call('ZREM', 'bridge:open:' .. known[4], id) end
if known[4] then redis.call('SREM', 'bridge:running:' .. known[4], id) end
redis.call('HINCRBY', 'bridge:totals', (known[5] and 'replaced|' or known[4] and 'retried|' or 'accepted|') .. task, 1)
redis.call('HSETNX', KEYS[1], 'accepted', now)
if job ~= '' then redis.call('HSET', KEYS[1], 'job', job, 'part', part) end
if item ~= '' then redis.call('HSET', KEYS[1], 'item', item) end
redis.call('EXPIRE', KEYS[1], keep)
redis.call('ZADD', KEYS[3], now, id)
redis.call('SADD', 'bridge:queues', queue)
if outbox then
  local due = string.format('%.0f', math.max(now + ARGV[#ARGV - 1], tonumber(ARGV[#ARGV])))
  redis.call('ZADD', outbox, due, id)
  return {1, id, 'waiting', due}
end
redis.call('LPUSH', KEYS[2], envelope)
return {1, id, 'waiting'}
