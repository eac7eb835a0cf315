-- One exchange of a shared quota: the arithmetic of `tidegate_core::share`, section by section in the order of its files.
-- Why here too: a script is atomic and runs in the server's time, so an exchange over all limits of a call is one round trip.
--
-- Rules: whole numbers only, and none above 2^53, so that both languages have the same; everything is read before the first
-- write, because what an error in the middle has written stays; of other holders' rows only those that are given up
-- are read, of the others the sums are kept.
--
-- KEYS: bank, replies, speakers, what of the bank ends when, then (limit, its holders) for each limit of the exchange, each once.
-- ARGV: the exchange as JSON; or the word `view` and the limits' identifiers; or the word `check`.
-- Answer: `{"Ok": reply}` or `{"Err": why}` as JSON.

local PROTOCOL = 3
local U32, LONGEST, HUGE = 4294967295, 86400000, math.huge
local STEP, LOG, EVEN = 0, 1, 2
local RULES = { step = STEP, log = LOG, even = EVEN }
local RULE_NAMES = { [STEP] = 'step', [LOG] = 'log', [EVEN] = 'even' }

local floor, ceil, sqrt, min, max = math.floor, math.ceil, math.sqrt, math.min, math.max
local insert, remove, sort, concat, format = table.insert, table.remove, table.sort, table.concat, string.format
local call, pack, unpack_value = redis.call, cmsgpack.pack, cmsgpack.unpack

local function div(a, b) return floor(a / b) end
local function div_up(a, b) return ceil(a / b) end
local function less(a, b) return a > b and a - b or 0 end
local function small(n) return min(n, U32) end
local function some(value)
    if value == cjson.null then return nil end
    return value
end

local clock = call('TIME')
local now = clock[1] * 1000 + div(clock[2], 1000)
