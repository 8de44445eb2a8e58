-- Says that a run gets no more files, or is to be stopped. KEYS: the run. ARGV: run, 'sealed' or 'stopped', seconds to keep.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], now)
advance(ARGV[1], {}, now, ARGV[3])
return 1
