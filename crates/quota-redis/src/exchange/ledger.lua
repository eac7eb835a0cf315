
-- One bank's state: what is read, in which order an exchange goes through it, what is written.

local REMEMBERED, ACTIVE, FORGOTTEN = 60000, 10000, 64
local bank_key, replies_key, speakers_key = KEYS[1], KEYS[2], KEYS[3]

-- The bank's fields: scalars, when each limit expires, doors.
local function read_bank()
    local bank, fields = { limits = {}, doors = {} }, call('HGETALL', bank_key)
    for place_of_field = 1, #fields, 2 do
        local name, value = fields[place_of_field], fields[place_of_field + 1]
        local kind, key = string.sub(name, 1, 2), string.sub(name, 3)
        if kind == 'l:' then
            bank.limits[key] = tonumber(value)
        elseif kind == 'd:' then
            bank.doors[key] = unpack_value(value)
        else
            bank[name] = value
        end
    end
    bank.found = #fields > 0
    bank.protocol, bank.at = tonumber(bank.protocol), tonumber(bank.at) or 0
    bank.expires = tonumber(bank.expires) or 0
    return bank
end

local function read_limit(bank, key, place_of_limit, holder)
    local run = { key = KEYS[place_of_limit], holders_key = KEYS[place_of_limit + 1], gone = {}, reaped = {} }
    local found = call('HMGET', run.key, 's', 'h:' .. holder)
    run.rows = call('ZCARD', run.holders_key)
    local expires = bank.limits[key]
    local l = found[1] and expires and expires > now and unpack_value(found[1])
    if l then
        run.row = found[2] and unpack_value(found[2]) or nil
        run.expected = run.row and run.row.till
        l.run = run
    end
    run.stale = found[1] or run.rows > 0
    return l or nil, run
end

local function number(value) return format('%.0f', value) end

local function terms_json(l)
    local kind = '"unknown"'
    if l.kind == 'rate' then
        kind = format('{"rate":{"quota":%.0f,"window":%.0f,"told":%s}}', l.quota, l.window, tostring(l.told))
    elseif l.kind == 'cap' then
        kind = format('{"cap":{"cap":%.0f}}', l.cap)
    end
    return format('{"kind":%s,"rule":"%s","proven":%s,"pinned":%s}', kind, RULE_NAMES[rule(l)], tostring(l.proven),
        tostring(l.pinned))
end

local function limit_json(l)
    local there, ends = l.shut and 0 or available(l, now), 'null'
    if l.ends then ends = format('[%.0f,%.0f]', less(l.ends[1], now), less(l.ends[2], now)) end
    return format('{"generation":%.0f,"epoch":%.0f,"lease":%.0f,"pause":%.0f,"recall":%s,"scarce":%s,"terms":%s,'
        .. '"available":%.0f,"ends":%s,"share":%.0f,"foreign":%.0f}', l.generation, l.epoch, lease(l),
        less(l.pause, now), tostring(l.run.row.owes), tostring(is_scarce(l, there)), terms_json(l), there, ends,
        l.share, l.foreign)
end

local function grant_json(one)
    return format('{"permits":%.0f,"from":%.0f,"gap":%.0f,"scout":%s,"come_back":%.0f}', one.permits, one.from,
        one.gap, tostring(one.scout), one.come_back)
end

local function exchange(said)
    local bank = read_bank()
    if bank.found and bank.protocol ~= PROTOCOL or said.protocol ~= PROTOCOL then
        local found = bank.found and (bank.protocol or 0) or PROTOCOL
        return format('{"Err":{"protocol":{"found":%.0f,"known":%.0f}}}', found, said.protocol)
    end
    local holder = said.holder
    local kept = call('HGET', replies_key, holder)
    local spoke = call('ZCARD', speakers_key)
    if not bank.found or bank.expires <= now then
        bank = { incarnation = said.salt, at = now, limits = {}, doors = {}, fresh = true, stale = bank.found or spoke > 0 }
        kept = false
    end
    now = max(now, bank.at)
    local before = kept and unpack_value(kept)
    if before and before.at + REMEMBERED <= now then before = nil end
    before = before or nil
    if before and before.seq >= said.seq then
        call('HSET', bank_key, 'at', number(now))
        return before.seq == said.seq and '{"Ok":' .. before.reply .. '}' or '{"Err":"stale"}'
    end

    -- What nobody needs any more.
    local dropped = {}
    for key, expires in pairs(bank.limits) do
        if expires <= now then
            bank.limits[key] = nil
            insert(dropped, 'l:' .. key)
        end
    end
    for key, door in pairs(bank.doors) do
        if door_expires(door) <= now then
            bank.doors[key] = nil
            insert(dropped, 'd:' .. key)
        end
    end

    -- How long the exchange may have been on its way.
    local heard, slack = some(said.heard), said.slack
    if before and heard then slack = max(slack, less(less(now, before.at), heard)) end
    slack = slack + 2

    -- The report.
    local life = some(said.incarnation)
    local bereft = life ~= nil and life ~= bank.incarnation
    local limits, order, by_side = {}, {}, {}
    for index, side in ipairs(said.limits) do
        local l = limits[side.key]
        if not l then
            local run
            l, run = read_limit(bank, side.key, 4 + 2 * #order, holder)
            if not l then
                l = new_limit(side.name, terms_of(side.terms))
                run.fresh, run.row = true, nil
                l.run = run
            end
            limits[side.key] = l
            insert(order, side.key)
        end
        by_side[index] = l
        roll(l)
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
    local count = 1
    if not bank.fresh then
        count = call('ZCOUNT', speakers_key, '(' .. number(now - ACTIVE), '+inf')
        if not (before and before.at + ACTIVE > now) then count = count + 1 end
    end
    local replies, fields = {}, {}
    for index in ipairs(said.limits) do
        local l = by_side[index]
        keep(l)
        replies[index] = limit_json(l)
    end
    for key in pairs(touched) do
        if door_expires(bank.doors[key]) <= now then
            bank.doors[key] = nil
            insert(dropped, 'd:' .. key)
        else
            insert(fields, 'd:' .. key)
            insert(fields, pack(bank.doors[key]))
        end
    end
    local reply = format('{"incarnation":"%s","knew_seq":%.0f,"holders":%.0f,"limits":[%s],"grants":[%s],"doors":[%s]}',
        bank.incarnation, before and before.seq or 0, count, concat(replies, ','), concat(grants, ','),
        concat(doors, ','))
    local forgotten = bank.fresh and {}
        or call('ZRANGEBYSCORE', speakers_key, '-inf', number(now - REMEMBERED), 'LIMIT', 0, FORGOTTEN)

    -- From here on it is only written.
    if bank.stale then call('DEL', bank_key, replies_key, speakers_key) end
    local expires = now + REMEMBERED
    for _, key in ipairs(order) do
        local l = limits[key]
        local run = l.run
        l.run = nil
        if run.fresh and run.stale then call('DEL', run.key, run.holders_key) end
        for _, gone in ipairs(run.gone) do
            call('HDEL', run.key, 'h:' .. gone)
            call('ZREM', run.holders_key, gone)
        end
        call('HSET', run.key, 's', pack(l), 'h:' .. holder, pack(run.row))
        call('ZADD', run.holders_key, number(run.row.till), holder)
        call('PEXPIREAT', run.key, number(l.expires))
        call('PEXPIREAT', run.holders_key, number(l.expires))
        bank.limits[key] = l.expires
        insert(fields, 'l:' .. key)
        insert(fields, number(l.expires))
    end
    for _, until_then in pairs(bank.limits) do expires = max(expires, until_then) end
    for _, door in pairs(bank.doors) do expires = max(expires, door_expires(door)) end
    if #dropped > 0 then call('HDEL', bank_key, unpack(dropped)) end
    call('HSET', bank_key, 'protocol', number(PROTOCOL), 'incarnation', bank.incarnation, 'at', number(now), 'expires',
        number(expires), unpack(fields))
    call('PEXPIREAT', bank_key, number(expires))
    for _, gone in ipairs(forgotten) do
        call('HDEL', replies_key, gone)
        call('ZREM', speakers_key, gone)
    end
    call('HSET', replies_key, holder, pack({ seq = said.seq, at = now, reply = reply }))
    call('ZADD', speakers_key, number(now), holder)
    call('PEXPIREAT', replies_key, number(now + REMEMBERED))
    call('PEXPIREAT', speakers_key, number(now + REMEMBERED))
    return '{"Ok":' .. reply .. '}'
end

-- For people: nothing is changed.
local function view()
    local bank, list = read_bank(), {}
    if bank.found and bank.protocol ~= PROTOCOL then
        return format('{"Err":{"protocol":{"found":%.0f,"known":%.0f}}}', bank.protocol or 0, PROTOCOL)
    end
    now = max(now, bank.at)
    for index = 2, #ARGV do
        local l = read_limit(bank, ARGV[index], 2 * index, '')
        if l then
            local quota = l.kind == 'rate' and l.quota or l.kind == 'cap' and l.cap
            insert(list, format('{"name":%s,"quota":%s,"available":%.0f,"out":%.0f,"holders":%.0f,"paused_for":%.0f,'
                .. '"epoch":%.0f,"generation":%.0f}', cjson.encode(l.name), quota and number(quota) or 'null',
                available(l, now), l.out, holders(l), less(l.pause, now), l.epoch, l.generation))
        end
    end
    return '{"Ok":[' .. concat(list, ',') .. ']}'
end

-- Whether every command is allowed and every key is as it should be. Nothing stays.
local function check()
    local bank, replies, speakers, limit, its_holders = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
    call('HGETALL', bank)
    call('HGET', replies, 'x')
    call('HMGET', limit, 's', 'x')
    for _, key in ipairs({ speakers, its_holders }) do
        call('ZCARD', key)
        call('ZCOUNT', key, '-inf', '+inf')
        call('ZRANGEBYSCORE', key, '-inf', '+inf', 'LIMIT', 0, 1)
    end
    for _, key in ipairs({ bank, replies, limit }) do
        call('HSET', key, 'x', 1)
        call('HDEL', key, 'y')
        call('PEXPIREAT', key, number(now + KEEP))
    end
    for _, key in ipairs({ speakers, its_holders }) do
        call('ZADD', key, 1, 'x')
        call('ZREM', key, 'y')
    end
    call('DEL', bank, replies, speakers, limit, its_holders)
    -- The libraries are tried on the way.
    return cmsgpack.unpack(cmsgpack.pack(cjson.decode('"ok"')))
end

if ARGV[1] == 'check' then return check() end
if ARGV[1] == 'view' then return view() end
return exchange(cjson.decode(ARGV[1]))
