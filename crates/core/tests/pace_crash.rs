//! Processes that crash and are started again, against a server that counts.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use http::Method;
use proptest::prelude::*;
use tidegate_core::glob::PathGlob;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, CallerId, Class, Kept, LimitKind, LimitSpec, Observes,
    Partition, TicketId, TokenSlot,
};
use tidegate_core::time::{Mono, Wall};

const NOON: u64 = 1_700_000_000_000;
/// For so long at most a process goes on after its last state.
const UNCOVERED: u64 = 13_000;
/// The resolution of the world.
const TICK: u64 = 10;
/// The longest way to the server.
const WAY: u64 = 200;

/// One life of a process.
#[derive(Clone, Debug)]
struct Life {
    lasts: u64,
    /// After it, until the next begins. What was on its way has arrived by then.
    away: u64,
    crashes: bool,
    /// How long a state takes to be written.
    write: u64,
    /// Asks come in bursts of so many, so far apart.
    wanted: usize,
    pause: u64,
    /// Meanwhile nobody asks.
    idle: (u64, u64),
    /// The way to the server and the way back.
    ways: (u64, u64),
}

fn life() -> impl Strategy<Value = Life> {
    let ways = (1..=WAY, 1..1500_u64);
    let idle = prop_oneof![Just((0, 0)), (0..20_000_u64, 10_000..90_000_u64)];
    let calls = (1..80_usize, 1..8_000_u64, idle);
    (100..90_000_u64, WAY..40_000_u64, prop::bool::weighted(0.8), 1..900_u64, calls, ways).prop_map(
        |(lasts, away, crashes, write, (wanted, pause, idle), ways)| Life {
            // Many end soon after nobody asked for long.
            lasts: if idle.1 > 0 { idle.0 + idle.1 + lasts / 60 } else { lasts },
            idle: (idle.0, idle.0 + idle.1),
            away,
            crashes,
            write,
            wanted,
            pause,
            ways,
        },
    )
}

fn declared(quota: u64, window: Duration) -> BankConfig {
    let limit = LimitSpec {
        key: "calls".to_owned(),
        aliases: Vec::new(),
        method: None,
        path: PathGlob::parse("/**").unwrap(),
        kind: LimitKind::Rate { quota, window },
        per: vec![Partition::Credential],
        pin: false,
        assumed: false,
        observes: Observes::OwnName,
    };
    BankConfig { limits: vec![limit], seed: 7, ..BankConfig::default() }
}

/// A stored state, and how many attempts were in flight when it was taken.
type State = (String, usize);

/// A process with its disk's view of it.
struct Process {
    bank: Bank,
    began: u64,
    flying: Vec<(u64, TicketId)>,
    writing: Option<(u64, State)>,
    /// When it is looked whether a state should be written.
    look: u64,
}

impl Process {
    /// Starts at `now` with what is on the disk, and writes it anew before anything leaves.
    fn start(config: BankConfig, now: u64, disk: &mut Option<State>) -> Self {
        let bank = Bank::new(config).unwrap();
        let mut process = Self { bank, began: now, flying: Vec::new(), writing: None, look: now + every() };
        if let Some((text, _)) = disk {
            let kept = Kept::read(text).unwrap();
            process.bank.restore(process.mono(now), wall(now), &kept, Duration::from_millis(UNCOVERED));
        }
        *disk = Some(process.state(now));
        process.bank.stored();
        process
    }

    fn state(&mut self, now: u64) -> State {
        (self.bank.begin_store(self.mono(now), wall(now)).write(), self.flying.len())
    }

    /// The monotonic clock begins with the process.
    fn mono(&self, now: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(now - self.began + 1000)
    }

    fn ask(&mut self, now: u64) -> Option<TicketId> {
        let ask = Ask {
            method: &Method::GET,
            path: "/api/v2/users",
            family: &Family::new("/api/v2/users"),
            credential: &CredentialId::new("wfm"),
            token: TokenSlot(1),
            class: Class::Interactive,
            caller: CallerId::ANYBODY,
            deadline: None,
            give_up_at: None,
        };
        let at = self.mono(now);
        match self.bank.ask(at, &ask) {
            Asked::Granted(ticket) => {
                self.bank.sent(at, ticket);
                Some(ticket)
            }
            Asked::Queued(waiter) => {
                self.bank.abandon(at, waiter);
                None
            }
            Asked::Refused(_) => None,
        }
    }

    /// What became of answers and of the state by `now`.
    fn pass(&mut self, now: u64, life: &Life, disk: &mut Option<State>) {
        let at = self.mono(now);
        let nothing = Observation::default();
        for (_, ticket) in self.flying.extract_if(.., |(ends, _)| *ends <= now) {
            let answer = Answer { kind: AnswerKind::Accepted, observation: &nothing };
            self.bank.answered(at, ticket, &answer);
        }
        if let Some((_, state)) = self.writing.take_if(|(done, _)| *done <= now) {
            *disk = Some(state);
            self.bank.stored();
        }
        // As the shell does: where nothing changed and nobody waits, nothing is written.
        let look = now >= self.look;
        if self.writing.is_none() && (self.bank.is_store_due() || look) {
            self.look = now + every();
            if self.bank.has_unstored() {
                self.writing = Some((now + life.write, self.state(now)));
            }
        }
    }

    /// Permits left of the quota, as the bank sees it.
    fn left(&self, now: u64, quota: u32) -> f64 {
        let gates = self.bank.snapshot(self.mono(now)).gates;
        let own = gates.iter().find(|gate| gate.name == "calls");
        own.and_then(|gate| gate.remaining).unwrap_or(f64::from(quota))
    }
}

fn every() -> u64 {
    u64::try_from(Bank::STORE_EVERY.as_millis()).unwrap()
}

fn wall(now: u64) -> Wall {
    Wall::from_unix_millis(i64::try_from(now).unwrap())
}

/// When the server handled what.
#[derive(Debug, Default)]
struct Server(Vec<u64>);

impl Server {
    /// The most it counted at once: in a window of a clock that began at `phase`, or in any window if it keeps a log.
    fn most(&self, window: u64, phase: Option<u64>) -> u32 {
        let mut handled = self.0.clone();
        handled.sort_unstable();
        let within = |index: usize| {
            let from = handled[index];
            let end = phase.map_or(from + window, |phase| from - (from + phase) % window + window);
            handled[index..].iter().take_while(|&&at| at < end).count()
        };
        small((0..handled.len()).map(within).max().unwrap_or(0))
    }

    fn since(&self, time: u64) -> u32 {
        small(self.0.iter().filter(|&&at| at >= time).count())
    }
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// However often its clients crash, whatever they had in flight and wherever a write was: the server never counts more
    /// than its quota. And a crash costs no more than the lease, what was in flight when the last state was taken, and a sixteenth of
    /// a window.
    #[test]
    fn a_declared_quota_is_not_exceeded_over_crashes_and_a_crash_costs_little(
        lives in prop::collection::vec(life(), 1..6),
        quota in 1..120_u32,
        window in prop::sample::select(vec![2_u64, 10, 20, 60, 300]),
        phase in prop::option::of(0..300_000_u64),
    ) {
        let window = window * 1000;
        let config = || declared(u64::from(quota), Duration::from_millis(window));
        let lease = if window <= 16_000 { quota } else { (quota / 8).max(8).min(quota) };
        let (mut server, mut disk, mut now) = (Server::default(), None, NOON);
        // What crashes may have cost, and when that is over.
        let mut costs: Vec<(u32, u64)> = Vec::new();
        for life in &lives {
            let mut process = Process::start(config(), now, &mut disk);
            let first = process.ask(now).map(|ticket| {
                server.0.push(now + life.ways.0);
                process.flying.push((now + life.ways.0 + life.ways.1, ticket));
            });
            // Each state keeps what was spent in groups of a sixteenth of a window, each on a clock of its own.
            let grouped = window + lives.len() as u64 * window / 15;
            let spent = server.since(now.saturating_sub(grouped + WAY + 1500));
            let lost: u32 = costs.iter().filter(|(_, over)| *over >= now).map(|(cost, _)| cost).sum();
            let least = quota.saturating_sub(spent + lost);
            let left = process.left(now, quota);
            prop_assert!(left >= f64::from(least), "{left} left of {least} {first:?}");
            let (began, end) = (now, now + life.lasts);
            let mut next_burst = now;
            while now < end {
                now += TICK;
                process.pass(now, life, &mut disk);
                let idle = (began + life.idle.0..began + life.idle.1).contains(&now);
                if now >= next_burst && !idle {
                    next_burst = now + life.pause;
                    for of_burst in 0..life.wanted {
                        let Some(ticket) = process.ask(now) else {
                            // Who waits for a state asks again.
                            if of_burst == 0 && process.writing.is_some() {
                                next_burst = now + TICK;
                            }
                            break;
                        };
                        server.0.push(now + life.ways.0);
                        process.flying.push((now + life.ways.0 + life.ways.1, ticket));
                    }
                }
            }
            if !life.crashes {
                let last = process.bank.begin_store(process.mono(now), wall(now)).last();
                disk = Some((last.write(), process.flying.len()));
            }
            let flying = disk.as_ref().map_or(0, |(_, flying)| small(*flying));
            let cost = if life.crashes { lease + flying } else { flying };
            costs.push((cost, now + UNCOVERED + grouped));
            now += life.away;
        }
        let most = server.most(window, phase);
        prop_assert!(most <= quota, "{most} of {quota}");
        // A window after the last end all of it is there.
        let later = now + UNCOVERED + window + lives.len() as u64 * window / 15;
        let process = Process::start(config(), later, &mut disk);
        prop_assert!(process.left(later, quota) >= f64::from(quota));
    }
}
