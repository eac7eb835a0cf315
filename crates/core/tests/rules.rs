//! Rules learnt from other people's bugs, each a test of its own name. Those that need a whole client (R6, R9, R11, R13) are in
//! `crates/client/tests/rules.rs`, those of the journal (R16) in `crates/store/tests/journal.rs`.
//!
//! The machines' own tests go into their cases; these say the rule once, where it can be looked up. The threads named are
//! those in which somebody met the bug.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use fastrand::Rng;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tidegate_core::backoff::{Backoff, HINT_FLOOR, Kind, hinted};
use tidegate_core::budget::{Budget, BudgetRules};
use tidegate_core::classify::{Facts, Failure, Outcome, Why};
use tidegate_core::glob::PathGlob;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::observe::{Dialect, HeaderRules, Observation, Reading, Reset, observe};
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, CallerId, Class, Kept, LimitKind, LimitSpec, Observes,
    Partition, TicketId, TokenSlot, WaiterId, Woken,
};
use tidegate_core::retry::{Attempts, Doubt, Next, RetryPolicy, Stop};
use tidegate_core::time::{Mono, Wall};

const S: Duration = Duration::from_secs(1);

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

/// One call, its budget and its policy.
struct Call {
    attempts: Attempts,
    budget: Budget,
    policy: RetryPolicy,
    rng: Rng,
}

impl Call {
    fn new(method: Method, seed: u64) -> Self {
        Self {
            attempts: Attempts::new(Facts::new(method), Mono::ZERO),
            budget: Budget::new(BudgetRules::default(), Mono::ZERO),
            policy: RetryPolicy::default(),
            rng: Rng::with_seed(seed),
        }
    }

    fn ends(&mut self, now: Mono, outcome: Outcome) -> Next {
        self.attempts.next(now, &outcome, &mut self.budget, &self.policy, &mut self.rng)
    }

    fn answers(&mut self, status: u16, hint: Option<Duration>) -> Next {
        self.ends(Mono::ZERO, Outcome::answered(StatusCode::from_u16(status).unwrap(), hint))
    }
}

/// What a `Retry-After` is read as.
fn retry_after(value: &str) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_str(value).unwrap());
    observe(&HeaderRules::default(), StatusCode::TOO_MANY_REQUESTS, &headers, Wall::default()).retry_after
}

/// A wait that the server named is never cut short; jitter only adds (encode/httpx#141, snyk#649).
#[test]
fn r1_a_wait_is_never_shorter_than_its_hint() {
    for seed in 0..500 {
        let mut rng = Rng::with_seed(seed);
        let hint = Duration::from_millis(rng.u64(0..900_000));
        let spread = Duration::from_millis(rng.u64(0..5_000));
        assert!(hinted(hint, spread, &mut rng) >= hint);
        for status in [429, 503] {
            let Next::Retry { at, ordered: true, .. } =
                Call::new(Method::POST, seed).answers(status, Some(hint))
            else {
                panic!("{status} with a hint of {hint:?} is waited out")
            };
            assert!(at >= Mono::ZERO + hint, "{status}: {hint:?}");
        }
    }
}

/// The ceiling of hints is not the cap of backoffs, and above it a call ends with the time to come back: it is never sent
/// early (urllib3#5238: a cap that shortened the server's own wait).
#[test]
fn r2_a_hint_above_its_ceiling_ends_the_call_with_the_time_to_come_back() {
    let mut call = Call::new(Method::POST, 1);
    call.policy.backoff = Backoff::try_new(Kind::Full, S, 2 * S).unwrap();
    call.policy.hint_ceiling = 60 * S;
    assert!(matches!(call.answers(429, Some(59 * S)), Next::Retry { at, .. } if at >= Mono::ZERO + 59 * S));
    let Next::GiveUp { retry_at: Some(back), why: Stop::HintCeiling } = call.answers(429, Some(61 * S))
    else {
        panic!("it is above the ceiling")
    };
    assert!(back >= Mono::ZERO + 61 * S);
}

/// `Retry-After: 0` has a floor, and a hint below the backoff waits the backoff. That the hint should go first there (as some
/// ask for, topoteretes/cognee-rs#144) cannot be set: it would let one server's careless zero undo the backoff of all.
#[test]
fn r3_a_hint_of_zero_has_a_floor_and_the_longer_of_hint_and_backoff_is_waited() {
    assert_eq!(hinted(Duration::ZERO, Duration::ZERO, &mut Rng::with_seed(1)), HINT_FLOOR);
    assert!(HINT_FLOOR > Duration::ZERO);
    let mut call = Call::new(Method::GET, 1);
    // The tiers of the vendor's SDKs have no jitter: 3 s.
    call.policy.backoff = Backoff::official();
    let Next::Retry { at, .. } = call.answers(429, Some(S)) else { panic!("a throttle is waited out") };
    assert!(at >= Mono::ZERO + 3 * S);
}

/// urllib3 raises on a header that it cannot read.
#[test]
fn r4_a_hint_that_makes_no_sense_is_ignored() {
    for value in ["-1", "soon", "", "1e3", "Mon, 14 Nov 2023 22:13:50 GMT", "99999999999999999999"] {
        assert_eq!(retry_after(value), None, "{value}");
    }
    let answer = Call::new(Method::GET, 1).answers(429, None);
    assert!(
        matches!(answer, Next::Retry { ordered: false, .. }),
        "then it is the backoff's turn: {answer:?}"
    );
}

/// octokit#629, dust-tt/dust#13039: all that waited came back at the same instant.
#[test]
fn r5_a_throttle_closes_the_gate_for_all_and_they_come_back_spread() {
    let mut bank = Bank::new(BankConfig::default()).unwrap();
    let first = granted(&mut bank, at(0));
    bank.sent(at(0), first);
    answered(&mut bank, at(20), first, AnswerKind::Throttled, &told_to_wait(5 * S));
    let waiting = (0..30).filter(|_| queued(&mut bank, at(30)).is_some()).count();
    assert_eq!(waiting, 30, "the throttle of one is everybody's");
    let mut now = at(30);
    let mut grants: Vec<(Mono, usize)> = Vec::new();
    while grants.iter().map(|(_, count)| count).sum::<usize>() < 30 {
        let woken = advance(&mut bank, now);
        if !woken.is_empty() {
            grants.push((now, woken.len()));
        }
        for ticket in woken {
            bank.sent(now, ticket);
            answered(&mut bank, now, ticket, AnswerKind::Accepted, &told(200, 60 * S));
        }
        let Some(wake) = bank.next_wake(now) else { break };
        now = wake.max(now + Duration::from_nanos(1));
    }
    assert_eq!(grants.iter().map(|(_, count)| count).sum::<usize>(), 30, "{grants:?}");
    assert!(grants[0].0 >= at(5_020), "not before the hint has ended: {:?}", grants[0]);
    assert_eq!(grants[0].1, 1, "one looks first");
    assert!(grants.iter().all(|&(_, count)| count <= 2), "no herd: {grants:?}");
}

/// brightwave-inc/tidebreak#1086: five attempts were used up within five seconds of a hint of sixty.
#[test]
fn r7_waiting_as_told_uses_up_neither_attempts_nor_budget() {
    let mut call = Call::new(Method::POST, 1);
    for _ in 0..10 {
        assert!(matches!(call.answers(429, Some(60 * S)), Next::Retry { ordered: true, .. }));
    }
    assert_eq!((call.attempts.retries(), call.budget.tokens(Mono::ZERO)), (0, 500));
}

/// heygen-com/heygen-cli#29, PostHog/terraform#157: a POST that timed out was sent again. A throttle was refused
/// before it was worked on, and may be sent again whatever the method.
#[test]
fn r8_a_post_that_may_have_been_executed_is_not_sent_again_and_a_throttled_one_is() {
    let ended = Call::new(Method::POST, 1).ends(Mono::ZERO, Outcome::Failed(Failure::AnswerTruncated));
    assert_eq!(ended, Next::Unknown { retry_at: None, why: Doubt::NotRepeatable });
    for status in [408, 502, 503, 504] {
        let ended = Call::new(Method::POST, 1).answers(status, None);
        assert_eq!(ended, Next::Unknown { retry_at: None, why: Doubt::NotRepeatable }, "{status}");
    }
    for method in [Method::POST, Method::PATCH, Method::PUT, Method::DELETE, Method::GET] {
        let ended = Call::new(method.clone(), 1).answers(429, Some(S));
        assert!(matches!(ended, Next::Retry { why: Why::Throttled, .. }), "{method}: {ended:?}");
    }
}

/// bottleneck#172, riot-rate-limiter#250: the header's remaining counts what the server has seen, not what is on its way.
#[test]
fn r10_what_is_in_flight_is_taken_from_what_the_header_says_is_left() {
    let mut bank = Bank::new(BankConfig { spread: Duration::ZERO, ..BankConfig::default() }).unwrap();
    let scout = granted(&mut bank, at(0));
    bank.sent(at(0), scout);
    answered(&mut bank, at(20), scout, AnswerKind::Accepted, &told(100, 60 * S));
    let first: Vec<TicketId> = (0..40).map(|_| granted(&mut bank, at(30))).collect();
    for ticket in &first {
        bank.sent(at(30), *ticket);
    }
    // The server answers the first of them before it has seen another: 99 left, 39 of which are on their way.
    answered(&mut bank, at(50), first[0], AnswerKind::Accepted, &told(99, 60 * S));
    let more = (0..200).filter(|_| matches!(ask(&mut bank, at(60)), Asked::Granted(_))).count();
    assert!((40..=60).contains(&more), "100 in all and not one more, but most of them: {more} beside the 40");
}

/// resilience4j#2146: a restart began with a full quota that was spent.
#[test]
fn r12_a_restart_goes_on_where_it_was_or_begins_carefully() {
    let declared = || LimitSpec {
        key: "per-minute".to_owned(),
        aliases: Vec::new(),
        method: None,
        path: PathGlob::parse("/**").unwrap(),
        kind: LimitKind::Rate { quota: 20, window: 60 * S },
        per: vec![Partition::Credential],
        pin: false,
        assumed: false,
        observes: Observes::OwnName,
    };
    let config = || BankConfig { limits: vec![declared()], spread: Duration::ZERO, ..BankConfig::default() };
    let noon = Wall::from_unix_millis(1_700_000_000_000);
    let mut bank = Bank::new(config()).unwrap();
    let spent = spend(&mut bank, at(1_000), 50);
    assert_eq!(spent, 20);
    let kept = bank.begin_store(at(2_000), noon);
    bank.stored();
    let kept = Kept::read(&kept.write()).unwrap();
    let mut next = Bank::new(config()).unwrap();
    next.restore(at(1_000), noon, &kept, 30 * S);
    assert_eq!(spend(&mut next, at(1_000), 50), 0, "nothing is left of this minute");
    // Without any state and without a word on how it is to begin, one goes first and is answered before others do.
    let mut new = Bank::new(BankConfig::default()).unwrap();
    assert!(matches!(ask(&mut new, at(0)), Asked::Granted(_)));
    assert!(matches!(ask(&mut new, at(0)), Asked::Queued(_)));
}

/// governor#117, #186: a limiter that takes from the first of two limits and waits for the second has spent for nothing.
#[test]
fn r14_a_call_takes_from_all_its_limits_or_from_none() {
    let limit = |key: &str, quota, method| LimitSpec {
        key: key.to_owned(),
        aliases: Vec::new(),
        method,
        path: PathGlob::parse("/**").unwrap(),
        kind: LimitKind::Rate { quota, window: 60 * S },
        per: vec![],
        pin: false,
        assumed: false,
        observes: Observes::OwnName,
    };
    let limits = vec![limit("all", 50, None), limit("patches", 2, Some(Method::PATCH))];
    let mut bank = Bank::new(BankConfig { limits, spread: Duration::ZERO, ..BankConfig::default() }).unwrap();
    let left = |bank: &Bank, now| {
        let gates = bank.snapshot(now).gates;
        gates.into_iter().find(|gate| gate.name == "all").unwrap().remaining.unwrap()
    };
    assert_eq!(spend(&mut bank, at(0), 10), 10);
    let patch = |bank: &mut Bank| ask_for(bank, at(100), &Method::PATCH);
    let granted = (0..10).filter(|_| matches!(patch(&mut bank), Asked::Granted(_))).count();
    assert_eq!(granted, 2);
    assert!((left(&bank, at(100)) - 38.0).abs() < 1e-9, "the eight that wait have taken nothing");
}

/// twilight's rule: of a limit that nothing is known about, one attempt asks.
#[test]
fn r15_of_an_unknown_limit_one_asks_and_then_it_is_open() {
    let mut bank = Bank::new(BankConfig { spread: Duration::ZERO, ..BankConfig::default() }).unwrap();
    let scout = granted(&mut bank, at(0));
    let waiting: Vec<WaiterId> = (0..39).filter_map(|_| queued(&mut bank, at(0))).collect();
    assert_eq!(waiting.len(), 39);
    bank.sent(at(0), scout);
    assert!(advance(&mut bank, at(10)).is_empty());
    answered(&mut bank, at(20), scout, AnswerKind::Accepted, &told(299, 5 * S));
    let mut woken = Vec::new();
    bank.advance(at(20), &mut woken);
    let woken: Vec<WaiterId> = woken.into_iter().map(|(waiter, _)| waiter).collect();
    assert_eq!(woken, waiting, "first come, first served");
}

fn ask_for(bank: &mut Bank, now: Mono, method: &Method) -> Asked {
    let (family, credential) = (Family::new("/api/v2/users"), CredentialId::new("one"));
    bank.ask(
        now,
        &Ask {
            method,
            path: "/api/v2/users/7",
            family: &family,
            credential: &credential,
            token: TokenSlot(0),
            class: Class::Interactive,
            caller: CallerId::ANYBODY,
            deadline: None,
            give_up_at: None,
        },
    )
}

fn ask(bank: &mut Bank, now: Mono) -> Asked {
    ask_for(bank, now, &Method::GET)
}

fn granted(bank: &mut Bank, now: Mono) -> TicketId {
    match ask(bank, now) {
        Asked::Granted(ticket) => ticket,
        other => panic!("not granted: {other:?}"),
    }
}

fn queued(bank: &mut Bank, now: Mono) -> Option<WaiterId> {
    match ask(bank, now) {
        Asked::Queued(waiter) => Some(waiter),
        _ => None,
    }
}

/// Up to `most` calls, sent and accepted at once; how many got through without waiting.
fn spend(bank: &mut Bank, now: Mono, most: usize) -> usize {
    for count in 0..most {
        let Asked::Granted(ticket) = ask(bank, now) else { return count };
        bank.sent(now, ticket);
        answered(bank, now, ticket, AnswerKind::Accepted, &Observation::default());
    }
    most
}

fn answered(bank: &mut Bank, now: Mono, ticket: TicketId, kind: AnswerKind, observation: &Observation) {
    bank.answered(now, ticket, &Answer { kind, observation });
}

fn advance(bank: &mut Bank, now: Mono) -> Vec<TicketId> {
    let mut woken = Vec::new();
    bank.advance(now, &mut woken);
    let ticket = |(_, woken): (WaiterId, Woken)| match woken {
        Woken::Granted(ticket) => ticket,
        Woken::Refused(refusal) => panic!("refused: {refusal:?}"),
    };
    woken.into_iter().map(ticket).collect()
}

fn told(remaining: u64, reset: Duration) -> Observation {
    let reading = Reading {
        name: None,
        limit: Some(300),
        remaining: Some(remaining),
        reset: Some(Reset { after: reset, grain: Duration::ZERO, at: None }),
        window: None,
        dialect: Dialect::Guide,
    };
    Observation { readings: vec![reading], ..Observation::default() }
}

fn told_to_wait(hint: Duration) -> Observation {
    Observation { retry_after: Some(hint), ..Observation::default() }
}
