//! Random sequences of events against a bank.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::disallowed_types, reason = "the books of a test decide nothing")]

mod pace_parts;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use http::Method;
use proptest::prelude::*;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::{Dialect, HitLimit, Observation, Reading, Reset};
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, CallerId, Class, LimitKind, LimitSpec, Partition,
    TicketId, TokenSlot, WaiterId, Woken,
};
use tidegate_core::time::{Mono, Wall};

use pace_parts::{limit, rate};

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    WaitForWake,
    Ask {
        family: u8,
        credential: u8,
        class: u8,
        caller: u8,
        patch: bool,
        deadline: Option<u32>,
        give_up: Option<u32>,
    },
    Send(prop::sample::Index),
    Answer {
        which: prop::sample::Index,
        kind: u8,
        observation: Said,
    },
    Drop(prop::sample::Index),
    Abandon(prop::sample::Index),
}

#[derive(Clone, Debug)]
struct Said {
    limit: Option<u64>,
    remaining: Option<u64>,
    reset: Option<u32>,
    grain: u8,
    absolute: bool,
    name: Option<u8>,
    retry_after: Option<u32>,
    hit: Option<u8>,
}

fn said() -> impl Strategy<Value = Said> {
    (
        prop::option::of(prop_oneof![1..400_u64, any::<u64>()]),
        prop::option::of(prop_oneof![4 => 0..300_u64, 1 => any::<u64>()]),
        prop::option::of(prop_oneof![4 => 0..10_000_u32, 1 => any::<u32>()]),
        0..3_u8,
        any::<bool>(),
        prop::option::weighted(0.2, 0..8_u8),
        prop::option::of(0..20_000_u32),
        prop::option::weighted(0.3, 0..4_u8),
    )
        .prop_map(|(limit, remaining, reset, grain, absolute, name, retry_after, hit)| Said {
            limit,
            remaining,
            reset,
            grain,
            absolute,
            name,
            retry_after,
            hit,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3_000_u64).prop_map(Step::Wait),
        2 => Just(Step::WaitForWake),
        6 => (0..4_u8, 0..2_u8, 0..4_u8, 0..3_u8, any::<bool>(), prop::option::weighted(0.2, 0..20_000_u32), prop::option::weighted(0.2, 0..20_000_u32))
            .prop_map(|(family, credential, class, caller, patch, deadline, give_up)| Step::Ask { family, credential, class, caller, patch, deadline, give_up }),
        4 => any::<prop::sample::Index>().prop_map(Step::Send),
        5 => (any::<prop::sample::Index>(), 0..8_u8, said())
            .prop_map(|(which, kind, observation)| Step::Answer { which, kind, observation }),
        1 => any::<prop::sample::Index>().prop_map(Step::Drop),
        1 => any::<prop::sample::Index>().prop_map(Step::Abandon),
    ]
}

fn observation(said: &Said, now: Mono) -> Observation {
    let seconds = u64::from(said.reset.unwrap_or(0)) / 1000;
    let wall = |secs: u64| Wall::from_unix_millis(i64::try_from(1_000_000 + secs).unwrap() * 1000);
    let date = now.as_nanos() / 1_000_000_000;
    let reset = said.reset.map(|millis| Reset {
        after: Duration::from_millis(u64::from(millis)),
        grain: Duration::from_secs([0, 1, 60][usize::from(said.grain)]),
        at: said.absolute.then(|| wall(date + seconds)),
    });
    let reading = Reading {
        name: said.name.map(|name| format!("limit-{name}")),
        limit: said.limit,
        remaining: said.remaining,
        reset,
        window: None,
        dialect: Dialect::IetfList,
    };
    Observation {
        readings: vec![reading],
        retry_after: said.retry_after.map(|millis| Duration::from_millis(u64::from(millis))),
        hit: said.hit.map(|key| HitLimit {
            key: Some(["all", "patches", "cap", "unheard-of"][usize::from(key)].to_owned()),
            namespace: None,
            value: said.limit,
        }),
        date: Some(wall(date)),
        ignored: Vec::new(),
    }
}

fn limits() -> Vec<LimitSpec> {
    let window = Duration::from_secs(3);
    vec![
        limit("all", rate(12, window), &[Partition::Credential]),
        LimitSpec { method: Some(Method::PATCH), ..limit("patches", rate(3, window), &[Partition::Family]) },
        limit("cap", LimitKind::Concurrent { cap: 5 }, &[]),
    ]
}

/// A shell that keeps its own books.
struct Shell {
    bank: Bank,
    now: Mono,
    waiting: HashSet<WaiterId>,
    tickets: Vec<TicketId>,
    sent: HashSet<TicketId>,
    /// Per credential, when tickets ended that may be counted, and those in flight: an oracle of the limit `all`.
    credentials: HashMap<TicketId, u8>,
    of_waiter: HashMap<WaiterId, u8>,
    /// The declared cap, or what a 429 named instead.
    cap: usize,
    /// Until when hints of refusals that named the limit `cap`, which counts every call, keep everybody away; and those that
    /// named `all`, the callers of each credential.
    closed_for_all: Mono,
    closed_for: HashMap<u8, Mono>,
}

impl Shell {
    fn take(&mut self, ticket: TicketId, credential: u8) {
        self.tickets.push(ticket);
        assert!(self.tickets.len() <= self.cap, "the cap holds");
        let closed = self.closed_for.get(&credential).copied().unwrap_or(Mono::ZERO).max(self.closed_for_all);
        assert!(self.now >= closed, "granted at {:?}, closed until {closed:?}", self.now);
        self.credentials.insert(ticket, credential);
    }

    fn advance(&mut self) {
        let mut woken = Vec::new();
        self.bank.advance(self.now, &mut woken);
        for (waiter, woken) in woken {
            assert!(self.waiting.remove(&waiter), "{waiter:?} was woken twice or never waited");
            let credential = self.of_waiter[&waiter];
            match woken {
                Woken::Granted(ticket) => self.take(ticket, credential),
                Woken::Refused(_) => {}
            }
        }
        let mut again = Vec::new();
        self.bank.advance(self.now, &mut again);
        assert!(again.is_empty(), "a second advance at the same instant has nothing left: {again:?}");
        let snapshot = self.bank.snapshot(self.now);
        assert_eq!(snapshot.in_flight, self.tickets.len());
        assert_eq!(snapshot.waiting.total(), self.waiting.len());
        if !self.waiting.is_empty() && self.tickets.is_empty() {
            let wake = self.bank.next_wake(self.now);
            assert!(wake.is_some(), "waiters would sleep for ever: {snapshot:?}");
        }
    }

    fn ask(&mut self, step: &Step) {
        let &Step::Ask { family, credential, class, caller, patch, deadline, give_up } = step else { return };
        let after = |millis: u32| self.now + Duration::from_millis(u64::from(millis));
        let (deadline, give_up_at) = (deadline.map(after), give_up.map(after));
        let method = if patch { Method::PATCH } else { Method::GET };
        let name = format!("/api/v2/family-{family}");
        let asked = self.bank.ask(
            self.now,
            &Ask {
                method: &method,
                path: &name,
                family: &Family::new(&name),
                credential: &CredentialId::new(format!("credential-{credential}")),
                token: TokenSlot(0),
                class: Class::ALL[usize::from(class)],
                caller: CallerId::named(caller),
                deadline,
                give_up_at,
            },
        );
        match asked {
            Asked::Granted(ticket) => self.take(ticket, credential),
            Asked::Queued(waiter) => {
                self.waiting.insert(waiter);
                self.of_waiter.insert(waiter, credential);
            }
            Asked::Refused(_) => {}
        }
    }

    /// A refusal that names a limit and a time closes that limit until then, for all whom it counts.
    fn refused(&mut self, ticket: TicketId, said: &Said) {
        let Some(hint) = said.retry_after else { return };
        let until = self.now + Duration::from_millis(u64::from(hint));
        match said.hit {
            Some(2) => self.closed_for_all = self.closed_for_all.max(until),
            Some(0) => {
                let closed = self.closed_for.entry(self.credentials[&ticket]).or_insert(Mono::ZERO);
                *closed = (*closed).max(until);
            }
            _ => {}
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Wait(millis) => self.now += Duration::from_millis(*millis),
            Step::WaitForWake => {
                if let Some(wake) = self.bank.next_wake(self.now) {
                    self.now = self.now.max(wake.min(self.now + Duration::from_secs(100_000)));
                }
            }
            Step::Ask { .. } => self.ask(step),
            Step::Send(which) => {
                if let Some(&ticket) = pick(&self.tickets, *which) {
                    self.sent.insert(ticket);
                    self.bank.sent(self.now, ticket);
                }
            }
            Step::Answer { which, kind, observation: said } => {
                if let Some(&ticket) = pick(&self.tickets, *which) {
                    let kind = match kind {
                        0 => AnswerKind::Throttled,
                        1 => AnswerKind::HardFailure,
                        2 => AnswerKind::NotFound,
                        3 => AnswerKind::Unauthorized,
                        4 => AnswerKind::NotSent,
                        _ => AnswerKind::Accepted,
                    };
                    let observation = observation(said, self.now);
                    if let (AnswerKind::Throttled, Some(2), Some(cap @ 1..)) = (kind, said.hit, said.limit) {
                        self.cap = usize::try_from(cap).unwrap_or(usize::MAX);
                    }
                    if kind == AnswerKind::Throttled {
                        self.refused(ticket, said);
                    }
                    self.bank.answered(self.now, ticket, &Answer { kind, observation: &observation });
                    self.tickets.retain(|&other| other != ticket);
                    self.bank.answered(self.now, ticket, &Answer { kind, observation: &observation });
                }
            }
            Step::Drop(which) => {
                if let Some(&ticket) = pick(&self.tickets, *which) {
                    self.bank.dropped(self.now, ticket);
                    self.bank.dropped(self.now, ticket);
                    self.tickets.retain(|&other| other != ticket);
                }
            }
            Step::Abandon(which) => {
                let mut waiters: Vec<WaiterId> = self.waiting.iter().copied().collect();
                waiters.sort();
                if let Some(&waiter) = pick(&waiters, *which) {
                    self.bank.abandon(self.now, waiter);
                    self.waiting.remove(&waiter);
                }
            }
        }
        self.advance();
    }
}

fn pick<T>(from: &[T], which: prop::sample::Index) -> Option<&T> {
    if from.is_empty() { None } else { Some(which.get(from)) }
}

fn shell() -> Shell {
    let config = BankConfig { limits: limits(), max_families: 2, queue_bound: 50, ..BankConfig::default() };
    Shell {
        bank: Bank::new(config).unwrap(),
        now: Mono::ZERO,
        waiting: HashSet::new(),
        tickets: Vec::new(),
        sent: HashSet::new(),
        credentials: HashMap::new(),
        of_waiter: HashMap::new(),
        cap: 5,
        closed_for_all: Mono::ZERO,
        closed_for: HashMap::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_events_never_break_the_books(steps in prop::collection::vec(step(), 1..120)) {
        let mut shell = shell();
        for step in &steps {
            shell.step(step);
        }
    }

    /// Whatever happened, if everything in flight is dropped and time goes on, every waiter ends.
    #[test]
    fn nobody_waits_for_ever(steps in prop::collection::vec(step(), 1..80)) {
        let mut shell = shell();
        for step in &steps {
            shell.step(step);
        }
        let quiet = Observation::default();
        for _ in 0..5_000 {
            for ticket in std::mem::take(&mut shell.tickets) {
                shell.bank.sent(shell.now, ticket);
                shell.now += Duration::from_millis(10);
                shell.bank.answered(shell.now, ticket, &Answer { kind: AnswerKind::Accepted, observation: &quiet });
            }
            shell.advance();
            if shell.waiting.is_empty() {
                break;
            }
            if shell.tickets.is_empty() {
                let wake = shell.bank.next_wake(shell.now).unwrap();
                shell.now = shell.now.max(wake) + Duration::from_nanos(1);
                shell.advance();
            }
        }
        prop_assert!(shell.waiting.is_empty(), "{:?}", shell.bank.snapshot(shell.now));
    }

    /// A silent server: no window of the declared length holds more sends of one credential than was declared.
    #[test]
    fn a_declared_quota_is_never_exceeded(gaps in prop::collection::vec((0..400_u64, 0..300_u64), 1..150)) {
        let mut shell = shell();
        let mut sends: Vec<Mono> = Vec::new();
        let quiet = Observation::default();
        let ask = Step::Ask { family: 0, credential: 0, class: 2, caller: 0, patch: false, deadline: None, give_up: None };
        for (gap, trip) in gaps {
            shell.now += Duration::from_millis(gap);
            shell.ask(&ask);
            shell.advance();
            for ticket in std::mem::take(&mut shell.tickets) {
                shell.bank.sent(shell.now, ticket);
                sends.push(shell.now);
                shell.now += Duration::from_millis(trip);
                shell.bank.answered(shell.now, ticket, &Answer { kind: AnswerKind::Accepted, observation: &quiet });
            }
        }
        for (index, &from) in sends.iter().enumerate() {
            let within = sends[index..].iter().filter(|&&at| at - from < Duration::from_secs(3)).count();
            prop_assert!(within <= 12, "{within} within three seconds from {from:?}");
        }
    }
}
