//! Who is refused, and with which place in the queue.
//!
//! A call is refused as soon as it is known that it cannot be served in time: at the ask, when its moment passes, and
//! when a closing or an opened breaker outlasts it. The time it is told is its own forecast place, one permit after the
//! last one told, so that the refused come back spread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Bank, barriers};
use crate::breaker::Admission;
use crate::pace::ask::{Ask, Refusal, RefusalReason, WaiterId, Woken};
use crate::pace::lane::last_moment;
use crate::pace::policy::ClassPolicy;
use crate::schedule::{CallerId, Class, Entry};
use crate::time::Mono;

/// Who may be without hope since the last look. What closes for longer takes it from those only whose moment comes meanwhile,
/// and a breaker from those who set no bound and may not wait for it all the same: so a throttle costs nothing where that is
/// nobody, however many wait.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// The first and the last of those moments.
    moments: Option<(Mono, Mono)>,
    unbounded: bool,
}

impl Bank {
    /// Those whose moment has passed.
    pub(super) fn refuse_late(&mut self, now: Mono, out: &mut Vec<(WaiterId, Woken)>) {
        while let Some(&(moment, id)) = self.moments.first() {
            if moment > now {
                return;
            }
            self.moments.pop_first();
            let Some(waiter) = self.remove_waiter(id) else { continue };
            let forecast = self.forecast(now, waiter.lane, waiter.class, waiter.caller, waiter.deadline);
            let reason = self.too_late(now, waiter.class, forecast);
            out.push((
                WaiterId(id),
                Woken::Refused(self.refuse(now, (waiter.lane, waiter.class), reason, forecast)),
            ));
        }
    }

    /// Those who can no longer be served in time, and those an open breaker does not let wait.
    pub(super) fn refuse_hopeless(&mut self, now: Mono, out: &mut Vec<(WaiterId, Woken)>) {
        let mut closed = BTreeMap::new();
        let mut hopeless = Vec::new();
        for id in self.doubtful() {
            let Some(waiter) = self.schedule.get(id) else { continue };
            let lane = waiter.lane;
            let (admission, opens) =
                *closed.entry(lane).or_insert_with(|| (self.admission(lane, now), self.opens(now, lane)));
            let opens = opens.max(self.days.held(waiter.class).unwrap_or(opens));
            let give_up_at = waiter.payload.give_up_at;
            if self.is_closed() {
                hopeless.push((id, RefusalReason::QuotaStore, now + Self::STORE_RETRY));
            } else if let Admission::Refuse(until) = admission
                && !can_wait(waiter.class, last_moment(waiter.deadline, give_up_at), until)
            {
                hopeless.push((id, RefusalReason::Breaker, until));
            } else if !self.can_meet(lane, waiter.deadline, give_up_at, opens) {
                hopeless.push((id, self.too_late(now, waiter.class, opens), opens));
            }
        }
        for (id, reason, earliest) in hopeless {
            if let Some(waiter) = self.remove_waiter(id) {
                out.push((
                    WaiterId(id),
                    Woken::Refused(self.refuse(now, (waiter.lane, waiter.class), reason, earliest)),
                ));
            }
        }
    }

    /// Why a newcomer cannot be served in time.
    pub(super) fn hopeless(&self, now: Mono, lane: usize, ask: &Ask<'_>, forecast: Mono) -> RefusalReason {
        let held = self.days.held(ask.class).filter(|&until| until > now);
        match held {
            // Without the window it might have been served.
            Some(until) if !self.can_meet(lane, ask.deadline, ask.give_up_at, until) => {
                RefusalReason::Window { forecast: forecast - now }
            }
            _ => RefusalReason::CannotMeet { forecast: forecast - now },
        }
    }

    /// Why a waiter cannot be served any more.
    fn too_late(&self, now: Mono, class: Class, forecast: Mono) -> RefusalReason {
        let forecast = forecast - now;
        match self.days.held(class) {
            Some(until) if until > now => RefusalReason::Window { forecast },
            _ => RefusalReason::CannotMeet { forecast },
        }
    }

    /// The ids of those, in the order in which they came.
    fn doubtful(&mut self) -> Vec<u64> {
        let Doubts { moments, unbounded } = std::mem::take(&mut self.doubts);
        let between = moments.map(|(from, to)| self.moments.range((from, 0)..=(to, u64::MAX)));
        let without = unbounded.then_some(&self.unbounded);
        let mut ids: Vec<u64> = between.into_iter().flatten().map(|&(_, id)| id).collect();
        ids.extend(without.into_iter().flatten());
        ids.sort_unstable();
        ids
    }

    /// What was closed to `lane` for `before` may be closed for longer now.
    pub(in crate::pace) fn doubt_until(
        &mut self,
        now: Mono,
        lane: usize,
        before: Option<Duration>,
        closed: Duration,
    ) {
        if before.is_none_or(|before| closed > before) {
            let (from, to) = (now + before.unwrap_or_default(), now + closed + self.round_trip(lane));
            let known = self.doubts.moments;
            self.doubts.moments =
                Some(known.map_or((from, to), |known| (known.0.min(from), known.1.max(to))));
        }
    }

    /// A window may outlast those who wait.
    pub(super) fn doubt_waiting(&mut self, now: Mono) {
        self.doubts.moments = Some((now, Mono::MAX));
    }

    /// Nobody may leave any more.
    pub(super) fn doubt_all(&mut self, now: Mono) {
        self.doubts = Doubts { moments: Some((now, Mono::MAX)), unbounded: true };
    }

    /// A breaker refuses that did not.
    pub(in crate::pace) fn doubt_unbounded(&mut self) {
        self.doubts.unbounded = true;
    }

    /// The longest that an answer is waited for at a gate of a lane.
    fn round_trip(&self, lane: usize) -> Duration {
        let gates = self.registry.lanes[lane].gates.iter();
        gates.map(|&gate| self.registry.gates[gate].round_trip()).max().unwrap_or_default()
    }

    /// Until when a lane is closed for certain.
    fn opens(&self, now: Mono, lane: usize) -> Mono {
        let breaker = match self.admission(lane, now) {
            Admission::Refuse(until) => until,
            _ => now,
        };
        let gates = self.registry.lanes[lane].gates.iter();
        gates
            .filter_map(|&gate| self.registry.gates[gate].closed_for(now))
            .map(|left| now + left)
            .fold(breaker, Mono::max)
    }

    /// When a new waiter could go, behind those that go before it.
    pub(super) fn forecast(
        &self,
        now: Mono,
        lane: usize,
        class: Class,
        caller: CallerId,
        deadline: Option<Mono>,
    ) -> Mono {
        let pushing = self.config.policies.map(|policy| policy == ClassPolicy::GREEDY);
        let newcomer = Entry { lane, class, caller, deadline, payload: () };
        let before = |gate: usize| {
            // Who is held by a window is in the way of nobody but the held.
            let needs = barriers::of(&self.registry.lanes[lane], self.days.held(class).is_some());
            self.schedule.before(barriers::gate(gate), needs, &newcomer, pushing)
        };
        let gates = self.registry.lanes[lane].gates.iter();
        gates
            .map(|&gate| self.doors().forecast(now, gate, class, before(gate).saturating_add(1)))
            .fold(self.opens(now, lane).max(self.days.held(class).unwrap_or(now)), Mono::max)
    }

    pub(super) fn can_meet(
        &self,
        lane: usize,
        deadline: Option<Mono>,
        give_up_at: Option<Mono>,
        leaves: Mono,
    ) -> bool {
        give_up_at.is_none_or(|bound| leaves < bound)
            && deadline.is_none_or(|bound| leaves + self.round_trip(lane) < bound)
    }

    pub(super) fn refuse(
        &mut self,
        now: Mono,
        (lane, class): (usize, Class),
        reason: RefusalReason,
        earliest: Mono,
    ) -> Refusal {
        let gates = &self.registry.lanes[lane].gates;
        let doors = self.doors();
        let decisive = gates
            .iter()
            .copied()
            .max_by_key(|&gate| (doors.forecast(now, gate, class, 1), self.waiting_at(gate)))
            .unwrap_or(gates[0]);
        let window = self.held_by(class);
        let gate = &mut self.registry.gates[decisive];
        let slot = gate.slot(now, earliest);
        let limit = match reason {
            RefusalReason::Breaker => Arc::from(self.registry.lanes[lane].key.family.as_str()),
            RefusalReason::Window { .. } => window.unwrap_or_else(|| Arc::clone(&gate.name)),
            RefusalReason::QueueFull | RefusalReason::QuotaStore | RefusalReason::CannotMeet { .. } => {
                Arc::clone(&gate.name)
            }
        };
        Refusal { reason, retry_after: slot - now, limit }
    }
}

/// While a breaker refuses until `until`, bulk without a bound waits, and so does everybody who said a later bound.
pub(super) fn can_wait(class: Class, last_moment: Option<Mono>, until: Mono) -> bool {
    match last_moment {
        Some(moment) => moment > until,
        None => class == Class::Bulk,
    }
}
