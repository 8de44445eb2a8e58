-- Notes of files that this chunk is their latest. KEYS: the files. ARGV: seconds to keep, then the place of each.
-- Returns where each was before, or ''.
local before = {}
for index, key in ipairs(KEYS) do
  before[index] = redis.call('SET', key, ARGV[index + 1], 'EX', ARGV[1], 'GET') or ''
end
return before
