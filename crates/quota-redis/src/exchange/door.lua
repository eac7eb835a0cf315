
-- A family's breaker, shared.

local DOOR_PATIENCE, DOOR_KEEP, DOOR_LONGEST = 3000, 60000, 3600000

local function new_door() return { opened = 0, till = 0, openings = 0 } end

local function door_expires(door)
    local probed = door.since and door.since + DOOR_PATIENCE or 0
    return door.till == 0 and probed or max(probed, door.till + DOOR_KEEP)
end

local function hear_door(door, slack, holder, side)
    local sent, may_probe = less(now, side.sent), false
    local opened = type(side.change) == 'table' and side.change.opened
    if opened then
        door.till = max(door.till, now + min(opened.stay_away, DOOR_LONGEST))
        door.opened, door.openings = max(door.opened, sent), max(door.openings, opened.openings)
        door.prober, door.since = nil, nil
    elseif side.change == 'alive' then
        if less(sent, slack) > door.opened then
            door.opened, door.till, door.openings, door.prober, door.since = 0, 0, 0, nil, nil
        end
    else
        local free = not door.prober or door.prober == holder or door.since + DOOR_PATIENCE <= now
        may_probe = free and door.till <= now
        if may_probe then door.prober, door.since = holder, now end
    end
    return format('{"key":"%s","refuses_for":%.0f,"openings":%.0f,"may_probe":%s}', side.key, less(door.till, now),
        door.openings, tostring(may_probe))
end
