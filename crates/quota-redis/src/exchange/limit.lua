
-- One limit: what is held of it, and what is there. `run` is what one exchange needs beside the state.

local LEASE, SHORT_LEASE, CAP_LEASE = 5000, 500, 2000
local GRACE, PATIENCE, TRIP, SLOW, KEEP = 3000, 3000, 50, 2000, 60000
local PLENTY, REAPED, LEAST_SHARE = 1000000, 16, 50
local SCOUTS, CAREFUL, SAT_OUT = 8, 1000, 8
local LONGEST_WINDOW = 8640000000

local function new_limit(side, terms, careful)
    return {
        name = side.name, partition = side.partition, kind = terms.kind, quota = terms.quota, window = terms.window, told = terms.told, cap = terms.cap,
        rule = terms.rule, proven = terms.proven, pinned = terms.pinned, assumed = terms.assumed,
        said = now, settled = false, steps = 0, logs = 0, born = now, expires = now, missed = 0,
        losses = 0, unheard = 0, spared = 0, careful = careful, scouts = {}, departed = 0, dry = 0,
        generation = 1, fence = 0, pause = 0, slow_until = 0, shut = 0, vain = false, trip = TRIP,
        epoch = 1, promised = 0, own = 0, latest_sent = 0, left = {}, unseen = {},
        log = {}, rolled = now, foreign = 0, measured = 0, urgent = 0, urgent_count = 0, urgent_since = now,
        share = 1000, clean_since = now, cut_at = 0, blames = 0, even_until = 0, out = 0, unspent = 0,
    }
end

local function rate(l)
    if l.kind == 'rate' then return l.quota, min(max(l.window, 1), LONGEST_WINDOW) end
end

local function is_told(l) return l.kind == 'rate' and l.told end
local function rule(l) return now < l.even_until and EVEN or l.rule end
local function is_stepped(l) return is_told(l) and rule(l) == STEP end

-- What own attempts of a window leave counts.
local function counts_log(l) return not (is_stepped(l) and l.proven) end

local function lease(l)
    if l.kind == 'rate' then return min(max(div(l.window, 8), SHORT_LEASE), LEASE) end
    return l.kind == 'cap' and CAP_LEASE or LEASE
end

local function tolerance(window) return min(max(div(window, 20), 3000), div(window, 2)) end
local function slow(l) return min(lease(l), SLOW) end
local function horizon(l) return l.foreign > 0 and div(lease(l), 4) or lease(l) end
local function silence(l) return max(2 * lease(l), lease(l) + GRACE) end
local function row_out(row) return small(row.unspent + row.in_flight) end

-- Holders that are there or were told to come back. Counted by the server, which does not know of this exchange yet.
local function holders(l)
    local run = l.run
    if not run.count then
        local count = run.fresh and 0 or call('ZCOUNT', run.holders_key, '(' .. format('%.0f', now), '+inf')
        if run.row and not (run.expected and run.expected > now) then count = count + 1 end
        run.count = max(count, 1)
    end
    return run.count
end

-- All that are remembered; `l.unheard` of them have not told what they know since the state was lost.
local function row_count(l)
    local run = l.run
    local count = run.fresh and 0 or run.rows - #run.gone
    return run.row and not run.expected and count + 1 or count
end

-- A holder was told to come back after so long. While something of it is out it speaks once per lease anyway, and what a
-- dead one had is not kept from the others for longer.
local function expect(l, come_back)
    local row, quota, window = l.run.row, rate(l)
    if not row then return end
    local wait = row_out(row) > 0 and 0 or min(come_back, quota and SAT_OUT * window or 0)
    row.till = max(row.till, now + wait + silence(l))
end

local function error_of(l, window)
    local recalled = l.missed > 0 and now < l.born + 2 * window
    if l.foreign == 0 and not recalled then return 0 end
    return width(window) + l.trip + (recalled and div(window, 16) or 0)
end

-- A scout is back or late. A new epoch would end after it had left.
local function end_scout(l, since)
    l.vain = l.vain or (is_stepped(l) and l.promised > 0 and since >= l.promised)
end

local function is_scouted(l)
    for _, scout in ipairs(l.scouts) do
        if scout[2] + PATIENCE > now then return true end
    end
    return false
end

local function scout_leaves(l, holder)
    insert(l.scouts, { holder, now })
    if #l.scouts > SCOUTS then remove(l.scouts, 1) end
end

local function roll(l)
    local quota, window = rate(l)
    if quota then
        if not is_stepped(l) then
            local from, slip = l.rolled, error_of(l, window)
            for _, entry in ipairs(l.left) do
                entry[2] = min(entry[2] + back(l, max(from, entry[1] + slip), now, window), quota)
            end
            tidy(l)
        end
        local horizon = less(now, lease(l))
        l.log = keep_if(l.log, function(group) return group[1] + window > horizon end)
        while l.share < 1000 and l.clean_since + window <= now do
            l.share = min(l.share + max(div(l.share * 3, 100), 1), 1000)
            l.clean_since = l.clean_since + window
        end
    end
    for place = #l.scouts, 1, -1 do
        local since = l.scouts[place][2]
        if since + PATIENCE > l.rolled and since + PATIENCE <= now then
            end_scout(l, since)
            break
        end
    end
    l.rolled = now
end

local function lost(l, ended, count)
    lost_sight(l, ended, count)
    local quota, window = rate(l)
    if quota then log_add(l, ended, count, window) end
end

-- Gives up what silent holders have: it counts as spent now. Who had something out has died or is stopped.
local function reap(l, speaker)
    local run = l.run
    if run.fresh or now < l.spared then return end
    local found = call('ZRANGEBYSCORE', run.holders_key, '-inf', format('%.0f', now), 'LIMIT', 0,
        REAPED + 1 + #run.gone)
    local gone = {}
    for _, holder in ipairs(found) do
        if holder ~= speaker and not run.reaped[holder] and #gone < REAPED then insert(gone, holder) end
    end
    for _, holder in ipairs(gone) do
        local packed = call('HGET', run.key, 'h:' .. holder)
        local row = packed and unpack_value(packed) or { unspent = 0, in_flight = 0, owes = false, losses = l.losses }
        if row.losses ~= l.losses then l.missed = less(l.missed, 1) end
        if row.owes or row.losses ~= l.losses then l.unheard = l.unheard - 1 end
        l.out, l.unspent = l.out - row_out(row), l.unspent - row.unspent
        lost(l, now, row_out(row))
        if row_out(row) > 0 then insert(run.died, holder) end
        if not row.owes and row.losses == l.losses then l.departed = l.departed + 1 end
        run.reaped[holder] = true
        insert(run.gone, holder)
    end
end

-- What is left at least where strangers draw and attempts come back one by one.
local function reserve(l, window)
    if is_stepped(l) then return 0 end
    return min(div(l.quota, 32), div(draw(l.foreign, window), 2))
end

-- What comes back of a quota within a time, if it comes back evenly.
local function evenly(quota, time, window)
    local step = div(window, 1048576) + 1
    return div(quota * div(time, step), div_up(window, step))
end

local function by_level(l, at, window)
    local stepped, slip, level = is_stepped(l), error_of(l, window), nil
    -- Of what strangers may take first, no more than comes back evenly is sure.
    local surely = l.foreign > 0 and evenly(l.quota, at - now, window) or HUGE
    for _, entry in ipairs(l.left) do
        local there = entry[2]
        if not stepped then there = there + min(back(l, max(now, entry[1] + slip), at, window), surely) end
        if not level or there < level then level = there end
    end
    local age = min(less(now, newest(l) or now), window)
    return (level or 0) - unseen(l) - max(margin(l, age), reserve(l, window))
end

-- A holder was answered that more of its attempts were known than are, or an exchange that is not: the state is an older one.
local function notice_loss(l, side, older)
    local row = l.run.row
    if row then
        if row.losses ~= l.losses or not older and row.all >= side.told then return end
    elseif not older or side.told == 0 or now < l.spared then
        return
    end
    l.losses, l.missed, l.departed = l.losses + 1, row_count(l), 0
    l.unheard = l.missed
    l.born, l.careful, l.spared = now, now + CAREFUL, now + silence(l)
    l.slow_until = max(l.slow_until, now + slow(l))
    l.generation = max(l.generation, side.generation)
    if is_told(l) then l.shut = now end
end

-- Nobody spoke for longer than anybody with permits may be silent, though some are out.
local function doubt(l, silent)
    if silent <= lease(l) + CAREFUL or l.out == 0 then return end
    l.careful, l.slow_until = max(l.careful, now + CAREFUL), max(l.slow_until, now + slow(l))
    if is_told(l) then l.shut = now end
end

-- A holder said its last word: whether nothing is kept of it, because it has nothing out.
local function leave(l, holder)
    l.scouts = keep_if(l.scouts, function(scout) return scout[1] ~= holder end)
    if row_out(l.run.row) > 0 then return false end
    if l.run.row.owes then l.unheard = l.unheard - 1 else l.departed = l.departed + 1 end
    return true
end

-- Some of those who drew before the state was lost have not told what they know.
local function is_partial(l, window)
    return now < l.born + window and row_count(l) - l.unheard + l.departed < l.missed
end

-- Of a declared quota only a tenth may be used.
local function is_probed(l, window) return not l.told and (now < l.careful or is_partial(l, window)) end

-- Permits that may leave at `at` if nothing else is granted until then.
local function available(l, at)
    if l.kind == 'unknown' then return PLENTY end
    if l.kind == 'cap' then return (now < l.careful and max(div(l.cap, 10), 1) or l.cap) - l.out end
    local all_of_it, window = rate(l)
    local quota, how = div(all_of_it * l.share, 1000), rule(l)
    local least
    if l.told then least = by_level(l, at, window) - l.out end
    if counts_log(l) then
        local all = how == EVEN and div(quota * 98, 100) or quota
        local rest = all - alive(l, at, window) - l.out
        least = least and min(least, rest) or rest
    end
    if is_probed(l, window) then
        local rest = max(div(quota, 10), 1) - alive(l, at, min(less(at, l.born), window)) - l.out
        least = least and min(least, rest) or rest
    end
    if how == EVEN then
        local part = max(div(window, 16), 1)
        local rest = max(div(quota * 98, 1600), 1) - alive(l, at, part) - l.out
        least = least and min(least, rest) or rest
    end
    return least
end

local function refill_at(l)
    local quota, window = rate(l)
    if not quota then return nil end
    if not l.ends then return l.latest_sent + window end
    return l.scout_at and min(max(l.scout_at, l.ends[1]), l.ends[2]) or l.ends[2]
end

local function needs_scout(l)
    if l.shut then return true end
    if not is_told(l) then return false end
    local _, window = rate(l)
    if is_stepped(l) then
        return refill_at(l) <= now and by_level(l, now, window) - l.out < 1
    end
    local last = newest(l)
    return not last or last + window <= now
end

-- What own attempts of a window leave at `at`.
local function by_log(l, at)
    local quota, window = rate(l)
    return quota and quota - alive(l, at, window) - l.out or 0
end

local function may_scout(l)
    local quota, window = rate(l)
    local room = true
    if quota and not is_stepped(l) then
        room = by_log(l, now) >= 1
    elseif quota then
        local refill = refill_at(l)
        if refill > now and #l.left > 0 then
            room = by_level(l, now, window) - l.out >= 1
        else
            -- Where steps are only assumed, one that was lost or came in vain may have taken all that came back.
            local gone = unseen_after(l, max(refill, less(now, window)))
            local first = gone == 0 and not l.vain
            room = gone + l.out < quota and (first or l.proven or by_log(l, now) >= 1)
        end
    end
    return not is_scouted(l) and l.pause <= now and room
end

-- Nobody scouts and somebody must, but own attempts of a window leave no room for it.
local function is_barred(l)
    return is_stepped(l) and not is_scouted(l) and l.pause <= now and needs_scout(l) and not may_scout(l)
end

-- What is left of an epoch that is over is nobody's reserve.
local function for_class(l, room, leave, fair)
    local ends = l.ends and is_stepped(l) and l.ends[2]
    if ends and ends <= now then return room end
    local rest = room - leave
    if fair then
        local time = ends and ends - now or lease(l)
        rest = rest - draw(l.foreign, time) - draw(l.urgent, time)
    end
    return rest
end

local function chunk(l, room)
    return room < 1 and 0 or max(div(room, 2 * holders(l)), 1)
end

local function dated_chunk(l, till)
    local quota, window = rate(l)
    local coming, count = 0, holders(l)
    if quota and counts_log(l) then coming = back(l, now, till, window) end
    return chunk(l, available(l, now)) + div(2 * coming + count - 1, count)
end

local function is_scarce(l, room)
    return is_stepped(l) and l.foreign > 0 and room < 2 * holders(l)
end

local function take(l, permits, urgent)
    local row = l.run.row
    if row then
        local before_out, before = row_out(row), row.unspent
        row.unspent = small(row.unspent + permits)
        l.out, l.unspent = l.out + row_out(row) - before_out, l.unspent + row.unspent - before
    end
    l.urgent_count = small(l.urgent_count + urgent)
    local since, part = now - min(l.urgent_since, now), LEASE
    local quota, window = rate(l)
    if quota then part = max(div(window, 4), 1000) end
    if since >= part then
        local sample = div(l.urgent_count * 1000000, since)
        l.urgent = small(div(7 * l.urgent + 3 * sample, 10))
        l.urgent_count, l.urgent_since = 0, now
    end
end

local function cut(l)
    local quota, window = rate(l)
    if not quota then return end
    if l.cut_at == 0 or l.cut_at + window <= now then
        l.share, l.cut_at, l.blames = max(div(l.share * 85, 100), LEAST_SHARE), now, 0
    end
    l.clean_since = now
    l.blames = min(l.blames + 1, 255)
    if l.blames >= 3 then l.even_until = now + 32 * window end
end

local function refuse(l, sent, stay_away, blames)
    l.pause = max(l.pause, now + stay_away)
    if sent >= l.fence then
        l.generation, l.shut, l.scouts = l.generation + 1, now, {}
        if blames and not is_told(l) then cut(l) end
    end
    l.slow_until = max(l.slow_until, l.pause + slow(l))
    l.fence = max(l.fence, l.pause)
end

local function keep(l)
    local quota, window = rate(l)
    local used = now + max(quota and 2 * window or 0, (quota and window or 0) + silence(l))
    l.expires = max(used, l.pause) + KEEP
end
