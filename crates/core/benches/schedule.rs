//! What it costs to choose who goes next: `cargo bench -p tidegate-core --bench schedule`.
//!
//! 10 000 callers of a bank wait in 1, 100 or 1 000 lanes (a family each, with a gate of its own) for one limit they share, which
//! lets one through per answer. Printed is the time per grant: the answer to the last one, the choice of the next, its grant and
//! the next wake-up; and the time per call that joins the queue: of `bulk`, and of `sync` with deadlines in any order. The schedule
//! alone is measured beside it. Then what a throttle costs while they wait: the refused answer, and who is hopeless now.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a program of its own: it measures time and prints"
)]

use std::time::{Duration, Instant};

use http::Method;
use tidegate_core::glob::PathGlob;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::Observation;
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, CallerId, Class, LimitKind, LimitSpec, Observes,
    TicketId, TokenSlot, Woken,
};
use tidegate_core::schedule::{Barriers, Demand, Entry, Opens, Schedule};
use tidegate_core::time::Mono;

const WAITERS: u32 = 10_000;
const ROUNDS: usize = 5;

fn main() {
    println!("{WAITERS} waiters; ns per grant and per call that joins, least of {ROUNDS}");
    println!("  lanes   bulk: grant   join   sync: grant   join   schedule: grant   join");
    for lanes in [1, 100, 1000] {
        let bulk = (0..ROUNDS).map(|_| bank(lanes, Class::Bulk)).reduce(least).unwrap();
        let sync = (0..ROUNDS).map(|_| bank(lanes, Class::Sync)).reduce(least).unwrap();
        let schedule = (0..ROUNDS).map(|_| schedule(lanes)).reduce(least).unwrap();
        println!(
            "  {lanes:>5}   {:>11.0}   {:>4.0}   {:>11.0}   {:>4.0}   {:>15.0}   {:>4.0}",
            bulk.0, bulk.1, sync.0, sync.1, schedule.0, schedule.1
        );
    }
    println!("ns per throttle while {WAITERS} wait, least of {ROUNDS}");
    for (class, name) in [(Class::Bulk, "bulk"), (Class::Sync, "sync")] {
        let took = (0..ROUNDS).map(|_| throttles(class)).reduce(f64::min).unwrap();
        println!("  {name:>5}   {took:>11.0}");
    }
}

fn least(one: (f64, f64), other: (f64, f64)) -> (f64, f64) {
    (one.0.min(other.0), one.1.min(other.1))
}

fn per_waiter(took: Duration) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(WAITERS)
}

struct Caller {
    family: Family,
    path: String,
    credential: CredentialId,
    class: Class,
    id: CallerId,
}

impl Caller {
    fn of_lane(lane: u32, class: Class) -> Self {
        Self {
            family: Family::new(format!("/api/v2/family-{lane}")),
            path: format!("/api/v2/family-{lane}/7"),
            credential: CredentialId::new("one"),
            class,
            id: CallerId::named(lane % 40),
        }
    }

    fn ask(&self, bank: &mut Bank, now: Mono, deadline: Option<Mono>) -> Asked {
        let ask = Ask {
            method: &Method::GET,
            path: &self.path,
            family: &self.family,
            credential: &self.credential,
            token: TokenSlot(0),
            class: self.class,
            caller: self.id,
            deadline,
            give_up_at: None,
        };
        bank.ask(now, &ask)
    }
}

fn answer(bank: &mut Bank, now: Mono, ticket: TicketId) {
    bank.sent(now, ticket);
    bank.answered(now, ticket, &Answer { kind: AnswerKind::Accepted, observation: &Observation::default() });
}

/// Where deadlines count, one within a day from then, in no order.
fn deadline(now: Mono, class: Class, waiter: u32) -> Option<Mono> {
    let spread = u64::from(waiter.wrapping_mul(2_654_435_769));
    class.by_deadline().then(|| now + Duration::from_hours(24) + Duration::from_micros(spread))
}

/// One limit that lets one through at a time.
fn narrow() -> Bank {
    let limit = LimitSpec {
        key: "one at a time".to_owned(),
        aliases: Vec::new(),
        method: None,
        path: PathGlob::parse("/**").unwrap(),
        kind: LimitKind::Concurrent { cap: 1 },
        per: Vec::new(),
        pin: true,
        assumed: false,
        observes: Observes::OwnName,
    };
    Bank::new(BankConfig { limits: vec![limit], ..BankConfig::default() }).unwrap()
}

/// Nanoseconds per grant and per ask.
fn bank(lanes: u32, class: Class) -> (f64, f64) {
    let mut bank = narrow();
    let callers: Vec<Caller> = (0..lanes).map(|lane| Caller::of_lane(lane, class)).collect();
    let mut now = Mono::ZERO;
    let mut woken = Vec::new();
    let mut last = None;
    for caller in callers.iter().chain(callers.first()) {
        now += Duration::from_millis(1);
        if let Some(ticket) = last.take() {
            answer(&mut bank, now, ticket);
            bank.advance(now, &mut woken);
        }
        let Asked::Granted(ticket) = caller.ask(&mut bank, now, None) else { panic!("nobody else is there") };
        last = Some(ticket);
    }
    let start = Instant::now();
    for waiter in 0..WAITERS {
        let asked = callers[(waiter % lanes) as usize].ask(&mut bank, now, deadline(now, class, waiter));
        assert!(matches!(asked, Asked::Queued(_)), "{asked:?}");
        bank.advance(now, &mut woken);
    }
    let joined = start.elapsed();
    let start = Instant::now();
    for _ in 0..WAITERS {
        now += Duration::from_micros(10);
        answer(&mut bank, now, last.take().unwrap());
        bank.advance(now, &mut woken);
        std::hint::black_box(bank.next_wake(now));
        let Some((_, Woken::Granted(ticket))) = woken.pop() else { panic!("somebody waits") };
        last = Some(ticket);
    }
    (per_waiter(start.elapsed()), per_waiter(joined))
}

/// Nanoseconds per throttle. Each comes when the last one's wait is over, and closes the family's gate anew.
fn throttles(class: Class) -> f64 {
    const THROTTLES: u32 = 100;
    let mut bank = narrow();
    let caller = Caller::of_lane(0, class);
    let (mut now, mut woken) = (Mono::ZERO, Vec::new());
    // The first answer gives the family gates of its own.
    let Asked::Granted(first) = caller.ask(&mut bank, now, None) else { panic!("nobody else is there") };
    answer(&mut bank, now, first);
    let Asked::Granted(mut last) = caller.ask(&mut bank, now, None) else { panic!("nobody else is there") };
    for waiter in 0..WAITERS {
        let asked = caller.ask(&mut bank, now, deadline(now, class, waiter));
        assert!(matches!(asked, Asked::Queued(_)), "{asked:?}");
        bank.advance(now, &mut woken);
    }
    let observation = Observation { retry_after: Some(Duration::from_secs(1)), ..Observation::default() };
    let mut took = Duration::ZERO;
    for _ in 0..THROTTLES {
        now += Duration::from_millis(1);
        bank.sent(now, last);
        let start = Instant::now();
        bank.answered(now, last, &Answer { kind: AnswerKind::Throttled, observation: &observation });
        bank.advance(now, &mut woken);
        took += start.elapsed();
        while woken.is_empty() {
            now = bank.next_wake(now).expect("somebody waits");
            bank.advance(now, &mut woken);
        }
        let Some((_, Woken::Granted(ticket))) = woken.pop() else { panic!("nobody is without hope") };
        last = ticket;
    }
    took.as_secs_f64() * 1e9 / f64::from(THROTTLES)
}

/// Barrier 0 lets one through at a time, the others everybody.
struct Door(bool);

impl Barriers for Door {
    fn opens(&self, _: Mono, barrier: usize, _: Class, _: &Demand) -> Opens {
        if barrier > 0 || self.0 { Opens::Now } else { Opens::Event }
    }
}

fn schedule(lanes: u32) -> (f64, f64) {
    let mut schedule = Schedule::default();
    let mut door = Door(false);
    let start = Instant::now();
    for waiter in 0..WAITERS {
        let lane = (waiter % lanes) as usize;
        let caller = CallerId::named(waiter % lanes % 40);
        let entry = Entry { lane, class: Class::Bulk, caller, deadline: None, payload: () };
        schedule.enter(Mono::ZERO, u64::from(waiter), [0, lane + 1], entry);
        assert!(schedule.next(Mono::ZERO, &door).is_none());
    }
    let joined = start.elapsed();
    let start = Instant::now();
    for _ in 0..WAITERS {
        door.0 = true;
        schedule.touch(0);
        assert!(schedule.next(Mono::ZERO, &door).is_some());
        door.0 = false;
        schedule.touch(0);
        assert!(schedule.next(Mono::ZERO, &door).is_none());
    }
    (per_waiter(start.elapsed()), per_waiter(joined))
}
