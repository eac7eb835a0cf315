
-- Own attempts of the whole fleet, as a sliding log would hold them: {dated, how many}, ascending.

local LOG_MAX = 96

local function width(window) return max(div_up(window, 64), 1) end

-- Adds to what stands at a date, keeping the order.
local function add_at(list, at, count)
    local place = #list + 1
    while place > 1 and list[place - 1][1] >= at do place = place - 1 end
    if list[place] and list[place][1] == at then
        list[place][2] = small(list[place][2] + count)
    else
        insert(list, place, { at, count })
    end
end

-- The oldest are taken for younger ones where there are too many.
local function bound(list, most)
    while #list > most do
        local oldest = remove(list, 1)
        list[1][2] = small(list[1][2] + oldest[2])
    end
end

local function log_add(l, ended, count, window)
    if count == 0 then return end
    local step = width(window)
    add_at(l.log, div_up(ended, step) * step, count)
    bound(l.log, LOG_MAX)
end

local function alive(l, at, window)
    local sum = 0
    for _, group in ipairs(l.log) do
        if group[1] + window > at then sum = sum + group[2] end
    end
    return sum
end

local function back(l, from, to, window)
    local sum = 0
    for _, group in ipairs(l.log) do
        local when = group[1] + window
        if when > from and when <= to then sum = sum + group[2] end
    end
    return sum
end

local function returns(l, from, to, window)
    local list = {}
    for _, group in ipairs(l.log) do
        local when = group[1] + window
        if when > from and when <= to then insert(list, when) end
    end
    return list
end

local function keep_if(list, keeps)
    local kept = {}
    for _, entry in ipairs(list) do
        if keeps(entry) then insert(kept, entry) end
    end
    return kept
end
