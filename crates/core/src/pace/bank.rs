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

mod quotas;
mod refuse;
mod view;

pub use quotas::Named;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::breaker::Admission;
use crate::event::Event;
use crate::pace::ask::{Ask, Asked, Class, RefusalReason, WaiterId, Woken};
use crate::pace::gate::Wish;
use crate::pace::lane::{Waiter, last_moment};
use crate::pace::registry::{FamilyState, Registry};
use crate::pace::secs::{mono, secs};
use crate::pace::spec::{BankConfig, SpecProblem};
use crate::pace::ticket::{Hold, Ticket, TicketId};
use crate::pace::turns::Turns;
use crate::pace::when::When;
use crate::time::Mono;

/// The gates, waiters and tickets of one tenant on one upstream.
///
/// ```
/// use http::Method;
/// use tidegate_core::key::{CredentialId, Family};
/// use tidegate_core::pace::{Ask, Asked, Bank, BankConfig, Class, TokenSlot};
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
    waiters: BTreeMap<u64, Waiter>,
    pub(super) tickets: BTreeMap<u64, Ticket>,
    /// When waiting becomes pointless, for those who said so.
    moments: BTreeSet<(Mono, u64)>,
    /// Lanes with waiters.
    active: Vec<usize>,
    turns: Turns,
    next_id: u64,
    /// A gate closed or a breaker opened: some waiters may have no hope any more.
    pub(super) hopes_changed: bool,
    pub(super) rng: fastrand::Rng,
    pub(super) events: Vec<Event>,
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
            waiters: BTreeMap::new(),
            tickets: BTreeMap::new(),
            moments: BTreeSet::new(),
            active: Vec::new(),
            turns: Turns::default(),
            next_id: 0,
            hopes_changed: false,
            rng: fastrand::Rng::with_seed(config.seed),
            events: Vec::new(),
            spare: Vec::new(),
            config,
        })
    }

    /// Asks for a ticket. May change the next wake-up.
    pub fn ask(&mut self, now: Mono, ask: &Ask<'_>) -> Asked {
        let lane = self.registry.lane(now, ask);
        if let Admission::Refuse(until) = self.admission(lane, now)
            && !refuse::can_wait(ask.class, last_moment(ask.deadline, ask.give_up_at), until)
        {
            return Asked::Refused(self.refuse(now, lane, RefusalReason::Breaker, until));
        }
        let nobody_waits = self.registry.lanes[lane].gates.iter().all(|&gate| self.waiting_at(gate) == 0);
        let (when, blocker) = self.lane_when(now, lane, self.wish(ask.class, Duration::ZERO));
        if nobody_waits && when == When::Now {
            let explained_by = Arc::clone(&self.registry.gates[blocker].name);
            return Asked::Granted(self.grant(now, lane, ask.class, explained_by));
        }
        let forecast = self.forecast(now, lane, ask.class);
        if !self.can_meet(lane, ask.deadline, ask.give_up_at, forecast) {
            let reason = RefusalReason::CannotMeet { forecast: forecast - now };
            return Asked::Refused(self.refuse(now, lane, reason, forecast));
        }
        if self.waiters.len() >= self.config.queue_bound {
            return Asked::Refused(self.refuse(now, lane, RefusalReason::QueueFull, forecast));
        }
        Asked::Queued(self.queue(now, lane, ask, blocker))
    }

    fn queue(&mut self, now: Mono, lane: usize, ask: &Ask<'_>, blocker: usize) -> WaiterId {
        let id = self.new_id();
        let limit = Arc::clone(&self.registry.gates[blocker].name);
        let waiter = Waiter::new(lane, ask, id, now, limit);
        if let Some(moment) = waiter.last_moment() {
            self.moments.insert((moment, id));
        }
        let lane_state = &mut self.registry.lanes[lane];
        if lane_state.waiting() == 0 {
            self.active.push(lane);
        }
        lane_state.queues[ask.class.index()].insert(waiter.place, id);
        for &gate in &self.registry.lanes[lane].gates {
            self.registry.gates[gate].waiting[ask.class.index()] += 1;
        }
        self.waiters.insert(id, waiter);
        WaiterId(id)
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn waiting_at(&self, gate: usize) -> u32 {
        self.registry.gates[gate].waiting.iter().sum()
    }

    fn family_of(&self, lane: usize) -> &FamilyState {
        &self.registry.families[self.registry.lanes[lane].family]
    }

    fn admission(&self, lane: usize, now: Mono) -> Admission {
        self.family_of(lane).breaker.admission(now)
    }

    fn wish(&self, class: Class, waited: Duration) -> Wish {
        let reserve = if waited >= self.config.patience { 0 } else { self.config.reserve[class.index()] };
        Wish { reserve, urgent: matches!(class, Class::Interactive | Class::Sync) }
    }

    /// When one of the lane may go, and the gate that decides it.
    fn lane_when(&self, now: Mono, lane: usize, wish: Wish) -> (When, usize) {
        let state = self.family_of(lane);
        let lane = &self.registry.lanes[lane];
        let mut when = match state.breaker.admission(now) {
            Admission::Serve | Admission::Probe => When::Now,
            Admission::Refuse(until) => When::At(secs(until)),
            Admission::AwaitProbe => state.breaker.probe_until().map_or(When::Event, |at| When::At(secs(at))),
        };
        let mut blocker = lane.gates[0];
        for &gate in &lane.gates {
            let both = when.and(self.registry.gates[gate].when(now, wish));
            if both != when {
                blocker = gate;
                when = both;
            }
        }
        (when, blocker)
    }

    /// Takes from all gates of a lane.
    fn grant(&mut self, now: Mono, lane: usize, class: Class, explained_by: Arc<str>) -> TicketId {
        let id = self.new_id();
        self.turns.took(class);
        let mut holds = self.spare.pop().unwrap_or_default();
        let state = &mut self.registry.lanes[lane];
        state.tickets += 1;
        for &gate in &state.gates {
            holds.push(Hold { gate, attempt: self.registry.gates[gate].take(now) });
        }
        let family = &mut self.registry.families[state.family];
        if let Some(change) = family.breaker.admitted(now) {
            let event =
                Event::Breaker { family: family.family.clone(), state: change.state, cause: change.cause };
            self.events.push(event);
        }
        let key = &self.registry.lanes[lane].key;
        let ticket = Ticket {
            family: key.family.clone(),
            credential: key.credential.clone(),
            lane,
            sent: None,
            granted: now,
            holds,
            explained_by,
        };
        self.tickets.insert(id, ticket);
        TicketId(id)
    }

    /// Hands permits to waiters and refuses those without hope. Changes the next wake-up.
    pub fn advance(&mut self, now: Mono, out: &mut Vec<(WaiterId, Woken)>) {
        self.refuse_late(now, out);
        if std::mem::take(&mut self.hopes_changed) {
            self.refuse_hopeless(now, out);
        }
        while let Some((lane, waiter)) = self.next_to_go(now) {
            let Some(waiter_state) = self.remove_waiter(waiter) else { return };
            let ticket = self.grant(now, lane, waiter_state.class, waiter_state.limit);
            out.push((WaiterId(waiter), Woken::Granted(ticket)));
        }
        if self.events.len() > Self::MAX_EVENTS {
            self.events.drain(..self.events.len() - Self::MAX_EVENTS);
        }
    }

    /// The waiter whose turn it is among those who may go now.
    fn next_to_go(&self, now: Mono) -> Option<(usize, u64)> {
        let mut best = None;
        for &lane in &self.active {
            for class in Class::ALL {
                let Some((place, waiter)) = self.registry.lanes[lane].head(class) else { continue };
                let rank = (self.turns.place(class), class, place);
                if best.is_some_and(|(other, _, _)| other <= rank) {
                    continue;
                }
                if self.lane_when(now, lane, self.wish_of(now, class, waiter)).0 == When::Now {
                    best = Some((rank, lane, waiter));
                }
            }
        }
        best.map(|(_, lane, waiter)| (lane, waiter))
    }

    fn wish_of(&self, now: Mono, class: Class, waiter: u64) -> Wish {
        self.wish(class, self.waiters.get(&waiter).map_or(Duration::ZERO, |waiter| now - waiter.since))
    }

    /// When `advance` has something to do, if nothing else happens before. `None`: nobody waits, or only for attempts in
    /// flight. Changed by every call that takes `&mut self`.
    pub fn next_wake(&self, now: Mono) -> Option<Mono> {
        let mut wake = self.moments.first().map(|&(moment, _)| moment);
        for &lane in &self.active {
            for class in Class::ALL {
                let Some((_, waiter)) = self.registry.lanes[lane].head(class) else { continue };
                let at = match self.lane_when(now, lane, self.wish_of(now, class, waiter)).0 {
                    When::Now => now,
                    When::At(at) => mono(at),
                    When::Event => continue,
                };
                wake = Some(wake.map_or(at, |wake| wake.min(at)));
            }
        }
        wake
    }

    /// The waiter is gone.
    pub fn abandon(&mut self, _now: Mono, waiter: WaiterId) {
        self.remove_waiter(waiter.0);
    }

    fn remove_waiter(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        if let Some(moment) = waiter.last_moment() {
            self.moments.remove(&(moment, id));
        }
        let lane = &mut self.registry.lanes[waiter.lane];
        lane.queues[waiter.class.index()].remove(&waiter.place);
        if lane.waiting() == 0 {
            self.active.retain(|&active| active != waiter.lane);
        }
        for &gate in &self.registry.lanes[waiter.lane].gates {
            let waiting = &mut self.registry.gates[gate].waiting[waiter.class.index()];
            *waiting = waiting.saturating_sub(1);
        }
        Some(waiter)
    }

    /// Puts the emptied list of a settled ticket aside for the next one.
    pub(super) fn recycle(&mut self, mut holds: Vec<Hold>) {
        holds.clear();
        if self.spare.len() < Self::MAX_SPARE {
            self.spare.push(holds);
        }
    }

    /// Waiters of lanes that just got another set of gates wait at those now.
    pub(super) fn recount_waiting(&mut self, lanes: &[usize], by: impl Fn(&mut u32, u32)) {
        for &lane in lanes {
            let counts: [u32; 4] = std::array::from_fn(|class| {
                u32::try_from(self.registry.lanes[lane].queues[class].len()).unwrap_or(u32::MAX)
            });
            for &gate in &self.registry.lanes[lane].gates {
                for (waiting, count) in self.registry.gates[gate].waiting.iter_mut().zip(counts) {
                    by(waiting, count);
                }
            }
        }
    }

    /// Takes the events since the last call, oldest first; beyond a thousand the oldest are lost.
    pub fn drain_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Which limit explained the wait for this ticket; empty if the ticket is not known.
    pub fn ticket_limit(&self, ticket: TicketId) -> Arc<str> {
        self.tickets.get(&ticket.0).map_or_else(|| Arc::from(""), |ticket| Arc::clone(&ticket.explained_by))
    }
}
