//! Calls against an upstream that executes everything it can get away with.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use fastrand::Rng;
use http::{Method, StatusCode};
use proptest::prelude::*;
use tidegate_core::backoff::{Backoff, Kind};
use tidegate_core::budget::{Budget, BudgetRules};
use tidegate_core::classify::{Facts, Failure, Outcome, Wrote};
use tidegate_core::retry::{Attempts, Next, RetryPolicy};
use tidegate_core::time::Mono;

/// What the upstream does to one attempt.
#[derive(Clone, Copy, Debug)]
struct Act {
    outcome: Outcome,
    /// Time until the attempt ends.
    takes: Duration,
    /// Time the gate holds the next ticket beyond the retry's own wait.
    held: Duration,
}

/// Whether the upstream may have executed an attempt that ended like this. Restated from the rules, not from the code.
fn may_execute(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Failed(failure) => matches!(
            failure,
            Failure::Interrupted { .. }
                | Failure::TimedOut { wrote: Wrote::Part | Wrote::Whole }
                | Failure::AnswerTruncated
                | Failure::AnswerUnreadable
        ),
        Outcome::Answered { status, hint, throttled } => match status.as_u16() {
            _ if throttled => false,
            429 | 401 | 409 | 412 => false,
            503 => hint.is_none(),
            _ => true,
        },
    }
}

/// Whether this answer settles what became of a call that may have been executed. A conflict may be with what it has done itself.
fn settles(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Failed(_) => false,
        Outcome::Answered { status, throttled, .. } => {
            !throttled && !matches!(status.as_u16(), 401 | 408 | 409 | 412 | 429 | 502 | 503 | 504)
        }
    }
}

/// The truth about one write, as only the upstream knows it.
#[derive(Default)]
struct Upstream {
    executions: u32,
    first_execution: Option<Mono>,
}

impl Upstream {
    fn attempt(&mut self, sent: Mono, outcome: Outcome, dedup: Option<Duration>) {
        if !may_execute(outcome) {
            return;
        }
        let remembered =
            self.first_execution.is_some_and(|first| dedup.is_some_and(|for_| sent < first + for_));
        if !remembered {
            self.executions += 1;
            self.first_execution = Some(sent);
        }
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let failure = prop::sample::select(vec![
        Failure::ConnectFailed,
        Failure::TlsFailed,
        Failure::ZeroBytesWritten,
        Failure::StreamRefused,
        Failure::Interrupted { whole: false },
        Failure::Interrupted { whole: true },
        Failure::TimedOut { wrote: Wrote::Nothing },
        Failure::TimedOut { wrote: Wrote::Part },
        Failure::TimedOut { wrote: Wrote::Whole },
        Failure::AnswerTruncated,
        Failure::AnswerUnreadable,
    ]);
    let status = prop_oneof![
        6 => Just(429_u16),
        3 => prop::sample::select(vec![401_u16, 408, 502, 503, 504]),
        1 => prop::sample::select(vec![200_u16, 404, 409, 412, 500]),
    ];
    let hint = prop::option::of(prop_oneof![0_u64..20_000, 0_u64..1_200_000]);
    let answer =
        (status, hint, prop::bool::weighted(0.05)).prop_map(|(status, hint, throttled)| Outcome::Answered {
            status: StatusCode::from_u16(status).unwrap(),
            hint: hint.map(Duration::from_millis),
            throttled,
        });
    prop_oneof![2 => failure.prop_map(Outcome::Failed), 3 => answer]
}

fn act() -> impl Strategy<Value = Act> {
    let held = prop_oneof![4 => 0_u64..5_000, 1 => 0_u64..40_000_000];
    (outcome(), 0_u64..60_000, held).prop_map(|(outcome, takes, held)| Act {
        outcome,
        takes: Duration::from_millis(takes),
        held: Duration::from_millis(held),
    })
}

fn facts() -> impl Strategy<Value = Facts> {
    let method =
        prop::sample::select(vec![Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE]);
    let dedup = prop::option::of(prop::sample::select(vec![30_u64, 3_600, 86_400]));
    let deadline = prop::option::of(1_u64..4_000);
    (
        method,
        prop::option::weighted(0.2, any::<bool>()),
        dedup,
        any::<bool>(),
        prop::bool::weighted(0.8),
        deadline,
    )
        .prop_map(|(method, idempotent, dedup, replayable, refreshable, deadline)| {
            let mut facts = Facts::new(method);
            facts.idempotent = idempotent;
            facts.dedup = dedup.map(Duration::from_secs);
            facts.replayable = replayable;
            facts.refreshable = refreshable;
            facts.give_up_at = deadline.map(|s| Mono::ZERO + Duration::from_secs(s));
            facts
        })
}

fn policy() -> impl Strategy<Value = RetryPolicy> {
    let kind = prop::sample::select(vec![
        Kind::Full,
        Kind::Equal,
        Kind::Decorrelated,
        Kind::Guide,
        Kind::GenesysOfficial,
    ]);
    (kind, 0_u32..6, 0_u32..6, 1_u64..1_000, 0_u64..2_000).prop_map(
        |(kind, retries, ordered, ceiling, spread)| RetryPolicy {
            max_retries: retries,
            max_ordered_waits: ordered,
            backoff: Backoff::try_new(kind, Duration::from_millis(500), Duration::from_mins(1)).unwrap(),
            hint_ceiling: Duration::from_secs(ceiling),
            spread: Duration::from_millis(spread),
            ..RetryPolicy::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_write_is_executed_twice_and_none_is_called_certain_in_doubt(
        facts in facts(),
        policy in policy(),
        acts in prop::collection::vec(act(), 30),
        seed in any::<u64>(),
        tokens in 0_u32..100,
    ) {
        let harmless = facts.idempotent.unwrap_or(matches!(facts.method, Method::GET | Method::PUT | Method::DELETE));
        let read = facts.method == Method::GET && harmless;
        let mut rng = Rng::with_seed(seed);
        let mut budget = Budget::new(BudgetRules { capacity: tokens, ..BudgetRules::default() }, Mono::ZERO);
        let mut upstream = Upstream::default();
        let mut attempts = Attempts::new(facts.clone(), Mono::ZERO);
        let (mut sent, mut retries, mut ordered_waits, mut refreshes) = (Mono::ZERO, 0, 0, 0);
        let mut ended = false;
        for act in acts {
            if attempts.send_by().is_some_and(|end| sent >= end) {
                ended = true; // The gate held the ticket too long: the shell must not send.
                break;
            }
            upstream.attempt(sent, act.outcome, facts.dedup);
            prop_assert!(harmless || upstream.executions <= 1, "executed twice");
            let now = sent + act.takes;
            match attempts.next(now, &act.outcome, &mut budget, &policy, &mut rng) {
                Next::Retry { at, ordered, .. } => {
                    let hint = act.outcome.hint();
                    prop_assert!(hint.is_none_or(|hint| at >= now + hint), "sent before the hint");
                    prop_assert!(hint.is_none_or(|hint| hint <= policy.hint_ceiling));
                    prop_assert!(facts.give_up_at.is_none_or(|end| at < end));
                    retries += u32::from(!ordered);
                    ordered_waits += u32::from(ordered);
                    sent = at + act.held;
                }
                Next::RefreshToken => {
                    refreshes += 1;
                    sent = now + act.held;
                }
                Next::Deliver { unauthorized } => {
                    prop_assert!(act.outcome.status().is_some(), "there is an answer to deliver");
                    prop_assert_eq!(unauthorized, act.outcome.status() == Some(StatusCode::UNAUTHORIZED)
                        && !matches!(act.outcome, Outcome::Answered { throttled: true, .. }));
                    // Who remembers the first answers as it did then: another answer is not about it.
                    let remembered = upstream.first_execution.is_some_and(|first| facts.dedup.is_some_and(|window| sent < first + window));
                    let conflict = matches!(act.outcome.status().map(|status| status.as_u16()), Some(409 | 412));
                    let certain = settles(act.outcome) || upstream.executions == 0 || conflict && remembered;
                    prop_assert!(read || certain, "called certain in doubt");
                    ended = true;
                }
                Next::GiveUp { .. } => {
                    prop_assert!(read || upstream.executions == 0, "given up, and yet executed");
                    ended = true;
                }
                Next::Unknown { retry_at, .. } => {
                    prop_assert!(!read && upstream.executions > 0, "in doubt without reason");
                    let trusted = facts.dedup.is_some_and(|window| {
                        retry_at.is_some_and(|at| at < upstream.first_execution.unwrap() + window)
                    });
                    prop_assert!(retry_at.is_none() || harmless || trusted, "invites a second execution");
                    ended = true;
                }
            }
            if ended {
                break;
            }
        }
        prop_assert!(ended, "30 attempts are more than any of these policies allow");
        prop_assert!(retries <= policy.max_retries && ordered_waits <= policy.max_ordered_waits && refreshes <= 1);
        prop_assert_eq!(attempts.retries(), retries);
    }
}
