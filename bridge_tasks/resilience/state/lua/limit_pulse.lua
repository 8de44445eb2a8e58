-- Tells and asks what the fleet knows of one service: policy.fleet.pulse, on the server's clock.
-- KEYS: the service's hash. ARGV: tries, wants a retry (0, 1), hold, throttled (0, 1), retries per 1000 calls,
-- reserve; all times in microseconds; then, for tests, the time. Returns granted (0, 1), hold left, pace.
-- Fields: `t:<second>` tries and `r:<second>` retries, `hold` (until), `pace` and `paced` (its moment).
local SECOND, WINDOW, LONGEST_HOLD = 1000000, 10, 60000000
local FULL, SLOWEST, SLOWED, RECOVERED = 1000, 50, 700, 50
local TTL = 120000

local told_tries, wants, told_hold = tonumber(ARGV[1]), ARGV[2] == '1', tonumber(ARGV[3])
local throttled, ratio, reserve = ARGV[4] == '1', tonumber(ARGV[5]), tonumber(ARGV[6])
local now = tonumber(ARGV[7])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local second = math.floor(now / SECOND)
local function whole(number) return string.format('%.0f', number) end

local known, stale = {hold = 0, pace = FULL, paced = 0}, {}
local tries, retries = told_tries, 0
local row = redis.call('HGETALL', KEYS[1])
for i = 1, #row, 2 do
  local name, value = row[i], tonumber(row[i + 1]) or 0
  local kind, at = string.match(name, '^([tr]):(%d+)$')
  at = tonumber(at)
  if not kind then
    known[name] = value
  elseif at <= second - WINDOW or at > second then
    stale[#stale + 1] = name
  elseif kind == 't' then
    tries = tries + value
  else
    retries = retries + value
  end
end

local granted = 0
if wants and (retries + 1) * 1000 <= ratio * math.max(tries - retries, 0) + reserve * 1000 then
  granted = 1
end
local hold = known.hold
if told_hold > 0 then
  hold = math.max(hold, now + told_hold)
end
hold = math.min(hold, now + LONGEST_HOLD)
local function pace_now()
  return math.min(FULL, known.pace + math.floor(math.max(now - known.paced, 0) * RECOVERED / SECOND))
end
local age = now - known.paced
local write = {}
if throttled and (age < 0 or age >= SECOND) then
  known.pace, known.paced = math.max(SLOWEST, math.floor(pace_now() * SLOWED / 1000)), now
  write = {'pace', whole(known.pace), 'paced', whole(now)}
elseif age < 0 then
  known.paced = now
  write = {'paced', whole(now)}
end
if hold ~= known.hold and hold > now then
  write[#write + 1] = 'hold'
  write[#write + 1] = whole(hold)
end

if #stale > 0 then redis.call('HDEL', KEYS[1], unpack(stale)) end
if told_tries > 0 then redis.call('HINCRBY', KEYS[1], 't:' .. whole(second), told_tries) end
if granted > 0 then redis.call('HINCRBY', KEYS[1], 'r:' .. whole(second), 1) end
if #write > 0 then redis.call('HSET', KEYS[1], unpack(write)) end
if told_tries > 0 or granted > 0 or #write > 0 then redis.call('PEXPIRE', KEYS[1], TTL) end
return {granted, math.max(hold - now, 0), pace_now()}
