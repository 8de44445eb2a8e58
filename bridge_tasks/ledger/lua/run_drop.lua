-- Notes that a chunk of a run that was stopped never begins; a worker that has begun it knows better, and says so.
-- KEYS: the chunk. ARGV: run, number, outcome (JSON), seconds to keep.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
change_chunk(ARGV[1], ARGV[2], now, ARGV[4], function(chunk)
  if redis.call('HEXISTS', chunk, 'outcomes') == 0 then redis.call('HSETNX', chunk, 'error', 'cancelled ' .. ARGV[3]) end
end)
