-- One circuit, shared by every process: `policy/breaker.py` in Lua, in one atomic step. Function by function the same;
-- tests/state/test_circuit_differential.py holds both to it. Times are microseconds of this server's clock.
--
-- KEYS[1]  the circuit, a MessagePack map
-- ARGV     now (0: ask the clock), chance, reporter, name,
--          9 numbers of the configuration, 5 of what the asker knows (for a Redis that has forgotten),
--          6 of news, and a wish: '', 'look' (writes nothing), 'admit', 'open', 'hold', 'disable' or 'reset'

local CLOSED, OPEN, HALF_OPEN = 0, 1, 2
local NONE, HELD, DISABLED = 0, 1, 2
local NEW, RUN, RATE, SLOW, RECOVERY, PROBE_FAILED, PROBES_LOST, PROBES_GOOD, OPENED, STOPPED, RESET =
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local GRANTED, REFUSED_OPEN, REFUSED_FULL, REFUSED_RAMP = 1, 2, 3, 4

local SECOND, SPAN = 1000000, 10
local RATE_CALLS, FAST_SECONDS, FAST_CALLS, FAST_RATE = 20, 2, 10, 0.9
local LOST_PROBES, FULL_PAUSE, FIRST_SHARE = 2, SECOND, 0.1
local TTL = 600000
local CHANNEL = 'bridge:v1:circuits'

local at = 0
local function following()
  at = at + 1
  return ARGV[at]
end
local function number() return tonumber(following()) end

local now, chance, reporter, name = number(), number(), following(), following()
local config = {
  failure_threshold = number(), minimum_throughput = number(), recovery = number(), longest = number(),
  half_open_max = number(), success_threshold = number(), failure_rate = number(), slow_rate = number(),
  ramp = number(),
}
local known = {state = number(), manual = number(), epoch = number(), left = number(), reopenings = number()}
local news = {
  epoch = number(), successes = number(), failures = number(), slow = number(), age = number(), token = following(),
}
local wish, lease = following(), number()

if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * SECOND + tonumber(time[2])
end

local function voices() return {latest = '', latest_at = 0, other_at = 0} end

local function hear(voice)
  local other_at = voice.latest_at
  if reporter == voice.latest then other_at = voice.other_at end
  return {latest = reporter, latest_at = now, other_at = other_at}
end

local function others(voice)
  local heard_at = voice.latest_at
  if reporter == voice.latest then heard_at = voice.other_at end
  return heard_at > 0 and heard_at > now - SPAN * SECOND
end

local function new(epoch, cause)
  return {
    state = CLOSED, manual = NONE, epoch = epoch, cause = cause, changed_at = now, open_for = 0, reopenings = 0,
    ramps = false, leases = {}, lost = 0, failures = 0, successes = 0, total = 0, run = 0, good = 0, run_began = 0,
    window = {}, heard = voices(), complaining = voices(), suspect = '', clock = now,
  }
end

-- What is not here was lost, or never was: then what the asker knows is the best there is.
local function remembered()
  if known.state == CLOSED and known.manual == NONE then return new(now, NEW) end
  local c = new(math.max(now, known.epoch + 1), NEW)
  c.manual, c.reopenings = known.manual, known.reopenings
  if known.state ~= CLOSED then c.state, c.open_for = OPEN, known.left end
  return c
end

-- The server's clock was set back: what lay ahead lies as far ahead as before, and the counts begin anew.
local function rebase(c)
  local back = c.clock - now
  c.changed_at, c.run_began = c.changed_at - back, c.run_began - back
  for _, held in ipairs(c.leases) do held.expires_at = held.expires_at - back end
  c.window, c.heard, c.complaining = {}, voices(), voices()
end

local function load()
  local packed = redis.call('GET', KEYS[1])
  local c
  if packed then
    local fine, unpacked = pcall(cmsgpack.unpack, packed)
    if fine and type(unpacked) == 'table' and unpacked.clock then c = unpacked end
  end
  if not c then return remembered() end
  if now < c.clock then
    if c.clock - now < SECOND then now = c.clock else rebase(c) end
  end
  c.clock = now
  if known.state == OPEN and c.state == OPEN and known.epoch == c.epoch then
    c.open_for = math.min(c.open_for, now - c.changed_at + known.left)  -- the asker's clock is one that nobody sets
  end
  return c
end

local function enter(c, state, cause)
  c.state, c.epoch, c.cause, c.changed_at = state, math.max(c.epoch + 1, now), cause, now
  c.ramps, c.leases, c.lost = false, {}, 0
  if state ~= OPEN then c.run, c.good = 0, 0 end
  c.window, c.complaining, c.suspect = {}, voices(), ''
end

local function open(c, cause, chance)
  local first = config.recovery
  local longest = math.max(first, config.longest)
  local longer = math.min(longest, first * 2 ^ math.min(c.reopenings, 20)) - first
  c.open_for = first + math.floor(longer * (0.5 + chance / 2))
  enter(c, OPEN, cause)
end

local function reopen(c, cause)
  c.reopenings = c.reopenings + 1
  open(c, cause, chance)
end

local function sweep(c)
  local kept = {}
  for _, held in ipairs(c.leases) do
    if held.expires_at > now then kept[#kept + 1] = held end
  end
  c.lost = c.lost + #c.leases - #kept
  local dropped = #kept < #c.leases
  c.leases = kept
  if dropped and c.lost >= LOST_PROBES then reopen(c, PROBES_LOST) end
end

local function add_to_window(c)
  local second = math.floor(now / SECOND)
  local newest = c.window[#c.window]
  if not newest or newest[1] ~= second then
    local kept = {}
    for _, bucket in ipairs(c.window) do
      if bucket[1] > second - SPAN then kept[#kept + 1] = bucket end
    end
    newest = {second, 0, 0, 0}
    kept[#kept + 1] = newest
    c.window = kept
  end
  newest[2] = newest[2] + news.successes + news.failures
  newest[3] = newest[3] + news.failures
  newest[4] = newest[4] + news.slow
end

local function last(c, seconds)
  local since = math.floor(now / SECOND) - seconds
  local calls, failures, slow = 0, 0, 0
  for _, bucket in ipairs(c.window) do
    if bucket[1] > since then
      calls, failures, slow = calls + bucket[2], failures + bucket[3], slow + bucket[4]
    end
  end
  return calls, failures, slow
end

local function count(c, current)
  c.total = c.total + news.successes + news.failures
  c.failures, c.successes = c.failures + news.failures, c.successes + news.successes
  if not current then return end
  if news.successes > 0 and (c.run == 0 or now - news.age >= c.run_began) then
    c.run, c.good = 0, c.good + news.successes
  end
  if news.failures > 0 then
    if c.run == 0 then c.run_began = now end
    c.run, c.good = c.run + news.failures, 0
  end
  if (config.failure_rate < 1 or config.slow_rate < 1) and c.state == CLOSED then add_to_window(c) end
  if reporter ~= '' and (news.failures > 0 or news.slow > 0) then c.complaining = hear(c.complaining) end
  c.suspect = ''
end

local function reason_to_open(c)
  if news.failures > 0 and c.run >= config.failure_threshold and c.total >= config.minimum_throughput then
    return RUN
  end
  if config.failure_rate < 1 and news.failures > 0 then
    local calls, failures = last(c, SPAN)
    local fast_calls, fast_failures = last(c, FAST_SECONDS)
    if (calls >= RATE_CALLS and failures >= config.failure_rate * calls)
      or (fast_calls >= FAST_CALLS and fast_failures >= FAST_RATE * fast_calls) then
      return RATE
    end
  end
  if config.slow_rate < 1 and news.slow > 0 then
    local calls, _, slow = last(c, SPAN)
    if calls >= RATE_CALLS and slow >= config.slow_rate * calls then return SLOW end
  end
  return nil
end

local function judge(c)
  if c.state == HALF_OPEN then
    if news.failures > 0 or (news.slow > 0 and config.slow_rate < 1) then
      reopen(c, PROBE_FAILED)
    elseif c.good >= config.success_threshold then
      enter(c, CLOSED, PROBES_GOOD)
      c.failures, c.reopenings, c.ramps = 0, 0, true
    else
      c.lost = 0
    end
    return
  end
  if c.state == OPEN or c.manual == DISABLED then return end
  local cause = reason_to_open(c)
  if not cause then return end
  if not others(c.complaining) and others(c.heard) then
    c.suspect = reporter
  else
    open(c, cause, chance)
  end
end

local function report(c)
  if reporter ~= '' then c.heard = hear(c.heard) end
  sweep(c)
  local current = news.epoch == c.epoch
  if c.state == HALF_OPEN then
    local kept = {}
    for _, held in ipairs(c.leases) do
      if held.token ~= news.token then kept[#kept + 1] = held end
    end
    current = current and #kept < #c.leases
    if current then c.leases = kept end
  end
  if news.successes == 0 and news.failures == 0 then return end
  count(c, current)
  if current then judge(c) end
end

local function ramp_left(c)
  if not c.ramps then return 0 end
  return math.max(c.changed_at + config.ramp - now, 0)
end

local function admit(c)
  if c.state == CLOSED then
    local left = ramp_left(c)
    local refused = left - (1.0 - chance) * config.ramp / (1.0 - FIRST_SHARE)
    if left > 0 and refused > 0 then return REFUSED_RAMP, refused end
    return GRANTED, 0
  end
  if c.state == OPEN then
    if c.manual == HELD then return REFUSED_OPEN, config.recovery end
    local left = c.changed_at + c.open_for - now
    if left > 0 then return REFUSED_OPEN, left end
    enter(c, HALF_OPEN, RECOVERY)
  end
  sweep(c)
  if c.state == OPEN then return REFUSED_OPEN, c.open_for end
  if #c.leases >= config.half_open_max then
    local soonest = c.leases[1].expires_at
    for _, held in ipairs(c.leases) do soonest = math.min(soonest, held.expires_at) end
    return REFUSED_FULL, math.min(FULL_PAUSE, soonest - now)
  end
  c.leases[#c.leases + 1] = {token = news.token, expires_at = now + lease}
  return GRANTED, 0
end

local function obey(c)
  if wish == 'open' or wish == 'hold' then
    c.reopenings = 0
    open(c, OPENED, 0)
    c.manual = wish == 'hold' and HELD or NONE
    return c
  end
  local fresh = new(math.max(c.epoch + 1, now), wish == 'disable' and STOPPED or RESET)
  fresh.manual, fresh.heard = wish == 'disable' and DISABLED or NONE, c.heard
  return fresh
end

local c = load()
local old, old_epoch = c.state, c.epoch
local decision, wait = 0, 0
if wish == 'admit' then
  local token = news.token
  news.token = ''
  report(c)
  news.token = token
  decision, wait = admit(c)
elseif wish == '' then
  report(c)
elseif wish ~= 'look' then
  c = obey(c)
end

if wish ~= 'look' then
  local packed = cmsgpack.pack(c)
  if c.manual == NONE then
    redis.call('SET', KEYS[1], packed, 'PX', math.max(TTL, math.floor(config.longest / 100)))
  else
    redis.call('SET', KEYS[1], packed)  -- until people release it
  end
end

local left = 0
if c.state == OPEN then left = math.max(c.changed_at + c.open_for - now, 0) elseif c.state == CLOSED then left = ramp_left(c) end
local reply = {
  c.state, c.manual, c.epoch, c.cause, left, now - c.changed_at, c.open_for, c.reopenings, #c.leases, c.failures,
  c.successes, c.total, c.run, c.good,
  decision, math.ceil(wait), c.state ~= old and old or -1,
  c.suspect ~= '' and c.suspect == reporter and 1 or 0,
}
if c.epoch ~= old_epoch then
  local told = {}
  for index = 1, 14 do told[index] = string.format('%.0f', reply[index]) end
  told[15] = name
  redis.pcall('PUBLISH', CHANNEL, table.concat(told, ' '))  -- who may not publish shares the circuit all the same
end
return reply
