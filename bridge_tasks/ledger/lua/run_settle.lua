-- Notes what became of a chunk's files, once. KEYS: the chunk. ARGV: run, number, outcomes (packed), decided (see `advance`),
-- seconds to keep. Returns 1, or 0 if it was noted before.
if redis.call('HEXISTS', KEYS[1], 'outcomes') == 1 then return 0 end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
change_chunk(ARGV[1], ARGV[2], now, ARGV[5], function(chunk)
  redis.call('HSET', chunk, 'outcomes', ARGV[3], 'decided', ARGV[4])
  redis.call('HDEL', chunk, 'error') -- given up before, and done after all
end)
return redis.call('HEXISTS', KEYS[1], 'outcomes')
