-- Says how records stand and, of those that have not ended, has their end published on a channel.
-- KEYS: the records. ARGV: the channel, or ''. Returns state and outcome of each.
local answers = {}
for index, key in ipairs(KEYS) do
  local known = redis.call('HMGET', key, 'state', 'outcome', 'to')
  local state, waiting = known[1], known[3] or ''
  if ARGV[1] ~= '' and (state == 'waiting' or state == 'running') then
    if not string.find(' ' .. waiting .. ' ', ' ' .. ARGV[1] .. ' ', 1, true) then
      redis.call('HSET', key, 'to', waiting .. ' ' .. ARGV[1])
    end
  end
  answers[index] = {state or '', known[2] or ''}
end
return answers
