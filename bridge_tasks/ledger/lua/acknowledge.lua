-- Forgets a message that a worker held.
--
-- KEYS: as in hold.lua. ARGV: delivery tag.
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
