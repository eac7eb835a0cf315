//! Breakers of families, shared.
//!
//! Each process counts failures itself. What it concludes it tells the others, and where failures run it asks what they have
//! concluded. Once a cool-down has ended one process at a time probes for all, so a host that comes back meets one call and
//! not one of each process. Without the store each does as if alone.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Due, Said};
use crate::breaker::{Admission, Others};
use crate::event::{BreakerState, Event};
use crate::pace::bank::{Bank, barriers};
use crate::share::{DoorChange, DoorReply, DoorSide, Exchange};
use crate::time::Mono;

/// What changed at a breaker and is not told yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Opened,
    Alive,
}

/// When the attempt left that proves a change, and what.
pub(super) type Untold = (Mono, Change);

/// Breakers that others have to hear of, or know more of.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// By family: when the attempt left that proves it, and what.
    untold: BTreeMap<usize, Untold>,
    dues: BTreeMap<usize, Mono>,
    /// Families to be looked at again.
    pub(super) noted: Vec<usize>,
}

impl Bank {
    /// An attempt that left at `sent` said something about a family's breaker, and may have changed its state.
    pub(in crate::pace) fn note_breaker(&mut self, family: usize, sent: Mono, state: Option<BreakerState>) {
        let known = self.registry.door_key(family).is_some();
        let Some(sharing) = self.sharing.as_deref_mut().filter(|_| known) else { return };
        let change = match state {
            Some(BreakerState::Open) => Some(Change::Opened),
            Some(BreakerState::Closed) => Some(Change::Alive),
            Some(BreakerState::HalfOpen) | None => None,
        };
        if let Some(change) = change {
            sharing.changes.untold.insert(family, (sent, change));
        }
        sharing.changes.noted.push(family);
    }

    /// When an exchange is due for breakers that were noted.
    pub(super) fn plan_doors(&mut self, now: Mono) {
        let Some(mut sharing) = self.sharing.take() else { return };
        let mut noted = std::mem::take(&mut sharing.changes.noted);
        noted.sort_unstable();
        noted.dedup();
        for &family in &noted {
            let due = if sharing.changes.untold.contains_key(&family) {
                Some(now)
            } else {
                let state = &self.registry.families[family];
                let waited_for =
                    self.schedule.waiting_for(barriers::family(family)).iter().any(|&waiting| waiting > 0);
                let serves = state.breaker.state(now) == BreakerState::Closed;
                state.breaker.asks_others(now).filter(|_| serves || waited_for)
            };
            let mut before = sharing.changes.dues.remove(&family);
            sharing.plan(&mut before, due, Due::Door(family));
            sharing.changes.dues.extend(due.map(|due| (family, due)));
        }
        noted.clear();
        sharing.changes.noted = noted;
        self.sharing = Some(sharing);
    }

    /// What to say of breakers, and of which families, with what of it was untold.
    pub(super) fn collect_doors(&mut self, now: Mono) -> (Vec<(usize, Option<Untold>)>, Vec<DoorSide>) {
        let (mut families, mut doors) = (Vec::new(), Vec::new());
        let Some(sharing) = self.sharing.as_deref_mut() else { return (families, doors) };
        let due = sharing.changes.dues.iter().filter(|&(_, &at)| at <= now + Self::TOGETHER);
        for (&family, _) in due.take(Exchange::MAX_DOORS) {
            let Some(key) = self.registry.door_key(family) else { continue };
            let breaker = &self.registry.families[family].breaker;
            let untold = sharing.changes.untold.get(&family).copied();
            let (sent, change) = match untold {
                Some((sent, Change::Alive)) => (sent, DoorChange::Alive),
                Some((sent, Change::Opened)) => {
                    let left = match breaker.admission(now) {
                        Admission::Refuse(until) => until - now,
                        _ => Duration::ZERO,
                    };
                    let stay_away = millis(left.as_nanos().div_ceil(1_000_000));
                    (sent, DoorChange::Opened { stay_away, openings: breaker.openings() })
                }
                None => (now, DoorChange::MayIProbe),
            };
            families.push((family, untold));
            doors.push(DoorSide { key, sent: millis((now - sent).as_millis()), change });
        }
        sharing.changes.noted.extend(families.iter().map(|&(family, _)| family));
        (families, doors)
    }

    /// What the others know of them.
    pub(super) fn doors_heard(&mut self, now: Mono, said: &Said, replies: &[DoorReply], remember: bool) {
        for ((&(family, told), side), reply) in said.families.iter().zip(&said.exchange.doors).zip(replies) {
            if self.registry.door_key(family) != Some(side.key) {
                continue;
            }
            let state = &mut self.registry.families[family];
            let others = Others {
                refuses_for: Duration::from_millis(reply.refuses_for),
                openings: reply.openings,
                may_probe: reply.may_probe,
                remember,
            };
            if let Some(change) = state.breaker.heard(now, &others) {
                let family = state.family.clone();
                self.events.push(Event::Breaker { family, state: change.state, cause: change.cause });
                self.doubt_unbounded();
            }
            self.schedule.touch(barriers::family(family));
            let Some(sharing) = self.sharing.as_deref_mut() else { return };
            // The same may have happened again while the exchange was under way: that is not told yet.
            if told.is_some_and(|told| sharing.changes.untold.get(&family) == Some(&told)) {
                sharing.changes.untold.remove(&family);
            }
            sharing.changes.noted.push(family);
        }
    }
}

fn millis(millis: u128) -> u64 {
    u64::try_from(millis).unwrap_or(u64::MAX)
}
