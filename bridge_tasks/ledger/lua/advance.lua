-- Shared by the scripts that change a run. What became of its files is in its chunks; its counts follow them: each
-- change of a chunk goes through `change_chunk`, which moves the counts by exactly what it changed.
--
-- A chunk is a hash: files (packed), count, and, once it is settled, outcomes (packed) with `decided`, one letter for each
-- file (s: succeeded, d: the same, degraded, f: failed, c: cancelled, -: it goes on alone); or else `error`, if all of it
-- came to nothing; and `alone:index`, the end of a file that went on alone. Both are a state, a space, and JSON.
local FIELDS = {'succeeded', 'failed', 'cancelled', 'degraded', 'settled'}
local LETTERS = {s = 'succeeded', d = 'succeeded', f = 'failed', c = 'cancelled'}

local function item_of(text) -- 'run|chunk|index'; no index: all of the chunk
  return string.match(text, '^([^|]+)|(%d+)|(%d*)$')
end

local function state_of(text) return string.match(text, '^(%a+) ') end

local function tally(chunk)
  local known = redis.call('HMGET', chunk, 'count', 'decided', 'error')
  local decided, count = known[2] or '', tonumber(known[1] or 0)
  local tallied = {succeeded = 0, failed = 0, cancelled = 0, degraded = 0, settled = (known[2] or known[3]) and 1 or 0}
  for letter, state in pairs(LETTERS) do
    local _, times = string.gsub(decided, letter, '')
    tallied[state] = tallied[state] + times
    if letter == 'd' then tallied.degraded = times end
  end
  local failing = known[3] and state_of(known[3])
  if failing then tallied[failing] = count end
  for _, field in ipairs(redis.call('HKEYS', chunk)) do
    local index = string.match(field, '^alone:(%d+)$')
    if index then -- what is known of it counts, but for a stamp, which nothing takes back
      local ended = redis.call('HGET', chunk, field)
      local before = failing or LETTERS[string.sub(decided, index + 1, index + 1)]
      if before ~= 'succeeded' then
        if before then tallied[before] = tallied[before] - 1 end
        tallied[state_of(ended)] = tallied[state_of(ended)] + 1
        if string.find(ended, '"degraded":true', 1, true) then tallied.degraded = tallied.degraded + 1 end
      end
    end
  end
  return tallied
end

local function advance(run, now, keep) -- notes whether the run is over, and tells those who watch it
  local key = 'bridge:run:' .. run
  local known = redis.call('HMGET', key, 'sealed', 'total', 'succeeded', 'failed', 'cancelled', 'ended', 'stopped')
  local over = tonumber(known[3] or 0) + tonumber(known[4] or 0) + tonumber(known[5] or 0)
  if (known[1] or known[7]) and over >= tonumber(known[2] or 0) then
    if not known[6] then redis.call('HSET', key, 'ended', now) end
    redis.call('EXPIRE', key, keep)
  elseif known[6] then
    redis.call('HDEL', key, 'ended')
  end
  redis.call('PUBLISH', 'bridge:run-news:' .. run, run)
end

local function change_chunk(run, number, now, keep, change)
  local key, chunk = 'bridge:run:' .. run, 'bridge:run:' .. run .. ':' .. number
  if redis.call('EXISTS', chunk, key) < 2 then return end -- its time is over
  local before = tally(chunk)
  change(chunk)
  local after = tally(chunk)
  for _, field in ipairs(FIELDS) do
    if after[field] ~= before[field] then redis.call('HINCRBY', key, field, after[field] - before[field]) end
    if after[field] > before[field] then
      redis.call('HINCRBY', 'bridge:totals', 'files|' .. field, after[field] - before[field])
    end
  end
  advance(run, now, keep)
end
