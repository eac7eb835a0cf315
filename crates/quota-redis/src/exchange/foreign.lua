
-- What strangers draw, permits per 1000 s.

-- In two parts, so that no product is above 2^53 within the longest window.
local function draw(rate, time) return div(rate, 1000000) * time + div(rate % 1000000 * time, 1000000) end

local function measure_foreign(l, taken, time)
    local old, new = l.foreign, small(div(taken * 1000000, max(time, 1)))
    l.foreign = new > old and old + div_up(3 * (new - old), 10) or old - div_up(old - new, 10)
    l.measured = now
end

local function margin(l, age)
    local expected = draw(l.foreign, age)
    return l.foreign == 0 and 0 or expected + 2 * floor(sqrt(expected))
end
