-- The shared result cache: looking, keeping, giving up, dropping, making void. The rules are policy/caching.py's.
--
-- KEYS  entries (hash: question -> header and payload)   used (zset: question -> last use)   stats (hash)
--       voids (hash: mark -> when, and '#' -> generation)   lease (string: token and end)
-- ARGV  command, time in microseconds or '' for the server's, question, then the command's own.
-- Times are microseconds. Replies are integers and byte strings.

local ENTRIES, USED, STATS, VOIDS, LEASE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local SECOND = 1000000
local DAY = 86400 * SECOND
local MOST_MARKS = 128
local HEADER = '^B1 (%l%l) (%d+) (%d+) (%d+) (%d+) (%d+) ()'

local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * SECOND + time[2]
end
local question = ARGV[3]

local function text(number)
  return string.format('%.0f', number)
end

local function milliseconds(microseconds)
  return text(math.max(1, math.ceil(microseconds / 1000)))
end

local function count(name, by)
  if by > 0 then redis.call('HINCRBY', STATS, name, by) end
end

-- A mark ahead of the clock means that the clock was set back: it counts as made now, and not until then.
local function marks()
  local flat = redis.call('HGETALL', VOIDS)
  local known, generation = {}, 0
  for i = 1, #flat, 2 do
    local at = tonumber(flat[i + 1]) or now
    if flat[i] == '#' then
      generation = at
    else
      if at > now + SECOND then redis.call('HSET', VOIDS, flat[i], text(now)) end
      known[flat[i]] = at
    end
  end
  return known, generation
end

local function voided(known, born, subject, first_tag)
  for mark, at in pairs(known) do
    if at >= born then
      local kind, rest = string.sub(mark, 1, 1), string.sub(mark, 2)
      if kind == '*' or (kind == '^' and string.sub(subject, 1, #rest) == rest) then return true end
      if kind == '=' then
        for i = first_tag, #ARGV do
          if ARGV[i] == rest then return true end
        end
      end
    end
  end
  return false
end

local function forget()
  redis.call('HDEL', ENTRIES, question)
  redis.call('ZREM', USED, question)
end

-- The entry, or nil, and whether something unreadable was found and dropped.
local function entry()
  local raw = redis.call('HGET', ENTRIES, question)
  if not raw then return nil, false end
  local flags, born, fresh, usable, kept, cost, start = string.match(raw, HEADER)
  if not flags then
    forget()
    return nil, true
  end
  return {
    flags = flags, born = tonumber(born), fresh = tonumber(fresh), usable = tonumber(usable),
    kept = tonumber(kept), cost = tonumber(cost), payload = string.sub(raw, start),
  }, false
end

-- 0 free, 1 held, 2 failed. No lease can end later than its longest time from now.
local function lease_state(longest)
  local held = redis.call('GET', LEASE)
  if not held then return 0 end
  local token, ends = string.match(held, '^(%S+) %d+ (%d+)$')
  ends = tonumber(ends)
  if not ends or ends <= now or ends > now + longest then return 0 end
  return token == '!' and 2 or 1
end

local commands = {}

function commands.look()
  local token, lease, longest, draw = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]) / SECOND
  local waiting, near, subject, first_tag = ARGV[8] == '1', tonumber(ARGV[9]), ARGV[10], 11
  count('near', near)
  local known, generation = marks()
  local found, unreadable = entry()
  if unreadable then count('dropped', 1) end
  if found and (found.born > now + SECOND or voided(known, found.born, subject, first_tag)) then
    forget()
    count('void', 1)
    found = nil
  end
  local age, old = 4, 0
  if found then
    old = math.max(0, now - found.born)
    if old <= found.fresh then
      age = (old + found.cost * draw > found.fresh) and 1 or 0
    elseif old <= found.usable then
      age = 2
    elseif old <= found.kept then
      age = 3
    else
      forget()
      found = nil
    end
  end
  local state = age == 0 and 0 or lease_state(longest)
  local verdict
  if age == 0 then
    verdict = 0
  elseif age <= 2 then
    verdict = state == 0 and 1 or 0
  elseif state == 1 then
    verdict = 2
  elseif state == 2 and age == 3 then
    verdict = 0
  else
    verdict = (state == 2 and waiting) and 3 or 1
  end
  if verdict == 1 then
    redis.call('SET', LEASE, token .. ' ' .. text(now) .. ' ' .. text(now + lease), 'PX', milliseconds(lease))
  end
  if found then redis.call('ZADD', USED, text(now), question) end
  if not waiting then
    if age <= 1 then count('hits', 1) elseif age == 2 or verdict == 0 then count('stale', 1) else count('misses', 1) end
    if verdict == 2 then count('waits', 1) end
  end
  local reply = { verdict, age, generation, redis.call('HLEN', ENTRIES), unreadable and 1 or 0 }
  if found then
    for _, part in ipairs({ old, found.fresh, found.usable, found.kept, found.cost, found.flags, found.payload }) do
      reply[#reply + 1] = part
    end
  end
  return reply
end

-- Hand the lease back: when it was granted, or nil for one that is somebody else's by now.
local function release(token)
  local holder, granted = string.match(redis.call('GET', LEASE) or '', '^(%S+) (%d+) ')
  if holder ~= token then return nil end
  redis.call('DEL', LEASE)
  return tonumber(granted)
end

local function evict(most, millionths)
  local size = redis.call('HLEN', ENTRIES)
  if size <= most then return 0 end
  local share = math.max(1, math.floor(size * millionths / 1000000), math.min(size - most, 1000))
  local oldest = redis.call('ZPOPMIN', USED, share)
  for i = 1, #oldest, 2 do
    redis.call('HDEL', ENTRIES, oldest[i])
  end
  count('evicted', #oldest / 2)
  return #oldest / 2
end

function commands.keep()
  local token, elapsed, flags = ARGV[4], tonumber(ARGV[5]), ARGV[6]
  local fresh, usable, kept, payload = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
  local most, millionths, subject, first_tag = tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13], 14
  local born = math.min(now - elapsed, release(token) or now)
  local known, generation = marks()
  local before = entry()
  if voided(known, born, subject, first_tag) or (before and before.born > born and before.born <= now) then
    count('late', 1)
    return { 0, generation, redis.call('HLEN', ENTRIES), 0 }
  end
  local header = table.concat({ 'B1', flags, text(born), fresh, usable, kept, text(elapsed), '' }, ' ')
  if redis.call('HLEN', ENTRIES) ~= redis.call('ZCARD', USED) then  -- one was lost: nobody knows their order any more
    redis.call('UNLINK', ENTRIES, USED)
  end
  redis.call('HSET', ENTRIES, question, header .. payload)
  redis.call('ZADD', USED, text(now), question)
  count('fills', 1)
  local evicted = evict(most, millionths)
  local life = milliseconds(math.max(tonumber(kept), SECOND) + DAY)
  redis.call('PEXPIRE', ENTRIES, life)
  redis.call('PEXPIRE', USED, life)
  redis.call('PEXPIRE', STATS, milliseconds(30 * DAY))
  return { 1, generation, redis.call('HLEN', ENTRIES), evicted }
end

function commands.give_up()
  local pause = tonumber(ARGV[5])
  if not release(ARGV[4]) then return 0 end
  if pause > 0 then
    redis.call('SET', LEASE, '! ' .. text(now) .. ' ' .. text(now + pause), 'PX', milliseconds(pause))
    count('failures', 1)
  end
  return 1
end

function commands.drop()
  forget()
  count('dropped', 1)
  return 1
end

function commands.void()
  local mark = ARGV[4]
  local known, generation = marks()
  generation = math.max(generation + 1, now)
  if mark == '*' then
    redis.call('UNLINK', ENTRIES, USED, STATS)
    redis.call('DEL', VOIDS)
  else
    local kept = 0
    for other, at in pairs(known) do
      if at < now - 7 * DAY then redis.call('HDEL', VOIDS, other) else kept = kept + 1 end
    end
    if kept >= MOST_MARKS and not known[mark] then  -- too many to look through at each question: all of it
      redis.call('DEL', VOIDS)
      mark = '*'
    end
  end
  redis.call('HSET', VOIDS, mark, text(now), '#', text(generation))
  redis.call('PEXPIRE', VOIDS, milliseconds(14 * DAY))
  return generation
end

function commands.count()
  count('near', tonumber(ARGV[4]))
  return 1
end

local well, reply = pcall(commands[ARGV[1]])
if well then return reply end
local why = type(reply) == 'table' and reply.err or tostring(reply)
if not string.find(why, 'WRONGTYPE', 1, true) then return redis.error_reply(why) end
redis.call('UNLINK', unpack(KEYS))  -- somebody else's data under our names: no cache is worth keeping that
count('dropped', 1)
return commands[ARGV[1]]()
