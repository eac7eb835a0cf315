//! What a decision costs, and what a gate weighs: `cargo xtask bench decision`.
//!
//! Beside the keyed limiter of `governor`, in the same run and under the same keys (a family and a credential, both text):
//! nanoseconds per decision for one gate, a thousand and a million, in random order; allocations per ticket; bytes per
//! gate in use and idle. Rounds of all rows follow one another, so that a busy machine slows all of them; the median and
//! the spread are printed. `governor` is measured with its own clock, as its users have it, and with a clock that stands
//! still, since the bank is handed its time.
//!
//! Bytes are those asked of the allocator, counted by `stats_alloc`; beside them stands the resident set of the process.

#![expect(clippy::print_stdout, reason = "a program of its own: it prints")]

use std::alloc::System;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock, FakeRelativeClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use http::Method;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::{Dialect, Observation, Reading, Reset};
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, CallerId, Class, TicketId, TokenSlot, WaiterId, Woken,
};
use tidegate_core::time::Mono;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The version of the dev-dependency, as the lock file has it.
const GOVERNOR: &str = "governor 0.10.4";
const ROUNDS: usize = 21;
/// Decisions per round and row.
const ASKS: usize = 20_000;
/// Tickets held at once, so that what is timed is the asking alone.
const BATCH: usize = 50;

fn main() {
    // First, while the process holds nothing that the allocator could use again.
    weights();
    let mut rows = Vec::new();
    for gates in [1_usize, 1_000, 1_000_000] {
        rows.push(Row::new(gates));
    }
    println!("\nns per decision, median of {ROUNDS} interleaved rounds of {ASKS} (least .. most)\n");
    for _ in 0..ROUNDS {
        for row in &mut rows {
            row.round();
        }
    }
    for row in &mut rows {
        row.print();
    }
    drop(rows);
    newcomers();
}

/// One number of gates.
struct Row {
    gates: usize,
    bank: World,
    governor: Keyed<DefaultClock>,
    governor_still: Keyed<FakeRelativeClock>,
    order: Vec<usize>,
    ask: Vec<f64>,
    cycle: Vec<f64>,
    clocked: Vec<f64>,
    still: Vec<f64>,
    allocations: usize,
}

impl Row {
    fn new(gates: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(7);
        Self {
            gates,
            bank: World::warm(gates),
            governor: Keyed::warm(gates, DefaultClock::default()),
            governor_still: Keyed::warm(gates, FakeRelativeClock::default()),
            order: (0..ASKS).map(|_| rng.usize(..gates)).collect(),
            ask: Vec::new(),
            cycle: Vec::new(),
            clocked: Vec::new(),
            still: Vec::new(),
            allocations: 0,
        }
    }

    fn round(&mut self) {
        let Self { bank, order, .. } = self;
        let mut tickets = Vec::with_capacity(BATCH);
        let mut asking = Duration::ZERO;
        for batch in order.chunks(BATCH) {
            asking += timed(|| tickets.extend(batch.iter().map(|&gate| bank.ask(gate))));
            for ticket in tickets.drain(..) {
                bank.bank.dropped(bank.now, ticket);
            }
        }
        self.ask.push(per_decision(asking));
        let before = ALLOCATOR.stats().allocations;
        let cycling = timed(|| order.iter().for_each(|&gate| bank.cycle(gate)));
        self.allocations += ALLOCATOR.stats().allocations - before;
        self.cycle.push(per_decision(cycling));
        let keyed = &self.governor;
        self.clocked.push(per_decision(timed(|| order.iter().for_each(|&gate| keyed.check(gate)))));
        let keyed = &self.governor_still;
        self.still.push(per_decision(timed(|| order.iter().for_each(|&gate| keyed.check(gate)))));
    }

    fn print(&mut self) {
        println!("{} gates", self.gates);
        for (name, figures) in [
            ("ask and grant", &mut self.ask),
            ("ask, sent, answered with a reading", &mut self.cycle),
            (&format!("{GOVERNOR} check_key, its clock"), &mut self.clocked),
            (&format!("{GOVERNOR} check_key, clock standing still"), &mut self.still),
        ] {
            figures.sort_by(f64::total_cmp);
            let (least, most) = (figures[0], figures[figures.len() - 1]);
            println!("  {name:<46}{:>8.0}   ({least:.0} .. {most:.0})", figures[figures.len() / 2]);
        }
        let tickets = ROUNDS * ASKS;
        println!("  allocations in {tickets} cycles: {}\n", self.allocations);
    }
}

fn per_decision(took: Duration) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(u32::try_from(ASKS).unwrap_or(u32::MAX))
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn timed(work: impl FnOnce()) -> Duration {
    let from = Instant::now();
    work();
    from.elapsed()
}

/// So many gates as families and credentials, a thousand of each at most.
fn keys(gates: usize) -> (Vec<Family>, Vec<CredentialId>) {
    let credentials = gates.min(1000);
    let families = gates / credentials;
    (
        (0..families).map(|n| Family::new(format!("/api/v2/family-{n}"))).collect(),
        (0..credentials).map(|n| CredentialId::new(format!("client-{n}"))).collect(),
    )
}

/// A bank whose gates have all been told their limit.
struct World {
    bank: Bank,
    now: Mono,
    families: Vec<Family>,
    credentials: Vec<CredentialId>,
    told: Observation,
    woken: Vec<(WaiterId, Woken)>,
}

impl World {
    /// None of them was used yet.
    fn cold(gates: usize) -> Self {
        let (families, credentials) = keys(gates);
        let config = BankConfig {
            max_families: gates.div_ceil(8).max(families.len()).max(BankConfig::default().max_families) + 1,
            seed: 7,
            ..BankConfig::default()
        };
        Self {
            bank: Bank::new(config).expect("nothing is declared"),
            now: Mono::ZERO + Duration::from_secs(1),
            families,
            credentials,
            told: guide(2_000_000_000, 2_000_000_000),
            woken: Vec::new(),
        }
    }

    fn warm(gates: usize) -> Self {
        let mut world = Self::cold(gates);
        for gate in 0..gates {
            for _ in 0..2 {
                world.cycle(gate);
            }
        }
        world
    }

    fn ask(&mut self, gate: usize) -> TicketId {
        let (family, credential) = (gate / self.credentials.len(), gate % self.credentials.len());
        let ask = Ask {
            method: &Method::GET,
            path: "/api/v2/family/7",
            family: &self.families[family],
            credential: &self.credentials[credential],
            token: TokenSlot(1),
            class: Class::Interactive,
            caller: CallerId::ANYBODY,
            deadline: None,
            give_up_at: None,
        };
        let Asked::Granted(ticket) = self.bank.ask(self.now, &ask) else {
            panic!("gate {gate} has no permit")
        };
        self.advance();
        ticket
    }

    /// What a shell does after every change.
    fn advance(&mut self) {
        self.bank.advance(self.now, &mut self.woken);
        black_box(self.bank.next_wake(self.now));
    }

    fn cycle(&mut self, gate: usize) {
        let ticket = self.ask(gate);
        self.bank.sent(self.now, ticket);
        self.advance();
        self.now += Duration::from_micros(1);
        let answer = Answer { kind: AnswerKind::Accepted, observation: &self.told };
        self.bank.answered(self.now, ticket, &answer);
        self.advance();
    }
}

/// Callers who invent credentials, at the default bound: every one of them makes a lane and a gate, and others go.
fn newcomers() {
    const EACH: usize = 2_000;
    let mut world = World::warm(1);
    let mut figures = Vec::new();
    for round in 0..ROUNDS {
        let before = world.credentials.len();
        let names = (0..EACH).map(|number| CredentialId::new(format!("invented-{round}-{number}")));
        world.credentials.extend(names);
        let took = timed(|| (before..before + EACH).for_each(|gate| world.cycle(gate)));
        // From here on the registry is full.
        if before > 10_000 {
            figures.push(took.as_secs_f64() * 1e9 / f64::from(u32::try_from(EACH).unwrap_or(u32::MAX)));
        }
    }
    figures.sort_by(f64::total_cmp);
    let (least, most) = (figures[0], figures[figures.len() - 1]);
    println!("a newcomer at the bound, told, each for the first time");
    let name = "ask, sent, answered with a reading";
    println!("  {name:<46}{:>8.0}   ({least:.0} .. {most:.0})", figures[figures.len() / 2]);
}

/// What the guide's headers say: limit, remaining, reset.
fn guide(limit: u64, remaining: u64) -> Observation {
    let reset = Reset { after: Duration::from_mins(1), grain: Duration::from_secs(1), at: None };
    let reading = Reading {
        name: None,
        limit: Some(limit),
        remaining: Some(remaining),
        reset: Some(reset),
        window: None,
        dialect: Dialect::Guide,
    };
    Observation { readings: vec![reading], ..Observation::default() }
}

type Key = (Family, CredentialId);

/// `governor` under the same keys, with a quota that is never used up.
struct Keyed<C: Clock> {
    limiter: RateLimiter<Key, DashMapStateStore<Key>, C, NoOpMiddleware<C::Instant>>,
    keys: Vec<Key>,
}

impl<C: Clock> Keyed<C> {
    fn warm(gates: usize, clock: C) -> Self {
        let (families, credentials) = keys(gates);
        let keys: Vec<Key> = (0..gates)
            .map(|gate| {
                (families[gate / credentials.len()].clone(), credentials[gate % credentials.len()].clone())
            })
            .collect();
        let quota = Quota::per_second(NonZeroU32::MAX);
        let keyed = Self { limiter: RateLimiter::new(quota, DashMapStateStore::default(), clock), keys };
        for gate in 0..gates {
            keyed.check(gate);
        }
        keyed
    }

    fn check(&self, gate: usize) {
        assert!(self.limiter.check_key(black_box(&self.keys[gate])).is_ok(), "the quota is never used up");
    }
}

/// Bytes per gate, a million of them.
fn weights() {
    const GATES: usize = 1_000_000;
    const AT_ONCE: usize = 10_000;
    println!("bytes per gate, {GATES} gates (asked of the allocator; resident)");
    let (before, resident) = (held(), resident_bytes());
    let mut world = World::cold(GATES);
    for from in (0..GATES).step_by(AT_ONCE) {
        (from..from + AT_ONCE).for_each(|gate| world.cycle(gate));
        world.now += Duration::from_mins(6);
        (0..2 * AT_ONCE).for_each(|_| world.advance());
    }
    line("told, idle, a hundredth was in use at a time", held() - before, resident_bytes() - resident);
    drop(world);
    let (keys_held, resident) = (held(), resident_bytes());
    let mut world = World::warm(GATES);
    line("told, in use, with its lane", held() - keys_held, resident_bytes() - resident);
    world.now += Duration::from_mins(6);
    // As many calls as there are places: each moves the hand on by one.
    for _ in 0..=GATES {
        world.advance();
    }
    line("told, idle for six minutes, all were in use", held() - keys_held, resident_bytes() - resident);
    (0..GATES).for_each(|gate| world.cycle(gate));
    line("in use again", held() - keys_held, resident_bytes() - resident);
    drop(world);
    let (before, resident) = (held(), resident_bytes());
    let keyed = Keyed::warm(GATES, DefaultClock::default());
    line(&format!("{GOVERNOR}, keyed, with its keys"), held() - before, resident_bytes() - resident);
    keyed.check(0);
}

fn line(name: &str, bytes: i64, resident: i64) {
    println!("  {name:<46}{:>8}   ({:>5})", bytes / 1_000_000, resident / 1_000_000);
}

fn held() -> i64 {
    let stats = ALLOCATOR.stats();
    i64::try_from(stats.bytes_allocated).unwrap_or(i64::MAX)
        - i64::try_from(stats.bytes_deallocated).unwrap_or(i64::MAX)
}

/// From the second number of `/proc/self/statm`, which counts pages of 4 kB; zero where there is no such file.
#[expect(clippy::disallowed_methods, reason = "a bench reads what the system says of its process")]
fn resident_bytes() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok()).map_or(0, |pages| pages * 4096)
}
