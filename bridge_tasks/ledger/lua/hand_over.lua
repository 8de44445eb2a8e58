-- Notes that other tasks take a task's place, the last of them under its id. KEYS: its record.
-- ARGV: its id, seconds to keep, and the others: their ids and names (JSON).
-- From now on its record takes any message, and ends badly with any of them.
local queue = redis.call('HGET', KEYS[1], 'queue')
if not queue then return 0 end
redis.call('ZREM', 'bridge:open:' .. queue, ARGV[1])
redis.call('SREM', 'bridge:running:' .. queue, ARGV[1])
redis.call('HSET', KEYS[1], 'handed', '1', 'steps', ARGV[3])
for _, heir in ipairs(cjson.decode(ARGV[3])) do
  if heir[1] ~= ARGV[1] then
    redis.call('HSET', 'bridge:job:' .. heir[1], 'place', ARGV[1])
    redis.call('EXPIRE', 'bridge:job:' .. heir[1], ARGV[2])
  end
end
return 1
