-- Says that a run gets no more files, or is to be stopped. KEYS: the run. ARGV: run, 'sealed' or 'stopped', seconds to keep.
-- Returns 1, or 0 if there is no such run, or it is too late to stop it.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if ARGV[2] == 'stopped' and redis.call('HEXISTS', KEYS[1], 'ended') == 1 then return 0 end
redis.call('HSETNX', KEYS[1], ARGV[2], now)
advance(ARGV[1], now, ARGV[3])
return 1
