-- Returns records without their messages. KEYS: the records. Of each, its fields and values; 'replayable' is one where
-- a message is kept.
local answers = {}
for index, key in ipairs(KEYS) do
  local fields, kept = redis.call('HGETALL', key), {}
  for at = 1, #fields, 2 do
    if fields[at] == 'message' then
      kept[#kept + 1] = 'replayable'
      kept[#kept + 1] = '1'
    else
      kept[#kept + 1] = fields[at]
      kept[#kept + 1] = fields[at + 1]
    end
  end
  answers[index] = kept
end
return answers
