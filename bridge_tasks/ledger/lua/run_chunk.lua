-- Adds a chunk to a run, once. KEYS: the run, the chunk. ARGV: number, files (packed), how many, the digest of all
-- paths so far, seconds to keep. Returns 1; 0 if it was there; -1 if the run takes no more.
local known = redis.call('HMGET', KEYS[1], 'stopped', 'sealed', 'chunks')
if known[1] or known[2] then return -1 end
if tonumber(known[3] or 0) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[2], 'files', ARGV[2], 'count', ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('HINCRBY', KEYS[1], 'total', ARGV[3])
redis.call('HSET', KEYS[1], 'chunks', ARGV[1] + 1, 'digest', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
