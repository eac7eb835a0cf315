//! The lines in which entries stand, and the seats of writes that are not stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Seq;

/// The place of a write whose caller waits for it. It is given back when the write is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Seat {
    number: u64,
    lines: Vec<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Entry(Seq),
    Seat(u64),
}

/// All lines that somebody stands in.
#[derive(Debug, Default)]
pub(super) struct Lines {
    standing: BTreeMap<Arc<str>, VecDeque<Member>>,
    /// Entries that are about something and stand in another line, by when they came: one that is replayed comes anew.
    marks: BTreeMap<Arc<str>, BTreeSet<(u64, Seq)>>,
    /// Counts seats and marks as they come.
    count: u64,
}

impl Lines {
    pub(super) fn enter(&mut self, seq: Seq, lines: &[Arc<str>]) {
        for line in lines {
            self.standing.entry(Arc::clone(line)).or_default().push_back(Member::Entry(seq));
        }
    }

    pub(super) fn mark(&mut self, seq: Seq, marks: &[Arc<str>]) {
        self.count += 1;
        for mark in marks {
            self.marks.entry(Arc::clone(mark)).or_default().insert((self.count, seq));
        }
    }

    pub(super) fn unmark(&mut self, seq: Seq, marks: &[Arc<str>]) {
        for mark in marks {
            let Some(all) = self.marks.get_mut(mark) else { continue };
            all.retain(|(_, other)| *other != seq);
            if all.is_empty() {
                self.marks.remove(mark);
            }
        }
    }

    pub(super) fn is_first(&self, seq: Seq, lines: &[Arc<str>]) -> bool {
        let first = |line: &Arc<str>| self.standing.get(line).and_then(VecDeque::front);
        lines.iter().all(|line| first(line) == Some(&Member::Entry(seq)))
    }

    /// Takes an entry out of its lines. Returns the entries that are the first of one of them now.
    pub(super) fn leave(&mut self, seq: Seq, lines: &[Arc<str>]) -> Vec<Seq> {
        self.take_out(Member::Entry(seq), lines)
    }

    pub(super) fn seat(&mut self, lines: &[Arc<str>]) -> Option<Seat> {
        let is_entry = |member: &Member| matches!(member, Member::Entry(_));
        let waits = |line: &Arc<str>| self.standing.get(line).is_some_and(|all| all.iter().any(is_entry));
        if !lines.iter().any(|line| self.marks.contains_key(line) || waits(line)) {
            return None;
        }
        self.count += 1;
        let seat = Seat { number: self.count, lines: lines.to_vec() };
        for line in lines {
            self.standing.entry(Arc::clone(line)).or_default().push_back(Member::Seat(seat.number));
        }
        Some(seat)
    }

    pub(super) fn may_go(&self, seat: &Seat) -> bool {
        let is_marked = |line: &Arc<str>| {
            let first = self.marks.get(line).and_then(BTreeSet::first);
            first.is_some_and(|(number, _)| *number < seat.number)
        };
        let free = |line: &Arc<str>| {
            let Some(all) = self.standing.get(line) else { return true };
            let mut before = all.iter().take_while(|member| **member != Member::Seat(seat.number));
            before.all(|member| matches!(member, Member::Seat(_)))
        };
        seat.lines.iter().all(|line| free(line) && !is_marked(line))
    }

    pub(super) fn rise(&mut self, seat: &Seat) -> Vec<Seq> {
        self.take_out(Member::Seat(seat.number), &seat.lines)
    }

    fn take_out(&mut self, member: Member, lines: &[Arc<str>]) -> Vec<Seq> {
        let mut next = Vec::new();
        for line in lines {
            let Some(all) = self.standing.get_mut(line) else { continue };
            if let Some(at) = all.iter().position(|other| *other == member) {
                all.remove(at);
            }
            match all.front() {
                None => drop(self.standing.remove(line)),
                Some(Member::Entry(seq)) => next.push(*seq),
                Some(Member::Seat(_)) => {}
            }
        }
        next
    }
}
