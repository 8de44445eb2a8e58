-- Adds a chunk to a run, once, and notes of its files that it is their latest. KEYS: the run, the chunk, the files.
-- ARGV: number, files (packed), how many, the digest of all files so far, seconds to keep, then each file's place.
-- Returns 1; 0 if it was there; -1 if the run takes no more, -2 if there is no such run.
local known = redis.call('HMGET', KEYS[1], 'stopped', 'sealed', 'chunks', 'accepted')
if not known[4] then return -2 end
if tonumber(known[3] or 0) > tonumber(ARGV[1]) then return 0 end
if known[1] or known[2] then return -1 end
redis.call('HSET', KEYS[2], 'files', ARGV[2], 'count', ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('HINCRBY', KEYS[1], 'total', ARGV[3])
redis.call('HSET', KEYS[1], 'chunks', ARGV[1] + 1, 'digest', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
for index = 3, #KEYS do redis.call('SET', KEYS[index], ARGV[index + 3], 'EX', ARGV[5]) end
return 1
