-- Takes a message out of the outbox, since its broker has it; one that was put there anew meanwhile stays.
-- KEYS: the outbox. ARGV: id, under which time it was there. Returns how many were taken out.
local due = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not due or tonumber(due) ~= tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
