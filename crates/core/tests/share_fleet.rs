//! Banks of several processes on one ledger, in steps of virtual time: what a fleet gets done when calls are slow, caps are
//! shared and the quota is scarce.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::cast_precision_loss, reason = "small counts")]

mod pace_parts;
mod share_world;

use std::time::Duration;

use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, Class, LimitKind, LimitSpec, TicketId, Woken,
};
use tidegate_core::share::{HolderId, Ledger, OnStoreLoss, Refill, ShareConfig};
use tidegate_core::time::Mono;

use share_world::node::Belief;
use share_world::server::{Law, Reset, Server};
use share_world::{Chaos, Config, MS, S, World};

/// The store's time at the beginning, milliseconds.
const T: u64 = 1_700_000_000_000;

fn at(millis: u64) -> Mono {
    Mono::from_nanos(millis * 1_000_000)
}

/// A bank, its attempts in flight with the time of their answers, and how many calls wait.
struct Process {
    bank: Bank,
    flying: Vec<(u64, TicketId)>,
    waiting: usize,
    sent: u64,
}

impl Process {
    /// One that is alone, unless it has a `holder`.
    fn new(holder: Option<u64>, limits: &[LimitSpec]) -> Self {
        let seed = holder.unwrap_or(0);
        let config =
            BankConfig { limits: limits.to_vec(), seed, spread: Duration::ZERO, ..BankConfig::default() };
        let mut bank = Bank::new(config).unwrap();
        if let Some(holder) = holder {
            bank.share(ShareConfig {
                holder: HolderId(holder),
                on_store_loss: OnStoreLoss::Share,
                max_instances: 8,
                tokens_shared: false,
            });
        }
        Self { bank, flying: Vec::new(), waiting: 0, sent: 0 }
    }

    fn send(&mut self, now: u64, ticket: TicketId, takes: u64) {
        self.bank.sent(at(now), ticket);
        self.flying.push((now + takes, ticket));
        self.sent += 1;
    }

    /// A bulk call, whose attempt takes so long.
    fn call(&mut self, now: u64, takes: u64) {
        let (family, credential) = (Family::new("/api/v2/users"), CredentialId::new("one"));
        let ask = Ask { class: Class::Bulk, ..pace_parts::asking(&family, &credential) };
        match self.bank.ask(at(now), &ask) {
            Asked::Granted(ticket) => self.send(now, ticket, takes),
            Asked::Queued(_) => self.waiting += 1,
            Asked::Refused(reason) => panic!("{reason:?}"),
        }
    }

    fn wake(&mut self, now: u64, takes: u64) {
        let mut woken = Vec::new();
        self.bank.advance(at(now), &mut woken);
        for (_, outcome) in woken {
            self.waiting -= 1;
            match outcome {
                Woken::Granted(ticket) => self.send(now, ticket, takes),
                Woken::Refused(reason) => panic!("{reason:?}"),
            }
        }
    }

    /// What happens at `now`: attempts are answered, calls leave, and what is due is said to the store.
    fn step(&mut self, now: u64, ledger: &mut Ledger, takes: u64) {
        let (done, flying) = self.flying.iter().partition(|&&(answered, _)| answered <= now);
        self.flying = flying;
        let done: Vec<(u64, TicketId)> = done;
        for (_, ticket) in done {
            let observation = Observation::default();
            let answer = Answer { kind: AnswerKind::Accepted, observation: &observation };
            self.bank.answered(at(now), ticket, &answer);
        }
        self.wake(now, takes);
        if self.bank.exchange_due(at(now)).is_some_and(|due| due <= at(now))
            && let Some(said) = self.bank.begin_exchange(at(now))
        {
            let reply = ledger.exchange(T + now, &said).unwrap();
            self.bank.end_exchange(at(now), &said, Ok(&reply));
            self.wake(now, takes);
        }
    }
}

/// What processes send within two minutes that always have calls to make.
fn sent(mut processes: Vec<Process>, takes: u64) -> u64 {
    let mut ledger = Ledger::new(T, 1);
    for now in (0..120_000).step_by(5) {
        for process in &mut processes {
            while process.waiting < 20 && process.flying.len() < 50 {
                process.call(now, takes);
            }
            process.step(now, &mut ledger, takes);
        }
    }
    processes.iter().map(|process| process.sent).sum()
}

#[test]
fn slow_calls_open_a_limit_that_no_answer_tells_of() {
    let declared = vec![pace_parts::limit("q", pace_parts::rate(300, Duration::from_mins(1)), &[])];
    for limits in [declared, Vec::new()] {
        for takes in [500, 2_900, 3_500, 8_000] {
            let alone = sent(vec![Process::new(None, &limits)], takes);
            let shared = sent((1..=2).map(|holder| Process::new(Some(holder), &limits)).collect(), takes);
            assert!(100 * shared >= 95 * alone, "{shared} sent by two, {alone} by one, {takes} ms each");
        }
    }
}

#[test]
fn a_cap_holds_for_calls_that_outlive_every_lease() {
    let limits = vec![pace_parts::limit("cap", LimitKind::Concurrent { cap: 10 }, &[])];
    for takes in [2_000, 8_000, 20_000] {
        let mut ledger = Ledger::new(T, 1);
        let mut processes: Vec<Process> = (1..=3).map(|holder| Process::new(Some(holder), &limits)).collect();
        let mut asked = [0; 3];
        for now in 0..60_000 {
            // Short calls first, then one process after the other wants all of it, and nobody wants anything beside it.
            let takes = if now < 5_000 { 50 } else { takes };
            for (process, (asked, begins)) in
                processes.iter_mut().zip(asked.iter_mut().zip([6_000, 12_500, 19_000]))
            {
                if now < 4_000 && now % 10 == 0 && process.waiting < 4 {
                    process.call(now, takes);
                }
                if now >= begins && *asked < 10 && process.waiting == 0 {
                    process.call(now, takes);
                    *asked += 1;
                }
                process.step(now, &mut ledger, takes);
            }
            let flying: usize = processes.iter().map(|process| process.flying.len()).sum();
            assert!(flying <= 10, "{flying} in flight at {now} ms, calls of {takes} ms");
        }
    }
}

/// Of equals, what the one gets that gets least within twenty windows, in parts of a fair share.
fn least_served(nodes: u64, limit: u32, rule: (Law, Reset, Refill, bool), seed: u64) -> f64 {
    let (law, reset, rule, told) = rule;
    let window = 20 * S;
    let config = Config {
        seed,
        nodes,
        belief: Belief { told, rule, proven: true },
        demand: 1.5,
        skew: 0.0,
        length: 20 * window,
        chaos: Chaos::default(),
        to_store: (200, 600),
        to_server: (10 * MS, 20 * MS),
        answers: (0, 0),
        strangers: 0.0,
        clocks: 0,
        beside: None,
    };
    let mut world = World::new(config, Server::new(law, reset, limit, window));
    world.run();
    assert_eq!(world.told.throttled, 0);
    let least = world.nodes.iter().map(|node| node.served).min().unwrap();
    least as f64 * nodes as f64 / world.told.calls as f64
}

#[test]
fn of_equal_processes_none_is_starved_by_its_name() {
    let rules = [
        (Law::Aligned(0), Reset::Next, Refill::Step, true),
        (Law::Log, Reset::Silent, Refill::Log, false),
        (Law::Log, Reset::Next, Refill::Log, true),
    ];
    for rule in rules {
        for limit in [60, 300] {
            for seed in 0..5 {
                let part = least_served(8, limit, rule, seed);
                assert!(part >= 0.4, "{rule:?}, limit {limit}, seed {seed}: {part:.2} of a fair share");
            }
        }
    }
}
