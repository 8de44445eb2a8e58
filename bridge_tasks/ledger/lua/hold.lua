-- Notes a message that a worker has taken and not yet acknowledged; whatever it holds, it is known as a worker.
--
-- KEYS: when what it holds was taken, what it holds. ARGV: delivery tag, now, the message, the worker's name or ''.
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
if ARGV[4] ~= '' then redis.call('SADD', 'bridge:workers', ARGV[4]) end
