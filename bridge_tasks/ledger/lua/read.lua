-- Returns records without their messages. KEYS: the records. ARGV: a text.
-- Returns of each its fields and values, with 'kept' where there is a message, and 'joined' where the text is in it.
local answers = {}
for index, key in ipairs(KEYS) do
  local fields, kept = redis.call('HGETALL', key), {}
  for at = 1, #fields, 2 do
    if fields[at] == 'message' then
      kept[#kept + 1] = 'kept'
      kept[#kept + 1] = '1'
      if string.find(fields[at + 1], ARGV[1], 1, true) then
        kept[#kept + 1] = 'joined'
        kept[#kept + 1] = '1'
      end
    else
      kept[#kept + 1] = fields[at]
      kept[#kept + 1] = fields[at + 1]
    end
  end
  answers[index] = kept
end
return answers
