//! What an exchange says and asks for.
//!
//! Lanes that wait and lack permits come first, then those that will, then limits for which something is due. What waits is
//! counted less the permits that are in hand; beside it stands what is expected until the lease ends.

use std::time::Duration;

use super::{Due, Sharing};
use crate::pace::bank::Bank;
use crate::pace::policy::Taking;
use crate::schedule::Class;
use crate::share::{DoorSide, Exchange, LimitSide, PROTOCOL, Want};
use crate::time::Mono;

/// The parts of an exchange: gates and lanes as the bank knows them, limits and asks as the store does.
pub(super) type Parts = (Vec<usize>, Vec<usize>, Vec<LimitSide>, Vec<Want>);

/// Where nothing was heard yet.
const USUAL_LEASE: Duration = Duration::from_secs(5);

/// An exchange being put together.
#[derive(Default)]
struct Draft {
    gates: Vec<usize>,
    /// Of each gate, permits in hand that a call can leave with and no call of this draft was reckoned with.
    left: Vec<u32>,
    lanes: Vec<usize>,
    asks: Vec<Want>,
}

impl Draft {
    fn place(&self, gate: usize) -> Option<usize> {
        self.gates.iter().position(|&other| other == gate)
    }
}

impl Sharing {
    /// An exchange as this process says it now.
    pub(super) fn word(
        &self,
        now: Mono,
        salt: u64,
        limits: Vec<LimitSide>,
        asks: Vec<Want>,
        doors: Vec<DoorSide>,
    ) -> Exchange {
        Exchange {
            protocol: PROTOCOL,
            holder: self.config.holder,
            seq: self.seq,
            incarnation: self.incarnation,
            salt,
            slack: u64::try_from(self.round_trip.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX),
            heard: self.heard.map(|heard| u64::try_from((now - heard).as_millis()).unwrap_or(u64::MAX)),
            answered: self.answered_seq,
            limits,
            asks,
            doors,
            leaves: false,
        }
    }
}

impl Bank {
    /// Puts an exchange together from what is due and what is likely to be soon.
    pub(super) fn collect_exchange(&mut self, now: Mono) -> Parts {
        let mut draft = Draft::default();
        for lane in self.lanes_that_want(now) {
            if draft.asks.len() + 2 > Exchange::MAX_ASKS {
                break;
            }
            self.ask_for(now, lane, &mut draft);
        }
        self.add_due(now, &mut draft);
        let Draft { gates, lanes, asks, .. } = draft;
        let mut limits = Vec::with_capacity(gates.len());
        for &gate in &gates {
            limits.extend(self.registry.gates[gate].say(now));
        }
        if let Some(sharing) = self.sharing.as_deref_mut() {
            sharing.gates.extend(&gates);
            sharing.hand = lanes.last().map_or(0, |&lane| lane + 1);
        }
        (gates, lanes, limits, asks)
    }

    /// Lanes with calls that wait or may come, those first for which an exchange is due; of equals it is everybody's turn.
    fn lanes_that_want(&mut self, now: Mono) -> Vec<usize> {
        let Some(mut sharing) = self.sharing.take() else { return Vec::new() };
        sharing.active.retain(|&lane| {
            let lane = self.registry.lanes.get(lane);
            lane.is_some_and(|lane| {
                lane.waiting > 0 || lane.wanting.as_ref().is_some_and(|wanting| !wanting.is_idle(now))
            })
        });
        let turns = sharing.active.range(sharing.hand..).chain(sharing.active.range(..sharing.hand));
        let mut lanes: Vec<usize> = turns.copied().collect();
        let due = |lane: &usize| {
            let wanting = self.registry.lanes[*lane].wanting.as_ref();
            wanting.and_then(|wanting| wanting.due).is_none_or(|due| due > now)
        };
        lanes.sort_by_key(due);
        self.sharing = Some(sharing);
        lanes
    }

    /// Asks for the calls of a lane, if it lacks permits.
    fn ask_for(&self, now: Mono, lane: usize, draft: &mut Draft) {
        let state = &self.registry.lanes[lane];
        let shared = |gate: &&usize| self.registry.gates[**gate].is_joined();
        let gates: Vec<usize> = state.gates.iter().filter(shared).copied().collect();
        let new = gates.iter().filter(|&&gate| draft.place(gate).is_none()).count();
        if gates.is_empty() || draft.gates.len() + new > Exchange::MAX_LIMITS {
            return;
        }
        let come_back = state.wanting.as_ref().map_or(Mono::ZERO, |wanting| wanting.come_back());
        let closed = gates.iter().any(|&gate| self.registry.gates[gate].closed_for(now).is_some());
        if closed || !self.serves(lane, now) || come_back > now {
            return;
        }
        // What nobody counts is asked for by itself: that it is there must not depend on what is counted.
        let counted = |gate: &usize| self.registry.gates[*gate].is_counted();
        let (counted, free): (Vec<usize>, Vec<usize>) = gates.into_iter().partition(counted);
        for group in [free, counted] {
            self.ask_together(now, lane, &group, draft);
        }
    }

    /// Asks for permits of some gates of a lane, of all of them or of none.
    fn ask_together(&self, now: Mono, lane: usize, gates: &[usize], draft: &mut Draft) {
        let Some(wanting) = &self.registry.lanes[lane].wanting else { return };
        let left = |draft: &Draft, gate: usize| {
            draft.place(gate).map_or_else(|| self.registry.gates[gate].worth(now), |place| draft.left[place])
        };
        let have = gates.iter().map(|&gate| left(draft, gate)).min().unwrap_or(0);
        let lease = gates.iter().filter_map(|&gate| self.registry.gates[gate].lease_length()).min();
        let stopped = self.schedule.waiting_in(lane);
        let mut rest = have;
        let now_wanted = reduce(stopped, &mut rest);
        let soon = reduce(wanting.soon(now, lease.unwrap_or(USUAL_LEASE)), &mut rest);
        let wanted = total(now_wanted) + total(soon);
        // Where permits last for half of what is expected, nothing is asked ahead of its time; beyond, some gate lacks some.
        if gates.is_empty() || total(now_wanted) == 0 && have >= wanted {
            return;
        }
        let mut limits = Vec::new();
        for &gate in gates {
            let has = left(draft, gate);
            let place = draft.place(gate).unwrap_or_else(|| {
                draft.gates.push(gate);
                draft.left.push(has);
                draft.gates.len() - 1
            });
            let need = total(stopped).min(have) + wanted;
            draft.left[place] = has.saturating_sub(need);
            if has < need {
                limits.push(u8::try_from(place).expect("there are few limits"));
            }
        }
        let quota = gates.iter().filter_map(|&gate| self.registry.gates[gate].quota()).min().unwrap_or(0);
        let policies = self.config.policies;
        draft.lanes.push(lane);
        draft.asks.push(Want {
            limits,
            now: now_wanted,
            soon,
            leave: policies.map(|policy| u32::try_from(policy.reserve.min(quota / 2)).unwrap_or(u32::MAX)),
            fair: policies.map(|policy| policy.taking == Taking::Fair),
        });
    }

    /// Limits for which something is due, or will be within a moment.
    fn add_due(&mut self, now: Mono, draft: &mut Draft) {
        let Some(mut sharing) = self.sharing.take() else { return };
        let due: Vec<(Mono, Due)> =
            sharing.dues.range(..=(now + Self::TOGETHER, Due::Lane(usize::MAX))).copied().collect();
        for (at, what) in due {
            match what {
                Due::Gate(gate) => {
                    let known = self.registry.gates.get(gate).and_then(|state| state.shared());
                    if known.is_none_or(|shared| shared.due != Some(at)) {
                        sharing.dues.remove(&(at, what));
                    } else if draft.place(gate).is_none() && draft.gates.len() < Exchange::MAX_LIMITS {
                        draft.gates.push(gate);
                    }
                }
                Due::Door(family) => sharing.changes.noted.push(family),
                Due::Lane(lane) => {
                    let known = self.registry.lanes.get(lane).and_then(|state| state.wanting.as_ref());
                    if known.is_none_or(|wanting| wanting.due != Some(at)) {
                        sharing.dues.remove(&(at, what));
                    } else {
                        // Whatever became of it, it is looked at again.
                        sharing.lanes.push(lane);
                    }
                }
            }
        }
        self.sharing = Some(sharing);
    }
}

/// Takes from `wanted`, by importance, what `have` covers.
fn reduce(wanted: [u32; Class::COUNT], have: &mut u32) -> [u32; Class::COUNT] {
    wanted.map(|count| {
        let covered = count.min(*have);
        *have -= covered;
        count - covered
    })
}

fn total(counts: [u32; Class::COUNT]) -> u32 {
    counts.into_iter().fold(0, u32::saturating_add)
}
