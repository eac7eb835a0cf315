//! Banks that share a store in memory, where some know less than others: processes that have just started, and a gate that was
//! folded and made again. Time is an argument; the store answers at once.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;

use std::time::Duration;

use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, Class, LimitSpec, Observes, Partition, TicketId,
    WaiterId, Woken,
};
use tidegate_core::share::{HolderId, Ledger, OnStoreLoss, ShareConfig};
use tidegate_core::time::Mono;

const T: u64 = 1_700_000_000_000;

fn at(ms: u64) -> Mono {
    Mono::from_nanos(ms * 1_000_000)
}

fn bank(holder: u64, limits: &[LimitSpec]) -> Bank {
    let config =
        BankConfig { limits: limits.to_vec(), seed: holder, spread: Duration::ZERO, ..BankConfig::default() };
    let mut bank = Bank::new(config).unwrap();
    bank.share(ShareConfig {
        holder: HolderId(holder * 7_919),
        on_store_loss: OnStoreLoss::Share,
        max_instances: 8,
        tokens_shared: false,
    });
    bank
}

/// Fixed windows of a minute with 300 in each, from zero on; each answer tells what is left.
#[derive(Default)]
struct Server {
    window: u64,
    used: u64,
    throttled: u64,
}

impl Server {
    const LIMIT: u64 = 300;

    fn handle(&mut self, now: u64) -> (AnswerKind, Observation) {
        if now / 60_000 != self.window {
            (self.window, self.used) = (now / 60_000, 0);
        }
        let reset = Duration::from_millis(60_000 - now % 60_000);
        if self.used < Self::LIMIT {
            self.used += 1;
            return (AnswerKind::Accepted, pace_parts::told(Self::LIMIT - self.used, reset));
        }
        self.throttled += 1;
        let told = Observation { retry_after: Some(reset), ..pace_parts::told(0, reset) };
        (AnswerKind::Throttled, told)
    }
}

/// One process whose calls are bulk and take 50 ms.
struct Process {
    bank: Bank,
    flying: Vec<(u64, TicketId, AnswerKind, Observation)>,
    waiting: usize,
}

impl Process {
    fn new(holder: u64, limits: &[LimitSpec]) -> Self {
        Self { bank: bank(holder, limits), flying: Vec::new(), waiting: 0 }
    }

    fn send(&mut self, now: u64, ticket: TicketId, server: &mut Server) {
        self.bank.sent(at(now), ticket);
        let (kind, told) = server.handle(now);
        self.flying.push((now + 50, ticket, kind, told));
    }

    /// Calls until so many wait or are under way.
    fn press(&mut self, now: u64, most: usize, server: &mut Server) {
        let (family, credential) = (Family::new("/api/v2/users"), CredentialId::new("one"));
        while self.waiting < most && self.flying.len() < most {
            let ask = Ask { class: Class::Bulk, ..pace_parts::asking(&family, &credential) };
            match self.bank.ask(at(now), &ask) {
                Asked::Granted(ticket) => self.send(now, ticket, server),
                Asked::Queued(_) => self.waiting += 1,
                Asked::Refused(refusal) => panic!("{refusal:?}"),
            }
        }
    }

    fn wake(&mut self, now: u64, server: &mut Server) {
        let mut woken = Vec::new();
        self.bank.advance(at(now), &mut woken);
        for (_, outcome) in woken {
            self.waiting -= 1;
            match outcome {
                Woken::Granted(ticket) => self.send(now, ticket, server),
                Woken::Refused(refusal) => panic!("{refusal:?}"),
            }
        }
    }

    fn step(&mut self, now: u64, ledger: &mut Ledger, server: &mut Server) {
        for (_, ticket, kind, told) in self.flying.extract_if(.., |(back, ..)| *back <= now) {
            self.bank.answered(at(now), ticket, &Answer { kind, observation: &told });
        }
        self.wake(now, server);
        let due = self.bank.exchange_due(at(now)).is_some_and(|due| due <= at(now));
        if due && let Some(said) = self.bank.begin_exchange(at(now)) {
            let reply = ledger.exchange(T + now, &said).unwrap();
            self.bank.end_exchange(at(now), &said, Ok(&reply));
            self.wake(now, server);
        }
    }
}

/// One process uses up what there is and waits; others start `later` ms after that. Throttles until the window ends.
fn throttled_by_newcomers(limits: &[LimitSpec], strangers: u64, newcomers: u64, later: u64) -> u64 {
    let mut ledger = Ledger::new(T, 1);
    let mut server = Server { used: strangers, ..Server::default() };
    let mut first = Process::new(1, limits);
    let mut others: Vec<Process> = (2..2 + newcomers).map(|holder| Process::new(holder, limits)).collect();
    let mut full = None;
    for now in (1..59_000).step_by(5) {
        if full.is_none() {
            first.press(now, 20, &mut server);
        }
        first.step(now, &mut ledger, &mut server);
        if server.used >= Server::LIMIT - 1 {
            full = full.or(Some(now));
        }
        if full.is_some_and(|full| now >= full + later) {
            for other in &mut others {
                other.press(now, 20, &mut server);
                other.step(now, &mut ledger, &mut server);
            }
        }
    }
    assert!(full.is_some_and(|full| full + later < 50_000), "they had time to draw");
    server.throttled
}

#[test]
fn processes_that_know_nothing_do_not_make_the_fleet_forget_that_the_quota_is_used_up() {
    for later in [5_000, 20_000, 40_000] {
        assert_eq!(throttled_by_newcomers(&[], 0, 40, later), 0, "{later} ms of quiet");
    }
}

#[test]
fn what_newcomers_declare_does_not_make_the_fleet_forget_what_strangers_drew() {
    let mut declared = pace_parts::limit("q", pace_parts::rate(300, Duration::from_mins(1)), &[]);
    declared.observes = Observes::Unnamed;
    for later in [5_000, 20_000] {
        let throttled = throttled_by_newcomers(std::slice::from_ref(&declared), 250, 8, later);
        assert!(throttled <= 1, "{throttled} after {later} ms of quiet");
    }
}

/// Calls of two clients on one bank of which only the first is looked at: its calls, and what is said of its limit.
struct Pair {
    bank: Bank,
    ledger: Ledger,
    flying: Vec<(u64, TicketId, bool)>,
    waiting: Vec<(WaiterId, bool)>,
    sent: Vec<u64>,
    /// Of the first: how much was told so far, by when it was said.
    told: Vec<(u64, u64)>,
}

impl Pair {
    fn left(&mut self, now: u64, ticket: TicketId, first: bool) {
        self.bank.sent(at(now), ticket);
        self.flying.push((now + 50, ticket, first));
        if first {
            self.sent.push(now);
        }
    }

    fn press(&mut self, now: u64, first: bool, most: usize) {
        let family = Family::new("/api/v2/users");
        let credential = CredentialId::new(if first { "one" } else { "two" });
        while self.waiting.iter().filter(|&&(_, of)| of == first).count() < most && self.flying.len() < 60 {
            let ask = Ask { class: Class::Bulk, ..pace_parts::asking(&family, &credential) };
            match self.bank.ask(at(now), &ask) {
                Asked::Granted(ticket) => self.left(now, ticket, first),
                Asked::Queued(waiter) => self.waiting.push((waiter, first)),
                Asked::Refused(_) => return,
            }
            if !first {
                return;
            }
        }
    }

    fn wake(&mut self, now: u64) {
        let mut woken = Vec::new();
        self.bank.advance(at(now), &mut woken);
        for (waiter, outcome) in woken {
            let place = self.waiting.iter().position(|&(of, _)| of == waiter).unwrap();
            let (_, first) = self.waiting.swap_remove(place);
            if let Woken::Granted(ticket) = outcome {
                self.left(now, ticket, first);
            }
        }
    }

    fn exchange(&mut self, now: u64) {
        let due = self.bank.exchange_due(at(now)).is_some_and(|due| due <= at(now));
        let Some(said) = due.then(|| self.bank.begin_exchange(at(now))).flatten() else { return };
        for side in &said.limits {
            if side.name == "q" && side.partition.contains("one") {
                self.told.push((now, side.told));
            }
        }
        let reply = self.ledger.exchange(T + now, &said).unwrap();
        self.bank.end_exchange(at(now), &said, Ok(&reply));
    }
}

#[test]
fn a_limit_that_nobody_calls_during_a_long_pause_is_counted_as_before_after_it() {
    const PAUSE: u64 = 600_000;
    let limit =
        pace_parts::limit("q", pace_parts::rate(300, Duration::from_mins(1)), &[Partition::Credential]);
    let mut world = Pair {
        bank: bank(1, &[limit]),
        ledger: Ledger::new(T, 1),
        flying: Vec::new(),
        waiting: Vec::new(),
        sent: Vec::new(),
        told: Vec::new(),
    };
    let mut paused_until = None;
    for now in (0..1_100_000_u64).step_by(20) {
        let back: Vec<_> = world.flying.extract_if(.., |(back, ..)| *back <= now).collect();
        for (_, ticket, first) in back {
            let throttled = first && paused_until.is_none() && now > 300_000;
            let (kind, observation) = if throttled {
                paused_until = Some(now + PAUSE);
                (AnswerKind::Throttled, pace_parts::wait(Duration::from_millis(PAUSE)))
            } else {
                (AnswerKind::Accepted, Observation::default())
            };
            world.bank.answered(at(now), ticket, &Answer { kind, observation: &observation });
        }
        let paused = paused_until.is_some_and(|until| now < until + 1_000);
        if !paused {
            world.press(now, true, 20);
        }
        if now.is_multiple_of(1_000) {
            // Somebody else's calls go on, so the bank looks after what nobody uses.
            world.press(now, false, 1);
        }
        world.wake(now);
        if paused {
            // Nobody waits so long.
            for (waiter, _) in world.waiting.extract_if(.., |(_, first)| *first) {
                world.bank.abandon(at(now), waiter);
            }
        }
        world.exchange(now);
    }
    let until = paused_until.unwrap();
    let before = world.sent.iter().filter(|&&sent| sent < until).count() as u64;
    let after: Vec<u64> = world.sent.into_iter().filter(|&sent| sent > until).collect();
    let most = after
        .iter()
        .map(|from| after.iter().filter(|&sent| (from..=&(from + 60_000)).contains(&sent)).count());
    assert!((200..=300).contains(&most.max().unwrap()), "300 per minute");
    let (_, told) = *world.told.iter().find(|&&(now, _)| now > until).unwrap();
    assert_eq!(told, before, "nothing of it was forgotten");
}
