//! A bank's part in a shared quota: when it speaks to the store, and what the answers mean to its gates.
//!
//! One exchange is under way at a time, so load gathers by itself while one is. One is due
//! * as soon as calls are stopped because no permits are left, but not before the time the store named;
//! * when what is left would be drawn within two round trips;
//! * when something has to be told at once: the answer of the fleet's scout, a throttle, what a scarce limit answered;
//! * before permits run out that nobody used, and where something ended that the store does not know;
//! * a few seconds after the process began, and where it was silent for half a minute: it tells that it is there and hears how many
//!   there are, because without the store each keeps to a part of what was last heard.
//!
//! What an exchange asks for is put together in `ask`, what happens while the store does not
//! answer stands in `away`, and what a process that ends says in `leave`.

mod ask;
mod away;
mod doors;
mod leave;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::breaker::Admission;
use crate::event::Event;
use crate::pace::bank::{Bank, barriers};
use crate::pace::gate::Mode;
use crate::pace::registry::Partaking;
use crate::pace::snapshot::FleetSnapshot;
use crate::pace::ticket::Ticket;
use crate::pace::wanting::Wanting;
use crate::schedule::Class;
use crate::share::{Away, Exchange, Fallback, Reply, ShareConfig};
use crate::time::Mono;

/// What an exchange can be due for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Door(usize),
    Gate(usize),
    Lane(usize),
}

/// An exchange that was said and is not answered.
#[derive(Debug)]
struct Said {
    at: Mono,
    exchange: Exchange,
    /// The gate of each limit.
    gates: Vec<usize>,
    /// The lane of each ask.
    lanes: Vec<usize>,
    /// The family of each door, and what of it was untold.
    families: Vec<(usize, Option<doors::Untold>)>,
}

/// What people know of a store that has not answered since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    /// Whoever started the process was told that it is away.
    Away,
    /// That it cannot be used.
    Unusable,
}

/// What a bank knows of its part.
#[derive(Debug)]
pub(in crate::pace) struct Sharing {
    config: ShareConfig,
    fallback: Fallback,
    mode: Mode,
    /// Since when it does without the store.
    alone_since: Option<Mono>,
    /// The store answers again: permits come from it from then on.
    back_at: Option<Mono>,
    seq: u64,
    answered_seq: u64,
    incarnation: Option<u64>,
    /// The last exchange, until it is answered, and whether it is under way.
    said: Option<Said>,
    under_way: bool,
    heard: Option<Mono>,
    /// It has said its last word, and nothing came after it.
    left: bool,
    /// Processes that share, as last heard.
    instances: Option<u32>,
    round_trip: Duration,
    /// Nobody asks before; and how often in a row nobody answered.
    not_before: Mono,
    failures: u32,
    told: Told,
    /// Why it does not answer, until that is told.
    why: Option<String>,
    /// When exchanges are due, and for what.
    dues: BTreeSet<(Mono, Due)>,
    /// What has to be looked at again.
    gates: Vec<usize>,
    lanes: Vec<usize>,
    /// Lanes with calls of late, and where the next exchange begins with them.
    active: BTreeSet<usize>,
    hand: usize,
    changes: doors::Changes,
    /// The permits of some gate are used up: lanes that wait may have to ask.
    ran_out: bool,
}

impl Sharing {
    /// A round trip is taken to take so long before one was seen.
    const FIRST_TRIP: Duration = Duration::from_millis(5);
    /// The first word is said after this and up to twice as much more, if no call came: those who begin together are known by then. So
    /// all of them are heard of by a second word that comes after it.
    const FIRST_WORD: Duration = Duration::from_secs(5);
    /// The longest silence in a small fleet, and in any: a store remembers who spoke for longer.
    const WORD: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(80));
    /// Of many processes each is silent for longer, so that the words of all stay few: so long for each of them.
    const WORD_OF_EACH: Duration = Duration::from_millis(80);

    fn new(config: ShareConfig) -> Self {
        Self {
            config,
            fallback: Fallback::new(config.holder, config.max_instances, None),
            mode: Mode::Joined,
            alone_since: None,
            back_at: None,
            seq: 0,
            answered_seq: 0,
            incarnation: None,
            said: None,
            under_way: false,
            heard: None,
            left: false,
            instances: None,
            round_trip: Self::FIRST_TRIP,
            not_before: Mono::ZERO,
            failures: 0,
            told: Told::Nothing,
            why: None,
            dues: BTreeSet::new(),
            gates: Vec::new(),
            lanes: Vec::new(),
            active: BTreeSet::new(),
            hand: 0,
            changes: doors::Changes::default(),
            ran_out: false,
        }
    }

    /// Something changed at a gate.
    pub(in crate::pace) fn note_gate(&mut self, gate: usize) {
        self.gates.push(gate);
    }

    /// How it takes part, for people.
    pub(super) fn snapshot(&self) -> FleetSnapshot {
        let mode = match self.mode {
            Mode::Joined if self.instances.is_none() => "idle",
            Mode::Joined => "joined",
            Mode::Part => "share",
            Mode::Closed => "closed",
            Mode::Open => "open",
        };
        FleetSnapshot { mode, instances: self.instances }
    }

    /// When something is to be said though nothing happens. Each has a time of its own.
    fn word_due(&self) -> Option<Mono> {
        if self.left {
            return None;
        }
        let begins = |times: f64| Mono::ZERO + Self::FIRST_WORD.mul_f64(times);
        Some(match self.heard {
            None => begins(1.0 + self.fallback.turn(2)),
            Some(heard) if heard < begins(3.0) => begins(3.0 + self.fallback.turn(3)),
            Some(heard) => {
                let all = Self::WORD_OF_EACH.saturating_mul(self.instances.unwrap_or(1));
                heard + all.clamp(Self::WORD.0, Self::WORD.1).mul_f64(0.75 + self.fallback.turn(1) / 4.0)
            }
        })
    }

    fn plan(&mut self, before: &mut Option<Mono>, after: Option<Mono>, what: Due) {
        if *before == after {
            return;
        }
        if let Some(before) = before.take() {
            self.dues.remove(&(before, what));
        }
        if let Some(after) = after {
            self.dues.insert((after, what));
        }
        *before = after;
    }
}

impl Bank {
    /// A store remembers each process for a minute at least: within this time, one that forgot it has lost something.
    const SPOKE_OF_LATE: Duration = Duration::from_secs(50);

    /// The bank's quotas are shared from now on, with all that speak of it to the same store. Called once, before the first
    /// ask.
    ///
    /// ```
    /// use tidegate_core::pace::{Bank, BankConfig};
    /// use tidegate_core::share::{HolderId, OnStoreLoss, ShareConfig};
    /// use tidegate_core::time::Mono;
    ///
    /// let mut bank = Bank::new(BankConfig::default()).expect("nothing is declared");
    /// bank.share(ShareConfig {
    ///     holder: HolderId(0x5eed),
    ///     on_store_loss: OnStoreLoss::Share,
    ///     max_instances: 64,
    ///     tokens_shared: false,
    /// });
    /// let first = bank.exchange_due(Mono::ZERO).expect("it makes itself known");
    /// assert!((5.0..=15.0).contains(&(first - Mono::ZERO).as_secs_f64()));
    /// ```
    pub fn share(&mut self, config: ShareConfig) {
        self.sharing = Some(Box::new(Sharing::new(config)));
        self.registry.sharing = Some(Partaking::new(&config));
        self.restore_fleet(self.fleet_kept);
    }

    /// When the shell is to make an exchange, unless one is under way. It is part of no [`Bank::next_wake`].
    pub fn exchange_due(&self, now: Mono) -> Option<Mono> {
        let sharing = self.sharing.as_deref().filter(|sharing| !sharing.under_way)?;
        let first = sharing.dues.first().map(|&(at, _)| at);
        // A store that did not answer is asked until it does.
        let due = if sharing.failures > 0 {
            Some(now)
        } else {
            [first, sharing.back_at, sharing.word_due()].into_iter().flatten().min()
        };
        due.map(|due| due.max(sharing.not_before).max(now))
    }

    /// What to say. `None`: nothing to say after all. An exchange that failed a moment ago is said again as it was.
    pub fn begin_exchange(&mut self, now: Mono) -> Option<Exchange> {
        let sharing = self.sharing.as_deref_mut().filter(|sharing| !sharing.under_way)?;
        if let Some(said) = &sharing.said
            && now - said.at < Self::SAID_AGAIN
        {
            sharing.under_way = true;
            return Some(said.exchange.clone());
        }
        sharing.said = None;
        let (gates, lanes, limits, asks) = self.collect_exchange(now);
        let (families, doors) = self.collect_doors(now);
        let sharing = self.sharing.as_deref_mut()?;
        let must = sharing.failures > 0
            || sharing.back_at.is_some()
            || sharing.word_due().is_some_and(|due| due <= now);
        if limits.is_empty() && doors.is_empty() && !must {
            self.nothing_to_say(now);
            return None;
        }
        sharing.seq += 1;
        let exchange = sharing.word(now, self.rng.u64(1..1 << 53), limits, asks, doors);
        sharing.said = Some(Said { at: now, exchange: exchange.clone(), gates, lanes, families });
        sharing.under_way = true;
        Some(exchange)
    }

    /// Something was due and came to nothing: it is looked at anew. Should it be due still, then not at this instant again, else a
    /// shell would ask for ever.
    fn nothing_to_say(&mut self, now: Mono) {
        self.plan_exchange(now);
        if self.exchange_due(now).is_some_and(|due| due <= now)
            && let Some(sharing) = self.sharing.as_deref_mut()
        {
            sharing.not_before = now + Wanting::SOONEST;
        }
    }

    /// What became of an exchange. Without answers for long enough the bank keeps to its part by itself. May change the next
    /// wake-up.
    pub fn end_exchange(&mut self, now: Mono, said: &Exchange, answer: Result<&Reply, Away>) {
        let Some(sharing) = self.sharing.as_deref_mut() else { return };
        if sharing.said.as_ref().is_none_or(|own| own.exchange.seq != said.seq) {
            return;
        }
        sharing.under_way = false;
        match answer {
            Ok(reply) => self.answer_came(now, reply),
            Err(away) => self.no_answer(now, away),
        }
    }

    fn answer_came(&mut self, now: Mono, reply: &Reply) {
        let Some(sharing) = self.sharing.as_deref_mut() else { return };
        let Some(said) = sharing.said.take() else { return };
        let another = sharing.incarnation.is_some_and(|known| known != reply.incarnation);
        let forgot = another || reply.knew_seq < sharing.answered_seq;
        // Who was silent for long is forgotten in the course of things, and in the end the state is, too.
        let spoke = sharing.heard.is_some_and(|heard| said.at - heard < Self::SPOKE_OF_LATE);
        let lost = forgot && (spoke || !another && reply.knew_seq > 0);
        sharing.incarnation = Some(reply.incarnation);
        sharing.answered_seq = said.exchange.seq;
        sharing.heard = Some(now);
        if said.exchange.leaves {
            // From now on it is a stranger there.
            (sharing.heard, sharing.answered_seq, sharing.left) = (None, 0, true);
        }
        (sharing.failures, sharing.not_before, sharing.told) = (0, now, Told::Nothing);
        sharing.round_trip = (now - said.at).min(Self::SAID_AGAIN);
        sharing.why = None;
        sharing.fallback.heard(reply.holders);
        sharing.instances = Some(reply.holders);
        if lost {
            self.events.push(Event::StoreForgot);
        }
        self.store_answered(now);
        let before: Vec<Option<Duration>> =
            said.gates.iter().map(|&gate| self.closed_for(now, gate)).collect();
        for ((&gate, side), told) in said.gates.iter().zip(&said.exchange.limits).zip(&reply.limits) {
            if let Some(gate) =
                self.registry.gates.get_mut(gate).filter(|gate| gate.share_key() == Some(side.key))
            {
                gate.share_heard(now, said.at, reply.holders, told);
                if said.exchange.leaves {
                    gate.has_left_fleet();
                }
                self.events.extend(gate.terms_differ(told));
            }
        }
        for ((want, grant), &lane) in said.exchange.asks.iter().zip(&reply.grants).zip(&said.lanes) {
            for &place in &want.limits {
                let gate = said.gates[usize::from(place)];
                let key = said.exchange.limits[usize::from(place)].key;
                if let Some(gate) =
                    self.registry.gates.get_mut(gate).filter(|gate| gate.share_key() == Some(key))
                {
                    gate.granted(now, grant);
                }
            }
            let back = now + Duration::from_millis(grant.come_back);
            // Permits that the server's own word does not cover serve nobody.
            let lacks = said.gates.iter().any(|&gate| {
                self.registry
                    .gates
                    .get(gate)
                    .is_some_and(|gate| gate.unspent(now) > 0 && gate.worth(now) == 0)
            });
            let Some(lane) = self.registry.lanes.get_mut(lane) else { continue };
            let wanting = lane.wanting.get_or_insert_default();
            if grant.permits > 0 && !lacks {
                wanting.granted(back);
            } else {
                let first = Class::ALL.into_iter().find(|class| want.now[class.index()] > 0);
                wanting.denied(now, first, back);
            }
        }
        self.doors_heard(now, &said, &reply.doors, !forgot);
        self.look_again(now, &said, &before);
    }

    /// The gates and lanes of an exchange that was answered are others now.
    fn look_again(&mut self, now: Mono, said: &Said, before: &[Option<Duration>]) {
        for (&gate, &before) in said.gates.iter().zip(before) {
            self.schedule.touch(barriers::gate(gate));
            if let Some(closed) = self.closed_for(now, gate)
                && let Some(&lane) = said.lanes.first()
                && self.registry.lanes.get(lane).is_some()
            {
                self.doubt_until(now, lane, before, closed);
            }
        }
        let Some(sharing) = self.sharing.as_deref_mut() else { return };
        sharing.gates.extend(&said.gates);
        sharing.lanes.extend(&said.lanes);
        sharing.ran_out = true;
    }

    fn closed_for(&self, now: Mono, gate: usize) -> Option<Duration> {
        self.registry.gates.get(gate)?.closed_for(now)
    }

    // ---- What happens meanwhile --------------------------------------------------------------------------------------

    /// A call of `class` asks.
    pub(super) fn note_ask(&mut self, now: Mono, lane: usize, class: Class) {
        let Some(sharing) = self.sharing.as_deref_mut() else { return };
        sharing.active.insert(lane);
        sharing.left = false;
        self.registry.lanes[lane].wanting.get_or_insert_default().asked(now, class);
    }

    /// It has to wait.
    pub(super) fn note_waiter(&mut self, lane: usize, class: Class) {
        let Some(sharing) = self.sharing.as_deref_mut() else { return };
        sharing.lanes.push(lane);
        if let Some(wanting) = &mut self.registry.lanes[lane].wanting {
            wanting.waits(class);
        }
    }

    /// A ticket ended.
    pub(in crate::pace) fn note_holds(&mut self, ticket: &Ticket) {
        let Some(sharing) = self.sharing.as_deref_mut() else { return };
        sharing.gates.extend(ticket.holds.iter().map(|hold| hold.gate));
        sharing.lanes.push(ticket.lane);
    }

    /// Finds out when exchanges are due for what has changed.
    pub(super) fn plan_exchange(&mut self, now: Mono) {
        let Some(mut sharing) = self.sharing.take() else { return };
        let mut gates = std::mem::take(&mut sharing.gates);
        gates.sort_unstable();
        gates.dedup();
        for &gate in &gates {
            let Some(state) = self.registry.gates.get(gate).filter(|state| state.shared().is_some()) else {
                continue;
            };
            sharing.ran_out |= state.lacks_permits(now);
            let due = state.exchange_due(now, sharing.round_trip);
            self.registry.keep_to_part(now, gate);
            if let Some(shared) = self.registry.gates[gate].shared_mut() {
                sharing.plan(&mut shared.due, due, Due::Gate(gate));
            }
        }
        gates.clear();
        sharing.gates = gates;
        let mut lanes = std::mem::take(&mut sharing.lanes);
        if std::mem::take(&mut sharing.ran_out) {
            lanes.extend(
                sharing
                    .active
                    .iter()
                    .filter(|&&lane| self.registry.lanes.get(lane).is_some_and(|lane| lane.waiting > 0)),
            );
        }
        lanes.sort_unstable();
        lanes.dedup();
        for &lane in &lanes {
            if let Some(state) = self.registry.lanes.get(lane).filter(|state| state.waiting > 0) {
                sharing.changes.noted.push(state.family);
            }
            let due = self.lane_due(now, lane);
            if let Some(state) = self.registry.lanes.get_mut(lane) {
                let wanting = state.wanting.get_or_insert_default();
                sharing.plan(&mut wanting.due, due, Due::Lane(lane));
            }
        }
        lanes.clear();
        sharing.lanes = lanes;
        self.sharing = Some(sharing);
        self.plan_doors(now);
    }

    /// When calls of a lane that wait are to ask the store.
    fn lane_due(&self, now: Mono, lane: usize) -> Option<Mono> {
        let state = self.registry.lanes.get(lane).filter(|state| state.waiting > 0)?;
        let mut lacks = false;
        let mut opens = now;
        for &gate in &state.gates {
            let gate = &self.registry.gates[gate];
            if gate.has_scout_out() {
                // Its answer is told at once, and opens for all.
                return None;
            }
            lacks |= gate.lacks_permits(now);
            opens = opens.max(now + gate.closed_for(now).unwrap_or_default());
        }
        match self.admission(lane, now) {
            Admission::Refuse(until) => opens = opens.max(until),
            Admission::AwaitProbe => opens = opens.max(self.probe_until(lane)?),
            Admission::Serve | Admission::Probe => {}
        }
        let come_back = state.wanting.as_ref().map_or(Mono::ZERO, |wanting| wanting.come_back());
        lacks.then(|| opens.max(come_back))
    }

    /// Its family's breaker lets calls through.
    fn serves(&self, lane: usize, now: Mono) -> bool {
        matches!(self.admission(lane, now), Admission::Serve | Admission::Probe)
    }

    fn probe_until(&self, lane: usize) -> Option<Mono> {
        self.family_of(lane).breaker.probe_until()
    }
}
