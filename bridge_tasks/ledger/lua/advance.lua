-- Shared by the scripts that change a run: they tell it what became of some of its files.
local function advance(run, changes, now, keep)
  local key = 'bridge:run:' .. run
  for field, change in pairs(changes) do
    if change ~= 0 then redis.call('HINCRBY', key, field, change) end
  end
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

local function item_of(text) -- 'run|chunk|index'; no index: all of the chunk
  return string.match(text, '^([^|]+)|(%d+)|(%d*)$')
end
