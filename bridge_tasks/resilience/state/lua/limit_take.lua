-- Takes tokens of one rate: policy.limits.take, on the server's clock.
-- KEYS: the rate's key. ARGV: interval and burst (at the pace to go), tokens wanted, patience; all times in
-- microseconds; then, for tests, the time. Returns tokens and the wait for them.
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local want, patience = tonumber(ARGV[3]), tonumber(ARGV[4])
local now = tonumber(ARGV[5])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local depth = burst * interval
local known = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
local full_at = math.max(now, math.min(known, now + depth + patience))
local tokens, wait = math.min(want, math.floor((now + depth - full_at) / interval)), 0
if tokens < 1 then
  wait = full_at + interval - depth - now
  tokens = wait <= patience and 1 or 0
end
full_at = full_at + tokens * interval
if tokens > 0 or full_at < known then
  redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000) + 1000)
end
return {tokens, wait}
