-- Gives back to its queue a message that a dead worker held. KEYS: its unacknowledged messages, their index, the queue.
-- ARGV: delivery tag, envelope. Returns 1 if it was still there.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('RPUSH', KEYS[3], ARGV[2])
redis.call('HINCRBY', 'bridge:totals', 'restored|', 1)
return 1
