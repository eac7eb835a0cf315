//! What a class of one process leaves to a class of another, where they meet in one ledger.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, Class, ClassPolicy, Partition, TicketId, WaiterId,
    Woken,
};
use tidegate_core::share::{HolderId, Ledger, OnStoreLoss, ShareConfig};
use tidegate_core::time::Mono;

/// The store's time at the beginning, milliseconds.
const T: u64 = 1_700_000_000_000;

/// The quota of the fleet, and how long it counts, ms.
const QUOTA: u64 = 300;
const WINDOW: u64 = 60_000;

/// How long a call takes, ms.
const CALL: u64 = 100;

const MINUTES: u64 = 4;

/// What bulk calls leave of it.
const RESERVE: u64 = 75;

fn at(ms: u64) -> Mono {
    Mono::from_nanos(ms * 1_000_000)
}

/// Whether answers tell what is left, and then all of it comes back at once; else the limit is declared and each attempt counts for
/// a window of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Quota {
    Declared,
    Told,
}

struct Process {
    bank: Bank,
    /// It never runs out of bulk calls; else it makes a `sync` call every second.
    bulk: bool,
    flying: Vec<(u64, TicketId, Observation, bool)>,
    waiting: BTreeMap<WaiterId, (u64, Class)>,
    /// When each call left, how long it had waited, and its class.
    sent: Vec<(u64, u64, Class)>,
}

#[derive(Default)]
struct Upstream {
    taken: Vec<u64>,
    refused: u64,
}

impl Upstream {
    fn take(&mut self, now: u64, quota: Quota) -> (bool, Observation) {
        let since = match quota {
            Quota::Told => now / WINDOW * WINDOW,
            Quota::Declared => (now + 1).saturating_sub(WINDOW),
        };
        let used = |taken: &Vec<u64>| taken.iter().filter(|&&at| at >= since).count() as u64;
        let accepted = used(&self.taken) < QUOTA;
        if accepted {
            self.taken.push(now);
        } else {
            self.refused += 1;
        }
        let told = match quota {
            Quota::Declared => Observation::default(),
            Quota::Told => {
                let left = QUOTA - used(&self.taken).min(QUOTA);
                pace_parts::reading(None, QUOTA, left, Duration::from_millis(WINDOW - now % WINDOW))
            }
        };
        (accepted, told)
    }
}

impl Process {
    fn new(id: u64, quota: Quota, bulk: bool) -> Self {
        let rate = pace_parts::rate(QUOTA, Duration::from_millis(WINDOW));
        let limits = match quota {
            Quota::Declared => vec![pace_parts::limit("q", rate, &[Partition::Tenant])],
            Quota::Told => Vec::new(),
        };
        let mut policies = Class::ALL.map(ClassPolicy::of);
        policies[Class::Bulk.index()].reserve = RESERVE;
        let config =
            BankConfig { limits, policies, seed: id, spread: Duration::ZERO, ..BankConfig::default() };
        let mut bank = Bank::new(config).unwrap();
        bank.share(ShareConfig {
            holder: HolderId(id * 7919),
            on_store_loss: OnStoreLoss::Share,
            max_instances: 8,
            tokens_shared: true,
        });
        Self { bank, bulk, flying: Vec::new(), waiting: BTreeMap::new(), sent: Vec::new() }
    }

    fn ask(&mut self, now: u64, class: Class, upstream: &mut Upstream, quota: Quota) {
        let (family, credential) = (Family::new("/api/v2/users"), CredentialId::new("one"));
        match self.bank.ask(at(now), &Ask { class, ..pace_parts::asking(&family, &credential) }) {
            Asked::Granted(ticket) => self.send(now, now, class, ticket, upstream, quota),
            Asked::Queued(waiter) => {
                self.waiting.insert(waiter, (now, class));
            }
            Asked::Refused(why) => panic!("{why:?}"),
        }
    }

    fn send(
        &mut self,
        now: u64,
        asked: u64,
        class: Class,
        ticket: TicketId,
        up: &mut Upstream,
        quota: Quota,
    ) {
        self.bank.sent(at(now), ticket);
        let (accepted, told) = up.take(now, quota);
        self.flying.push((now + CALL, ticket, told, accepted));
        self.sent.push((now, now - asked, class));
    }

    fn wake(&mut self, now: u64, upstream: &mut Upstream, quota: Quota) {
        let mut woken = Vec::new();
        self.bank.advance(at(now), &mut woken);
        for (waiter, how) in woken {
            let (asked, class) = self.waiting.remove(&waiter).unwrap();
            match how {
                Woken::Granted(ticket) => self.send(now, asked, class, ticket, upstream, quota),
                Woken::Refused(why) => panic!("{why:?}"),
            }
        }
    }

    fn step(&mut self, now: u64, ledger: &mut Ledger, upstream: &mut Upstream, quota: Quota) {
        for (_, ticket, observation, accepted) in
            self.flying.extract_if(.., |(until, ..)| *until <= now).collect::<Vec<_>>()
        {
            let kind = if accepted { AnswerKind::Accepted } else { AnswerKind::Throttled };
            self.bank.answered(at(now), ticket, &Answer { kind, observation: &observation });
        }
        if !self.bulk && now.is_multiple_of(1000) {
            self.ask(now, Class::Sync, upstream, quota);
        }
        let bulk =
            |process: &Self| process.waiting.values().filter(|(_, class)| *class == Class::Bulk).count();
        while self.bulk && bulk(self) < 5 && self.flying.len() < 20 {
            self.ask(now, Class::Bulk, upstream, quota);
        }
        self.wake(now, upstream, quota);
        if self.bank.exchange_due(at(now)).is_some_and(|due| due <= at(now))
            && let Some(said) = self.bank.begin_exchange(at(now))
        {
            let reply = ledger.exchange(T + now, &said).unwrap();
            self.bank.end_exchange(at(now), &said, Ok(&reply));
            self.wake(now, upstream, quota);
        }
    }
}

struct Played {
    fleet: Vec<Process>,
    refused: u64,
}

impl Played {
    /// How long the calls of a class waited that asked in a minute, ms: those still waiting at the end too.
    fn waits(&self, class: Class, minute: u64) -> Vec<u64> {
        let end = MINUTES * WINDOW;
        let mut waits: Vec<u64> = self
            .fleet
            .iter()
            .flat_map(|process| {
                let sent = process.sent.iter().map(|&(at, waited, class)| (at - waited, waited, class));
                let still = process.waiting.values().map(|&(asked, class)| (asked, end - asked, class));
                sent.chain(still)
            })
            .filter(|&(asked, _, of)| of == class && asked / WINDOW == minute)
            .map(|(_, waited, _)| waited)
            .collect();
        waits.sort_unstable();
        waits
    }

    fn sent(&self, class: Class, minute: u64) -> usize {
        let sent = self.fleet.iter().flat_map(|process| &process.sent);
        sent.filter(|&&(at, _, of)| of == class && at / WINDOW == minute).count()
    }
}

/// So many processes that never run out of bulk calls, beside one that makes a `sync` call every second.
fn played(quota: Quota, bulk: u64) -> Played {
    let mut ledger = Ledger::new(T, 1);
    let mut upstream = Upstream::default();
    let mut fleet: Vec<Process> = (0..=bulk).map(|id| Process::new(id + 1, quota, id < bulk)).collect();
    for now in (0..MINUTES * WINDOW).step_by(10) {
        for process in &mut fleet {
            process.step(now, &mut ledger, &mut upstream, quota);
        }
    }
    Played { fleet, refused: upstream.refused }
}

#[test]
fn calls_that_a_reserve_is_for_do_not_wait_although_other_processes_never_run_out_of_bulk_calls() {
    for quota in [Quota::Declared, Quota::Told] {
        for bulk in [1, 4] {
            let played = played(quota, bulk);
            assert_eq!(played.refused, 0, "{quota:?}");
            // Until the end of the first minute the ledger learns what the quota is.
            for minute in 1..MINUTES {
                let longest = played.waits(Class::Sync, minute).last().copied();
                assert!(longest <= Some(100), "{quota:?}: {longest:?} ms beside {bulk} in minute {minute}");
                let sent = played.sent(Class::Bulk, minute);
                assert!(sent >= 140, "{quota:?}: {sent} bulk calls of {bulk} in minute {minute}");
            }
        }
    }
}
