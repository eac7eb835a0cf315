//! What becomes of a ticket: sent, answered or dropped.
//!
//! An answer is told to every gate the ticket came from. Readings go to the limit they name; those without a name go to
//! the limit that observes them, else to the family's own. A throttle closes one gate: the one the body names, else one
//! whose reading shows nothing left, else a declared one that is all but used up, else the family's own. A failure that
//! names its wait closes the family's own too. An attempt that failed before anything left costs no quota; it says something to the breaker only.

use std::sync::Arc;
use std::time::Duration;

use crate::breaker::{Admission, Transition};
use crate::event::Event;
use crate::observe::{HitLimit, MAX_READINGS, Observation, Reading};
use crate::pace::ask::{Answer, AnswerKind};
use crate::pace::bank::{Bank, barriers};
use crate::pace::drift::DriftSnapshot;
use crate::pace::gate::{Closed, Throttle};
use crate::pace::lane::LaneKey;
use crate::pace::registry::OTHER;
use crate::pace::secs::secs;
use crate::pace::ticket::{Hold, Ticket, TicketId};
use crate::pace::tide::Lesson;
use crate::time::Mono;

/// The gate each reading describes; on the stack, because every answer needs them.
type Targets = [Option<usize>; MAX_READINGS];

/// A declared limit with less than this free explains a throttle that names none.
const NEARLY_USED_UP: f64 = 0.1;
/// So does one with less than this free if the wait is longer than a cap on attempts at once would order, as a sliding counter
/// does that refuses a burst; and any that is suspect already.
const HALF_USED_UP: f64 = 0.5;
const CAPS_HINT: Duration = Duration::from_secs(1);

impl Bank {
    /// The attempt of this ticket leaves.
    pub fn sent(&mut self, now: Mono, ticket: TicketId) {
        if let Some(ticket) = self.tickets.get_mut(ticket) {
            ticket.sent = Some(now);
            for hold in &mut ticket.holds {
                hold.attempt.sent = secs(now);
            }
        }
    }

    /// The ticket is gone. What was not sent is given back. What was sent stays spent, because the server may have
    /// counted it; only its place in flight is free again.
    pub fn dropped(&mut self, now: Mono, ticket: TicketId) {
        let Some(ticket) = self.tickets.remove(ticket) else { return };
        for hold in &ticket.holds {
            let gate = &mut self.registry.gates[hold.gate];
            if ticket.sent.is_some() { gate.lost(now, &hold.attempt) } else { gate.give_back(&hold.attempt) }
        }
        let lane = &mut self.registry.lanes[ticket.lane];
        lane.tickets -= 1;
        self.registry.families[lane.family].breaker.lost(ticket.granted);
        self.touch_lane(ticket.lane);
        self.note_holds(&ticket);
        self.recycle(ticket.holds);
    }

    /// The attempt of this ticket was answered, or failed for certain. A ticket that was never marked as sent counts as
    /// sent when it was granted.
    pub fn answered(&mut self, now: Mono, ticket: TicketId, answer: &Answer<'_>) {
        let Some(lane) = self.tickets.get(ticket).map(|known| known.lane) else { return };
        if matches!(answer.kind, AnswerKind::Accepted | AnswerKind::Throttled) {
            self.promote(now, lane);
        }
        let targets = self.targets(now, lane, answer.observation);
        let Some(ticket) = self.tickets.remove(ticket) else { return };
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
        let hint = match answer.kind {
            AnswerKind::HardFailure => self.hold_off(now, &ticket, answer.observation.retry_after),
            _ => closed.map(|(_, hint)| hint),
        };
        self.tell_breaker(now, &ticket, answer.kind, hint);
        self.touch_lane(ticket.lane);
        self.note_holds(&ticket);
        self.recycle(ticket.holds);
    }

    /// A family that proved to exist gets gates of its own, and its attempts in flight move there.
    fn promote(&mut self, now: Mono, lane: usize) {
        if self.registry.lanes[lane].family != OTHER {
            return;
        }
        let family = &self.registry.lanes[lane].key.family.clone();
        let lanes = self.registry.promote(now, family);
        let Some(index) = lanes.first().map(|&lane| self.registry.lanes[lane].family) else { return };
        self.rewire(now, &lanes);
        for ticket in self.tickets.values_mut() {
            if self.registry.lanes[ticket.lane].family != index {
                continue;
            }
            let gates = &self.registry.lanes[ticket.lane].gates;
            for (hold, &gate) in ticket.holds.iter_mut().zip(gates) {
                if hold.gate != gate {
                    self.registry.gates[hold.gate].moved_on(&hold.attempt);
                    self.schedule.touch(barriers::gate(hold.gate));
                    hold.gate = gate;
                    hold.attempt.permit = self.registry.gates[gate].adopt(now);
                }
            }
        }
    }

    /// The gate each reading describes, in the order of the readings.
    fn targets(&mut self, now: Mono, lane: usize, observation: &Observation) -> Targets {
        let mut targets = Targets::default();
        for (target, reading) in targets.iter_mut().zip(&observation.readings) {
            *target = self.target(now, lane, reading);
        }
        targets
    }

    fn target(&mut self, now: Mono, lane: usize, reading: &Reading) -> Option<usize> {
        let unnamed = self.registry.lanes[lane].unnamed;
        let Some(name) = reading.name.as_deref() else { return Some(unnamed) };
        let gates = &self.registry.lanes[lane].gates;
        let own = self.registry.gate_name(name);
        let named = gates.iter().copied().find(|&gate| {
            let gate = &self.registry.gates[gate];
            &*gate.name == own || gate.header_name.as_deref() == Some(name)
        });
        if named.is_some() {
            return named;
        }
        let gate = &mut self.registry.gates[unnamed];
        if gate.header_name.is_none() && !gate.is_pinned() {
            gate.header_name = Some(name.to_owned());
            return Some(unnamed);
        }
        let (gate, joined) = self.registry.name_limit(now, lane, name)?;
        for ticket in self.tickets.values_mut().filter(|ticket| joined.contains(&ticket.lane)) {
            let mut attempt = ticket.holds.first().map(|hold| hold.attempt.clone()).unwrap_or_default();
            attempt.level_alone = None;
            attempt.promised = None;
            attempt.permit = self.registry.gates[gate].adopt(now);
            ticket.holds.push(Hold { gate, attempt });
        }
        self.rewire(now, &joined);
        Some(gate)
    }

    /// Tells a gate an answer that closed another gate or none.
    fn tell(&mut self, now: Mono, hold: &Hold, answer: &Answer<'_>, targets: &Targets) {
        let reading = reading_of(hold.gate, answer.observation, targets);
        let counts = answer.kind == AnswerKind::Accepted
            || (answer.kind == AnswerKind::NotFound)
            || (answer.kind == AnswerKind::Unauthorized);
        let gate = &mut self.registry.gates[hold.gate];
        let Lesson { quota, strangers, .. } =
            gate.answered(now, &hold.attempt, reading, answer.observation.date, counts);
        let strangers = strangers.filter(|_| !gate.takes_siblings_for_strangers(now));
        let limit = Arc::clone(&gate.name);
        if let Some(quota) = quota {
            self.learnt(&limit, quota);
        }
        if let Some(per_second) = strangers {
            self.events.push(Event::StrangersSeen { limit: limit.to_string(), per_second });
        }
    }

    /// Closes the gate that explains a throttle. Returns it, and how long to stay away.
    fn close(
        &mut self,
        now: Mono,
        ticket: &Ticket,
        observation: &Observation,
        targets: &Targets,
    ) -> (usize, Duration) {
        if let Some(HitLimit { key: Some(key), value: Some(value), .. }) = &observation.hit {
            self.set_quota(key, *value);
        }
        let hold = self.guilty(now, ticket, observation, targets);
        let chance = self.rng.f64();
        let gate = &mut self.registry.gates[hold.gate];
        let before = gate.closed_for(now);
        let throttle = Throttle {
            retry_after: observation.retry_after,
            reading: reading_of(hold.gate, observation, targets),
            date: observation.date,
            cap: observation.hit.as_ref().and_then(named_cap),
            chance,
        };
        let Closed { news, stay_away: closed_for, contradicted_by } =
            gate.throttled(now, &hold.attempt, &throttle);
        if !closed_for.is_zero() {
            gate.share_refused(now, &hold.attempt);
        }
        let limit = gate.name.to_string();
        self.doubt_until(now, ticket.lane, before, closed_for);
        let mut baseline = DriftSnapshot::default();
        if news {
            let LaneKey { family, credential, .. } = &self.registry.lanes[ticket.lane].key;
            baseline = self.drift.of(now, family, credential);
            self.drift.throttled(now, family, credential, observation.retry_after.zip(contradicted_by));
            self.events.push(Event::Throttled { family: family.clone(), limit, closed_for });
        }
        if let (Some(retry_after), Some(reset)) = (observation.retry_after, contradicted_by) {
            let LaneKey { family, credential, .. } = self.registry.lanes[ticket.lane].key.clone();
            self.events.push(Event::HintMismatch { family, credential, retry_after, reset, baseline });
        }
        (hold.gate, closed_for)
    }

    /// A failure that names the wait (a 503 with `Retry-After`) closes the family's own gate for everybody, as a throttle
    /// does, but it is none: nothing is learnt about the limit. Returns how long to stay away.
    fn hold_off(&mut self, now: Mono, ticket: &Ticket, hint: Option<Duration>) -> Option<Duration> {
        let (hint, chance) = (hint?, self.rng.f64());
        let hold = ticket.holds.first()?;
        let gate = &mut self.registry.gates[hold.gate];
        let before = gate.closed_for(now);
        let closed_for = gate.hold_off(now, &hold.attempt, hint, chance);
        self.doubt_until(now, ticket.lane, before, closed_for);
        Some(closed_for)
    }

    /// Which gate explains a throttle.
    fn guilty<'t>(
        &self,
        now: Mono,
        ticket: &'t Ticket,
        observation: &Observation,
        targets: &Targets,
    ) -> &'t Hold {
        let holds = &ticket.holds;
        let named = observation.hit.as_ref().and_then(|hit| hit.key.as_deref());
        let own = named.map(|named| self.registry.gate_name(named));
        let by_name = holds.iter().find(|hold| {
            let gate = &self.registry.gates[hold.gate];
            named.is_some_and(|named| own == Some(&*gate.name) || gate.header_name.as_deref() == Some(named))
        });
        let empty = |hold: &&Hold| {
            reading_of(hold.gate, observation, targets).and_then(|reading| reading.remaining) == Some(0)
        };
        let meets_cap = self.registry.gates[holds[0].gate].meets_cap();
        let used_up = |hold: &&Hold| {
            let gate = &self.registry.gates[hold.gate];
            let explains = if gate.is_suspect(now) && !meets_cap {
                1.0
            } else if observation.retry_after > Some(CAPS_HINT) {
                HALF_USED_UP
            } else {
                NEARLY_USED_UP
            };
            gate.free_share(now).is_some_and(|share| share < explains)
        };
        let by_reading = || if named.is_none() { holds.iter().find(empty) } else { None };
        let by_use = || if named.is_none() { holds.iter().find(used_up) } else { None };
        by_name.or_else(by_reading).or_else(by_use).unwrap_or(&holds[0])
    }

    fn tell_breaker(&mut self, now: Mono, ticket: &Ticket, kind: AnswerKind, hint: Option<Duration>) {
        let sent = ticket.sent.unwrap_or(ticket.granted);
        let family = self.registry.lanes[ticket.lane].family;
        let state = &mut self.registry.families[family];
        let refuses =
            |admission| if let Admission::Refuse(until) = admission { Some(until - now) } else { None };
        let before = refuses(state.breaker.admission(now));
        let change: Option<Transition> = match kind {
            AnswerKind::Accepted | AnswerKind::NotFound | AnswerKind::Unauthorized => {
                state.breaker.alive(sent)
            }
            // Too many at once, and nothing closed: the upstream is alive.
            AnswerKind::Throttled if hint == Some(Duration::ZERO) => state.breaker.alive(sent),
            AnswerKind::Throttled => state.breaker.throttled(now, sent, hint),
            AnswerKind::HardFailure => state.breaker.failed(now, sent, hint),
            AnswerKind::NotSent => state.breaker.unreachable(now, sent),
        };
        let refused_now = refuses(state.breaker.admission(now));
        if let Some(Transition { state: to, cause }) = change {
            self.events.push(Event::Breaker { family: state.family.clone(), state: to, cause });
        }
        if self.sharing.is_some() {
            self.note_breaker(family, sent, change.map(|change| change.state));
        }
        if let Some(refuses) = refused_now {
            if before.is_none() {
                self.doubt_unbounded();
            }
            self.doubt_until(now, ticket.lane, before, refuses);
        }
    }
}

/// The cap on attempts at once that a 429's body names: keys such as `details.jobs.concurrent.access.max` say that it is one.
fn named_cap(hit: &HitLimit) -> Option<u32> {
    let concurrent = hit.key.as_deref().is_some_and(|key| key.contains("concurrent"));
    hit.value.filter(|&value| concurrent && value > 0).and_then(|value| u32::try_from(value).ok())
}

/// The first reading that describes a gate.
fn reading_of<'o>(gate: usize, observation: &'o Observation, targets: &Targets) -> Option<&'o Reading> {
    let position = targets.iter().position(|&target| target == Some(gate))?;
    observation.readings.get(position)
}
