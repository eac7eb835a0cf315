
-- One bank's state: what is read, in which order an exchange goes through it, what is written.

local REMEMBERED, FORGOTTEN = 90000, 64
-- Who left or was given up is none of the fleet, but its number is kept: it stands among the speakers so much before its time.
local GONE = 4e12
local STEADY, LEAP = 1000, 10000
local bank_key, replies_key, speakers_key, ends_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local SCALARS = { 'protocol', 'incarnation', 'born', 'at', 'gap_from', 'gap_to', 'expires' }

-- The bank's fields: scalars, when each limit that is named expires, doors that are named. Its cost does not grow with the
-- bank's limits.
local function read_bank(limits, doors)
    local fields = {}
    for _, name in ipairs(SCALARS) do insert(fields, name) end
    for _, key in ipairs(limits) do insert(fields, 'l:' .. key) end
    for _, key in ipairs(doors) do insert(fields, 'd:' .. key) end
    local found, bank = call('HMGET', bank_key, unpack(fields)), { limits = {}, doors = {} }
    for index, name in ipairs(SCALARS) do bank[name] = found[index] or nil end
    for _, name in ipairs({ 'protocol', 'born', 'at', 'gap_from', 'gap_to', 'expires' }) do
        bank[name] = tonumber(bank[name])
    end
    for index, key in ipairs(limits) do bank.limits[key] = tonumber(found[#SCALARS + index] or nil) end
    for index, key in ipairs(doors) do
        local value = found[#SCALARS + #limits + index]
        local door = value and unpack_value(value)
        if door and door_expires(door) > now then bank.doors[key] = door end
    end
    bank.found = call('HLEN', bank_key) > 0
    bank.at, bank.expires, bank.born = bank.at or 0, bank.expires or 0, bank.born or 0
    return bank
end

local function keys_of(sides)
    local keys = {}
    for _, side in ipairs(sides) do insert(keys, side.key) end
    return keys
end

-- By more than a second back, or far ahead as the time since the holder's last answer shows.
local function clock_was_set(bank, before, said)
    if now + STEADY < bank.at then return true end
    local heard, life = some(said.heard), some(said.incarnation)
    if not bank.gap_from or not heard then return false end
    if before then return before.at <= bank.gap_from and less(now, before.at) > heard + LEAP end
    return life == bank.incarnation and less(now, bank.gap_to) <= heard and heard + LEAP < REMEMBERED
end

local function read_limit(bank, key, place_of_limit, holder)
    local run = {
        key = KEYS[place_of_limit], holders_key = KEYS[place_of_limit + 1], gone = {}, reaped = {}, died = {},
    }
    local found = call('HMGET', run.key, 's', 'h:' .. holder)
    run.rows = call('ZCARD', run.holders_key)
    local expires = bank.limits[key]
    local l = found[1] and expires and expires > now and unpack_value(found[1])
    -- Somebody has taken the list of its holders, who cannot be given up then: it is lost.
    run.torn = l and l.out > 0 and run.rows == 0
    if run.torn then l = nil end
    if l then
        run.row = found[2] and unpack_value(found[2]) or nil
        run.expected = run.row and run.row.till
        l.run = run
    end
    run.stale = found[1] or run.rows > 0
    return l or nil, run
end

local function number(value) return format('%.0f', value) end

local function kind_json(l)
    if l.kind == 'rate' then
        return format('{"rate":{"quota":%.0f,"window":%.0f,"told":%s}}', l.quota, l.window, tostring(l.told))
    end
    return l.kind == 'cap' and format('{"cap":{"cap":%.0f}}', l.cap) or '"unknown"'
end

local function terms_json(l)
    return format('{"kind":%s,"rule":"%s","proven":%s,"pinned":%s,"assumed":%s}', kind_json(l), RULE_NAMES[rule(l)],
        tostring(l.proven), tostring(l.pinned), tostring(l.assumed))
end

local function limit_json(l)
    local there, ends, other = l.shut and 0 or available(l, now), 'null', other_of(l)
    if l.ends then ends = format('[%.0f,%.0f]', less(l.ends[1], now), less(l.ends[2], now)) end
    return format('{"generation":%.0f,"epoch":%.0f,"lease":%.0f,"pause":%.0f,"recall":%s,"scarce":%s,"terms":%s,'
        .. '"other":%s,"available":%.0f,"dry":%.0f,"ends":%s,"share":%.0f,"foreign":%.0f}', l.generation, l.epoch, lease(l),
        less(l.pause, now), tostring(l.run.row.owes), tostring(is_scarce(l, there)), terms_json(l),
        other and kind_json(other) or 'null', there, dry_for(l), ends, l.share, l.foreign)
end

local function grant_json(one)
    return format('{"permits":%.0f,"from":%.0f,"gap":%.0f,"scout":%s,"come_back":%.0f}', one.permits, one.from,
        one.gap, tostring(one.scout), one.come_back)
end

local function exchange(said)
    local bank = read_bank(keys_of(said.limits), keys_of(said.doors))
    if bank.found and bank.protocol ~= PROTOCOL or said.protocol ~= PROTOCOL then
        local found = bank.found and (bank.protocol or 0) or PROTOCOL
        return format('{"Err":{"protocol":{"found":%.0f,"known":%.0f}}}', found, said.protocol)
    end
    local holder = said.holder
    local kept = call('HGET', replies_key, holder)
    local before = kept and unpack_value(kept) or nil
    local stale = call('ZCARD', speakers_key) + call('ZCARD', ends_key) > 0 or bank.found
    -- Without its life it is not whole: somebody has taken a part of it.
    local over = not bank.found or not bank.incarnation or bank.expires <= now
    if not over then
        if before and before.at + REMEMBERED <= bank.at then before = nil end
        if now > bank.at + LEAP then bank.gap_from, bank.gap_to = bank.at, now end
        over = clock_was_set(bank, before, said)
    end
    if over then
        bank = { incarnation = said.salt, born = now, at = now, limits = {}, doors = {}, fresh = true, stale = stale }
        before = nil
    end
    now = max(now, bank.at)
    local silent = now - bank.at
    if before and before.at + REMEMBERED <= now then before = nil end
    local scalars = { 'at', number(now) }
    if bank.gap_from then
        scalars = { 'at', number(now), 'gap_from', number(bank.gap_from), 'gap_to', number(bank.gap_to) }
    end
    if before and before.seq >= said.seq then
        call('HSET', bank_key, unpack(scalars))
        return before.seq == said.seq and '{"Ok":' .. before.reply .. '}' or '{"Err":"stale"}'
    end

    -- What nobody needs any more.
    local dropped = bank.fresh and {}
        or call('ZRANGEBYSCORE', ends_key, '-inf', number(now), 'LIMIT', 0, FORGOTTEN)

    -- How long the exchange may have been on its way.
    local heard, slack = some(said.heard), said.slack
    if before and heard then slack = max(slack, less(less(now, before.at), heard)) end
    slack = slack + 2

    -- The report.
    local life = some(said.incarnation)
    -- It has forgotten an exchange of this life that it answered.
    local older = life == bank.incarnation and said.answered > (before and before.seq or 0)
        and (before ~= nil or heard ~= nil and heard + LEAP < REMEMBERED)
    local another = life ~= nil and life ~= bank.incarnation
    local limits, order, by_side = {}, {}, {}
    for index, side in ipairs(said.limits) do
        local l = limits[side.key]
        if not l then
            local run
            l, run = read_limit(bank, side.key, 5 + 2 * #order, holder)
            if not l then
                local careful = (run.torn and now or bank.born) + CAREFUL
                l = new_limit(side, terms_of(side.terms), careful)
                run.fresh, run.row = true, nil
                l.run = run
            end
            limits[side.key] = l
            insert(order, side.key)
        end
        by_side[index] = l
        -- Who spoke while this limit was here has told it what it knew, also if it was given up since.
        local bereft = another or side.told > 0 and not (before and before.at >= l.born)
        roll(l)
        notice_loss(l, side, older)
        doubt(l, silent)
        reap(l, holder)
        hear(l, holder, slack, side, bereft)
    end

    -- The asks.
    local grants = {}
    for _, want in ipairs(said.asks) do
        local ask, met = { holder = holder, want = want, limits = {} }, {}
        for _, index in ipairs(want.limits) do
            local side = said.limits[index + 1]
            if side and not met[side.key] then
                met[side.key] = true
                insert(ask.limits, limits[side.key])
            end
        end
        insert(grants, grant_json(grant(ask)))
    end

    -- The doors.
    local doors, touched = {}, {}
    for _, side in ipairs(said.doors) do
        bank.doors[side.key] = bank.doors[side.key] or new_door()
        touched[side.key] = true
        insert(doors, hear_door(bank.doors[side.key], slack, holder, side))
    end

    -- The answer.
    local count, died = 1, {}
    if not bank.fresh then
        local function counts(known) return known and not known.gone and known.at > now - REMEMBERED end
        count = call('ZCOUNT', speakers_key, '(' .. number(now - REMEMBERED), '+inf')
        if not counts(before) then count = count + 1 end
        for _, key in ipairs(order) do
            for _, gone in ipairs(limits[key].run.died) do
                local packed = not died[gone] and call('HGET', replies_key, gone)
                local known = packed and unpack_value(packed)
                if counts(known) then
                    known.gone, died[gone] = true, known
                    count = count - 1
                end
            end
        end
    end
    local replies, fields, ends, named = {}, {}, {}, {}
    local function ends_at(name, value, expires)
        insert(fields, name)
        insert(fields, value)
        insert(ends, number(expires))
        insert(ends, name)
        named[name] = expires
    end
    for index in ipairs(said.limits) do
        local l = by_side[index]
        keep(l)
        replies[index] = limit_json(l)
    end
    for key in pairs(touched) do
        local door = bank.doors[key]
        if door_expires(door) <= now then
            named['d:' .. key] = 0
            insert(dropped, 'd:' .. key)
        else
            ends_at('d:' .. key, pack(door), door_expires(door))
        end
    end
    for _, key in ipairs(order) do ends_at('l:' .. key, number(limits[key].expires), limits[key].expires) end
    -- The state expires with the last of what is in it.
    local leaves, expires = said.leaves, now + REMEMBERED
    for _, until_then in pairs(named) do expires = max(expires, until_then) end
    if not bank.fresh then
        local latest = call('ZREVRANGE', ends_key, 0, #said.limits + #said.doors, 'WITHSCORES')
        for index = 1, #latest, 2 do
            if not named[latest[index]] then
                expires = max(expires, tonumber(latest[index + 1]))
                break
            end
        end
    end
    local reply = format('{"incarnation":"%s","knew_seq":%.0f,"holders":%.0f,"limits":[%s],"grants":[%s],"doors":[%s]}',
        bank.incarnation, before and before.seq or 0, count, concat(replies, ','), concat(grants, ','),
        concat(doors, ','))
    local forgotten = bank.fresh and {}
        or call('ZRANGEBYSCORE', speakers_key, 0, number(now - REMEMBERED), 'LIMIT', 0, FORGOTTEN)
    for _, gone in ipairs(bank.fresh and {}
        or call('ZRANGEBYSCORE', speakers_key, '-inf', number(now - REMEMBERED - GONE), 'LIMIT', 0, FORGOTTEN)) do
        insert(forgotten, gone)
    end

    -- From here on it is only written.
    if bank.stale then call('DEL', bank_key, replies_key, speakers_key, ends_key) end
    for _, key in ipairs(order) do
        local l = limits[key]
        local run = l.run
        local left = leaves and leave(l, holder)
        if left then insert(run.gone, holder) end
        l.run = nil
        if run.fresh and run.stale then call('DEL', run.key, run.holders_key) end
        for _, gone in ipairs(run.gone) do
            call('HDEL', run.key, 'h:' .. gone)
            call('ZREM', run.holders_key, gone)
        end
        call('HSET', run.key, 's', pack(l))
        if not left then
            call('HSET', run.key, 'h:' .. holder, pack(run.row))
            call('ZADD', run.holders_key, number(run.row.till), holder)
        end
        call('PEXPIREAT', run.key, number(l.expires))
        call('PEXPIREAT', run.holders_key, number(l.expires))
    end
    -- Few at a time: a script's stack is small.
    if #dropped > 0 then
        call('HDEL', bank_key, unpack(dropped))
        call('ZREM', ends_key, unpack(dropped))
    end
    call('HSET', bank_key, 'protocol', number(PROTOCOL), 'incarnation', bank.incarnation, 'born', number(bank.born),
        'expires', number(expires), unpack(scalars))
    if #fields > 0 then
        call('HSET', bank_key, unpack(fields))
        call('ZADD', ends_key, unpack(ends))
        call('PEXPIREAT', ends_key, number(expires))
    end
    call('PEXPIREAT', bank_key, number(expires))
    for gone, known in pairs(died) do
        call('HSET', replies_key, gone, pack(known))
        call('ZADD', speakers_key, number(known.at - GONE), gone)
    end
    for _, gone in ipairs(forgotten) do
        call('HDEL', replies_key, gone)
        call('ZREM', speakers_key, gone)
    end
    -- What it says again, or what its last word overtook, is known by its number.
    local known = { seq = said.seq, at = now, reply = reply, gone = leaves or nil }
    call('HSET', replies_key, holder, pack(known))
    call('ZADD', speakers_key, number(leaves and now - GONE or now), holder)
    call('PEXPIREAT', replies_key, number(now + REMEMBERED))
    call('PEXPIREAT', speakers_key, number(now + REMEMBERED))
    return '{"Ok":' .. reply .. '}'
end

-- For people: nothing is changed.
local function view()
    for index, key in ipairs(KEYS) do
        local found, expected = call('TYPE', key).ok, (index == 3 or index > 3 and index % 2 == 0) and 'zset' or 'hash'
        if found ~= 'none' and found ~= expected then return redis.error_reply('WRONGTYPE ' .. key) end
    end
    local keys, list = {}, {}
    for index = 2, #ARGV do insert(keys, ARGV[index]) end
    local bank = read_bank(keys, {})
    if bank.found and bank.protocol ~= PROTOCOL then
        return format('{"Err":{"protocol":{"found":%.0f,"known":%.0f}}}', bank.protocol or 0, PROTOCOL)
    end
    now = max(now, bank.at)
    for index = 2, #ARGV do
        local l = read_limit(bank, ARGV[index], 2 * index + 1, '')
        if l then
            local quota = l.kind == 'rate' and l.quota or l.kind == 'cap' and l.cap
            local holding = call('ZRANGEBYSCORE', KEYS[2 * index + 2], number(now), '+inf', 'WITHSCORES')
            local other = other_of(l)
            local differs = other and format('[%s,%s]', kind_json(l), kind_json(other)) or 'null'
            insert(list, format('{"name":%s,"partition":%s,"differs":%s,"quota":%s,"available":%.0f,"out":%.0f,"holders":%.0f,"paused_for":%.0f,'
                .. '"held_for":%.0f,"epoch":%.0f,"generation":%.0f}', cjson.encode(l.name), cjson.encode(l.partition or ''), differs, quota and number(quota) or 'null',
                available(l, now), l.out, holders(l), less(l.pause, now), less(tonumber(holding[#holding] or 0), now), l.epoch,
                l.generation))
        end
    end
    return '{"Ok":[' .. concat(list, ',') .. ']}'
end

-- Whether every command is allowed and every key is as it should be. Nothing stays.
local function check()
    local bank, replies, speakers, ends, limit, its_holders = unpack(KEYS)
    call('HMGET', bank, 's', 'x')
    call('HLEN', bank)
    call('HGET', replies, 'x')
    call('HMGET', limit, 's', 'x')
    call('ZREVRANGE', ends, 0, 0, 'WITHSCORES')
    for _, key in ipairs({ speakers, ends, its_holders }) do
        call('ZCARD', key)
        call('ZCOUNT', key, '-inf', '+inf')
        call('ZRANGEBYSCORE', key, '-inf', '+inf', 'LIMIT', 0, 1)
    end
    for _, key in ipairs({ bank, replies, limit }) do
        call('HSET', key, 'x', 1)
        call('HDEL', key, 'y')
        call('PEXPIREAT', key, number(now + KEEP))
    end
    for _, key in ipairs({ speakers, ends, its_holders }) do
        call('ZADD', key, 1, 'x')
        call('ZREM', key, 'y')
    end
    call('DEL', bank, replies, speakers, ends, limit, its_holders)
    -- The libraries are tried on the way.
    return cmsgpack.unpack(cmsgpack.pack(cjson.decode('"ok"')))
end

if ARGV[1] == 'check' then return check() end
if ARGV[1] == 'view' then return view() end
return exchange(cjson.decode(ARGV[1]))
