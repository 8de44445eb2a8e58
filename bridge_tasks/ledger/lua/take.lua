-- Forgets a message that a worker is done with, and gives it the next one, which it holds from then on: there is no instant
-- in which the message is nowhere.
--
-- KEYS: as in hold.lua, then the lists to take from, in order. ARGV: the tag of the one that is done with, now, the worker's
-- name or '', its session, the tag under which the next is held, what each list's queue is called.
-- Returns {list, message}, or nothing: so, too, if the worker has another session by now.
local worker, session, tag = ARGV[3], ARGV[4], ARGV[5]
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
if worker ~= '' and (redis.call('GET', 'bridge:session:' .. worker) or session) ~= session then return end

local function ending(n) return ',"",' .. cjson.encode(ARGV[3 + n]) .. ']' end

local held = redis.call('HGET', KEYS[2], tag)
for n = 3, #KEYS do
  if held and string.sub(held, -#ending(n)) == ending(n) then -- it asks again: the answer did not reach it
    return {KEYS[n], string.sub(held, 2, -#ending(n) - 1)}
  end
  local message = not held and redis.call('LINDEX', KEYS[n], -1)
  if message then -- popped last: if anything fails before, it is where it was
    redis.call('ZADD', KEYS[1], ARGV[2], tag)
    redis.call('HSET', KEYS[2], tag, '[' .. message .. ending(n))
    if worker ~= '' then redis.call('SADD', 'bridge:workers', worker) end
    redis.call('RPOP', KEYS[n])
    return {KEYS[n], message}
  end
end
