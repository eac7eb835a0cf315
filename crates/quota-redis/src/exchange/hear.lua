
-- What a holder's report does to a limit.

local TERMS_LIFE, OTHER_LIFE = 10000, 60000

local function terms_of(said)
    local terms = { kind = said.kind, rule = RULES[said.rule], proven = said.proven, pinned = said.pinned,
        assumed = said.assumed }
    if type(said.kind) == 'table' then
        local of_rate, of_cap = said.kind.rate, said.kind.cap
        if of_rate then
            terms.kind, terms.quota, terms.window, terms.told = 'rate', of_rate.quota, of_rate.window, of_rate.told
        else
            terms.kind, terms.cap = 'cap', of_cap.cap
        end
    end
    return terms
end

local function ended_at(age) return less(now, age) + 1 end

local function seen_of(slack, sight)
    local seen = { sent = less(less(now, sight.latest_sent), slack), left = {}, answered = 0 }
    for _, entry in ipairs(sight.left) do
        local at = ended_at(entry[1])
        insert(seen.left, { at, entry[2] })
        seen.answered = max(seen.answered, at)
    end
    local ends, best = some(sight.ends), some(sight.scout_in)
    if ends then
        local function from_now(time) return max(now + min(max(time, -LONGEST), LONGEST), 0) end
        seen.ends = { less(from_now(min(ends[1], ends[2])), slack), from_now(ends[2]) }
    end
    if best then seen.scout_at = now + min(best, LONGEST) end
    return seen
end

local ASSUMED, DECLARED, TOLD, PINNED = 1, 2, 3, 4

local function rank(terms)
    if terms.kind == 'unknown' then return 0 end
    if terms.pinned then return PINNED end
    if terms.kind == 'rate' and terms.told then return TOLD end
    return terms.assumed and ASSUMED or DECLARED
end

-- Words that come from a configuration, or from the upstream's listing.
local function is_declared(rank) return rank == DECLARED or rank == PINNED end

local function same_kind(one, other)
    return one.kind == other.kind and one.quota == other.quota and one.window == other.window and one.told == other.told
        and one.cap == other.cap
end

-- What another configuration declared in vain of late.
local function other_of(l)
    local other = l.other
    return other and other.said + OTHER_LIFE > now and not same_kind(other, l) and other or nil
end

-- Nobody has said these terms for two windows, in which whoever draws from them spoke.
local function is_outlived(l)
    local quota, window = rate(l)
    return l.said + max(quota and 2 * window or 0, TERMS_LIFE) <= now
end

-- Whether one rate is less than another: by what it gives in a time, and where that is the same, at once. The fractions are
-- compared digit by digit, as their products may be above 2^53.
local function is_slower(one, other)
    local a, b, c, d = one.quota, max(one.window, 1), other.quota, max(other.window, 1)
    while true do
        local first, second = div(a, b), div(c, d)
        if first ~= second then return first < second end
        a, c = a - first * b, c - second * d
        if a == 0 or c == 0 then
            if a ~= c then return a < c end
            return one.quota < other.quota
        end
        -- Of two fractions below one, the less has the greater inverse.
        a, b, c, d = d, c, b, a
    end
end

local function hear_terms(l, said, sight)
    local old, new = rank(l), rank(said)
    local same = same_kind(l, said)
    local forgotten = l.said + TERMS_LIFE <= now
    local replaces
    if new ~= old then
        replaces = new > old or new > 0 and is_outlived(l)
    elseif old == TOLD then
        replaces = sight and less(now, sight.latest_sent) >= l.latest_sent
    elseif l.kind == said.kind and l.kind == 'rate' then
        replaces = is_slower(said, l) or forgotten
    elseif l.kind == said.kind and l.kind == 'cap' then
        replaces = said.cap < l.cap or forgotten
    else
        replaces = forgotten
    end
    local both = is_declared(old) and is_declared(new) or old == ASSUMED and new == ASSUMED
    if not same and both and not (replaces and forgotten) then
        local vain = replaces and l or said
        l.other = { kind = vain.kind, quota = vain.quota, window = vain.window, told = vain.told, cap = vain.cap, said = now }
    end
    if replaces or same and old == new then
        l.kind, l.quota, l.window, l.told, l.cap = said.kind, said.quota, said.window, said.told, said.cap
        l.pinned, l.assumed, l.said = said.pinned, said.assumed, now
    end
    -- Who knows less of the quota knows nothing of how it comes back either.
    if l.settled or new < rank(l) then return end
    -- What was declared says nothing of how a told quota comes back.
    if replaces and new == TOLD and old < TOLD then
        l.rule, l.proven = said.rule, said.proven
        return
    end
    if said.proven and not l.proven then
        l.rule, l.proven = said.rule, true
    elseif said.proven == l.proven then
        l.rule = max(l.rule, said.rule)
    end
end

-- What it has, and what ended since it last told: a list of {when, certified, not certified}.
local function hear_row(l, side, bereft)
    local run = l.run
    local quota, window = rate(l)
    local owes = bereft and l.born + (window or 0) > now
    if not run.row then
        if owes then
            l.unheard = l.unheard + 1
            if l.latest_sent <= l.born and (is_told(l) or l.missed == 0) then l.shut = l.born end
            l.slow_until = max(l.slow_until, l.born + slow(l))
        end
        if not bereft and side.told > 0 then l.departed = less(l.departed, 1) end
        run.row = { unspent = 0, in_flight = 0, all = side.told, unseen = side.told_unseen, owes = owes,
            losses = l.losses }
    end
    local row = run.row
    if row.losses ~= l.losses and not row.owes then l.unheard = l.unheard - 1 end
    row.losses = l.losses
    -- A gate that was forgotten and made anew counts from zero again.
    local latest = side.ended[#side.ended]
    if (latest and latest.all or side.told) < row.all then row.all, row.unseen = side.told, side.told_unseen end
    local before_out, before = row_out(row), row.unspent
    row.till, row.unspent, row.in_flight = now + silence(l), side.unspent, side.in_flight
    l.out, l.unspent = l.out + row_out(row) - before_out, l.unspent + row.unspent - before
    local new = {}
    local function group(age, all, unseen_all)
        local count = small(less(all, row.all))
        local uncertified = min(small(less(unseen_all, row.unseen)), count)
        row.all, row.unseen = max(row.all, all), max(row.unseen, unseen_all)
        if count > 0 then
            local at = ended_at(age)
            if quota then log_add(l, at, count, window) end
            insert(new, { at, count - uncertified, uncertified })
        end
    end
    local first = side.ended[1]
    group(first and first.age or 0, side.told, side.told_unseen)
    for _, one in ipairs(side.ended) do group(one.age, one.all, one.unseen) end
    return new
end

local function hear_recall(l, recall)
    local row = l.run.row
    if not recall or not row.owes then return end
    row.owes, l.unheard = false, l.unheard - 1
    local quota, window = rate(l)
    if quota then
        for _, entry in ipairs(recall.log) do log_add(l, ended_at(entry[1]), entry[2], window) end
        if l.latest_sent <= l.born then l.dry = max(l.dry, min(now + recall.dry, l.born + window)) end
    end
    l.generation = max(l.generation, recall.generation)
    l.missed = max(l.missed, recall.holders, 1)
    local share = min(max(recall.share, 1), 1000)
    if share < l.share then l.share, l.clean_since = share, now end
end

local function settle(l, how) l.rule, l.proven, l.settled = how, true, true end

local function place_of(l, seen, slack, window)
    if not l.ends then return 'here' end
    local lo, up, slip = seen.ends[1], seen.ends[2], tolerance(window)
    if lo > l.ends[2] + slip then
        return seen.sent + slack >= l.ends[1] and 'next' or 'past'
    end
    return up + slip < l.ends[1] and 'past' or 'here'
end

local function turn(l, seen, quota, window)
    local slip = max(div(window, 8), error_of(l, window))
    local held = alive(l, seen.answered + slip, window)
    if (lowest(seen.left) or 0) > less(quota, held) + max(div(quota, 16), 2) then
        l.steps = l.steps + 1
    elseif held >= max(div(quota, 4), 2) then
        l.logs = l.logs + 1
    end
    if not l.settled then
        if l.logs >= 2 then settle(l, LOG) elseif l.steps >= 2 then settle(l, STEP) end
    end
    local level = lowest(l.left)
    if level and l.epoch > 1 then
        local ours = level + l.own + unseen(l) + max(l.out, 0)
        measure_foreign(l, less(quota, ours), window)
    end
    l.epoch, l.own, l.scout_at, l.vain, l.left = l.epoch + 1, 0, nil, false, {}
end

local function judge(l, seen, window)
    if not is_stepped(l) then return end
    local early = l.ends and seen.answered < l.ends[1]
    local moved = l.ends and seen.ends and seen.ends[1] > l.promised + div(window, 32)
    if moved or (early and rises(l, seen.sent, seen.left)) then settle(l, LOG) end
end

local function anchor(l, seen, belongs, window)
    if not seen.ends then return end
    local lo, up = seen.ends[1], seen.ends[2]
    if up > now + 2 * window + 3000 then return end
    if l.ends and belongs == 'here' and is_stepped(l) then
        local latest, earliest = max(lo, l.ends[1]), min(up, l.ends[2])
        if latest <= earliest then
            l.ends = { latest, earliest }
        elseif lo > l.ends[1] then
            l.ends = { lo, up }
        end
    else
        l.promised, l.ends = up, { lo, up }
    end
    l.promised = min(l.promised, up)
    if seen.scout_at then l.scout_at = l.scout_at and min(l.scout_at, seen.scout_at) or seen.scout_at end
end

local function measure(l, seen, quota, window)
    if now < l.born + window or now < l.measured + max(div(window, 8), 1) or #seen.left == 0 then return end
    local ours = alive(l, seen.answered, window) + max(l.out, 0)
    measure_foreign(l, less(less(quota, lowest(seen.left)), ours), window)
end

-- Takes a certificate, unless it belongs to an epoch that is over.
local function see(l, slack, sight)
    local quota, window = rate(l)
    if not quota then return false end
    local seen = seen_of(slack, sight)
    local belongs = seen.ends and is_stepped(l) and place_of(l, seen, slack, window) or 'here'
    if belongs == 'past' then return false end
    if belongs == 'next' then turn(l, seen, quota, window) else judge(l, seen, window) end
    if not is_stepped(l) then
        measure(l, seen, quota, window)
        local slip = error_of(l, window)
        for _, entry in ipairs(seen.left) do
            entry[2] = min(small(entry[2] + back(l, entry[1] + slip, now, window)), quota)
        end
    end
    anchor(l, seen, belongs, window)
    merge(l, seen.sent, seen.left)
    if l.shut and (seen.sent > l.shut or l.shut == 0) then l.shut = nil end
    if seen.sent > l.born and (lowest(seen.left) or 0) > 0 then l.dry = 0 end
    return true
end

-- The scout that left then has ended: whatever was granted to its holder before is back.
local function hear_scout(l, holder, left, refused)
    local function back(scout) return scout[1] == holder and left >= scout[2] end
    local since
    for _, scout in ipairs(l.scouts) do
        if back(scout) then since = scout[2] end
    end
    if not since then return end
    l.trip = min(max(div(3 * l.trip + less(now, since), 4), 10), 1000)
    l.scouts = keep_if(l.scouts, function(scout) return not back(scout) end)
    end_scout(l, since)
    if not refused and not is_told(l) then l.shut = nil end
end

local function hear(l, holder, slack, side, bereft)
    local sight, refusal = some(side.seen), some(side.refused)
    hear_terms(l, terms_of(side.terms), sight)
    local knew_all = not l.run.row or l.run.row.all >= side.told
    local new = hear_row(l, side, bereft)
    hear_recall(l, some(side.recall))
    local told = is_told(l) and sight and see(l, slack, sight)
    for _, one in ipairs(new) do
        lost_sight(l, one[1], told and one[3] or one[2] + one[3])
        if told then l.own = l.own + one[2] end
    end
    if refusal then
        local sent = less(less(now, refusal.sent), slack)
        refuse(l, sent, min(refusal.stay_away, LONGEST), refusal.blames_quota)
    end
    local scouted = some(side.scouted)
    if scouted then hear_scout(l, holder, ended_at(scouted), refusal ~= nil) end
    if side.unspent == 0 and side.in_flight == 0 and #new == 0 and knew_all then
        -- A scout that it had was not sent, and never will be. An ending that an older state does not know may be the scout's.
        l.scouts = keep_if(l.scouts, function(scout) return scout[1] ~= holder end)
    end
end
