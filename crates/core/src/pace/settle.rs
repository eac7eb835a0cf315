//! What becomes of a ticket: sent, answered or dropped.
//!
//! An answer is told to every gate the ticket came from. Readings go to the limit they name; those without a name go to
//! the limit that observes them, else to the family's own. A throttle closes one gate: the one the body names, else one
//! whose reading shows nothing left, else a declared one that is all but used up, else the family's own. An attempt that
//! failed before anything left costs no quota; it says something to the breaker only.

use std::time::Duration;

use crate::breaker::Transition;
use crate::event::Event;
use crate::key::Family;
use crate::observe::{HitLimit, Observation, Reading};
use crate::pace::ask::{Answer, AnswerKind};
use crate::pace::bank::Bank;
use crate::pace::gate::{Closed, Throttle};
use crate::pace::registry::OTHER;
use crate::pace::secs::secs;
use crate::pace::ticket::{Hold, Ticket, TicketId};
use crate::pace::tide::Lesson;
use crate::time::Mono;

/// A declared limit with less than this free explains a throttle that names none.
const NEARLY_USED_UP: f64 = 0.1;

impl Bank {
    /// The attempt of this ticket leaves.
    pub fn sent(&mut self, now: Mono, ticket: TicketId) {
        if let Some(ticket) = self.tickets.get_mut(&ticket.0) {
            ticket.sent = Some(now);
            for hold in &mut ticket.holds {
                hold.attempt.sent = secs(now);
            }
        }
    }

    /// The ticket is gone. What was not sent is given back. What was sent stays spent, because the server may have
    /// counted it; only its place in flight is free again.
    pub fn dropped(&mut self, now: Mono, ticket: TicketId) {
        let Some(ticket) = self.tickets.remove(&ticket.0) else { return };
        for hold in &ticket.holds {
            let gate = &mut self.registry.gates[hold.gate];
            if ticket.sent.is_some() { gate.lost(now, &hold.attempt) } else { gate.give_back(&hold.attempt) }
        }
        let lane = &mut self.registry.lanes[ticket.lane];
        lane.tickets -= 1;
        self.registry.families[lane.family].breaker.lost(ticket.granted);
        self.recycle(ticket.holds);
    }

    /// The attempt of this ticket was answered, or failed for certain. A ticket that was never marked as sent counts as
    /// sent when it was granted.
    pub fn answered(&mut self, now: Mono, ticket: TicketId, answer: &Answer<'_>) {
        let Some(known) = self.tickets.get(&ticket.0) else { return };
        let (lane, family) = (known.lane, known.family.clone());
        if !matches!(answer.kind, AnswerKind::NotFound | AnswerKind::HardFailure | AnswerKind::NotSent) {
            self.promote(now, &family);
        }
        let targets = self.targets(lane, answer.observation);
        let Some(ticket) = self.tickets.remove(&ticket.0) else { return };
        self.registry.lanes[lane].tickets -= 1;
        for ignored in &answer.observation.ignored {
            self.events.push(Event::HeaderIgnored { field: ignored.field.clone(), why: ignored.why });
        }
        let closed = if answer.kind == AnswerKind::Throttled {
            Some(self.close(now, &ticket, answer.observation, &targets))
        } else {
            None
        };
        for hold in &ticket.holds {
            if answer.kind == AnswerKind::NotSent {
                self.registry.gates[hold.gate].give_back(&hold.attempt);
            } else if closed.is_none_or(|(gate, _)| gate != hold.gate) {
                self.tell(now, hold, answer, &targets);
            }
        }
        let hint = closed.map(|(_, hint)| hint);
        self.tell_breaker(now, &ticket, answer.kind, hint);
        self.recycle(ticket.holds);
    }

    /// A family that proved to exist gets gates of its own, and its attempts in flight move there.
    fn promote(&mut self, now: Mono, family: &Family) {
        if self.registry.families.len() > self.config.max_families {
            return;
        }
        let before: Vec<usize> = self.lanes_still_in_other(family);
        if before.is_empty() {
            return;
        }
        self.recount_waiting(&before, |waiting, count| *waiting = waiting.saturating_sub(count));
        let lanes = self.registry.promote(now, family);
        self.recount_waiting(&before, |waiting, count| *waiting = waiting.saturating_add(count));
        for ticket in self.tickets.values_mut().filter(|ticket| lanes.contains(&ticket.lane)) {
            let gates = &self.registry.lanes[ticket.lane].gates;
            for (hold, &gate) in ticket.holds.iter_mut().zip(gates) {
                if hold.gate != gate {
                    self.registry.gates[hold.gate].moved_on(&hold.attempt);
                    hold.gate = gate;
                    self.registry.gates[gate].adopt();
                }
            }
        }
    }

    fn lanes_still_in_other(&self, family: &Family) -> Vec<usize> {
        let lanes = self.registry.lanes.iter();
        lanes
            .filter(|(_, lane)| lane.family == OTHER && lane.key.family == *family)
            .map(|(id, _)| id)
            .collect()
    }

    /// The gate each reading describes, in the order of the readings.
    fn targets(&mut self, lane: usize, observation: &Observation) -> Vec<Option<usize>> {
        observation.readings.iter().map(|reading| self.target(lane, reading)).collect()
    }

    fn target(&mut self, lane: usize, reading: &Reading) -> Option<usize> {
        let unnamed = self.registry.lanes[lane].unnamed;
        let Some(name) = reading.name.as_deref() else { return Some(unnamed) };
        let gates = &self.registry.lanes[lane].gates;
        let named = gates.iter().copied().find(|&gate| {
            let gate = &self.registry.gates[gate];
            &*gate.name == name || gate.header_name.as_deref() == Some(name)
        });
        if named.is_some() {
            return named;
        }
        let gate = &mut self.registry.gates[unnamed];
        if gate.header_name.is_none() && !gate.is_pinned() {
            gate.header_name = Some(name.to_owned());
            return Some(unnamed);
        }
        let (gate, joined) = self.registry.name_limit(lane, name)?;
        for ticket in self.tickets.values_mut().filter(|ticket| joined.contains(&ticket.lane)) {
            let mut attempt = ticket.holds.first().map(|hold| hold.attempt.clone()).unwrap_or_default();
            attempt.level_alone = None;
            attempt.promised = None;
            ticket.holds.push(Hold { gate, attempt });
            self.registry.gates[gate].adopt();
        }
        for lane in joined {
            for class in 0..4 {
                let count = u32::try_from(self.registry.lanes[lane].queues[class].len()).unwrap_or(u32::MAX);
                self.registry.gates[gate].waiting[class] += count;
            }
        }
        Some(gate)
    }

    /// Tells a gate an answer that closed another gate or none.
    fn tell(&mut self, now: Mono, hold: &Hold, answer: &Answer<'_>, targets: &[Option<usize>]) {
        let reading = reading_of(hold.gate, answer.observation, targets);
        let counts = answer.kind == AnswerKind::Accepted
            || (answer.kind == AnswerKind::NotFound)
            || (answer.kind == AnswerKind::Unauthorized);
        let gate = &mut self.registry.gates[hold.gate];
        let Lesson { quota, strangers, .. } =
            gate.answered(now, &hold.attempt, reading, answer.observation.date, counts);
        let limit = || gate.name.to_string();
        if let Some(quota) = quota {
            self.events.push(Event::LimitLearnt { limit: limit(), quota });
        }
        if let Some(per_second) = strangers {
            self.events.push(Event::StrangersSeen { limit: limit(), per_second });
        }
    }

    /// Closes the gate that explains a throttle. Returns it, and how long to stay away.
    fn close(
        &mut self,
        now: Mono,
        ticket: &Ticket,
        observation: &Observation,
        targets: &[Option<usize>],
    ) -> (usize, Duration) {
        if let Some(HitLimit { key: Some(key), value: Some(value), .. }) = &observation.hit {
            self.set_quota(key, *value);
        }
        let hold = self.guilty(now, ticket, observation, targets);
        let jitter = self.jitter();
        let gate = &mut self.registry.gates[hold.gate];
        let throttle = Throttle {
            retry_after: observation.retry_after,
            reading: reading_of(hold.gate, observation, targets),
            date: observation.date,
            jitter,
        };
        let Closed { news, stay_away: closed_for, contradicted_by } =
            gate.throttled(now, &hold.attempt, &throttle);
        let limit = gate.name.to_string();
        self.hopes_changed = true;
        if news {
            self.events.push(Event::Throttled { family: ticket.family.clone(), limit, closed_for });
        }
        if let (Some(retry_after), Some(reset)) = (observation.retry_after, contradicted_by) {
            self.events.push(Event::HintMismatch {
                family: ticket.family.clone(),
                credential: ticket.credential.clone(),
                retry_after,
                reset,
            });
        }
        (hold.gate, closed_for)
    }

    fn jitter(&mut self) -> Duration {
        let spread = u64::try_from(self.config.spread.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(if spread == 0 { 0 } else { self.rng.u64(0..=spread) })
    }

    /// Which gate explains a throttle.
    fn guilty<'t>(
        &self,
        now: Mono,
        ticket: &'t Ticket,
        observation: &Observation,
        targets: &[Option<usize>],
    ) -> &'t Hold {
        let holds = &ticket.holds;
        let named = observation.hit.as_ref().and_then(|hit| hit.key.as_deref());
        let by_name = holds.iter().find(|hold| {
            let gate = &self.registry.gates[hold.gate];
            named.is_some_and(|named| named == &*gate.name || gate.header_name.as_deref() == Some(named))
        });
        let empty = |hold: &&Hold| {
            reading_of(hold.gate, observation, targets).and_then(|reading| reading.remaining) == Some(0)
        };
        let used_up = |hold: &&Hold| {
            let share = self.registry.gates[hold.gate].free_share(now);
            share.is_some_and(|share| share < NEARLY_USED_UP)
        };
        let by_reading = || if named.is_none() { holds.iter().find(empty) } else { None };
        let by_use = || if named.is_none() { holds.iter().find(used_up) } else { None };
        by_name.or_else(by_reading).or_else(by_use).unwrap_or(&holds[0])
    }

    fn tell_breaker(&mut self, now: Mono, ticket: &Ticket, kind: AnswerKind, hint: Option<Duration>) {
        let sent = ticket.sent.unwrap_or(ticket.granted);
        let family = self.registry.lanes[ticket.lane].family;
        let state = &mut self.registry.families[family];
        let change: Option<Transition> = match kind {
            AnswerKind::Accepted | AnswerKind::NotFound | AnswerKind::Unauthorized => {
                state.breaker.alive(sent)
            }
            // Too many at once, and nothing closed: the upstream is alive.
            AnswerKind::Throttled if hint == Some(Duration::ZERO) => state.breaker.alive(sent),
            AnswerKind::Throttled => state.breaker.throttled(now, sent, hint),
            AnswerKind::HardFailure => state.breaker.failed(now, sent),
            AnswerKind::NotSent => state.breaker.unreachable(now, sent),
        };
        if let Some(Transition { state: to, cause }) = change {
            self.hopes_changed = true;
            self.events.push(Event::Breaker { family: state.family.clone(), state: to, cause });
        }
    }
}

/// The first reading that describes a gate.
fn reading_of<'o>(
    gate: usize,
    observation: &'o Observation,
    targets: &[Option<usize>],
) -> Option<&'o Reading> {
    let position = targets.iter().position(|&target| target == Some(gate))?;
    observation.readings.get(position)
}
