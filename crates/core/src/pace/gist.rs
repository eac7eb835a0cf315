//! The gist of a gate: what is worth keeping when nobody uses it, and when the process ends.
//!
//! A told gate in use holds thousands of own attempts and answers. Once it has been idle for long they say nothing any
//! more; what remains of value is small: the limit, the rule, the length of a window, the round trip, what closes the
//! gate and until when. The same form serves a gate at rest and a stored one, so that both return in the same way: they
//! know how the limit works, and nothing of what is left of it.
//!
//! Rules: what returns never lets through more than the gate would have done that was never folded. A told gate returns
//! with a lone scout, not before its next permit was due. Of a declared log the entries are kept, each at an instant not
//! before its own, in at most [`Spent::GROUPS`] groups. Times are seconds on some clock; [`Gist::shift`] takes them to
//! another.

use serde::{Deserialize, Serialize};

use crate::observe::MAX_DURATION;
use crate::pace::concurrency::Bound;
use crate::pace::cubic::Cubic;
use crate::pace::keep::Unseen;
use crate::pace::learnt::Learnt;
use crate::pace::lease::Lease;
use crate::pace::secs::whole;
use crate::pace::tide::Lore;

/// What is worth keeping of one gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gist {
    pub(super) known: Known,
    /// The unnamed readings' name, once one was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) header_name: Option<Box<str>>,
    /// Nothing may leave before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) opens: Option<f64>,
    /// Then one attempt alone goes first.
    pub(super) scout: bool,
    /// Throttled scouts in a row.
    pub(super) strikes: u32,
    /// Hints proved too short: resets are believed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) short_hints: bool,
    /// The bound on attempts in flight, if one was learnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bound: Option<Box<Bound>>,
    /// The cap that bare refusals are taken for; zero if for a rate's.
    #[serde(default)]
    pub(super) cap: u32,
    pub(super) accepted: u64,
    pub(super) throttles: u64,
    pub(super) last_used: f64,
}

/// What is known of the limit. The most frequent kind lies in place: a million of them in boxes would be spread over all that
/// was in use before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Known {
    /// Nothing, or a cap that the configuration repeats.
    Nothing,
    /// What answers told.
    Told(Lore),
    /// A declared quota.
    Declared(Box<Spent>),
    /// A rate learnt from throttles.
    Silent(Box<Learnt>),
}

/// A declared quota with what of it is spent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spent {
    pub(super) quota: u64,
    /// What the configuration declared; zero where headers did.
    pub(super) declared: u64,
    /// Seconds.
    pub(super) window: f64,
    /// The learnt share; its times are in windows.
    pub(super) share: Option<Cubic>,
    /// When the next may leave, where bursts are refuted or not yet proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) turn: Option<f64>,
    /// Bursts are refuted until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) evenly_until: Option<f64>,
    /// How often they were.
    #[serde(default)]
    pub(super) refuted: u32,
    /// Bursts are proven.
    #[serde(default)]
    pub(super) proven: bool,
    /// What was spent when, ascending.
    pub(super) entries: Vec<(f64, u64)>,
    /// Attempts that are out: they will count from when they end.
    #[serde(default)]
    pub(super) flying: u64,
    /// What of it no stored state holds. A stored one holds all.
    #[serde(skip)]
    pub(super) lease: Lease,
}

impl Spent {
    /// Entries of one window are kept in so many groups: each counts as spent up to a sixteenth of a window late.
    pub(super) const GROUPS: f64 = 16.0;
    /// After so many windows an entry has surely come back.
    const PAST: f64 = 1.01;

    /// Moves every entry up to the end of its group. Applied twice it changes nothing, however much time lies between.
    pub(super) fn grouped(window: f64, entries: impl Iterator<Item = (f64, u64)>) -> Vec<(f64, u64)> {
        let grain = window / Self::GROUPS;
        let mut groups: Vec<(f64, u64)> = Vec::new();
        for (at, count) in entries {
            let end = (at / grain - 1e-9).ceil() * grain;
            match groups.last_mut() {
                Some((last, known)) if *last >= end => *known += count,
                _ => groups.push((end, count)),
            }
        }
        groups
    }

    /// When all of it will have come back.
    pub(super) fn whole_at(&self) -> f64 {
        if self.flying > 0 {
            return f64::INFINITY;
        }
        self.entries.last().map_or(f64::NEG_INFINITY, |&(at, _)| at + self.window * Self::PAST)
    }

    /// At no time is less spent than by these entries, which are ascending.
    pub(super) fn cover(&mut self, others: &[(f64, u64)]) {
        let mut times: Vec<f64> = self.entries.iter().chain(others).map(|&(at, _)| at).collect();
        times.sort_by(|one, other| other.total_cmp(one));
        times.dedup();
        let since = |entries: &[(f64, u64)], time: f64| {
            entries.iter().rev().take_while(|&&(at, _)| at >= time).map(|&(_, count)| count).sum::<u64>()
        };
        let (mut entries, mut known) = (Vec::new(), 0);
        for time in times {
            let spent = since(&self.entries, time).max(since(others, time));
            if spent > known {
                entries.push((time, spent - known));
            }
            known = spent;
        }
        entries.reverse();
        self.entries = entries;
    }

    /// Two counts taken for one: at no time is less spent than in either of them.
    fn merge(&mut self, other: &Self) {
        self.cover(&other.entries);
        self.flying = self.flying.max(other.flying);
        self.turn = later(self.turn, other.turn);
        self.evenly_until = later(self.evenly_until, other.evenly_until);
        self.refuted = self.refuted.max(other.refuted);
        self.proven &= other.proven;
        self.share = self.share.or(other.share);
    }

    /// The same on a clock that shows `by` seconds more.
    fn shift(&mut self, by: f64) {
        let Self {
            quota: _,
            declared: _,
            window,
            share,
            turn,
            evenly_until,
            refuted: _,
            proven: _,
            entries,
            flying: _,
            lease: _,
        } = self;
        *share = share.map(|share| share.shift(by / *window));
        *turn = turn.map(|turn| turn + by);
        *evenly_until = evenly_until.map(|until| until + by);
        for (at, _) in entries {
            *at += by;
        }
    }
}

/// The later of two instants, if there is one.
fn later(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    [one, other].into_iter().flatten().reduce(f64::max)
}

impl Gist {
    /// When nothing closes the gate any more and nothing is spent: from then on forgetting it imagines no quota.
    pub(super) fn harmless_at(&self) -> f64 {
        let opens = self.opens.unwrap_or(f64::NEG_INFINITY);
        match &self.known {
            Known::Declared(spent) => opens.max(spent.whole_at()),
            Known::Nothing | Known::Told(_) | Known::Silent(_) => opens,
        }
    }

    /// As it comes back at `now` after a time in which nothing was seen of it.
    #[must_use]
    pub(super) fn back_at(mut self, now: f64, unseen: Unseen) -> Self {
        self.opens = self.opens.filter(|&at| at > now);
        if let Known::Declared(spent) = &mut self.known {
            // What is known may have come back before it left, so there was room for all of it.
            let out = std::mem::take(&mut spent.flying).saturating_add(unseen.of(spent.quota, spent.window));
            let assumed = out.min(spent.quota);
            if assumed > 0 {
                let latest = spent.entries.last().map_or(unseen.ended, |&(at, _)| at.max(unseen.ended));
                spent.entries.push((latest, assumed));
            }
            let gone = now - spent.window * Spent::PAST;
            spent.entries.retain(|&(at, _)| at > gone);
        }
        self
    }

    /// What no gate can have written of itself. Instants lie before `latest`.
    pub(super) fn absurd(&self, latest: f64) -> Option<&'static str> {
        let window = |window: f64| window > 0.0 && window <= MAX_DURATION.as_secs_f64();
        if self.opens.is_some_and(|at| at > latest) {
            return Some("a gate that is closed for more than a year");
        }
        match &self.known {
            Known::Declared(spent) if spent.quota == 0 || !window(spent.window) => {
                Some("a quota or a window")
            }
            Known::Declared(spent) if spent.turn.is_some_and(|turn| turn > latest) => {
                Some("an attempt that may leave in a year")
            }
            Known::Declared(spent) if spent.entries.iter().any(|&(at, _)| at > latest) => {
                Some("something spent in a year from now")
            }
            Known::Declared(spent) if !spent.entries.is_sorted_by(|one, other| one.0 <= other.0) => {
                Some("what was spent, out of order")
            }
            Known::Told(lore) if lore.limit() < 0.0 => Some("a limit below zero"),
            _ => None,
        }
    }

    /// Permits per window, if known.
    pub(super) fn quota(&self) -> Option<u64> {
        match &self.known {
            Known::Told(lore) => Some(whole(lore.limit())),
            Known::Declared(spent) => Some(spent.quota),
            Known::Nothing | Known::Silent(_) => None,
        }
    }

    /// Of two gates that become one, as those of two tokens: what is closed or spent in either of them.
    pub(super) fn merge(&mut self, other: Self) {
        let opens = later(self.opens, other.opens);
        let scout = self.scout || other.scout;
        let later = other.harmless_at() > self.harmless_at();
        match (&mut self.known, &other.known) {
            (Known::Declared(own), Known::Declared(others)) => own.merge(others),
            _ if later => *self = other,
            _ => {}
        }
        (self.opens, self.scout) = (opens, scout);
    }

    /// What is closed and spent, whoever it was; nothing of what was learnt.
    pub(super) fn forget_whose(&mut self) {
        if !matches!(self.known, Known::Declared(_)) {
            self.known = Known::Nothing;
        }
        self.scout = self.opens.is_some();
        (self.header_name, self.bound, self.strikes, self.accepted, self.throttles) = (None, None, 0, 0, 0);
        (self.short_hints, self.cap) = (false, 0);
    }

    /// The same on a clock that shows `by` seconds more.
    #[must_use]
    pub(super) fn shift(mut self, by: f64) -> Self {
        self.opens = self.opens.map(|at| at + by);
        self.last_used += by;
        match &mut self.known {
            Known::Nothing | Known::Told(_) => {}
            Known::Declared(spent) => spent.shift(by),
            Known::Silent(learnt) => learnt.shift(by),
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spent(gaps: &[(f64, u64)]) -> Spent {
        let mut at = 0.0;
        let entries = gaps.iter().map(|&(gap, count)| {
            at += gap;
            (at, count)
        });
        Spent { entries: entries.collect(), ..crate::pace::sliding::Sliding::new(9, 60.0).keep(0.0, 0) }
    }

    proptest! {
        #[test]
        fn of_two_counts_in_one_the_greater_stands_at_any_time(
            one in prop::collection::vec((0.0..5.0_f64, 1..9_u64), 0..9),
            other in prop::collection::vec((0.0..5.0_f64, 1..9_u64), 0..9),
            since in 0.0..40.0_f64,
        ) {
            let (one, other) = (spent(&one), spent(&other));
            let after = |spent: &Spent| {
                spent.entries.iter().filter(|&&(at, _)| at >= since).map(|&(_, count)| count).sum::<u64>()
            };
            let mut both = one.clone();
            both.merge(&other);
            prop_assert_eq!(after(&both), after(&one).max(after(&other)));
            prop_assert!(both.entries.is_sorted_by(|one, other| one.0 <= other.0));
        }

        #[test]
        fn no_entry_comes_back_before_its_time_and_none_more_than_a_group_late(
            gaps in prop::collection::vec((0.0..5.0_f64, 1..9_u64), 0..80),
            window in 0.5..100.0_f64,
        ) {
            let mut at = -40.0;
            let entries: Vec<(f64, u64)> = gaps.into_iter().map(|(gap, count)| { at += gap; (at, count) }).collect();
            let groups = Spent::grouped(window, entries.iter().copied());
            let spent_after = |entries: &[(f64, u64)], since: f64| {
                entries.iter().filter(|&&(at, _)| at >= since).map(|&(_, count)| count).sum::<u64>()
            };
            for &(at, _) in &entries {
                prop_assert!(spent_after(&groups, at - 1e-6) >= spent_after(&entries, at));
                prop_assert!(spent_after(&groups, at + window / Spent::GROUPS + 1e-6) <= spent_after(&entries, at));
            }
            prop_assert_eq!(&Spent::grouped(window, groups.iter().copied()), &groups);
        }
    }
}
