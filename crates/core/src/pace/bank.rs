//! The bank: one tenant's gates and waiters on one upstream.
//!
//! The unit of locking. A shell keeps it behind one mutex held for a few lines, one timer and one channel per waiter.
//! Every permit is handed to a chosen waiter, never broadcast.
//!
//! The contract with the shell:
//! * After **every** call that takes `&mut self`, and at the instant `next_wake` names, call [`Bank::advance`], then ask
//!   for [`Bank::next_wake`] again. Both are harmless at any other time.
//! * A waiter ends in exactly one way: `advance` names it, or the shell calls [`Bank::abandon`].
//! * A ticket ends in exactly one way: [`Bank::answered`] or [`Bank::dropped`]. A waiter that is gone when its ticket
//!   arrives must drop the ticket.
//! * `now` never decreases. Ids that are not (or no longer) known are ignored.

pub(super) mod barriers;
mod days;
mod quotas;
mod refuse;
mod share;
mod view;

pub use quotas::{Named, Quoted};

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::breaker::Admission;
use crate::event::Event;
use crate::pace::ask::{Ask, Asked, RefusalReason, WaiterId, Woken};
use crate::pace::drift::Drift;
use crate::pace::keep::{KeptFleet, Storing};
use crate::pace::lane::{Waiter, last_moment};
use crate::pace::registry::{FamilyState, Registry};
use crate::pace::secs::secs;
use crate::pace::spec::{BankConfig, SpecProblem};
use crate::pace::ticket::{Hold, Ticket, TicketId, Tickets};
use crate::schedule::{Class, Entry, Opens, Schedule};
use crate::time::Mono;

use barriers::Doors;

/// The gates, waiters and tickets of one tenant on one upstream.
///
/// ```
/// use http::Method;
/// use tidegate_core::key::{CredentialId, Family};
/// use tidegate_core::pace::{Ask, Asked, Bank, BankConfig, CallerId, Class, TokenSlot};
/// use tidegate_core::time::Mono;
///
/// let mut bank = Bank::new(BankConfig::default()).expect("nothing is declared");
/// let ask = Ask {
///     method: &Method::GET,
///     path: "/api/v2/users/7",
///     family: &Family::new("/api/v2/users"),
///     credential: &CredentialId::new("reporting"),
///     token: TokenSlot(0),
///     class: Class::Bulk,
///     caller: CallerId::ANYBODY,
///     deadline: None,
///     give_up_at: None,
/// };
/// let Asked::Granted(scout) = bank.ask(Mono::ZERO, &ask) else { panic!("the first goes at once") };
/// assert!(matches!(bank.ask(Mono::ZERO, &ask), Asked::Queued(_)), "the second waits for the scout's answer");
/// bank.dropped(Mono::ZERO, scout);
/// let mut woken = Vec::new();
/// bank.advance(Mono::ZERO, &mut woken);
/// assert_eq!(woken.len(), 1, "what was not sent is given back");
/// ```
#[derive(Debug)]
pub struct Bank {
    pub(super) config: Arc<BankConfig>,
    pub(super) registry: Registry,
    pub(super) schedule: Schedule<Waiter>,
    pub(super) tickets: Tickets,
    /// When waiting becomes pointless, for those who said so.
    moments: BTreeSet<(Mono, u64)>,
    /// Those who said nothing, but may not wait for a breaker.
    unbounded: BTreeSet<u64>,
    next_id: u64,
    doubts: refuse::Doubts,
    /// What the calendar says of this time.
    days: days::Days,
    /// How hints and resets disagreed of late.
    pub(super) drift: Drift,
    /// How often the upstream told another number of a declared limit.
    pub(super) quotas_told: u64,
    /// What is stored of all this.
    pub(super) storing: Storing,
    pub(super) rng: fastrand::Rng,
    pub(super) events: Vec<Event>,
    /// Its part in a fleet, if its quotas are shared.
    pub(super) sharing: Option<Box<share::Sharing>>,
    /// The fleet that an earlier process was part of.
    pub(super) fleet_kept: Option<KeptFleet>,
    spare: Vec<Vec<Hold>>,
}

impl Bank {
    /// Events kept for a shell that does not collect them.
    const MAX_EVENTS: usize = 1024;
    const MAX_SPARE: usize = 256;

    /// An empty bank, or every problem of the configuration.
    pub fn new(config: BankConfig) -> Result<Self, Vec<SpecProblem>> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let config = Arc::new(config);
        Ok(Self {
            registry: Registry::new(Arc::clone(&config)),
            schedule: Schedule::default(),
            tickets: Tickets::default(),
            moments: BTreeSet::new(),
            unbounded: BTreeSet::new(),
            next_id: 0,
            doubts: refuse::Doubts::default(),
            days: days::Days::default(),
            drift: Drift::default(),
            quotas_told: 0,
            storing: Storing::default(),
            rng: fastrand::Rng::with_seed(config.seed),
            events: Vec::new(),
            sharing: None,
            fleet_kept: None,
            spare: Vec::new(),
            config,
        })
    }

    /// Asks for a ticket. May change the next wake-up.
    pub fn ask(&mut self, now: Mono, ask: &Ask<'_>) -> Asked {
        self.storing.asked(now);
        self.look_at_calendar(now);
        let lane = self.lane_of(now, ask);
        self.note_ask(now, lane, ask.class);
        if self.is_closed() {
            let back = now + Self::STORE_RETRY;
            return Asked::Refused(self.refuse(now, (lane, ask.class), RefusalReason::QuotaStore, back));
        }
        if let Admission::Refuse(until) = self.admission(lane, now)
            && !refuse::can_wait(ask.class, last_moment(ask.deadline, ask.give_up_at), until)
        {
            return Asked::Refused(self.refuse(now, (lane, ask.class), RefusalReason::Breaker, until));
        }
        let nobody_waits = self.registry.lanes[lane].gates.iter().all(|&gate| !self.is_waited_for(gate));
        let (opens, blocker) = self.doors().of_lane(now, lane, ask.class);
        if nobody_waits && opens == Opens::Now {
            let explained_by = Arc::clone(&self.registry.gates[blocker].name);
            let ticket = self.grant(now, (lane, ask.class), explained_by);
            self.touch_lane(lane);
            return Asked::Granted(ticket);
        }
        let forecast = self.forecast(now, lane, ask.class, ask.caller, ask.deadline);
        if !self.can_meet(lane, ask.deadline, ask.give_up_at, forecast) {
            let reason = self.hopeless(now, lane, ask, forecast);
            return Asked::Refused(self.refuse(now, (lane, ask.class), reason, forecast));
        }
        if self.schedule.len() >= self.config.queue_bound {
            return Asked::Refused(self.refuse(now, (lane, ask.class), RefusalReason::QueueFull, forecast));
        }
        Asked::Queued(self.queue(now, lane, ask, blocker))
    }

    /// The lane of a call, whose gates are told of it.
    fn lane_of(&mut self, now: Mono, ask: &Ask<'_>) -> usize {
        let known = self.registry.lanes.len();
        let lane = self.registry.lane(now, ask);
        for &gate in &self.registry.lanes[lane].gates {
            self.registry.gates[gate].asked(now, ask.class);
        }
        if self.registry.lanes.len() != known {
            // A new lane may have brought a declared limit to gates that had none.
            self.touch_lane(lane);
        }
        lane
    }

    fn queue(&mut self, now: Mono, lane: usize, ask: &Ask<'_>, blocker: usize) -> WaiterId {
        let id = self.new_id();
        let limit = self.held_by(ask.class).unwrap_or_else(|| Arc::clone(&self.registry.gates[blocker].name));
        match last_moment(ask.deadline, ask.give_up_at) {
            Some(moment) => _ = self.moments.insert((moment, id)),
            None if ask.class != Class::Bulk => _ = self.unbounded.insert(id),
            None => {}
        }
        let state = &mut self.registry.lanes[lane];
        state.waiting += 1;
        let payload = Waiter { give_up_at: ask.give_up_at, limit };
        let entry = Entry { lane, class: ask.class, caller: ask.caller, deadline: ask.deadline, payload };
        self.schedule.enter(now, id, barriers::of(state, !self.config.calendar.is_empty()), entry);
        self.note_waiter(lane, ask.class);
        WaiterId(id)
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Whether somebody waits at a gate who might go. Who is held by a window is not in anybody's way.
    fn is_waited_for(&self, gate: usize) -> bool {
        let waiting = self.schedule.waiting_for(barriers::gate(gate));
        Class::ALL.into_iter().any(|class| waiting[class.index()] > 0 && self.days.held(class).is_none())
    }

    fn waiting_at(&self, gate: usize) -> u32 {
        self.schedule.waiting_for(barriers::gate(gate)).iter().sum()
    }

    fn family_of(&self, lane: usize) -> &FamilyState {
        &self.registry.families[self.registry.lanes[lane].family]
    }

    fn admission(&self, lane: usize, now: Mono) -> Admission {
        self.family_of(lane).breaker.admission(now)
    }

    fn doors(&self) -> Doors<'_> {
        Doors { registry: &self.registry, config: &self.config, days: &self.days }
    }

    /// Something about the gates of a lane or its family's breaker may have changed.
    pub(super) fn touch_lane(&mut self, lane: usize) {
        let dated = self.has_calendar();
        barriers::of(&self.registry.lanes[lane], dated).for_each(|barrier| self.schedule.touch(barrier));
    }

    /// Lanes that just got other gates wait at those now, which are told of who waits.
    pub(super) fn rewire(&mut self, now: Mono, lanes: &[usize]) {
        for &lane in lanes {
            for &gate in &self.registry.lanes[lane].gates {
                let waiting = self.schedule.waiting_beside(lane, barriers::gate(gate));
                for (class, count) in Class::ALL.into_iter().zip(waiting.unwrap_or_default()) {
                    (0..count).for_each(|_| self.registry.gates[gate].asked(now, class));
                }
            }
            let dated = self.has_calendar();
            self.schedule.rewire(now, lane, barriers::of(&self.registry.lanes[lane], dated));
        }
    }

    /// Takes from all gates of a lane.
    fn grant(&mut self, now: Mono, (lane, class): (usize, Class), explained_by: Arc<str>) -> TicketId {
        let reserve = self.days.reserve();
        let mut holds = self.spare.pop().unwrap_or_default();
        let state = &mut self.registry.lanes[lane];
        state.tickets += 1;
        for &gate in &state.gates {
            let state = &mut self.registry.gates[gate];
            if state.shared().is_some()
                && let Some(sharing) = &mut self.sharing
            {
                sharing.note_gate(gate);
            }
            holds.push(Hold { gate, attempt: state.take(now) });
            state.note_take(secs(now), class, reserve);
            self.storing.due |= state.wants_store();
        }
        let family = &mut self.registry.families[state.family];
        if let Some(change) = family.breaker.admitted(now) {
            let event =
                Event::Breaker { family: family.family.clone(), state: change.state, cause: change.cause };
            self.events.push(event);
        }
        self.tickets.insert(Ticket { lane, sent: None, granted: now, holds, explained_by })
    }

    /// Hands permits to waiters and refuses those without hope. Changes the next wake-up.
    pub fn advance(&mut self, now: Mono, out: &mut Vec<(WaiterId, Woken)>) {
        self.look_at_calendar(now);
        self.look_for_store(now);
        self.refuse_late(now, out);
        self.refuse_hopeless(now, out);
        while let Some((id, waiter)) = self.next_to_go(now) {
            self.forget(id, &waiter);
            let ticket = self.grant(now, (waiter.lane, waiter.class), waiter.payload.limit);
            out.push((WaiterId(id), Woken::Granted(ticket)));
        }
        self.registry.tidy(now, 1);
        self.plan_exchange(now);
        if self.events.len() > Self::MAX_EVENTS {
            self.events.drain(..self.events.len() - Self::MAX_EVENTS);
        }
    }

    fn next_to_go(&mut self, now: Mono) -> Option<(u64, Entry<Waiter>)> {
        let doors = Doors { registry: &self.registry, config: &self.config, days: &self.days };
        self.schedule.next(now, &doors)
    }

    /// When `advance` has something to do, if nothing else happens before. `None`: nobody waits, or only for attempts in
    /// flight. Changed by every call that takes `&mut self`.
    pub fn next_wake(&self, now: Mono) -> Option<Mono> {
        let moment = self.moments.first().map(|&(moment, _)| moment);
        let opens = self.schedule.next_wake(now);
        [moment, opens, self.store_is_lost_at(now), self.calendar_wake()].into_iter().flatten().min()
    }

    /// The waiter is gone.
    pub fn abandon(&mut self, _now: Mono, waiter: WaiterId) {
        self.remove_waiter(waiter.0);
    }

    fn remove_waiter(&mut self, id: u64) -> Option<Entry<Waiter>> {
        let waiter = self.schedule.leave(id)?;
        self.forget(id, &waiter);
        Some(waiter)
    }

    /// A waiter has left the schedule.
    fn forget(&mut self, id: u64, waiter: &Entry<Waiter>) {
        match last_moment(waiter.deadline, waiter.payload.give_up_at) {
            Some(moment) => self.moments.remove(&(moment, id)),
            None => self.unbounded.remove(&id),
        };
        self.registry.lanes[waiter.lane].waiting -= 1;
    }

    /// Puts the emptied list of a settled ticket aside for the next one.
    pub(super) fn recycle(&mut self, mut holds: Vec<Hold>) {
        holds.clear();
        if self.spare.len() < Self::MAX_SPARE {
            self.spare.push(holds);
        }
    }

    /// Takes the events since the last call, oldest first; beyond a thousand the oldest are lost.
    pub fn drain_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Which limit explained the wait for this ticket; empty if the ticket is not known.
    pub fn ticket_limit(&self, ticket: TicketId) -> Arc<str> {
        self.tickets.get(ticket).map_or_else(|| Arc::from(""), |ticket| Arc::clone(&ticket.explained_by))
    }
}
