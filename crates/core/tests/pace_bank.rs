//! What the bank promises its shell, call by call.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;

use std::time::Duration;

use http::Method;
use tidegate_core::event::{BreakerState, Event};
use tidegate_core::glob::PathGlob;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::{HitLimit, Observation};
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, CallerId, Class, ClassPolicy, LimitKind, LimitSpec,
    Partition, Refusal, RefusalReason, TicketId, WaiterId, Woken,
};
use tidegate_core::time::Mono;

fn at(millis: u64) -> Mono {
    Mono::from_nanos(millis * 1_000_000)
}

fn seconds(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

struct Caller {
    family: Family,
    credential: CredentialId,
    class: Class,
    whose: CallerId,
    method: Method,
    deadline: Option<Mono>,
    give_up_at: Option<Mono>,
}

impl Caller {
    fn new() -> Self {
        Self {
            family: Family::new("/api/v2/users"),
            credential: CredentialId::new("one"),
            class: Class::Bulk,
            whose: CallerId::ANYBODY,
            method: Method::GET,
            deadline: None,
            give_up_at: None,
        }
    }

    fn class(class: Class) -> Self {
        Self { class, ..Self::new() }
    }

    fn ask(&self, bank: &mut Bank, now: Mono) -> Asked {
        let path = format!("{}/7", self.family);
        bank.ask(
            now,
            &Ask {
                method: &self.method,
                path: &path,
                class: self.class,
                caller: self.whose,
                deadline: self.deadline,
                give_up_at: self.give_up_at,
                ..pace_parts::asking(&self.family, &self.credential)
            },
        )
    }

    fn granted(&self, bank: &mut Bank, now: Mono) -> TicketId {
        match self.ask(bank, now) {
            Asked::Granted(ticket) => ticket,
            other => panic!("not granted: {other:?}"),
        }
    }

    fn queued(&self, bank: &mut Bank, now: Mono) -> WaiterId {
        match self.ask(bank, now) {
            Asked::Queued(waiter) => waiter,
            other => panic!("not queued: {other:?}"),
        }
    }
}

fn bank() -> Bank {
    Bank::new(BankConfig { spread: Duration::ZERO, ..BankConfig::default() }).unwrap()
}

fn told(remaining: u64, reset_millis: u64) -> Observation {
    pace_parts::told(remaining, Duration::from_millis(reset_millis))
}

fn throttle(retry_after: u64) -> Observation {
    pace_parts::wait(seconds(retry_after))
}

fn answer(bank: &mut Bank, now: Mono, ticket: TicketId, kind: AnswerKind, observation: &Observation) {
    bank.answered(now, ticket, &Answer { kind, observation });
}

fn advance(bank: &mut Bank, now: Mono) -> Vec<(WaiterId, Woken)> {
    let mut woken = Vec::new();
    bank.advance(now, &mut woken);
    woken
}

/// A bank whose gate is open with `remaining` permits at 20 ms, window ending at 5 s.
fn opened(remaining: u64) -> Bank {
    let mut bank = bank();
    let scout = Caller::new().granted(&mut bank, at(0));
    bank.sent(at(0), scout);
    answer(&mut bank, at(20), scout, AnswerKind::Accepted, &told(remaining, 4990));
    bank
}

/// The same with 298 at 420 ms, where somebody asked 390 ms before: classes that were presumed to draw would have shown.
fn watched() -> Bank {
    let mut bank = opened(299);
    let again = Caller::new().granted(&mut bank, at(30));
    bank.sent(at(400), again);
    answer(&mut bank, at(420), again, AnswerKind::Accepted, &told(298, 4590));
    bank
}

/// A caller that is alone at a server with fixed windows of 300 per 5 s: twenty calls per second, one after the other.
struct Lone {
    bank: Bank,
    class: Class,
    opened: u64,
    used: u64,
    /// Calls answered.
    served: u64,
    waits: Option<WaiterId>,
}

impl Lone {
    fn new(class: Class, policies: [ClassPolicy; Class::COUNT]) -> Self {
        let config = BankConfig { spread: Duration::ZERO, policies, ..BankConfig::default() };
        Self { bank: Bank::new(config).unwrap(), class, opened: 0, used: 0, served: 0, waits: None }
    }

    /// Calls, or waits to, from `from` to `to` milliseconds.
    fn play(&mut self, from: u64, to: u64) {
        for now in (from..to).step_by(50) {
            let caller = Caller::class(self.class);
            let asked = match self.waits {
                Some(_) => advance(&mut self.bank, at(now)).into_iter().next().map(|(_, woken)| woken),
                None => match caller.ask(&mut self.bank, at(now)) {
                    Asked::Granted(ticket) => Some(Woken::Granted(ticket)),
                    Asked::Queued(waiter) => {
                        self.waits = Some(waiter);
                        None
                    }
                    Asked::Refused(refusal) => panic!("{refusal:?}"),
                },
            };
            let Some(Woken::Granted(ticket)) = asked else { continue };
            self.waits = None;
            self.bank.sent(at(now), ticket);
            if now + 10 >= self.opened + 5000 {
                (self.opened, self.used) = (now + 10, 0);
            }
            self.used += 1;
            assert!(self.used <= 300, "throttled");
            self.served += 1;
            let said = told(300 - self.used, self.opened + 5000 - now - 10);
            answer(&mut self.bank, at(now + 20), ticket, AnswerKind::Accepted, &said);
        }
    }
}

/// Others took 45 at one stroke, seen within 50 ms: at that rate what is left lasts for a fifth of a second, and where nothing is in
/// flight nobody would ever say otherwise before the reset.
#[test]
fn a_lone_attempt_doubts_a_burst_of_strangers() {
    let mut lone = Lone::new(Class::Interactive, Class::ALL.map(ClassPolicy::of));
    lone.play(0, 16_000);
    lone.used += 45;
    let before = lone.served;
    lone.play(16_000, 16_050);
    assert_eq!(lone.served, before + 1, "it leaves before the burst is known");
    lone.play(16_500, 18_500);
    assert!(lone.served > before + 30, "{} of 40", lone.served - before - 1);
}

#[test]
fn who_doubts_a_burst_of_strangers_leaves_its_reserve_all_the_same() {
    let mut policies = Class::ALL.map(ClassPolicy::of);
    policies[Class::Poll.index()] = ClassPolicy { reserve: 150, ..ClassPolicy::GREEDY };
    let mut lone = Lone::new(Class::Poll, policies);
    lone.play(0, 16_000);
    lone.used += 140;
    lone.play(16_000, 16_050);
    let before = lone.served;
    lone.play(16_500, 20_000);
    assert_eq!(lone.served, before, "less than its reserve is left");
}

fn declared(key: &str, quota: u64, per: &[Partition]) -> LimitSpec {
    pace_parts::limit(key, pace_parts::rate(quota, seconds(60)), per)
}

#[test]
fn waiters_wake_after_a_reset_spread_and_not_as_a_herd() {
    let mut bank = Bank::new(BankConfig::default()).unwrap();
    let scout = Caller::new().granted(&mut bank, at(0));
    bank.sent(at(0), scout);
    answer(&mut bank, at(20), scout, AnswerKind::Accepted, &told(0, 4990));
    for _ in 0..40 {
        let _ = Caller::new().queued(&mut bank, at(30));
    }
    let mut now = at(30);
    let mut grants: Vec<(Mono, usize)> = Vec::new();
    let mut scout = None;
    while grants.iter().map(|&(_, count)| count).sum::<usize>() < 40 {
        let woken = advance(&mut bank, now);
        if !woken.is_empty() {
            grants.push((now, woken.len()));
        }
        if let (None, Some((_, Woken::Granted(ticket)))) = (scout, woken.first()) {
            scout = Some(*ticket);
            bank.sent(now, *ticket);
            now += Duration::from_millis(20);
            answer(&mut bank, now, *ticket, AnswerKind::Accepted, &told(299, 4990));
            continue;
        }
        let Some(wake) = bank.next_wake(now) else { break };
        now = wake.max(now + Duration::from_nanos(1));
    }
    assert_eq!(grants.iter().map(|&(_, count)| count).sum::<usize>(), 40);
    assert_eq!(grants[0].1, 1, "one scout");
    assert!(grants[0].0 >= at(4990), "not before the reset: {:?}", grants[0]);
    assert!(grants.iter().all(|&(_, count)| count <= 2), "{grants:?}");
    let (first, last) = (grants[1].0, grants[grants.len() - 1].0);
    assert!(
        last - first >= Duration::from_millis(8) && last - first < Duration::from_millis(100),
        "{grants:?}"
    );
}

#[test]
fn a_dropped_waiter_loses_no_wake_up() {
    let mut bank = bank();
    let scout = Caller::new().granted(&mut bank, at(0));
    let first = Caller::new().queued(&mut bank, at(0));
    let second = Caller::new().queued(&mut bank, at(0));
    bank.dropped(at(5), scout);
    bank.abandon(at(5), first);
    let woken = advance(&mut bank, at(5));
    assert_eq!(woken.len(), 1);
    assert_eq!(woken[0].0, second);
}

#[test]
fn an_unsent_ticket_gives_everything_back() {
    let mut bank = opened(40);
    let ticket = Caller::class(Class::Interactive).granted(&mut bank, at(30));
    let before = bank.snapshot(at(30));
    bank.dropped(at(40), ticket);
    let after = bank.snapshot(at(40));
    let left = |snapshot: &tidegate_core::pace::BankSnapshot| {
        snapshot.gates.iter().find_map(|gate| gate.remaining).unwrap()
    };
    assert!((left(&after) - left(&before) - 1.0).abs() < 1e-9);
    assert_eq!(after.in_flight, 0);
}

#[test]
fn a_sent_ticket_that_is_dropped_stays_counted() {
    let mut bank = opened(40);
    for _ in 0..10 {
        let ticket = Caller::class(Class::Interactive).granted(&mut bank, at(30));
        bank.sent(at(30), ticket);
        bank.dropped(at(40), ticket);
    }
    let snapshot = bank.snapshot(at(40));
    assert_eq!(snapshot.in_flight, 0);
    assert!((snapshot.gates.iter().find_map(|gate| gate.remaining).unwrap() - 30.0).abs() < 1e-9);
    let ticket = Caller::class(Class::Interactive).granted(&mut bank, at(50));
    bank.sent(at(50), ticket);
    answer(&mut bank, at(70), ticket, AnswerKind::Accepted, &told(35, 4930));
    let remaining = bank.snapshot(at(70)).gates.iter().find_map(|gate| gate.remaining).unwrap();
    assert!((remaining - 35.0).abs() < 1e-9, "a later certificate includes them: {remaining}");
}

#[test]
fn a_storm_of_throttles_closes_once() {
    let mut bank = opened(100);
    let caller = Caller::class(Class::Interactive);
    let tickets: Vec<TicketId> = (0..40).map(|_| caller.granted(&mut bank, at(30))).collect();
    for &ticket in &tickets {
        bank.sent(at(30), ticket);
    }
    bank.drain_events();
    for &ticket in &tickets {
        answer(&mut bank, at(50), ticket, AnswerKind::Throttled, &throttle(2));
    }
    let throttles =
        bank.drain_events().into_iter().filter(|event| matches!(event, Event::Throttled { .. })).count();
    assert_eq!(throttles, 1);
    let next = Caller::new().queued(&mut bank, at(60));
    assert!(advance(&mut bank, at(2049)).is_empty(), "not before the hint");
    let woken = advance(&mut bank, at(2050));
    assert_eq!(woken.len(), 1, "one scout: {woken:?}");
    assert_eq!(woken[0].0, next);
    let _ = Caller::new().queued(&mut bank, at(2051));
    assert!(advance(&mut bank, at(2052)).is_empty(), "and nobody else until it is answered");
}

#[test]
fn a_limit_that_is_no_longer_told_is_kept_as_a_declaration() {
    let mut bank = opened(200);
    for _ in 0..100 {
        let ticket = Caller::class(Class::Interactive).granted(&mut bank, at(30));
        bank.sent(at(30), ticket);
        answer(&mut bank, at(40), ticket, AnswerKind::Accepted, &Observation::default());
    }
    let gates = bank.snapshot(at(50)).gates;
    let users = gates.iter().find(|gate| gate.name == "/api/v2/users").expect("it was told");
    assert_eq!((users.state, users.quota), ("declared", Some(300)));
    let taken = take_all(&mut bank, at(50), Class::Interactive);
    assert!(taken <= 100, "{taken} of the hundred that are left");
}

#[test]
fn contradicting_hints_are_reported_and_the_later_one_holds() {
    let mut bank = opened(100);
    let ticket = Caller::new().granted(&mut bank, at(30));
    bank.sent(at(30), ticket);
    let mut observation = told(0, 4000);
    observation.retry_after = Some(seconds(30));
    answer(&mut bank, at(50), ticket, AnswerKind::Throttled, &observation);
    let mismatch = bank.drain_events().into_iter().find_map(|event| match event {
        Event::HintMismatch { retry_after, reset, .. } => Some((retry_after, reset)),
        _ => None,
    });
    let (retry_after, reset) = mismatch.unwrap();
    assert_eq!(retry_after, seconds(30));
    assert!(reset <= seconds(5));
    let waiter = Caller::new().queued(&mut bank, at(60));
    assert!(advance(&mut bank, at(30_049)).is_empty());
    assert_eq!(advance(&mut bank, at(30_050))[0].0, waiter);
}

#[test]
fn a_throttle_with_quota_left_lowers_concurrency_and_leaves_the_rate() {
    let mut bank = opened(250);
    let tickets: Vec<TicketId> = (0..20).map(|_| Caller::new().granted(&mut bank, at(30))).collect();
    for &ticket in &tickets {
        bank.sent(at(30), ticket);
    }
    let mut observation = told(230, 4900);
    observation.retry_after = Some(seconds(1));
    answer(&mut bank, at(50), tickets[0], AnswerKind::Throttled, &observation);
    let gate = bank.snapshot(at(50)).gates.into_iter().find(|gate| gate.quota.is_some()).unwrap();
    assert!((gate.concurrency.unwrap() - 14.0).abs() < 1e-9, "{gate:?}");
    assert!(gate.closed_for_ms <= 1000, "not until the reset: {gate:?}");
}

#[test]
fn a_body_that_names_a_concurrency_cap_bounds_attempts_at_once_after_its_hint() {
    let mut bank = opened(200);
    let caller = Caller::new();
    let tickets: Vec<TicketId> = (0..10).map(|_| caller.granted(&mut bank, at(30))).collect();
    let named = HitLimit {
        key: Some("org.concurrent.requests.max".to_owned()),
        namespace: Some("platform.api".to_owned()),
        value: Some(5),
    };
    let refusal = Observation { hit: Some(named), ..throttle(1) };
    for (index, &ticket) in tickets.iter().enumerate() {
        if index < 5 {
            answer(&mut bank, at(60), ticket, AnswerKind::Throttled, &refusal);
        } else {
            answer(&mut bank, at(80), ticket, AnswerKind::Accepted, &told(195, 4900));
        }
    }
    caller.queued(&mut bank, at(90));
    assert!(advance(&mut bank, at(1059)).is_empty(), "never before the hint");
    let mut scout = None;
    for (_, woken) in advance(&mut bank, at(1061)) {
        let Woken::Granted(ticket) = woken else { panic!("{woken:?}") };
        assert!(scout.replace(ticket).is_none(), "one goes first");
    }
    let scout = scout.expect("the hint has passed");
    bank.sent(at(1061), scout);
    answer(&mut bank, at(1081), scout, AnswerKind::Accepted, &told(190, 3900));
    let mut at_once = 0;
    while let Asked::Granted(ticket) = caller.ask(&mut bank, at(1081)) {
        bank.sent(at(1081), ticket);
        at_once += 1;
    }
    assert!((1..=5).contains(&at_once), "{at_once} at once");
}

#[test]
fn a_throttle_that_names_a_limit_closes_that_limit_for_every_family() {
    let limits = vec![declared("token.rate", 300, &[Partition::Token])];
    let mut bank = Bank::new(BankConfig { limits, spread: Duration::ZERO, ..BankConfig::default() }).unwrap();
    let ticket = Caller::new().granted(&mut bank, at(0));
    bank.sent(at(0), ticket);
    let hit = HitLimit { key: Some("token.rate".to_owned()), namespace: None, value: Some(200) };
    let observation = Observation { hit: Some(hit), ..throttle(7) };
    answer(&mut bank, at(20), ticket, AnswerKind::Throttled, &observation);
    let events = bank.drain_events();
    assert!(
        events.contains(&Event::LimitLearnt { limit: "token.rate".to_owned(), quota: 200 }),
        "{events:?}"
    );
    let other = Caller { family: Family::new("/api/v2/routing"), ..Caller::new() };
    let waiter = other.queued(&mut bank, at(30));
    assert!(advance(&mut bank, at(7019)).is_empty());
    assert_eq!(advance(&mut bank, at(7020))[0].0, waiter);
}

#[test]
fn the_refused_come_back_spread_and_not_together() {
    let mut bank = Bank::new(BankConfig { queue_bound: 0, ..BankConfig::default() }).unwrap();
    let scout = Caller::new().granted(&mut bank, at(0));
    bank.sent(at(0), scout);
    answer(&mut bank, at(20), scout, AnswerKind::Accepted, &told(0, 4990));
    let mut slots = Vec::new();
    for _ in 0..50 {
        let Asked::Refused(refusal) = Caller::new().ask(&mut bank, at(30)) else { panic!("no room to wait") };
        assert_eq!(refusal.reason, RefusalReason::QueueFull);
        assert_eq!(&*refusal.limit, "/api/v2/users");
        slots.push(refusal.retry_after);
    }
    assert!(slots[0] >= Duration::from_millis(4900), "{:?}", slots[0]);
    assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "{slots:?}");
}

#[test]
fn who_cannot_be_served_in_time_is_refused_at_once() {
    let mut bank = opened(0);
    let hasty = Caller { give_up_at: Some(at(2000)), ..Caller::new() };
    let Asked::Refused(refusal) = hasty.ask(&mut bank, at(30)) else { panic!("should be refused") };
    assert!(matches!(refusal.reason, RefusalReason::CannotMeet { .. }));
    let patient = Caller { give_up_at: Some(at(9000)), ..Caller::new() };
    let waiter = patient.queued(&mut bank, at(30));
    let scout = advance(&mut bank, at(5100));
    assert_eq!(scout.len(), 1);
    assert_eq!(scout[0].0, waiter);
}

#[test]
fn a_closing_that_outlasts_a_waiter_refuses_it_at_once() {
    let mut bank = opened(100);
    let ticket = Caller::new().granted(&mut bank, at(30));
    bank.sent(at(30), ticket);
    answer(&mut bank, at(40), ticket, AnswerKind::Throttled, &throttle(1));
    let waiter = Caller { give_up_at: Some(at(3000)), ..Caller::new() }.queued(&mut bank, at(50));
    let scout = Caller::class(Class::Interactive).queued(&mut bank, at(50));
    let woken = advance(&mut bank, at(1040));
    let [(first, Woken::Granted(ticket))] = woken[..] else { panic!("{woken:?}") };
    assert_eq!(first, scout, "interactive goes first");
    bank.sent(at(1040), ticket);
    answer(&mut bank, at(1060), ticket, AnswerKind::Throttled, &throttle(60));
    let woken = advance(&mut bank, at(1060));
    assert_eq!(woken.len(), 1);
    assert_eq!(woken[0].0, waiter);
    assert!(
        matches!(&woken[0].1, Woken::Refused(refusal) if refusal.retry_after >= seconds(60)),
        "{woken:?}"
    );
}

#[test]
fn a_burst_that_lengthens_a_closing_refuses_those_whose_moment_it_passes() {
    let mut bank = opened(100);
    let burst: Vec<TicketId> = (0..3).map(|_| Caller::new().granted(&mut bank, at(30))).collect();
    for &ticket in &burst {
        bank.sent(at(30), ticket);
    }
    answer(&mut bank, at(40), burst[0], AnswerKind::Throttled, &throttle(1));
    let waits =
        |bank: &mut Bank, until| Caller { give_up_at: Some(at(until)), ..Caller::new() }.queued(bank, at(50));
    let (soon, later) = (waits(&mut bank, 3000), waits(&mut bank, 10_000));
    let patient = Caller::new().queued(&mut bank, at(50));
    answer(&mut bank, at(60), burst[1], AnswerKind::Throttled, &throttle(1));
    assert_eq!(advance(&mut bank, at(60)), [], "twenty milliseconds concern nobody");
    answer(&mut bank, at(70), burst[2], AnswerKind::Throttled, &throttle(4));
    let woken = advance(&mut bank, at(70));
    assert!(matches!(woken[..], [(who, Woken::Refused(_))] if who == soon), "{woken:?}");
    let served = advance(&mut bank, at(4071));
    assert!(matches!(served[..], [(who, Woken::Granted(_))] if who == later), "{served:?}");
    bank.abandon(at(4071), patient);
}

#[test]
fn the_earliest_deadline_of_sync_goes_first() {
    let mut bank = bank();
    let scout = Caller::new().granted(&mut bank, at(0));
    let late = Caller { deadline: Some(at(90_000)), ..Caller::class(Class::Sync) }.queued(&mut bank, at(0));
    let soon = Caller { deadline: Some(at(60_000)), ..Caller::class(Class::Sync) }.queued(&mut bank, at(1));
    bank.sent(at(1), scout);
    answer(&mut bank, at(20), scout, AnswerKind::Accepted, &told(299, 4990));
    let order: Vec<WaiterId> = advance(&mut bank, at(20)).into_iter().map(|(waiter, _)| waiter).collect();
    assert_eq!(order, [soon, late]);
}

#[test]
fn poll_leaves_the_last_permits_to_the_others() {
    // So few that nothing is presumed of others.
    let limits = vec![declared("all", 20, &[])];
    let mut bank = Bank::new(BankConfig { limits, spread: Duration::ZERO, ..BankConfig::default() }).unwrap();
    let scout = Caller::class(Class::Poll).granted(&mut bank, at(0));
    bank.sent(at(0), scout);
    answer(&mut bank, at(20), scout, AnswerKind::Accepted, &Observation::default());
    let mut granted = 0;
    while let Asked::Granted(ticket) = Caller::class(Class::Poll).ask(&mut bank, at(430)) {
        bank.sent(at(430), ticket);
        granted += 1;
    }
    assert!((8..=10).contains(&granted), "{granted}");
    let other = Caller { credential: CredentialId::new("one"), ..Caller::class(Class::Interactive) };
    let waiter = other.queued(&mut bank, at(431));
    assert!(
        advance(&mut bank, at(431)).iter().any(|(woken, _)| *woken == waiter),
        "interactive may take them"
    );
}

/// Classes and what they ask for: `interactive` once a second since 60 s, in a window of 60 s that ends at 120 s.
fn beside_bots(policies: [ClassPolicy; Class::COUNT]) -> (Bank, Mono) {
    let config = BankConfig { spread: Duration::ZERO, policies, ..BankConfig::default() };
    let mut bank = Bank::new(config).unwrap();
    let mut left = 300;
    for second in 60..120 {
        let now = at(1000 * (second - 60));
        let ticket = Caller::class(Class::Interactive).granted(&mut bank, now);
        bank.sent(now, ticket);
        left -= 1;
        let reset = 60_000 - 1000 * (second - 60) - 20;
        answer(&mut bank, now + Duration::from_millis(20), ticket, AnswerKind::Accepted, &told(left, reset));
    }
    // The next window.
    let now = at(60_100);
    let ticket = Caller::class(Class::Interactive).granted(&mut bank, now);
    bank.sent(now, ticket);
    let now = at(60_120);
    answer(&mut bank, now, ticket, AnswerKind::Accepted, &told(299, 59_880));
    (bank, now)
}

fn take_all(bank: &mut Bank, now: Mono, class: Class) -> usize {
    let mut granted = 0;
    loop {
        match Caller::class(class).ask(bank, now) {
            Asked::Granted(ticket) => bank.sent(now, ticket),
            Asked::Queued(waiter) => {
                bank.abandon(now, waiter);
                return granted;
            }
            Asked::Refused(refusal) => panic!("{refusal:?}"),
        }
        granted += 1;
    }
}

#[test]
fn fair_bulk_leaves_what_the_more_important_will_draw() {
    let (mut bank, now) = beside_bots(Class::ALL.map(ClassPolicy::of));
    let taken = take_all(&mut bank, now, Class::Bulk);
    // About one a second for a minute is 60, and 2.5 deviations are 19.
    assert!((190..=235).contains(&taken), "{taken}");
    let left = take_all(&mut bank, now, Class::Interactive);
    assert!(left >= 60 && left + taken <= 299, "{left} and {taken}");
}

#[test]
fn what_fair_bulk_left_it_takes_at_instants_that_are_told_exactly() {
    let (mut bank, now) = beside_bots(Class::ALL.map(ClassPolicy::of));
    let taken = take_all(&mut bank, now, Class::Bulk);
    let _ = Caller::new().queued(&mut bank, now);
    assert!(advance(&mut bank, now).is_empty());
    let (mut got, mut wakes, mut at_last) = (0, 0, now);
    while got < 299 - taken {
        let Some(wake) = bank.next_wake(at_last) else { break };
        at_last = wake;
        wakes += 1;
        for (_, woken) in advance(&mut bank, wake) {
            let Woken::Granted(ticket) = woken else { panic!("{woken:?}") };
            bank.sent(wake, ticket);
            let _ = Caller::new().queued(&mut bank, wake);
            got += 1;
        }
        assert!(advance(&mut bank, wake).is_empty(), "one at a time");
        if at_last > at(119_900) {
            break;
        }
    }
    assert!(got + taken >= 295, "nearly everything is used by the reset: {got} and {taken}");
    // Patience, every ten seconds, may wake it beside.
    assert!(wakes <= got + 8, "{wakes} wake-ups for {got} grants");
}

#[test]
fn a_call_that_its_policy_holds_too_long_is_refused_at_once() {
    let (mut bank, now) = beside_bots(Class::ALL.map(ClassPolicy::of));
    take_all(&mut bank, now, Class::Bulk);
    let hasty = Caller { give_up_at: Some(now + Duration::from_millis(50)), ..Caller::new() };
    let asked = hasty.ask(&mut bank, now);
    let Asked::Refused(Refusal { reason: RefusalReason::CannotMeet { forecast }, .. }) = asked else {
        panic!("{asked:?}")
    };
    assert!(forecast > Duration::from_millis(50) && forecast <= seconds(10), "{forecast:?}");
    let _ = Caller { give_up_at: Some(now + seconds(11)), ..Caller::new() }.queued(&mut bank, now);
}

#[test]
fn greedy_bulk_takes_everything_and_a_reserve_is_always_left() {
    let mut policies = Class::ALL.map(ClassPolicy::of);
    policies[Class::Bulk.index()] = ClassPolicy::GREEDY;
    let (mut bank, now) = beside_bots(policies);
    assert!(take_all(&mut bank, now, Class::Bulk) >= 298);
    // Twice the workers, as vendors' guides have it.
    policies[Class::Bulk.index()].reserve = 2 * 40;
    let (mut bank, now) = beside_bots(policies);
    let taken = take_all(&mut bank, now, Class::Bulk);
    assert!((218..=219).contains(&taken), "{taken}");
}

#[test]
fn fair_bulk_alone_is_greedy() {
    let taken = take_all(&mut watched(), at(430), Class::Bulk);
    let greedy = take_all(&mut watched(), at(430), Class::Interactive);
    assert!(taken + 1 >= greedy, "all but what is held as evidence: {taken} of {greedy}");
}

#[test]
fn a_job_leaves_a_fifth_to_who_may_have_begun_with_it_until_they_should_have_shown() {
    let mut bank = opened(300);
    let at_once = take_all(&mut bank, at(30), Class::Bulk);
    assert!((215..=225).contains(&at_once), "a fifth, and what chance adds: {at_once}");
    // The window shrinks, and with it what is left for them.
    let next = job_waits_until(&mut bank, at(30));
    assert!((at(31)..at(167)).contains(&next), "{next:?}");
    // 60 per 5 s: four should have asked by a third of a second.
    let rest = take_all(&mut bank, at(334), Class::Bulk);
    assert!(at_once + rest >= 280, "all but what strangers may have taken since an answer: {at_once} {rest}");
}

#[test]
fn who_waited_while_a_family_was_unknown_is_expected_at_its_own_limit() {
    let mut bank = bank();
    let scout = Caller::new().granted(&mut bank, at(0));
    bank.sent(at(0), scout);
    for _ in 0..60 {
        let _ = Caller::class(Class::Interactive).queued(&mut bank, at(0));
    }
    answer(&mut bank, at(20), scout, AnswerKind::Accepted, &told(299, 4980));
    assert_eq!(advance(&mut bank, at(20)).len(), 60);
    // By 400 ms those who were only presumed would have shown.
    let _ = Caller::new().granted(&mut bank, at(30));
    let taken = take_all(&mut bank, at(400), Class::Bulk);
    assert!((100..=175).contains(&taken), "238 are left, and as many may ask again: {taken}");
}

#[test]
fn a_reserve_that_a_told_quota_cuts_is_told_with_it() {
    for (reserve, cut) in [(200, true), (150, false)] {
        let mut policies = Class::ALL.map(ClassPolicy::of);
        policies[Class::Bulk.index()].reserve = reserve;
        let mut bank = Bank::new(BankConfig { policies, ..BankConfig::default() }).unwrap();
        let scout = Caller::new().granted(&mut bank, at(0));
        bank.sent(at(0), scout);
        answer(&mut bank, at(20), scout, AnswerKind::Accepted, &told(299, 4980));
        let limit = "/api/v2/users".to_owned();
        let told = Event::ReserveCut { limit, quota: 300, class: Class::Bulk, reserve };
        let events = bank.drain_events();
        assert_eq!(events.contains(&told), cut, "{events:?}");
    }
}

/// When a job's next call goes.
fn job_waits_until(bank: &mut Bank, now: Mono) -> Mono {
    let waiter = Caller::new().queued(bank, now);
    assert!(advance(bank, now).is_empty());
    let wake = bank.next_wake(now).unwrap();
    bank.abandon(now, waiter);
    wake
}

#[test]
fn who_began_with_a_job_finds_permits_in_the_first_window() {
    let mut bank = opened(300);
    let _ = take_all(&mut bank, at(30), Class::Bulk);
    for asked in 0..60 {
        let now = at(60 + 80 * asked);
        let _ = advance(&mut bank, now);
        let person = Caller::class(Class::Interactive).ask(&mut bank, now);
        let served = match person {
            Asked::Granted(_) => true,
            Asked::Queued(id) => advance(&mut bank, now).iter().any(|(woken, _)| *woken == id),
            Asked::Refused(_) => false,
        };
        assert!(served, "{asked}");
    }
}

/// A declared quota of 12 of which five are left, fewer than a poll leaves to others, and a poll that waits since 10 ms.
fn poll_below_its_reserve() -> (Bank, WaiterId) {
    let limits = vec![declared("all", 12, &[])];
    let mut bank = Bank::new(BankConfig { limits, ..BankConfig::default() }).unwrap();
    for _ in 0..7 {
        let ticket = Caller::class(Class::Interactive).granted(&mut bank, at(0));
        bank.sent(at(0), ticket);
        answer(&mut bank, at(10), ticket, AnswerKind::Accepted, &Observation::default());
    }
    let poll = Caller::class(Class::Poll).queued(&mut bank, at(10));
    assert!(advance(&mut bank, at(10)).is_empty());
    (bank, poll)
}

#[test]
fn a_class_that_others_pass_is_served_within_its_patience() {
    let (mut bank, poll) = poll_below_its_reserve();
    let other = Caller::class(Class::Interactive).queued(&mut bank, at(5000));
    assert_eq!(advance(&mut bank, at(5000)).first().map(|(woken, _)| *woken), Some(other));
    assert!(advance(&mut bank, at(10_009)).is_empty());
    let wake = bank.next_wake(at(10_009)).unwrap();
    assert_eq!(wake, at(10_010), "ten seconds after it began to wait");
    assert_eq!(advance(&mut bank, wake).first().map(|(woken, _)| *woken), Some(poll));
}

#[test]
fn a_class_that_nobody_passes_keeps_its_reserve_until_permits_come_back() {
    let (mut bank, poll) = poll_below_its_reserve();
    let mut now = at(10);
    let served = loop {
        now = bank.next_wake(now).unwrap();
        if let Some((woken, _)) = advance(&mut bank, now).first() {
            break *woken;
        }
    };
    assert_eq!(served, poll);
    assert!((at(60_000)..at(61_000)).contains(&now), "the first seven come back after a minute, not {now:?}");
}

#[test]
fn callers_of_a_class_take_turns() {
    let mut bank = bank();
    let scout = Caller::new().granted(&mut bank, at(0));
    let greedy = Caller { whose: CallerId::named("greedy"), ..Caller::new() };
    let modest = Caller { whose: CallerId::named("modest"), ..Caller::new() };
    let many: Vec<WaiterId> = (0..30).map(|_| greedy.queued(&mut bank, at(0))).collect();
    let few: Vec<WaiterId> = (0..2).map(|_| modest.queued(&mut bank, at(1))).collect();
    bank.sent(at(0), scout);
    answer(&mut bank, at(20), scout, AnswerKind::Accepted, &told(299, 4990));
    let order: Vec<WaiterId> = advance(&mut bank, at(20)).into_iter().map(|(waiter, _)| waiter).collect();
    assert_eq!(order[..4], [many[0], few[0], many[1], few[1]]);
}

/// How many calls of one family may leave at once after a lone first one, under a cap of 50 on `path`.
fn at_once_after_a_scout(path: &str) -> usize {
    let cap = LimitSpec {
        kind: LimitKind::Concurrent { cap: 50 },
        path: PathGlob::parse(path).unwrap(),
        ..declared("cap", 1, &[])
    };
    let config = BankConfig { limits: vec![cap], spread: Duration::ZERO, ..BankConfig::default() };
    let mut bank = Bank::new(config).unwrap();
    let scout = Caller::new().granted(&mut bank, at(0));
    Caller::new().queued(&mut bank, at(0));
    bank.sent(at(0), scout);
    answer(&mut bank, at(20), scout, AnswerKind::Accepted, &Observation::default());
    let granted =
        (0..60).filter(|_| matches!(Caller::new().ask(&mut bank, at(20)), Asked::Granted(_))).count();
    granted + advance(&mut bank, at(20)).len()
}

#[test]
fn a_declared_cap_is_entered_at_once_after_one_scout() {
    assert_eq!(at_once_after_a_scout("/**"), 50);
    assert_eq!(at_once_after_a_scout("/api/v2/users/**"), 50);
}

#[test]
fn a_cap_on_a_part_of_a_family_says_nothing_of_the_rest() {
    assert!(at_once_after_a_scout("/api/v2/users/*") <= 2, "concurrency doubles");
}

#[test]
fn callers_of_a_class_take_turns_across_families() {
    let limits = vec![LimitSpec { kind: LimitKind::Concurrent { cap: 1 }, ..declared("one", 1, &[]) }];
    let mut bank = Bank::new(BankConfig { limits, spread: Duration::ZERO, ..BankConfig::default() }).unwrap();
    let of = |family: u32, caller: &str| Caller {
        family: Family::new(format!("/api/v2/f{family}")),
        whose: CallerId::named(caller),
        ..Caller::new()
    };
    let mut ticket = of(0, "greedy").granted(&mut bank, at(0));
    let mut names: Vec<(WaiterId, &str)> = Vec::new();
    for family in 0..5 {
        for _ in 0..3 {
            names.push((of(family, "greedy").queued(&mut bank, at(0)), "greedy"));
        }
    }
    for _ in 0..4 {
        names.push((of(9, "modest").queued(&mut bank, at(1)), "modest"));
    }
    let mut order = Vec::new();
    for step in 1..=8 {
        bank.sent(at(10 * step), ticket);
        answer(&mut bank, at(10 * step), ticket, AnswerKind::Accepted, &Observation::default());
        let woken = advance(&mut bank, at(10 * step));
        let [(waiter, Woken::Granted(next))] = woken[..] else { panic!("{woken:?}") };
        order.push(names.iter().find(|(id, _)| *id == waiter).unwrap().1);
        ticket = next;
    }
    assert_eq!(order.iter().filter(|name| **name == "modest").count(), 4, "{order:?}");
}

#[test]
fn a_sync_call_is_refused_only_for_what_goes_before_it() {
    let limits = vec![declared("all", 60, &[])];
    let mut bank = Bank::new(BankConfig { limits, spread: Duration::ZERO, ..BankConfig::default() }).unwrap();
    for _ in 0..58 {
        let ticket = Caller::class(Class::Interactive).granted(&mut bank, at(0));
        bank.sent(at(0), ticket);
        answer(&mut bank, at(10), ticket, AnswerKind::Accepted, &Observation::default());
    }
    let mut sync = |deadline: u64, now: u64| {
        Caller { deadline: Some(at(deadline)), ..Caller::class(Class::Sync) }.ask(&mut bank, at(now))
    };
    let last_two: Vec<Asked> = (0..2).map(|_| sync(200_000, 20)).collect();
    assert!(last_two.iter().all(|asked| matches!(asked, Asked::Granted(_))), "{last_two:?}");
    for index in 0..60 {
        assert!(matches!(sync(200_000 + index, 30), Asked::Queued(_)));
    }
    // 60 wait already, all of them with later deadlines: it would be the first of the next window.
    assert!(matches!(sync(61_000, 40), Asked::Queued(_)));
    let late = sync(60_000, 40);
    let Asked::Refused(refusal) = late else { panic!("{late:?}") };
    assert!(matches!(refusal.reason, RefusalReason::CannotMeet { .. }));
}

#[test]
fn five_throttled_scouts_open_the_breaker_and_the_probe_closes_it() {
    let mut bank = bank();
    let mut now = at(0);
    let mut opened_at = now;
    // The hint says 2 s each time; scouts that are refused all the same wait longer and longer.
    for seconds in [2, 2, 4, 8, 16] {
        let ticket = Caller::new().granted(&mut bank, now);
        bank.sent(now, ticket);
        opened_at = now + Duration::from_millis(20);
        answer(&mut bank, opened_at, ticket, AnswerKind::Throttled, &throttle(2));
        now = opened_at + Duration::from_millis(1 + seconds * 1000);
    }
    let states: Vec<BreakerState> = bank
        .drain_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Breaker { state, .. } => Some(state),
            _ => None,
        })
        .collect();
    assert_eq!(states, [BreakerState::Open]);
    let during = opened_at + Duration::from_millis(500);
    let Asked::Refused(refusal) = Caller::class(Class::Interactive).ask(&mut bank, during) else {
        panic!("an open breaker refuses who cannot wait")
    };
    assert_eq!(refusal.reason, RefusalReason::Breaker);
    assert!(refusal.retry_after >= Duration::from_millis(1500));
    let waiter = Caller::new().queued(&mut bank, during);
    let woken = advance(&mut bank, now);
    let [(probe, Woken::Granted(ticket))] = woken[..] else { panic!("{woken:?}") };
    assert_eq!(probe, waiter, "bulk waits, and is the probe");
    bank.sent(now, ticket);
    answer(&mut bank, now + Duration::from_millis(20), ticket, AnswerKind::Accepted, &told(200, 3000));
    assert!(bank.snapshot(now).breakers.iter().all(|breaker| breaker.state == "closed"));
}

#[test]
fn an_unavailable_family_is_left_in_peace_for_the_hint_and_then_asked_once() {
    let mut bank = opened(100);
    let caller = Caller::new();
    let tickets: Vec<TicketId> = (0..10).map(|_| caller.granted(&mut bank, at(30))).collect();
    let waiters: Vec<WaiterId> = {
        for &ticket in &tickets {
            answer(&mut bank, at(60), ticket, AnswerKind::HardFailure, &throttle(8));
        }
        (0..10).map(|_| caller.queued(&mut bank, at(70))).collect()
    };
    assert!(advance(&mut bank, at(70)).is_empty());
    let wake = bank.next_wake(at(70)).unwrap();
    assert!(wake >= at(8060) && wake < at(8061), "{wake:?}");
    let woken = advance(&mut bank, wake);
    let [(first, Woken::Granted(probe))] = woken[..] else { panic!("one probe: {woken:?}") };
    assert_eq!(first, waiters[0]);
    answer(&mut bank, at(8080), probe, AnswerKind::Accepted, &told(299, 4990));
    assert_eq!(advance(&mut bank, at(8080)).len() + advance(&mut bank, at(8200)).len(), 9);
    let snapshot = bank.snapshot(at(8200));
    assert!(snapshot.breakers.iter().all(|breaker| breaker.state == "closed"), "ten failures, one event");
    assert_eq!(snapshot.gates.iter().map(|gate| gate.throttles).sum::<u64>(), 0);
}

#[test]
fn failures_among_missing_pages_do_not_open_the_breaker() {
    let mut bank = opened(200);
    let mut now = at(30);
    for index in 0..60 {
        let ticket = Caller::new().granted(&mut bank, now);
        bank.sent(now, ticket);
        now += Duration::from_millis(10);
        let kind = if index % 10 == 9 { AnswerKind::HardFailure } else { AnswerKind::NotFound };
        answer(&mut bank, now, ticket, kind, &Observation::default());
    }
    assert!(bank.snapshot(now).breakers.iter().all(|breaker| breaker.state == "closed"));
}

#[test]
fn a_lost_attempt_from_before_the_opening_does_not_let_a_second_probe_go() {
    let mut bank = opened(200);
    let old = Caller::new().granted(&mut bank, at(25));
    bank.sent(at(25), old);
    let mut now = at(30);
    for _ in 0..5 {
        let ticket = Caller::new().granted(&mut bank, now);
        bank.sent(now, ticket);
        now += Duration::from_millis(10);
        answer(&mut bank, now, ticket, AnswerKind::HardFailure, &Observation::default());
    }
    let waiters = [(); 2].map(|()| Caller::new().queued(&mut bank, now));
    now += seconds(31);
    let woken = advance(&mut bank, now);
    let [(probe, Woken::Granted(ticket))] = woken[..] else { panic!("{woken:?}") };
    assert_eq!(probe, waiters[0]);
    bank.sent(now, ticket);
    now += Duration::from_millis(10);
    bank.dropped(now, old);
    assert!(advance(&mut bank, now).is_empty(), "the probe is still on its way");
    now += Duration::from_millis(10);
    bank.dropped(now, ticket);
    assert_eq!(advance(&mut bank, now).len(), 1, "a lost probe is replaced");
}

#[test]
fn attempts_that_never_left_cost_no_quota_but_count_as_failures() {
    let limits = vec![declared("all", 4, &[])];
    let mut bank = Bank::new(BankConfig { limits, ..BankConfig::default() }).unwrap();
    let remaining = |bank: &Bank, now| {
        let snapshot = bank.snapshot(now);
        snapshot.gates.iter().find(|gate| gate.name == "all").and_then(|gate| gate.remaining)
    };
    let mut now = at(0);
    for _ in 0..5 {
        assert_eq!(bank.snapshot(now).in_flight, 0);
        let ticket = Caller::new().granted(&mut bank, now);
        bank.sent(now, ticket);
        now += Duration::from_millis(10);
        answer(&mut bank, now, ticket, AnswerKind::NotSent, &Observation::default());
        assert_eq!(remaining(&bank, now), Some(4.0));
    }
    assert!(bank.snapshot(now).breakers.iter().any(|breaker| breaker.state == "open"), "the fifth opens it");
}

#[test]
fn a_scout_that_never_left_is_followed_by_the_next_at_once() {
    let mut bank = opened(0);
    let waiters = [(); 2].map(|()| Caller::new().queued(&mut bank, at(30)));
    let mut now = at(5100);
    for waiter in waiters {
        let woken = advance(&mut bank, now);
        let [(scout, Woken::Granted(ticket))] = woken[..] else { panic!("{woken:?}") };
        assert_eq!(scout, waiter);
        bank.sent(now, ticket);
        now += Duration::from_millis(10);
        answer(&mut bank, now, ticket, AnswerKind::NotSent, &Observation::default());
    }
}

#[test]
fn invented_paths_get_no_gates_of_their_own() {
    let mut bank = bank();
    let mut now = at(0);
    for index in 0..500 {
        let caller = Caller { family: Family::new(format!("/api/v2/made-up-{index}")), ..Caller::new() };
        let ticket = caller.granted(&mut bank, now);
        bank.sent(now, ticket);
        now += Duration::from_millis(10);
        answer(&mut bank, now, ticket, AnswerKind::NotFound, &Observation::default());
    }
    let snapshot = bank.snapshot(now);
    assert_eq!(snapshot.gates.len(), 1, "{:?}", snapshot.gates);
    assert_eq!(snapshot.breakers.len(), 1);
}

#[test]
fn families_beyond_the_bound_share_one_gate() {
    let config = BankConfig { max_families: 3, ..BankConfig::default() };
    let mut bank = Bank::new(config).unwrap();
    let mut now = at(0);
    for index in 0..50 {
        let caller = Caller { family: Family::new(format!("/api/v2/family-{index}")), ..Caller::new() };
        let ticket = caller.granted(&mut bank, now);
        bank.sent(now, ticket);
        now += Duration::from_millis(10);
        answer(&mut bank, now, ticket, AnswerKind::Accepted, &Observation::default());
    }
    assert_eq!(bank.snapshot(now).gates.len(), 4);
}

#[test]
fn several_named_limits_in_one_header_are_all_respected() {
    let mut bank = bank();
    let reading = |name: &str, remaining, reset| {
        let mut reading = told(remaining, reset).readings.remove(0);
        reading.name = Some(name.to_owned());
        reading
    };
    let scout = Caller::new().granted(&mut bank, at(0));
    bank.sent(at(0), scout);
    let both = Observation {
        readings: vec![reading("daily", 5000, 80_000_000), reading("burst", 3, 990)],
        ..Observation::default()
    };
    answer(&mut bank, at(20), scout, AnswerKind::Accepted, &both);
    let mut granted = 0;
    while let Asked::Granted(ticket) = Caller::class(Class::Interactive).ask(&mut bank, at(2)) {
        bank.sent(at(30), ticket);
        granted += 1;
    }
    assert!((2..=3).contains(&granted), "{granted}");
}

#[test]
fn all_problems_of_a_configuration_are_told_at_once() {
    let mut zero = declared("a", 1, &[]);
    zero.kind = LimitKind::Concurrent { cap: 0 };
    let limits = vec![declared("a", 0, &[]), zero];
    let problems = Bank::new(BankConfig { limits, ..BankConfig::default() }).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
}
