//! What was accepted to be sent later: in which order, how often, and what becomes of it.
//!
//! An entry is a write that its caller does not wait for, or an event for a webhook. It is on disk before it is accepted, its
//! *intent* before each send, its *outcome* after it; this machine decides, and whoever holds it does the writing. So what is
//! kept in here can be made again from the file ([`Outbox::restore`]) at every instant.
//!
//! **Order.** An entry stands in one line: that of its target, or that of its caller's order key; then it is *marked* in that of its
//! target. It is sent when it is the first, and leaves its line when it is delivered or dead. A dead letter holds nobody up: what follows it was
//! accepted too, and nobody may look for hours. A *seat* is the place of a write that is not stored because its caller waits for
//! it; it goes when no entry is before it, standing or marked, and entries behind it wait
//! until it has gone.
//!
//! **Groups.** A tenant, or a sink, is a group: so many of its entries are under way at once, and a slow one takes nothing from
//! others.
//!
//! **Doubt.** An entry with an intent and no outcome may have been executed. It is sent again only by the rules of the retry
//! stack, which is told so; whatever then fails before an answer leaves the doubt, and its end is [`Why::Unknown`], not another.
//!
//! ```
//! use std::time::Duration;
//! use tidegate_core::outbox::{Bounds, Due, Ended, New, Outbox, Verdict, Waits};
//! use tidegate_core::time::Mono;
//!
//! let now = Mono::ZERO;
//! let mut outbox = Outbox::new(Bounds::default(), 7);
//! for seq in [1, 2] {
//!     outbox.admit(10, None)?;
//!     let lines = vec!["/api/v2/users/7".into()];
//!     outbox.add(New { seq, group: "acme".into(), lines, marks: vec![], bytes: 10, deadline: None, since: now });
//! }
//! assert_eq!(outbox.next(now), Some(Due::Send(1)));
//! assert_eq!(outbox.next(now), None, "the second waits for the first");
//! let verdict = outbox.ended(1, Ended::Answered, &Waits::of_writes(), now);
//! assert_eq!(verdict, Verdict::Done);
//! outbox.settled(1, verdict, 0, now);
//! assert_eq!(outbox.next(now), Some(Due::Send(2)));
//! # Ok::<(), tidegate_core::outbox::Full>(())
//! ```

mod fate;
mod lines;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

pub use self::fate::{Ended, Verdict, Waits, Why};
use self::lines::Lines;
pub use self::lines::Seat;
use crate::time::Mono;

/// An entry's number. Later ones are larger.
pub type Seq = u64;

/// What an outbox holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Entries, whatever their state.
    pub entries: usize,
    /// Bytes of requests that are not delivered and of answers that are kept.
    pub bytes: u64,
    /// Entries of one group under way at once.
    pub at_once: usize,
    /// For how long what is delivered can be asked for.
    pub keep: Duration,
}

impl Default for Bounds {
    /// 10 000 entries of 256 MiB, 32 of a group at once, kept for a day.
    fn default() -> Self {
        Self { entries: 10_000, bytes: 256 << 20, at_once: 32, keep: Duration::from_hours(24) }
    }
}

/// There is no room, and what would have to go is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it holds {entries} entries that are not delivered, {dead} of them dead letters")]
pub struct Full {
    /// Entries that are not delivered.
    pub entries: usize,
    /// Those of them that are dead letters.
    pub dead: usize,
}

/// An entry as it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// Its number: larger than all before.
    pub seq: Seq,
    /// Whose it is: a tenant, or a sink.
    pub group: Arc<str>,
    /// The lines it stands in.
    pub lines: Vec<Arc<str>>,
    /// Lines that it does not stand in, and whose seats wait for it all the same.
    pub marks: Vec<Arc<str>>,
    /// What it takes of [`Bounds::bytes`].
    pub bytes: u64,
    /// After this it is not worth sending.
    pub deadline: Option<Mono>,
    /// When it was accepted.
    pub since: Mono,
}

/// Where an entry is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is to be sent, not before this.
    Waiting(Mono),
    /// It is being sent.
    Sending,
    /// It is delivered since this.
    Done(Mono),
    /// It is a dead letter.
    Dead(Why),
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// This one is to be sent.
    Send(Seq),
    /// The deadline of this one is over: it is a dead letter, for this reason.
    TooLate(Seq, Why),
}

/// How many entries are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// To be sent.
    pub waiting: usize,
    /// Being sent.
    pub sending: usize,
    /// Delivered, and still to be asked for.
    pub done: usize,
    /// Dead letters.
    pub dead: usize,
    /// When the oldest that is not delivered, nor dead, was accepted.
    pub oldest: Option<Mono>,
}

#[derive(Clone, Debug)]
struct Entry {
    new: New,
    state: State,
    /// Tries that failed.
    failed: u32,
    /// An earlier sending may have been executed.
    doubtful: bool,
}

#[derive(Clone, Debug, Default)]
struct Group {
    sending: usize,
    /// The first of their lines, by when they are due.
    ready: BTreeSet<(Mono, Seq)>,
}

/// The machine. See the [module](self).
#[derive(Debug)]
pub struct Outbox {
    bounds: Bounds,
    rng: Rng,
    entries: BTreeMap<Seq, Entry>,
    lines: Lines,
    groups: BTreeMap<Arc<str>, Group>,
    /// The group that was served last; the next one is next.
    last: Option<Arc<str>>,
    /// What is delivered, the oldest first.
    done: VecDeque<(Mono, Seq)>,
    bytes: u64,
    done_bytes: u64,
    dead: usize,
    /// Entries that are admitted and not taken in yet, and their bytes.
    promised: (usize, u64),
}

impl Outbox {
    /// An empty one.
    pub fn new(bounds: Bounds, seed: u64) -> Self {
        Self {
            bounds,
            rng: Rng::with_seed(seed),
            entries: BTreeMap::new(),
            lines: Lines::default(),
            groups: BTreeMap::new(),
            last: None,
            done: VecDeque::new(),
            bytes: 0,
            done_bytes: 0,
            dead: 0,
            promised: (0, 0),
        }
    }

    /// Makes room for an entry of so many bytes, and says which delivered ones have to go for it. The room is kept until the entry
    /// is [added](Self::add), or [given up](Self::give_up). `group`: a group, and how many that are not delivered it may have.
    ///
    /// # Errors
    /// There is no room: everything else is not delivered. Nothing is forgotten then.
    pub fn admit(&mut self, bytes: u64, group: Option<(&str, usize)>) -> Result<Vec<Seq>, Full> {
        if let Some((name, most)) = group {
            let Tally { waiting, sending, dead, .. } = self.tally(|other| other == name);
            if waiting + sending + dead >= most {
                return Err(Full { entries: waiting + sending + dead, dead });
            }
        }
        let (promised, promised_bytes) = self.promised;
        let bytes_then = promised_bytes + bytes;
        let open = self.entries.len() - self.done.len() + promised;
        let full = Full { entries: open, dead: self.dead };
        if open >= self.bounds.entries || self.bytes - self.done_bytes + bytes_then > self.bounds.bytes {
            return Err(full);
        }
        let mut gone = Vec::new();
        while self.entries.len() + promised >= self.bounds.entries
            || self.bytes + bytes_then > self.bounds.bytes
        {
            let (_, seq) = *self.done.front().ok_or(full)?;
            self.remove(seq);
            gone.push(seq);
        }
        self.promised = (promised + 1, bytes_then);
        Ok(gone)
    }

    /// An entry that was admitted, of so many bytes, will not be added.
    pub fn give_up(&mut self, bytes: u64) {
        self.promised = (self.promised.0.saturating_sub(1), self.promised.1.saturating_sub(bytes));
    }

    /// Takes an admitted entry in.
    pub fn add(&mut self, new: New) {
        self.give_up(new.bytes);
        let state = State::Waiting(new.since);
        self.put(Entry { new, state, failed: 0, doubtful: false });
    }

    /// Takes in what an earlier process left. To be called in the order of their numbers, before anything else. What it left
    /// [`State::Sending`] is in doubt, and is to be sent again as such.
    pub fn restore(&mut self, new: New, state: State, failed: u32, doubtful: bool) {
        let (state, doubtful) = match state {
            State::Sending => (State::Waiting(new.since), true),
            state => (state, doubtful),
        };
        self.put(Entry { new, state, failed, doubtful });
    }

    fn put(&mut self, entry: Entry) {
        let seq = entry.new.seq;
        self.bytes += entry.new.bytes;
        match entry.state {
            State::Waiting(_) | State::Sending => {
                self.lines.enter(seq, &entry.new.lines);
                self.lines.mark(seq, &entry.new.marks);
            }
            State::Done(at) => {
                self.done.push_back((at, seq));
                self.done_bytes += entry.new.bytes;
            }
            State::Dead(_) => self.dead += 1,
        }
        self.entries.insert(seq, entry);
        self.make_ready(seq);
    }

    /// Puts an entry among those that can be sent, if it can be.
    fn make_ready(&mut self, seq: Seq) {
        let Some(entry) = self.entries.get(&seq) else { return };
        let State::Waiting(at) = entry.state else { return };
        if self.lines.is_first(seq, &entry.new.lines) {
            let at = entry.new.deadline.map_or(at, |deadline| at.min(deadline));
            self.groups.entry(Arc::clone(&entry.new.group)).or_default().ready.insert((at, seq));
        }
    }

    /// Takes an entry out of those that can be sent.
    fn make_unready(&mut self, seq: Seq) {
        let Some(entry) = self.entries.get(&seq) else { return };
        if let State::Waiting(at) = entry.state {
            let at = entry.new.deadline.map_or(at, |deadline| at.min(deadline));
            if let Some(group) = self.groups.get_mut(&entry.new.group) {
                group.ready.remove(&(at, seq));
            }
        }
    }

    /// What is to be done at `now`; `None` if nothing is. What it names counts as being sent from here on: note the intent,
    /// send it, tell how it [`ended`](Self::ended), and that this is [`settled`](Self::settled).
    pub fn next(&mut self, now: Mono) -> Option<Due> {
        let due = |group: &Group| {
            let first = group.ready.first().copied().filter(|(at, _)| *at <= now)?;
            (group.sending < self.bounds.at_once).then_some(first.1)
        };
        let found = |(name, group): (&Arc<str>, &Group)| due(group).map(|seq| (Arc::clone(name), seq));
        let after = self.last.as_ref().and_then(|last| {
            let behind = (std::ops::Bound::Excluded(last.as_ref()), std::ops::Bound::Unbounded);
            self.groups.range::<str, _>(behind).find_map(found)
        });
        let (name, seq) = after.or_else(|| self.groups.iter().find_map(found))?;
        self.make_unready(seq);
        let entry = self.entries.get_mut(&seq).expect("what is ready is here");
        entry.state = State::Sending;
        self.groups.get_mut(&name).expect("it was found").sending += 1;
        self.last = Some(name);
        Some(match entry.new.deadline {
            Some(deadline) if deadline <= now && entry.doubtful => Due::TooLate(seq, Why::Unknown),
            Some(deadline) if deadline <= now => Due::TooLate(seq, Why::Deadline),
            _ => Due::Send(seq),
        })
    }

    /// When there is something to be done next, as far as time decides it.
    pub fn wakes_at(&self) -> Option<Mono> {
        let room = |group: &&Group| group.sending < self.bounds.at_once;
        self.groups.values().filter(room).filter_map(|group| Some(group.ready.first()?.0)).min()
    }

    /// Whether an earlier sending of it may have been executed.
    pub fn is_doubtful(&self, seq: Seq) -> bool {
        self.entries.get(&seq).is_some_and(|entry| entry.doubtful)
    }

    /// What the end of a delivery means. Nothing is changed yet: note the verdict, then say that it is
    /// [`settled`](Self::settled).
    pub fn ended(&mut self, seq: Seq, ended: Ended, waits: &Waits, now: Mono) -> Verdict {
        let Some(entry) = self.entries.get(&seq) else { return Verdict::Done };
        let verdict = waits.judge(ended, entry.failed, entry.doubtful, &mut self.rng);
        match verdict {
            // It would not be sent any more then.
            Verdict::Again(wait) if entry.new.deadline.is_some_and(|deadline| now + wait >= deadline) => {
                Verdict::Dead(if entry.doubtful { Why::Unknown } else { Why::Deadline })
            }
            verdict => verdict,
        }
    }

    /// Tries that failed, as they are to be noted with a verdict.
    pub fn failed_after(&self, seq: Seq, ended: Ended) -> u32 {
        let failed = self.entries.get(&seq).map_or(0, |entry| entry.failed);
        failed + u32::from(matches!(ended, Ended::Unsent { ordered: false, .. }))
    }

    /// What became of a delivery is noted. `bytes`: of its answer, in place of its request's.
    pub fn settled(&mut self, seq: Seq, verdict: Verdict, bytes: u64, now: Mono) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        if entry.state != State::Sending {
            return;
        }
        if let Some(group) = self.groups.get_mut(&entry.new.group) {
            group.sending -= 1;
        }
        match verdict {
            Verdict::Again(wait) => {
                entry.state = State::Waiting(now + wait);
                self.make_ready(seq);
                return;
            }
            Verdict::Done => {
                entry.state = State::Done(now);
                self.bytes = self.bytes - entry.new.bytes + bytes;
                entry.new.bytes = bytes;
                self.done_bytes += bytes;
                self.done.push_back((now, seq));
            }
            Verdict::Dead(why) => {
                entry.state = State::Dead(why);
                self.bytes += bytes;
                entry.new.bytes += bytes;
                self.dead += 1;
            }
        }
        self.leave(seq);
    }

    /// A try failed that counts.
    pub fn failed(&mut self, seq: Seq, failed: u32) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.failed = failed;
        }
    }

    fn leave(&mut self, seq: Seq) {
        let New { lines, marks, .. } = self.entries[&seq].new.clone();
        self.lines.unmark(seq, &marks);
        for next in self.lines.leave(seq, &lines) {
            self.make_ready(next);
        }
    }

    /// Takes out an entry that is waiting. False if it is not: it is under way, or over.
    pub fn cancel(&mut self, seq: Seq) -> bool {
        let waits = self.entries.get(&seq).is_some_and(|entry| matches!(entry.state, State::Waiting(_)));
        // What may have been executed cannot be called off.
        if waits && !self.is_doubtful(seq) {
            self.remove(seq);
            return true;
        }
        false
    }

    /// Sends a dead letter again, because a person said so: at the end of its lines, as if it had never been sent. False if it
    /// is none.
    pub fn replay(&mut self, seq: Seq, now: Mono) -> bool {
        let Some(entry) = self.entries.get_mut(&seq) else { return false };
        if !matches!(entry.state, State::Dead(_)) {
            return false;
        }
        (entry.state, entry.failed, entry.doubtful) = (State::Waiting(now), 0, false);
        entry.new.deadline = None;
        self.dead -= 1;
        let New { lines, marks, .. } = entry.new.clone();
        self.lines.enter(seq, &lines);
        self.lines.mark(seq, &marks);
        self.make_ready(seq);
        true
    }

    /// Forgets a dead letter, or one that is delivered. False if it is neither.
    pub fn drop_over(&mut self, seq: Seq) -> bool {
        let over = self.entries.get(&seq).map(|entry| entry.state);
        let over = over.is_some_and(|state| matches!(state, State::Done(_) | State::Dead(_)));
        if over {
            self.remove(seq);
        }
        over
    }

    /// Those that were kept long enough. They are forgotten.
    pub fn expired(&mut self, now: Mono) -> Vec<Seq> {
        let mut gone = Vec::new();
        while let Some((at, seq)) = self.done.front().copied()
            && now - at >= self.bounds.keep
        {
            self.remove(seq);
            gone.push(seq);
        }
        gone
    }

    /// When the next one will have been kept long enough.
    pub fn expires_at(&self) -> Option<Mono> {
        self.done.front().map(|(at, _)| *at + self.bounds.keep)
    }

    fn remove(&mut self, seq: Seq) {
        self.make_unready(seq);
        let Some(entry) = self.entries.get(&seq) else { return };
        match entry.state {
            State::Waiting(_) | State::Sending => self.leave(seq),
            State::Done(_) => {
                self.done_bytes -= entry.new.bytes;
                match self.done.front() {
                    Some((_, first)) if *first == seq => drop(self.done.pop_front()),
                    _ => self.done.retain(|(_, done)| *done != seq),
                }
            }
            State::Dead(_) => self.dead -= 1,
        }
        let entry = self.entries.remove(&seq).expect("it was found");
        self.bytes -= entry.new.bytes;
    }

    /// A place for a write that is not stored: behind the entries of these lines. `None` if there are none; it may go at once.
    pub fn seat(&mut self, lines: &[Arc<str>]) -> Option<Seat> {
        self.lines.seat(lines)
    }

    /// Whether no entry is before a seat.
    pub fn may_go(&self, seat: &Seat) -> bool {
        self.lines.may_go(seat)
    }

    /// Gives a seat back: what it was for is over.
    pub fn rise(&mut self, seat: &Seat) {
        for next in self.lines.rise(seat) {
            self.make_ready(next);
        }
    }

    /// Where an entry is in its life; `None` if it is not here.
    pub fn state(&self, seq: Seq) -> Option<State> {
        self.entries.get(&seq).map(|entry| entry.state)
    }

    /// Whose an entry is.
    pub fn group(&self, seq: Seq) -> Option<Arc<str>> {
        self.entries.get(&seq).map(|entry| Arc::clone(&entry.new.group))
    }

    /// What an entry's delivery has cost: tries that failed and count.
    pub fn tries_failed(&self, seq: Seq) -> u32 {
        self.entries.get(&seq).map_or(0, |entry| entry.failed)
    }

    /// All dead letters, the oldest first.
    pub fn dead(&self) -> Vec<Seq> {
        let dead = |(seq, entry): (&Seq, &Entry)| matches!(entry.state, State::Dead(_)).then_some(*seq);
        self.entries.iter().filter_map(dead).collect()
    }

    /// How many entries of these groups are in each state.
    pub fn tally(&self, of: impl Fn(&str) -> bool) -> Tally {
        let mut tally = Tally::default();
        for entry in self.entries.values().filter(|entry| of(&entry.new.group)) {
            match entry.state {
                State::Waiting(_) => tally.waiting += 1,
                State::Sending => tally.sending += 1,
                State::Done(_) => tally.done += 1,
                State::Dead(_) => tally.dead += 1,
            }
            if matches!(entry.state, State::Waiting(_) | State::Sending) {
                let since = entry.new.since;
                tally.oldest = Some(tally.oldest.map_or(since, |oldest| oldest.min(since)));
            }
        }
        tally
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
