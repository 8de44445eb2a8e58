-- Notes a message that a worker has taken and not yet acknowledged; whatever it holds, it is known as a worker.
--
-- KEYS: when what it holds was taken, what it holds. ARGV: delivery tag, now, the message, the worker's name or '', its session.
-- Returns 0 if the worker has another session by now: it gave back what it held, and would not know of this.
if ARGV[4] ~= '' then
  if (redis.call('GET', 'bridge:session:' .. ARGV[4]) or ARGV[5]) ~= ARGV[5] then return 0 end
  redis.call('SADD', 'bridge:workers', ARGV[4])
end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
