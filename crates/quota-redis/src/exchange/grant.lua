
-- Who gets how many permits, and when.

local CLASSES, URGENT, PRIME = 4, 2, 65521
local BEAT, LOOK, KEPT = 20, 100, 4

local function none(come_back)
    return { permits = 0, from = 0, gap = 0, scout = false, come_back = come_back }
end

local function most_of(list, value)
    local most = 0
    for _, l in ipairs(list) do most = max(most, value(l)) end
    return most
end

local function any(list, fact)
    for _, l in ipairs(list) do
        if fact(l) then return true end
    end
    return false
end

-- Its place in an epoch or window.
local function place_in(l, holder, turn)
    local mixed = (tonumber(string.sub(holder, -4), 16) + turn % PRIME * 40503) % PRIME
    return mixed * mixed % PRIME % holders(l)
end

-- Another place with each epoch or window.
local function place_among(l, holder)
    local quota, window = rate(l)
    local turn = div(now, window or lease(l))
    if is_stepped(l) then turn = l.epoch end
    return place_in(l, holder, turn)
end

local function place(ask)
    return most_of(ask.limits, function(l) return place_among(l, ask.holder) end)
end

local function trip(ask)
    return most_of(ask.limits, function(l) return l.trip end)
end

local function take_all(ask, permits)
    local wanted = 0
    for class = 1, URGENT do wanted = small(wanted + ask.want.now[class]) end
    for _, l in ipairs(ask.limits) do take(l, permits, min(wanted, permits)) end
end

-- What is there of a limit at `at`, for a class if one is named.
local function rest_at(ask, l, at, class)
    local there = available(l, at)
    return class and for_class(l, there, ask.want.leave[class], ask.want.fair[class]) or there
end

-- What a class may take at `at` of all limits.
local function room(ask, at, class)
    local least
    for _, l in ipairs(ask.limits) do
        local rest = rest_at(ask, l, at, class)
        if not least or rest < least then least = rest end
    end
    return least or 0
end

-- It lets one attempt through, the scout or another; of a class, if one is named.
local function is_ready(ask, l, class)
    if needs_scout(l) then return may_scout(l) end
    return rest_at(ask, l, now, class) >= 1
end

-- Those who wait look again after so long.
local function look_of(l) return max(lease(l), holders(l) * LOOK) end

-- For how long nothing is there by what is known, here or to a state that was lost.
local function dry_for(l)
    if now < l.dry then return l.dry - now end
    local quota, window = rate(l)
    if not quota or needs_scout(l) or available(l, now) >= 1 then return 0 end
    if is_stepped(l) and available(l, now + window) < 1 then
        return min(less(refill_at(l) or now, now), window)
    end
    for _, at in ipairs(returns(l, now, now + window, window)) do
        if available(l, at) >= 1 then return at - now end
    end
    return 0
end

-- Until when a class leaves what is there to others of this epoch.
local function left_until(l, class)
    if not class or not l.ends or not is_stepped(l) or available(l, now) < 1 then return 0 end
    return less(l.ends[2], now)
end

-- A fair class leaves less and less until the epoch ends, one permit after the other: when it is this holder's turn for one of them.
-- Of more holders than permits several come for each.
local function is_left_less(ask, l, class, behind)
    if not class or not ask.want.fair[class] then return nil end
    local left, spare = left_until(l, class), available(l, now) - 1 - ask.want.leave[class]
    if left == 0 or spare < 0 then return nil end
    local turns, drawn = spare + 1, l.foreign + l.urgent
    local before = drawn == 0 and left or div((spare - behind % turns) * 1000000, drawn)
    return min(max(less(left, before), 1) + div(behind, turns), look_of(l))
end

local function returns_of(ask, l, class)
    local holder = ask.holder
    local quota, window = rate(l)
    local behind = place_among(l, holder)
    if not quota then return l.trip + behind end
    -- Another limit of the ask is what stops it.
    if is_ready(ask, l, class) then return 0 end
    local less_left = is_left_less(ask, l, class, behind)
    if less_left then return less_left end
    local barred = is_barred(l)
    -- Others may give back what they do not use: a few look for it.
    local look = look_of(l)
    local given_back = behind * KEPT < l.unspent and lease(l) or look
    if not barred and is_stepped(l) and rest_at(ask, l, now + window, class) < 1 then
        local refill = less(refill_at(l), now)
        if refill == 0 then refill = left_until(l, class) end
        if refill == 0 or given_back < refill then return min(refill, given_back) + l.trip + 2 * behind end
        -- Of more holders than permits each sits out epochs in which others come before it.
        local sat = 0
        while sat < SAT_OUT - 1 and place_in(l, holder, l.epoch + 1 + sat) >= quota do sat = sat + 1 end
        behind = place_in(l, holder, l.epoch + 1 + sat)
        local wait = min(refill + sat * window, max(look, refill))
        return behind == 0 and sat == 0 and wait or wait + l.trip + 2 * behind
    end
    local wait = lease(l)
    for _, at in ipairs(returns(l, now, now + window, window)) do
        -- A scout that is barred by the log goes when that gives back.
        if (barred and by_log(l, at) or rest_at(ask, l, at, class)) >= 1 then
            wait = at - now
            break
        end
    end
    -- Also those far behind: the quota may be another by then.
    wait = min(min(wait, given_back) + behind * div(window, max(quota, 1)), look + behind)
    -- Those who still owe what they know tell it within a second, and it is there.
    return is_probed(l, window) and min(wait, SHORT_LEASE + behind) or wait
end

-- When something is there again of all limits.
local function all_return(ask, class)
    return most_of(ask.limits, function(l) return returns_of(ask, l, class) end)
end

-- When something is there again for a class that wants it.
local function come_back(ask)
    local want, least = ask.want.soon, nil
    for class = 1, CLASSES do
        if ask.want.now[class] > 0 then want = ask.want.now end
    end
    for class = 1, CLASSES do
        if want[class] > 0 then least = min(least or HUGE, all_return(ask, class)) end
    end
    return least or all_return(ask)
end

-- One attempt alone for the fleet, if nobody has it already.
local function scout(ask)
    local waits, ready = false, true
    for class = 1, CLASSES do waits = waits or ask.want.now[class] > 0 end
    for _, l in ipairs(ask.limits) do
        ready = ready and is_ready(ask, l)
    end
    -- No scout is spent on a call that may not come; who comes asks at once.
    if not waits then return none(0) end
    if not ready then
        local scouting = any(ask.limits, is_scouted)
        return none(scouting and trip(ask) + place(ask) or all_return(ask))
    end
    for _, l in ipairs(ask.limits) do
        if needs_scout(l) then scout_leaves(l, ask.holder) end
    end
    take_all(ask, 1)
    return { permits = 1, from = 0, gap = 0, scout = true, come_back = trip(ask) }
end

-- Classes with what they want: those that wait, by importance, then what is expected.
local function wanted(ask)
    local list = {}
    for class = 1, CLASSES do insert(list, { class, ask.want.now[class] }) end
    for class = 1, CLASSES do insert(list, { class, ask.want.soon[class] }) end
    return list
end

local function at_once(ask, most)
    local part, half, taken = most, most, 0
    for _, l in ipairs(ask.limits) do
        local there = available(l, now)
        local of_limit = chunk(l, there)
        half = min(half, of_limit)
        -- What strangers take meanwhile would be granted already.
        local equal = is_stepped(l) and l.foreign == 0 and div(l.quota, holders(l)) or 0
        part = min(part, max(of_limit, min(equal, there)))
    end
    for place, one in ipairs(wanted(ask)) do
        local rest = room(ask, now, one[1]) - taken
        taken = taken + max(min(one[2], (place <= CLASSES and part or half) - taken, rest), 0)
    end
    return { permits = taken, from = 0, gap = 0 }
end

-- The steepest straight line from `first` on which no permit is used before its step, cut at the lease.
local function line(steps, first, life)
    local before, gap = 0, 0
    for _, step in ipairs(steps) do
        if before > 0 then gap = max(gap, div_up(step[2] - first, before)) end
        before = step[1]
    end
    local fit = gap == 0 and before or min(before, div(life - first, gap) + 1)
    return { permits = fit, from = first, gap = gap }
end

-- Permits for when attempts come back within the lease.
local function dated(ask, have)
    local life, times, most = nil, { now }, nil
    for _, l in ipairs(ask.limits) do life = min(life or LEASE, horizon(l)) end
    local till = now + life
    for _, l in ipairs(ask.limits) do
        local part = dated_chunk(l, till) - (l.run.row and l.run.row.unspent or 0)
        most = most and min(most, part) or part
        local quota, window = rate(l)
        if quota and counts_log(l) then
            for _, at in ipairs(returns(l, now, till, window)) do insert(times, at) end
        end
    end
    sort(times)
    local distinct = {}
    for _, at in ipairs(times) do
        if distinct[#distinct] ~= at then insert(distinct, at) end
    end
    times = distinct
    local steps, taken, at_place = {}, 0, 1
    for _, one in ipairs(wanted(ask)) do
        local rest = min(one[2], most)
        while rest > 0 and at_place <= #times do
            local there = min(room(ask, times[at_place], one[1]) - taken, rest)
            if there > 0 then
                taken, rest, most = taken + there, rest - there, most - there
                insert(steps, { taken, times[at_place] - now })
            end
            if rest > 0 then at_place = at_place + 1 end
        end
        if at_place > #times then break end
    end
    if #steps == 0 then return { permits = 0, from = 0, gap = 0 } end
    local plan, last = line(steps, steps[1][2], life), steps[#steps]
    local alone = not any(ask.limits, function(l) return l.foreign > 0 end)
    if alone and have == 0 and last[1] > 2 * plan.permits then
        return { permits = last[1], from = last[2], gap = 0 }
    end
    return plan
end

-- While permits are given one at a time: until the next one for this holder.
local function rest_of(ask)
    local rest = most_of(ask.limits, function(l)
        return min(max(holders(l) * BEAT, l.trip), less(l.slow_until, now))
    end)
    return rest + 2 * place(ask)
end

local function decide(ask)
    -- It lacks nothing: when it does, it need not wait for a time that was told for this.
    if #ask.limits == 0 then return none(0) end
    local paused = most_of(ask.limits, function(l) return less(l.pause, now) end)
    if paused > 0 then return none(paused + place(ask)) end
    if any(ask.limits, function(l) return l.run.row and l.run.row.owes end) then return none(0) end
    local dry = most_of(ask.limits, function(l) return min(less(l.dry, now), look_of(l)) end)
    if dry > 0 then return none(dry + place(ask)) end
    if any(ask.limits, needs_scout) then return scout(ask) end
    local careful = any(ask.limits, function(l) return now < l.slow_until end)
    if careful and any(ask.limits, function(l) return l.run.row and row_out(l.run.row) > 0 end) then
        return none(rest_of(ask))
    end
    local plan = at_once(ask, careful and 1 or U32)
    if not careful then
        local later = dated(ask, plan.permits)
        if later.permits > plan.permits then plan = later end
    end
    if plan.permits == 0 then return none(come_back(ask)) end
    take_all(ask, plan.permits)
    local back = careful and rest_of(ask) or 0
    return { permits = plan.permits, from = plan.from, gap = plan.gap, scout = false, come_back = back }
end

local function grant(ask)
    local answer = decide(ask)
    for _, l in ipairs(ask.limits) do expect(l, answer.come_back) end
    return answer
end
