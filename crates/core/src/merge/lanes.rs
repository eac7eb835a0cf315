//! Who leaves when: lanes of writes to one entity, and the groups in them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::rule::{Alone, Item};
use crate::time::Mono;

/// A group, or a write that stands alone, in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(u64);

/// A write's seat in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeatId(u64);

/// What bounds merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How long the first write of a group waits for others, while nothing else makes it wait.
    pub window: Duration,
    /// Bytes of the rows of one group.
    pub bytes: usize,
    /// Groups that have not ended, of all lanes. Beyond it writes are sent alone.
    pub groups: usize,
}

impl Default for Bounds {
    /// 50 ms are what a person does not notice. Half of what the platform takes in one body (`request.bytes.max` = 512 000), so that no
    /// merged call is refused for its size. Groups are bounded well above what can leave within the longest wait.
    fn default() -> Self {
        Self { window: Duration::from_millis(50), bytes: 256_000, groups: 4_096 }
    }
}

/// A write that can be merged.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The rule's number, and the most rows of its calls.
    pub rule: (usize, usize),
    /// A digest of what the writes of one group have to agree in, such as their other headers.
    pub terms: [u8; 32],
    /// Its rows, each of another item.
    pub rows: Vec<Item>,
}

/// What becomes of a write that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// It has a seat in a group. `opened`: it is the first, so somebody has to carry the group out.
    Seated {
        /// The group.
        group: EntryId,
        /// Its seat.
        seat: SeatId,
        /// Whether the group began with it.
        opened: bool,
    },
    /// It is sent alone, when its [turn](Merger::turn) has come.
    Alone(EntryId, Alone),
}

/// Whether an entry may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Now. A group takes writes until it is sealed all the same.
    Now,
    /// At this instant, unless something happens before.
    At(Mono),
    /// When the one before it has ended.
    Behind,
    /// Never: everybody has left it.
    Empty,
}

/// What merging did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Groups that left.
    pub groups: u64,
    /// Writes that left in groups.
    pub writes: u64,
    /// Writes in lanes that were not merged.
    pub alone: u64,
}

#[derive(Debug)]
struct Entry<S> {
    lane: String,
    group: Option<Group<S>>,
}

#[derive(Debug)]
struct Group<S> {
    rule: (usize, usize),
    terms: [u8; 32],
    seats: Vec<Seat<S>>,
    bytes: usize,
    due: Mono,
    sealed: bool,
}

#[derive(Debug)]
struct Seat<S> {
    id: SeatId,
    rows: Vec<Item>,
    holder: S,
}

/// The writes of one tenant that are merged. `S` is whoever waits for a write.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::merge::{Bounds, Item, Join, Merger, Offer, Turn};
/// use tidegate_core::time::Mono;
///
/// let mut merger = Merger::new(Bounds::default());
/// let row = |key: &str| vec![Item { key: key.into(), json: format!(r#"{{"id":"{key}"}}"#) }];
/// let offer = |key| Offer { rule: (0, 50), terms: [0; 32], rows: row(key) };
/// let Join::Seated { group, opened: true, .. } = merger.offer("user 7", offer("a"), "ann", Mono::ZERO) else { panic!() };
/// assert_eq!(merger.turn(group, Mono::ZERO), Turn::At(Mono::ZERO + Duration::from_millis(50)));
/// assert!(matches!(merger.offer("user 7", offer("b"), "bob", Mono::ZERO), Join::Seated { opened: false, .. }));
/// let left = merger.seal(group, |_| true);
/// assert_eq!(left.iter().map(|(who, _)| *who).collect::<Vec<_>>(), ["ann", "bob"]);
/// assert_eq!(merger.end(group), None);
/// ```
#[derive(Debug)]
pub struct Merger<S> {
    bounds: Bounds,
    lanes: BTreeMap<String, VecDeque<EntryId>>,
    entries: BTreeMap<EntryId, Entry<S>>,
    groups: usize,
    next: u64,
    tally: Tally,
}

impl<S> Merger<S> {
    /// Nothing waits yet.
    pub fn new(bounds: Bounds) -> Self {
        let (lanes, entries) = (BTreeMap::new(), BTreeMap::new());
        Self { bounds, lanes, entries, groups: 0, next: 0, tally: Tally::default() }
    }

    /// What it did so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Groups and single writes that have not ended.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// A write that can be merged arrives in `lane`.
    pub fn offer(&mut self, lane: &str, offer: Offer, holder: S, now: Mono) -> Join {
        let bytes = offer.rows.iter().map(|row| row.json.len() + 1).sum::<usize>();
        let seat = SeatId(self.number());
        let last = self.lanes.get(lane).and_then(|lane| lane.back().copied());
        if let Some(last) = last
            && let Some(group) = self.entries.get_mut(&last).and_then(|entry| entry.group.as_mut())
            && group.takes(&offer, bytes, self.bounds.bytes)
        {
            group.bytes += bytes;
            group.seats.push(Seat { id: seat, rows: offer.rows, holder });
            return Join::Seated { group: last, seat, opened: false };
        }
        if bytes > self.bounds.bytes || self.groups >= self.bounds.groups {
            return Join::Alone(self.pass(lane), Alone::Bound);
        }
        let Offer { rule, terms, rows } = offer;
        let seats = vec![Seat { id: seat, rows, holder }];
        let due = now + self.bounds.window;
        let group = Group { rule, terms, seats, bytes, due, sealed: false };
        self.groups += 1;
        Join::Seated { group: self.enter(lane, Some(group)), seat, opened: true }
    }

    /// A write that is not merged arrives in `lane`, and keeps its place there.
    pub fn pass(&mut self, lane: &str) -> EntryId {
        self.tally.alone += 1;
        self.enter(lane, None)
    }

    /// The entry before the one that came last in this lane: it need not wait for more.
    pub fn before(&self, entry: EntryId) -> Option<EntryId> {
        let lane = self.lanes.get(&self.entries.get(&entry)?.lane)?;
        let at = lane.iter().position(|other| *other == entry)?;
        lane.get(at.checked_sub(1)?).copied()
    }

    /// Whether an entry may leave.
    pub fn turn(&self, entry: EntryId, now: Mono) -> Turn {
        let Some(found) = self.entries.get(&entry) else { return Turn::Empty };
        let Some(lane) = self.lanes.get(&found.lane) else { return Turn::Empty };
        if found.group.as_ref().is_some_and(|group| group.seats.is_empty()) {
            return Turn::Empty;
        }
        if lane.front() != Some(&entry) {
            return Turn::Behind;
        }
        match &found.group {
            Some(group) if lane.len() == 1 && !group.is_full() && now < group.due => Turn::At(group.due),
            _ => Turn::Now,
        }
    }

    /// A caller hangs up. True if its group has not left and nobody is in it any more.
    pub fn leave(&mut self, group: EntryId, seat: SeatId) -> bool {
        let Some(group) = self.entries.get_mut(&group).and_then(|entry| entry.group.as_mut()) else {
            return false;
        };
        if group.sealed {
            return false;
        }
        let gone = group.seats.iter().position(|other| other.id == seat);
        if let Some(gone) = gone.map(|at| group.seats.remove(at)) {
            group.bytes -= gone.rows.iter().map(|row| row.json.len() + 1).sum::<usize>();
        }
        group.seats.is_empty()
    }

    /// The group's call leaves: who is in it now, in the order in which they came, of those who still may (`leaves`). Nobody joins it from now
    /// on, so that the attempts of a call carry the same rows. Empty if it was sealed before.
    pub fn seal(&mut self, group: EntryId, mut leaves: impl FnMut(&S) -> bool) -> Vec<(S, Vec<Item>)> {
        let Some(found) = self.entries.get_mut(&group).and_then(|entry| entry.group.as_mut()) else {
            return Vec::new();
        };
        if std::mem::replace(&mut found.sealed, true) {
            return Vec::new();
        }
        let seats = std::mem::take(&mut found.seats);
        let left: Vec<(S, Vec<Item>)> = seats
            .into_iter()
            .filter(|seat| leaves(&seat.holder))
            .map(|seat| (seat.holder, seat.rows))
            .collect();
        self.tally.groups += u64::from(!left.is_empty());
        self.tally.writes += left.len() as u64;
        left
    }

    /// The group's call ended without having left: those who wait for it. Nobody joins it from now on.
    pub fn give_up(&mut self, group: EntryId) -> Vec<(S, Vec<Item>)> {
        let found = self.entries.get_mut(&group).and_then(|entry| entry.group.as_mut());
        let Some(group) = found.filter(|group| !group.sealed) else { return Vec::new() };
        group.sealed = true;
        std::mem::take(&mut group.seats).into_iter().map(|seat| (seat.holder, seat.rows)).collect()
    }

    /// An entry has ended. The next in its lane, which may have its turn now. Who is still in a group that was never sealed is told nothing.
    pub fn end(&mut self, entry: EntryId) -> Option<EntryId> {
        let ended = self.entries.remove(&entry)?;
        self.groups -= usize::from(ended.group.is_some());
        let lane = self.lanes.get_mut(&ended.lane)?;
        lane.retain(|other| *other != entry);
        let next = lane.front().copied();
        if next.is_none() {
            self.lanes.remove(&ended.lane);
        }
        next
    }

    fn enter(&mut self, lane: &str, group: Option<Group<S>>) -> EntryId {
        let id = EntryId(self.number());
        self.entries.insert(id, Entry { lane: lane.to_owned(), group });
        self.lanes.entry(lane.to_owned()).or_default().push_back(id);
        id
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl<S> Group<S> {
    fn takes(&self, offer: &Offer, bytes: usize, most: usize) -> bool {
        let mut rows = self.seats.iter().flat_map(|seat| &seat.rows);
        // Who is in a group that is sealed was taken out of it, and nobody joins what everybody has left.
        !self.seats.is_empty()
            && (self.rule, self.terms) == (offer.rule, offer.terms)
            && self.rows() + offer.rows.len() <= self.rule.1
            && self.bytes + bytes <= most
            && !rows.any(|row| offer.rows.iter().any(|new| new.key == row.key))
    }

    fn rows(&self) -> usize {
        self.seats.iter().map(|seat| seat.rows.len()).sum()
    }

    fn is_full(&self) -> bool {
        self.rows() >= self.rule.1
    }
}
