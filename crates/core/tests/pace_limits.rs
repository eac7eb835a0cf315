//! Several limits at once: one ticket from all of them or none, the scarcest explains the wait; and limits whose numbers
//! the upstream tells.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pace_parts;

use std::time::Duration;

use tidegate_core::event::Event;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::{HitLimit, Observation};
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, CallerId, Class, LimitKind, LimitSpec, Named,
    Partition, Quoted, Refusal, RefusalReason, TicketId, TokenSlot, Woken,
};
use tidegate_core::time::Mono;

use pace_parts::{limit, rate};

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

fn at(millis: u64) -> Mono {
    Mono::from_nanos(millis * 1_000_000)
}

/// One limit of every kind, each wide but the one named.
fn platform(tight: &str) -> Vec<LimitSpec> {
    let all = [
        ("token", rate(300, MINUTE), &[Partition::Token][..]),
        ("credential", rate(300, MINUTE), &[Partition::Credential]),
        ("family", rate(300, MINUTE), &[Partition::Credential, Partition::Family]),
        ("organisation", rate(300, MINUTE), &[Partition::Tenant]),
        ("concurrency", LimitKind::Concurrent { cap: 300 }, &[Partition::Tenant]),
        ("day", rate(300, DAY), &[Partition::Token]),
    ];
    let narrow = |kind| match kind {
        LimitKind::Rate { window, .. } => rate(2, window),
        LimitKind::Concurrent { .. } => LimitKind::Concurrent { cap: 2 },
    };
    all.into_iter()
        .map(|(key, kind, per)| limit(key, if key == tight { narrow(kind) } else { kind }, per))
        .collect()
}

fn bank(limits: Vec<LimitSpec>) -> Bank {
    Bank::new(BankConfig { limits, spread: Duration::ZERO, ..BankConfig::default() }).unwrap()
}

/// A caller: family, credential, token, and the last instant at which it may leave.
#[derive(Clone, Copy)]
struct Caller {
    family: &'static str,
    credential: &'static str,
    token: u64,
    class: Class,
    leave_by: Option<Mono>,
}

const ONE: Caller = Caller {
    family: "/api/v2/users",
    credential: "one",
    token: 1,
    class: Class::Interactive,
    leave_by: None,
};

impl Caller {
    fn ask(self, bank: &mut Bank, now: Mono) -> Asked {
        let asked = bank.ask(
            now,
            &Ask {
                path: &format!("{}/7", self.family),
                token: TokenSlot(self.token),
                class: self.class,
                give_up_at: self.leave_by,
                ..pace_parts::asking(&Family::new(self.family), &CredentialId::new(self.credential))
            },
        );
        // A granted one is checked by the caller of this; nobody else was waiting.
        let mut woken = Vec::new();
        bank.advance(now, &mut woken);
        assert_eq!(woken, []);
        asked
    }

    fn granted(self, bank: &mut Bank, now: Mono) -> TicketId {
        match self.ask(bank, now) {
            Asked::Granted(ticket) => ticket,
            other => panic!("not granted: {other:?}"),
        }
    }

    fn refused(self, bank: &mut Bank, now: Mono, within: Duration) -> Refusal {
        match (Self { leave_by: Some(now + within), ..self }).ask(bank, now) {
            Asked::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Goes and is answered at once.
    fn goes(self, bank: &mut Bank, now: Mono) {
        let ticket = self.granted(bank, now);
        settle(bank, now, ticket, AnswerKind::Accepted, &Observation::default());
    }
}

fn settle(bank: &mut Bank, now: Mono, ticket: TicketId, kind: AnswerKind, observation: &Observation) {
    bank.sent(now, ticket);
    bank.answered(now, ticket, &Answer { kind, observation });
}

fn throttle(key: &str, value: u64) -> Observation {
    let hit = HitLimit { key: Some(key.to_owned()), namespace: None, value: Some(value) };
    Observation { hit: Some(hit), ..pace_parts::wait(Duration::from_secs(1)) }
}

/// What may be sent, and what is in flight, by gate.
fn books(bank: &Bank, now: Mono) -> Vec<(String, Option<f64>, u32)> {
    let gates = bank.snapshot(now).gates;
    gates
        .into_iter()
        .map(|gate| (format!("{} {}", gate.name, gate.partition), gate.remaining, gate.in_flight))
        // The gate of families that did not prove to exist goes when nobody needs it.
        .filter(|(gate, ..)| !gate.contains("other"))
        .collect()
}

fn quotas(bank: &Bank, key: &str) -> Vec<u64> {
    bank.snapshot(at(0)).gates.iter().filter(|gate| gate.name == key).filter_map(|gate| gate.quota).collect()
}

const ALL: [&str; 6] = ["token", "credential", "family", "organisation", "concurrency", "day"];

#[test]
fn the_scarcest_limit_explains_a_wait_and_a_refusal() {
    for tight in ALL {
        let mut bank = bank(platform(tight));
        // The family has to be known first, then its gates are its own.
        ONE.goes(&mut bank, at(0));
        let held = if tight == "concurrency" {
            [ONE.granted(&mut bank, at(0)), ONE.granted(&mut bank, at(0))].to_vec()
        } else {
            ONE.goes(&mut bank, at(0));
            Vec::new()
        };
        if tight == "concurrency" {
            // How long a place is taken is not known, so nobody is refused for it at once.
            let Asked::Queued(waiter) = ONE.ask(&mut bank, at(1)) else { panic!("{tight}") };
            settle(&mut bank, at(2), held[0], AnswerKind::Accepted, &Observation::default());
            let mut woken = Vec::new();
            bank.advance(at(2), &mut woken);
            let [(served, Woken::Granted(ticket))] = woken[..] else { panic!("{tight}: {woken:?}") };
            assert_eq!((served, &*bank.ticket_limit(ticket)), (waiter, tight));
            continue;
        }
        let refusal = ONE.refused(&mut bank, at(1), Duration::from_secs(14));
        assert_eq!(&*refusal.limit, tight);
        let window = if tight == "day" { DAY } else { MINUTE };
        let RefusalReason::CannotMeet { forecast } = refusal.reason else { panic!("{tight}: {refusal:?}") };
        assert!(
            forecast + Duration::from_secs(1) > window && forecast < window + window / 1000,
            "{tight}: {forecast:?}"
        );

        let Asked::Queued(waiter) = ONE.ask(&mut bank, at(1)) else { panic!("{tight}") };
        let wake = bank.next_wake(at(1)).unwrap();
        let mut woken = Vec::new();
        bank.advance(wake, &mut woken);
        let [(served, Woken::Granted(ticket))] = woken[..] else { panic!("{tight}: {woken:?}") };
        assert_eq!((served, &*bank.ticket_limit(ticket)), (waiter, tight));
    }
}

/// A family that is closed for a minute, with more callers waiting than the limit that it shares with others has permits.
#[test]
fn who_waits_for_another_limit_fills_no_place_before_a_newcomer() {
    let mut bank = bank(vec![limit("credential", rate(100, MINUTE), &[Partition::Credential])]);
    let closed = Caller { family: "/api/v2/scripts", ..ONE };
    ONE.goes(&mut bank, at(0));
    closed.goes(&mut bank, at(0));
    let hit = closed.granted(&mut bank, at(0));
    let stay_away = Observation { retry_after: Some(MINUTE), ..Observation::default() };
    settle(&mut bank, at(0), hit, AnswerKind::Throttled, &stay_away);
    let ask = |bank: &mut Bank, family: &str, caller: u32, deadline: Option<Mono>| {
        let path = format!("{family}/7");
        let (family, credential) = (Family::new(family), CredentialId::new(ONE.credential));
        let caller = CallerId::named(caller);
        let ask = Ask {
            path: &path,
            token: TokenSlot(ONE.token),
            caller,
            deadline,
            ..pace_parts::asking(&family, &credential)
        };
        let (asked, mut woken) = (bank.ask(at(1), &ask), Vec::new());
        bank.advance(at(1), &mut woken);
        (asked, woken)
    };
    for caller in 0..250 {
        let (asked, woken) = ask(&mut bank, closed.family, caller, None);
        assert!(matches!(asked, Asked::Queued(_)) && woken.is_empty(), "{asked:?} {woken:?}");
    }
    // Who has to pass what they have to pass comes after them: the shared limit is used up twice by then.
    let (asked, _) = ask(&mut bank, closed.family, 250, Some(at(119_000)));
    assert!(matches!(asked, Asked::Refused(_)), "{asked:?}");
    let (asked, woken) = ask(&mut bank, ONE.family, 250, Some(at(5000)));
    let Asked::Queued(waiter) = asked else { panic!("97 of 100 are free: {asked:?}") };
    assert!(matches!(woken[..], [(served, Woken::Granted(_))] if served == waiter), "{woken:?}");
}

#[test]
fn what_has_a_count_of_its_own_is_not_held_up_by_others() {
    let other_token = Caller { token: 2, ..ONE };
    let other_credential = Caller { credential: "two", token: 3, ..ONE };
    let other_family = Caller { family: "/api/v2/scripts", ..ONE };
    for (tight, free, held) in [
        ("token", &[other_token, other_credential][..], &[other_family][..]),
        ("day", &[other_token, other_credential], &[other_family]),
        ("credential", &[other_credential], &[other_token, other_family]),
        ("family", &[other_credential, other_family], &[other_token]),
        ("organisation", &[], &[other_token, other_credential, other_family]),
    ] {
        let mut bank = bank(platform(tight));
        ONE.goes(&mut bank, at(0));
        ONE.goes(&mut bank, at(0));
        for caller in held {
            let refusal = caller.refused(&mut bank, at(1), Duration::from_secs(14));
            assert_eq!(&*refusal.limit, tight, "{} {}", caller.family, caller.token);
        }
        for caller in free {
            let ticket = caller.granted(&mut bank, at(1));
            bank.dropped(at(1), ticket);
        }
    }
}

#[test]
fn a_ticket_takes_from_all_limits_and_a_refusal_or_a_wait_from_none() {
    let mut bank = bank(platform("family"));
    ONE.goes(&mut bank, at(0));
    let before = books(&bank, at(0));
    assert_eq!(before.len(), 7, "the family's own, and six that are declared: {before:?}");
    let ticket = ONE.granted(&mut bank, at(0));
    for (now, was) in books(&bank, at(0)).iter().zip(&before) {
        assert_eq!(now.2, was.2 + 1, "{}", now.0);
        assert_eq!(now.1, was.1.map(|left| left - 1.0), "{}", now.0);
    }
    let taken = books(&bank, at(0));
    ONE.refused(&mut bank, at(0), Duration::from_secs(1));
    assert_eq!(books(&bank, at(0)), taken);
    let Asked::Queued(waiter) = ONE.ask(&mut bank, at(0)) else { panic!("the family is used up") };
    assert_eq!(books(&bank, at(0)), taken);
    bank.abandon(at(0), waiter);
    bank.dropped(at(0), ticket);
    assert_eq!(books(&bank, at(0)), before);
}

#[test]
fn a_day_with_little_left_serves_what_is_left_and_then_refuses_at_once() {
    let mut bank = bank(vec![
        limit("token.rate.per.minute", rate(300, MINUTE), &[Partition::Token]),
        limit("token.rate.per.day", rate(1000, DAY), &[Partition::Token]),
    ]);
    let hour = |hour: u64| at(hour * 3_600_000);
    for call in 0..997 {
        ONE.goes(&mut bank, hour(1 + call / 200));
    }
    for _ in 0..3 {
        ONE.goes(&mut bank, hour(7));
    }
    let mut last = Duration::ZERO;
    for _ in 0..50 {
        let refusal = ONE.refused(&mut bank, hour(7), Duration::from_secs(14));
        assert_eq!(&*refusal.limit, "token.rate.per.day", "not the minute, which has room");
        let RefusalReason::CannotMeet { forecast } = refusal.reason else { panic!("{refusal:?}") };
        // The first 200 were counted in the first hour, so they come back in the twenty-fifth.
        let first = hour(25) - hour(7);
        assert!(forecast >= first && forecast < first + Duration::from_mins(1), "{forecast:?}");
        assert!(refusal.retry_after >= forecast && refusal.retry_after > last, "{refusal:?} after {last:?}");
        last = refusal.retry_after;
    }
    assert!(
        last < hour(25) - hour(7) + Duration::from_hours(2),
        "fifty places, each a thousandth of a day: {last:?}"
    );

    let Asked::Queued(_) = ONE.ask(&mut bank, hour(7)) else { panic!("who sets no bound may wait for it") };
    let wake = bank.next_wake(hour(7)).unwrap();
    assert!(wake >= hour(25) && wake < hour(25) + Duration::from_mins(1), "{wake:?}");
}

#[test]
fn the_last_of_a_day_is_not_for_polls() {
    let mut bank = bank(vec![limit("day", rate(100, DAY), &[Partition::Token])]);
    let poll = Caller { class: Class::Poll, ..ONE };
    poll.goes(&mut bank, at(0));
    // Nobody else has shown.
    for _ in 1..90 {
        poll.goes(&mut bank, at(6000));
    }
    // Ten are left, which is what polls leave to the others: until eleven are, nearly a day passes.
    let bounded = Caller { leave_by: Some(at(14_000)), ..poll };
    let Asked::Refused(refusal) = bounded.ask(&mut bank, at(6000)) else { panic!("it cannot leave in time") };
    assert!(
        matches!(refusal.reason, RefusalReason::CannotMeet { forecast } if forecast > DAY / 2),
        "{refusal:?}"
    );
    assert!(refusal.retry_after > DAY / 2, "{refusal:?}");
    assert_eq!(&*refusal.limit, "day");
    for _ in 0..10 {
        ONE.goes(&mut bank, at(14_000));
    }
    ONE.refused(&mut bank, at(14_000), Duration::from_secs(14));
}

#[test]
fn a_raised_quota_wakes_who_waits_for_it() {
    let mut bank = bank(platform("organisation"));
    ONE.goes(&mut bank, at(0));
    ONE.goes(&mut bank, at(0));
    let Asked::Queued(waiter) = ONE.ask(&mut bank, at(1)) else { panic!("two of two are used") };
    bank.drain_events();
    assert_eq!(bank.set_quota("organisation", 10), Named::Used);
    assert_eq!(bank.drain_events(), [Event::LimitLearnt { limit: "organisation".to_owned(), quota: 10 }]);
    let mut woken = Vec::new();
    bank.advance(at(1), &mut woken);
    assert!(matches!(woken[..], [(served, Woken::Granted(_))] if served == waiter), "{woken:?}");
    assert_eq!(bank.set_quota("organisation", 10), Named::Used);
    assert_eq!(bank.drain_events(), [], "the same number is no news");
}

#[test]
fn a_lowered_quota_holds_for_every_count_of_the_limit_also_for_those_to_come() {
    let mut bank = bank(platform(""));
    for token in 1..=3 {
        Caller { token, ..ONE }.goes(&mut bank, at(0));
    }
    assert_eq!(bank.set_quota("token", 5), Named::Used);
    Caller { token: 4, ..ONE }.goes(&mut bank, at(0));
    assert_eq!(quotas(&bank, "token"), [5; 4]);
    for token in 1..=4 {
        let caller = Caller { token, ..ONE };
        for _ in 0..4 {
            caller.goes(&mut bank, at(0));
        }
        assert_eq!(&*caller.refused(&mut bank, at(0), MINUTE / 2).limit, "token");
    }
}

#[test]
fn a_lowered_concurrency_lets_those_in_flight_end_and_nobody_else_in() {
    let mut bank = bank(platform(""));
    ONE.goes(&mut bank, at(0));
    let tickets: Vec<TicketId> = (0..6).map(|_| ONE.granted(&mut bank, at(0))).collect();
    assert_eq!(bank.set_quota("concurrency", 3), Named::Used);
    let Asked::Queued(_) = ONE.ask(&mut bank, at(1)) else { panic!("six of three are out") };
    for (ended, ticket) in tickets.into_iter().enumerate() {
        settle(&mut bank, at(2), ticket, AnswerKind::Accepted, &Observation::default());
        let mut woken = Vec::new();
        bank.advance(at(2), &mut woken);
        assert_eq!(woken.len(), usize::from(ended == 3), "after {} of six", ended + 1);
    }
}

#[test]
fn a_pinned_limit_and_a_key_nobody_declared_change_nothing() {
    let mut limits = platform("");
    limits[0].pin = true;
    let mut bank = bank(limits);
    ONE.goes(&mut bank, at(0));
    bank.drain_events();
    assert_eq!(bank.set_quota("token", 5), Named::Pinned);
    assert_eq!(bank.set_quota("users.max", 5), Named::Unknown);
    assert_eq!(bank.set_quota("organisation", 0), Named::Unusable);
    assert_eq!((quotas(&bank, "token"), quotas(&bank, "organisation")), (vec![300], vec![300]));
    assert_eq!(bank.drain_events(), []);
}

#[test]
fn a_refusal_that_names_a_value_sets_it_for_the_time_its_key_names() {
    let mut bank =
        bank(vec![limit("token.rate.per.minute", rate(25, Duration::from_secs(5)), &[Partition::Token])]);
    ONE.goes(&mut bank, at(0));
    let ticket = ONE.granted(&mut bank, at(0));
    settle(&mut bank, at(0), ticket, AnswerKind::Throttled, &throttle("token.rate.per.minute", 120));
    assert_eq!(quotas(&bank, "token.rate.per.minute"), [10], "120 per minute are 10 per five seconds");
}

/// One count of the platform that has two names.
fn two_names() -> LimitSpec {
    let aliases = vec!["token.rate.per.minute".to_owned()];
    LimitSpec { aliases, ..limit("client.token.rate.per.minute", rate(300, MINUTE), &[Partition::Token]) }
}

#[test]
fn a_refusal_under_either_name_is_one_of_the_same_limit() {
    for name in ["client.token.rate.per.minute", "token.rate.per.minute"] {
        let mut bank = bank(vec![two_names()]);
        let ticket = ONE.granted(&mut bank, at(0));
        settle(&mut bank, at(0), ticket, AnswerKind::Throttled, &throttle(name, 120));
        assert_eq!(quotas(&bank, "client.token.rate.per.minute"), [120], "{name}");
        let closed: Vec<_> =
            bank.snapshot(at(0)).gates.into_iter().filter(|gate| gate.throttles > 0).collect();
        assert_eq!(closed.len(), 1);
        assert_eq!(closed[0].name, "client.token.rate.per.minute", "{name}");
    }
}

#[test]
fn of_the_names_a_listing_has_for_one_limit_one_decides() {
    let quoted = |key, value, answer| Quoted { key, value, answer };
    let (client, token) = ("client.token.rate.per.minute", "token.rate.per.minute");
    let (used, over) = (Named::Used, Named::Overruled);
    for (listed, uses, quota) in [
        // Of one answer the name that is declared first, wherever it stands.
        ([quoted(token, 300, 0), quoted(client, 600, 0)], [over, used], 600),
        ([quoted(client, 600, 0), quoted(token, 900, 0)], [used, over], 600),
        // What the organisation was granted goes before the defaults, under whichever name.
        ([quoted(token, 450, 0), quoted(client, 300, 1)], [used, over], 450),
        ([quoted(client, 450, 0), quoted(token, 300, 1)], [used, over], 450),
    ] {
        let mut bank = bank(vec![two_names()]);
        ONE.goes(&mut bank, at(0));
        assert_eq!(bank.set_quotas(&listed), uses, "{listed:?}");
        assert_eq!(quotas(&bank, client), [quota], "{listed:?}");
    }
}

#[test]
fn a_refusal_by_an_open_breaker_is_explained_by_the_family() {
    let mut bank = bank(platform(""));
    ONE.goes(&mut bank, at(0));
    let mut now = at(0);
    for _ in 0..5 {
        now += Duration::from_secs(1);
        let ticket = ONE.granted(&mut bank, now);
        settle(&mut bank, now, ticket, AnswerKind::HardFailure, &Observation::default());
    }
    let refusal = ONE.refused(&mut bank, now, Duration::from_secs(1));
    assert_eq!((refusal.reason, &*refusal.limit), (RefusalReason::Breaker, "/api/v2/users"));
}
