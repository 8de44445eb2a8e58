-- Notes what became of a chunk's files, once. KEYS: the chunk. ARGV: run, outcomes (packed), how many succeeded,
-- failed, were cancelled, are degraded, seconds to keep. Returns 1, or 0 if it was noted before.
if redis.call('HSETNX', KEYS[1], 'outcomes', ARGV[2]) == 0 then return 0 end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
redis.call('HDEL', KEYS[1], 'error')
redis.call('EXPIRE', KEYS[1], ARGV[7])
advance(ARGV[1], {succeeded = tonumber(ARGV[3]), failed = tonumber(ARGV[4]), cancelled = tonumber(ARGV[5]),
  degraded = tonumber(ARGV[6]), settled = 1}, now, ARGV[7])
return 1
