//! The outbox against a naive model: a list that is looked through each time. Crashes come between any two steps; what is on disk
//! then is all that the next process knows.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::outbox::{Bounds, Due, Ended, New, Outbox, Seat, Seq, State, Verdict, Waits, Why};
use tidegate_core::time::Mono;

/// What is on disk of an entry.
#[derive(Clone, Debug)]
struct Row {
    new: New,
    state: State,
    failed: u32,
    doubtful: bool,
}

/// What the upstream does with a send.
#[derive(Clone, Copy, Debug)]
enum Fortune {
    Executes,
    ExecutesAndIsNotHeard,
    Refuses,
    OrdersAWait,
    RefusesForGood,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Accept {
        group: u8,
        line: u8,
        mark: Option<u8>,
        deadline: Option<u8>,
    },
    /// Looks for what is due, and notes the intent.
    Begin,
    /// Sends what was begun, and notes its end.
    End {
        which: u8,
        fortune: Fortune,
    },
    /// The process ends, with everything that is under way sent or not.
    Crash {
        sent: bool,
    },
    Wait(u16),
    Cancel(u8),
    Replay(u8),
    Sit {
        line: u8,
    },
    Rise,
}

fn step() -> impl Strategy<Value = Step> {
    let fortune = prop_oneof![
        4 => Just(Fortune::Executes),
        1 => Just(Fortune::ExecutesAndIsNotHeard),
        2 => Just(Fortune::Refuses),
        1 => Just(Fortune::OrdersAWait),
        1 => Just(Fortune::RefusesForGood),
    ];
    prop_oneof![
        6 => (0..3u8, 0..4u8, prop::option::of(0..4u8), prop::option::of(1..60u8))
            .prop_map(|(group, line, mark, deadline)| Step::Accept { group, line, mark, deadline }),
        8 => Just(Step::Begin),
        8 => (any::<u8>(), fortune).prop_map(|(which, fortune)| Step::End { which, fortune }),
        1 => any::<bool>().prop_map(|sent| Step::Crash { sent }),
        4 => (0..2000u16).prop_map(Step::Wait),
        1 => any::<u8>().prop_map(Step::Cancel),
        1 => any::<u8>().prop_map(Step::Replay),
        1 => (0..4u8).prop_map(|line| Step::Sit { line }),
        1 => Just(Step::Rise),
    ]
}

const BOUNDS: Bounds = Bounds { entries: 40, bytes: 4_000, at_once: 2, keep: Duration::from_secs(5_000) };

struct World {
    now: Mono,
    machine: Outbox,
    waits: Waits,
    disk: BTreeMap<Seq, Row>,
    next: Seq,
    /// Begun and not ended.
    under_way: Vec<Seq>,
    /// When each entry came to its line, replayed ones anew.
    came: BTreeMap<Seq, u64>,
    /// Seats, their line, when they were taken, and who was before them.
    seats: Vec<(Seat, Arc<str>, u64, Vec<Seq>)>,
    count: u64,
    executed: BTreeMap<Seq, u32>,
    replays: BTreeMap<Seq, u32>,
    accepted: usize,
    cancelled: usize,
}

fn name(kind: &str, number: u8) -> Arc<str> {
    format!("{kind}{number}").into()
}

impl World {
    fn new() -> Self {
        Self {
            now: Mono::ZERO,
            machine: Outbox::new(BOUNDS, 1),
            waits: Waits([1, 5, 60].map(Duration::from_secs).into()),
            disk: BTreeMap::new(),
            next: 1,
            under_way: Vec::new(),
            came: BTreeMap::new(),
            count: 0,
            seats: Vec::new(),
            executed: BTreeMap::new(),
            replays: BTreeMap::new(),
            accepted: 0,
            cancelled: 0,
        }
    }

    fn is_open(&self, seq: Seq) -> bool {
        matches!(self.disk.get(&seq).map(|row| row.state), Some(State::Waiting(_) | State::Sending))
    }

    /// Whether an entry may be begun, found out by looking at all others.
    fn may_begin(&self, seq: Seq) -> bool {
        let row = &self.disk[&seq];
        let State::Waiting(at) = row.state else { return false };
        let at = row.new.deadline.map_or(at, |deadline| at.min(deadline));
        let line = &row.new.lines[0];
        let came = self.came[&seq];
        let stands_before = |other: &Row| {
            self.is_open(other.new.seq) && other.new.lines[0] == *line && self.came[&other.new.seq] < came
        };
        let is_first = !self.disk.values().any(stands_before);
        let seated_before = self.seats.iter().any(|(_, of, taken, _)| of == line && *taken < came);
        let group = self.under_way.iter().filter(|other| self.disk[other].new.group == row.new.group).count();
        at <= self.now && is_first && !seated_before && group < BOUNDS.at_once
    }

    fn accept(&mut self, group: u8, line: u8, mark: Option<u8>, deadline: Option<u8>) {
        let bytes = 100;
        let open = self.disk.values().filter(|row| !matches!(row.state, State::Done(_))).count();
        let held = self.disk.len();
        match self.machine.admit(bytes, None) {
            Ok(gone) => {
                for seq in gone {
                    assert!(matches!(self.disk.remove(&seq).unwrap().state, State::Done(_)));
                }
                assert!(open < BOUNDS.entries && self.disk.len() < BOUNDS.entries);
            }
            Err(full) => {
                assert_eq!(full.entries, open);
                assert!(open >= BOUNDS.entries || open as u64 * bytes + bytes > BOUNDS.bytes, "{held}");
                return;
            }
        }
        let new = New {
            seq: self.next,
            group: name("g", group),
            lines: vec![name("l", line)],
            marks: mark
                .map(|mark| name("l", mark))
                .filter(|mark| *mark != name("l", line))
                .into_iter()
                .collect(),
            bytes,
            deadline: deadline.map(|after| self.now + Duration::from_secs(after.into())),
            since: self.now,
        };
        self.next += 1;
        self.accepted += 1;
        self.count += 1;
        self.came.insert(new.seq, self.count);
        let row = Row { new: new.clone(), state: State::Waiting(self.now), failed: 0, doubtful: false };
        self.disk.insert(new.seq, row);
        self.machine.add(new);
    }

    fn begin(&mut self) {
        let allowed: Vec<Seq> = self.disk.keys().copied().filter(|seq| self.may_begin(*seq)).collect();
        match self.machine.next(self.now) {
            None => assert!(allowed.is_empty(), "{allowed:?} could go at {:?}", self.now),
            Some(Due::Send(seq)) => {
                assert!(allowed.contains(&seq), "{seq} is none of {allowed:?}");
                assert_eq!(self.machine.is_doubtful(seq), self.disk[&seq].doubtful);
                self.disk.get_mut(&seq).unwrap().state = State::Sending;
                self.under_way.push(seq);
            }
            Some(Due::TooLate(seq, why)) => {
                assert!(allowed.contains(&seq));
                let row = &self.disk[&seq];
                assert!(row.new.deadline.unwrap() <= self.now);
                assert_eq!(why, if row.doubtful { Why::Unknown } else { Why::Deadline });
                self.settle(seq, Verdict::Dead(why), 0);
            }
        }
    }

    fn execute(&mut self, seq: Seq) {
        let allowed = 1 + self.replays.get(&seq).copied().unwrap_or_default();
        let times = self.executed.entry(seq).or_default();
        *times += 1;
        assert!(*times <= allowed, "{seq} is executed {times} times");
    }

    fn end(&mut self, which: u8, fortune: Fortune) {
        if self.under_way.is_empty() {
            return;
        }
        let seq = self.under_way.remove(usize::from(which) % self.under_way.len());
        // What may have been executed is not sent again by the stack, which finds out or says that nobody knows.
        let ended = if self.disk[&seq].doubtful {
            if self.executed.contains_key(&seq) && which.is_multiple_of(2) {
                Ended::Answered
            } else {
                Ended::Unknown
            }
        } else {
            match fortune {
                Fortune::Executes => {
                    self.execute(seq);
                    Ended::Answered
                }
                Fortune::ExecutesAndIsNotHeard => {
                    self.execute(seq);
                    Ended::Unknown
                }
                Fortune::Refuses => Ended::Unsent { retry_after: None, ordered: false },
                Fortune::OrdersAWait => {
                    Ended::Unsent { retry_after: Some(Duration::from_secs(3)), ordered: true }
                }
                Fortune::RefusesForGood => Ended::Refused,
            }
        };
        let failed = self.machine.failed_after(seq, ended);
        let verdict = self.machine.ended(seq, ended, &self.waits, self.now);
        if self.disk[&seq].doubtful && verdict != Verdict::Done {
            assert_eq!(verdict, Verdict::Dead(Why::Unknown), "a doubt does not go away by itself");
        }
        self.settle(seq, verdict, failed);
    }

    fn settle(&mut self, seq: Seq, verdict: Verdict, failed: u32) {
        let row = self.disk.get_mut(&seq).unwrap();
        row.failed = failed;
        row.state = match verdict {
            Verdict::Done => State::Done(self.now),
            Verdict::Again(wait) => State::Waiting(self.now + wait),
            Verdict::Dead(why) => State::Dead(why),
        };
        if verdict == Verdict::Done {
            row.new.bytes = 0;
        }
        self.machine.failed(seq, failed);
        self.machine.settled(seq, verdict, 0, self.now);
    }

    /// All that was known is what is on disk.
    fn crash(&mut self, sent: bool) {
        for seq in std::mem::take(&mut self.under_way) {
            if sent && !self.disk[&seq].doubtful {
                self.execute(seq);
            }
        }
        self.seats.clear();
        self.machine = Outbox::new(BOUNDS, 1);
        for row in self.disk.values_mut() {
            self.machine.restore(row.new.clone(), row.state, row.failed, row.doubtful);
            if row.state == State::Sending {
                (row.state, row.doubtful) = (State::Waiting(row.new.since), true);
            }
        }
        self.came = self.disk.keys().map(|seq| (*seq, *seq)).collect();
        self.count += 1_000_000;
    }

    fn pick(&self, which: u8, is: impl Fn(&Row) -> bool) -> Option<Seq> {
        let all: Vec<Seq> = self.disk.values().filter(|row| is(row)).map(|row| row.new.seq).collect();
        (!all.is_empty()).then(|| all[usize::from(which) % all.len()])
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Accept { group, line, mark, deadline } => self.accept(group, line, mark, deadline),
            Step::Begin => self.begin(),
            Step::End { which, fortune } => self.end(which, fortune),
            Step::Crash { sent } => self.crash(sent),
            Step::Wait(seconds) => {
                self.now += Duration::from_secs(seconds.into());
                for seq in self.machine.expired(self.now) {
                    let State::Done(at) = self.disk.remove(&seq).unwrap().state else {
                        panic!("{seq} is owed")
                    };
                    assert!(self.now - at >= BOUNDS.keep);
                }
            }
            Step::Cancel(which) => {
                let Some(seq) = self.pick(which, |_| true) else { return };
                let row = &self.disk[&seq];
                let can = matches!(row.state, State::Waiting(_)) && !row.doubtful;
                assert_eq!(self.machine.cancel(seq), can);
                if can {
                    self.disk.remove(&seq);
                    self.cancelled += 1;
                }
            }
            Step::Replay(which) => {
                let Some(seq) = self.pick(which, |row| matches!(row.state, State::Dead(_))) else { return };
                assert!(self.machine.replay(seq, self.now));
                let row = self.disk.get_mut(&seq).unwrap();
                (row.state, row.failed, row.doubtful) = (State::Waiting(self.now), 0, false);
                row.new.deadline = None;
                *self.replays.entry(seq).or_default() += 1;
                self.count += 1;
                self.came.insert(seq, self.count);
            }
            Step::Sit { line } => self.sit(line),
            Step::Rise => {
                if !self.seats.is_empty() {
                    let (seat, ..) = self.seats.remove(0);
                    self.machine.rise(&seat);
                }
            }
        }
    }

    fn sit(&mut self, line: u8) {
        let line = name("l", line);
        let about = |row: &Row| row.new.lines.contains(&line) || row.new.marks.contains(&line);
        let before: Vec<Seq> =
            self.disk.keys().copied().filter(|seq| self.is_open(*seq) && about(&self.disk[seq])).collect();
        match self.machine.seat(std::slice::from_ref(&line)) {
            None => assert!(before.is_empty(), "{before:?}"),
            Some(seat) => {
                assert!(!before.is_empty());
                assert!(!self.machine.may_go(&seat));
                self.count += 1;
                self.seats.push((seat, line, self.count, before));
            }
        }
    }

    fn check(&self) {
        for (seat, _, _, before) in &self.seats {
            // What was replayed meanwhile stands behind it again, or is marked as before.
            if before.iter().all(|seq| !self.is_open(*seq)) {
                assert!(self.machine.may_go(seat));
            }
            let untouched = before.iter().any(|seq| self.is_open(*seq) && !self.replays.contains_key(seq));
            assert!(!untouched || !self.machine.may_go(seat));
        }
        let (tally, mut naive) = (self.machine.tally(|_| true), [0; 4]);
        for (seq, row) in &self.disk {
            assert_eq!(self.machine.state(*seq), Some(row.state), "{seq}");
            naive[match row.state {
                State::Waiting(_) => 0,
                State::Sending => 1,
                State::Done(_) => 2,
                State::Dead(_) => 3,
            }] += 1;
        }
        assert_eq!([tally.waiting, tally.sending, tally.done, tally.dead], naive);
        assert_eq!(self.machine.bytes(), self.disk.values().map(|row| row.new.bytes).sum::<u64>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_nor_done_twice_and_what_is_due_is_what_a_list_says(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check();
        }
        // In the end everybody has an end.
        while !world.seats.is_empty() {
            world.take(Step::Rise);
        }
        for _ in 0..2_000 {
            if !world.disk.values().any(|row| matches!(row.state, State::Waiting(_) | State::Sending)) {
                break;
            }
            world.begin();
            world.end(0, Fortune::Executes);
            if let Some(at) = world.machine.wakes_at() {
                world.now = world.now.max(at);
            }
        }
        for (seq, row) in &world.disk {
            let executed = world.executed.get(seq).copied().unwrap_or_default();
            match row.state {
                State::Done(_) => prop_assert!(executed > 0),
                State::Dead(Why::Unknown) => {}
                State::Dead(_) => prop_assert_eq!(executed, world.replays.get(seq).map_or(0, |_| executed)),
                State::Waiting(_) | State::Sending => prop_assert!(false, "{} has no end", seq),
            }
        }
    }
}
