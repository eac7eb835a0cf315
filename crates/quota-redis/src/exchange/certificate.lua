
-- What the server is known to have left, seen by all holders together.

local MAX_LEFT, MAX_UNSEEN = 8, 16

local function lowest(left)
    local least
    for _, entry in ipairs(left) do
        if not least or entry[2] < least then least = entry[2] end
    end
    return least
end

local function newest(l)
    local last = l.left[#l.left]
    return last and last[1]
end

local function unseen_after(l, at)
    local sum = 0
    for _, entry in ipairs(l.unseen) do
        if entry[1] > at then sum = sum + entry[2] end
    end
    return sum
end

local function unseen(l) return unseen_after(l, 0) end

local function tidy(l)
    sort(l.left, function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end)
    local least, kept = U32, {}
    for place = #l.left, 1, -1 do
        local entry = l.left[place]
        local before = entry[1] < l.latest_sent and #kept > 0
        if entry[2] < least and not before then
            least = entry[2]
            insert(kept, 1, entry)
        end
    end
    while #kept > MAX_LEFT do
        local last = remove(kept)
        kept[#kept][1] = last[1]
    end
    l.left = kept
end

local function merge(l, latest_sent, left)
    l.latest_sent = max(l.latest_sent, latest_sent)
    for _, entry in ipairs(left) do insert(l.left, { entry[1], entry[2] }) end
    tidy(l)
    l.unseen = keep_if(l.unseen, function(entry) return entry[1] > l.latest_sent end)
end

local function lost_sight(l, ended, count)
    if count == 0 or ended <= l.latest_sent then return end
    add_at(l.unseen, ended, count)
    bound(l.unseen, MAX_UNSEEN)
end

local function rises(l, latest_sent, left)
    local least = lowest(left)
    if not least then return false end
    for _, entry in ipairs(l.left) do
        if entry[1] < latest_sent and entry[2] < least then return true end
    end
    return false
end
