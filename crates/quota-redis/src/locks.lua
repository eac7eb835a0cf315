-- Locks with fences and the value kept under each, in the server's time.
--
-- KEYS: the slot. ARGV: an operation and its arguments.
-- The slot outlives lock and value by two days: a fence that began anew could be one that somebody still holds.

local KEEP = 172800000
local call, max = redis.call, math.max

local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = call('HMGET', KEYS[1], 'fence', 'who', 'till', 'kept_fence', 'bytes', 'ends', 'life', 'kept_life')
local fence, who, till = tonumber(found[1]) or 0, found[2], tonumber(found[3]) or 0
local kept_fence, bytes, ends = tonumber(found[4]), found[5], tonumber(found[6]) or 0
local held_life, kept_life = tonumber(found[7]) or 0, tonumber(found[8]) or 0

local function text(number) return string.format('%.0f', number) end
local function keep(till_then) call('PEXPIREAT', KEYS[1], text(max(now, ends, till, till_then) + KEEP)) end

-- What ends later than if it had begun now was begun by a clock that has been set back since: it is over.
local function holds(till_then, its_life) return till_then > now and till_then - now <= its_life end

-- Who asks, for how long: whether it is theirs, the fence, what is left.
local function lock(asks, life)
    local held = who and holds(till, held_life)
    if held and who ~= asks then return { 0, fence, till - now } end
    if not held then fence = fence + 1 end
    call('HSET', KEYS[1], 'fence', text(fence), 'who', asks, 'till', text(now + life), 'life', text(life))
    keep(now + life)
    return { 1, fence, life }
end

local function put(under, value, life)
    if under ~= fence or fence == 0 then return 0 end
    call('HDEL', KEYS[1], 'who', 'till', 'life')
    call('HSET', KEYS[1], 'kept_fence', text(fence), 'bytes', value, 'ends', text(now + life), 'kept_life', text(life))
    keep(now + life)
    return 1
end

local function get()
    if not kept_fence or not holds(ends, kept_life) then return false end
    return { kept_fence, bytes, ends - now }
end

local function unlock(under)
    if under ~= fence then return 0 end
    call('HDEL', KEYS[1], 'who', 'till', 'life')
    return 1
end

local operation = ARGV[1]
if operation == 'lock' then return lock(ARGV[2], tonumber(ARGV[3])) end
if operation == 'put' then return put(tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])) end
if operation == 'unlock' then return unlock(tonumber(ARGV[2])) end
return get()
