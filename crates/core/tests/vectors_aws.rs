//! The retry cases of AWS's specification, SEP 2.1 "new-retries", appendix A, standard mode: outcome, quota and delay.
//!
//! Numbers transcribed from smithy-lang/smithy-kotlin, `NewStandardRetryIntegrationTestResources.kt` (Apache-2.0). AWS
//! computes the cases with a jitter of 1; here every case is played with many seeds: outcome and quota must be the same in
//! each, no wait may be longer than the vector's, and the longest must come within a hundredth of it.
//!
//! Our budget is set to AWS's numbers here, its refund of the last retry included. That is not the default: with it an upstream
//! that fails every first attempt is sent double load for ever (`core::budget`).
//!
//! Three things differ on purpose, and are asserted as they are here:
//!
//! * **a hint is never shortened.** AWS clamps 10 s to the backoff and five seconds more; a server that says when to come
//!   back is believed (rules R1 and R2);
//! * **a hint of zero waits a tenth of a second**, where AWS waits the backoff alone (rule R3);
//! * **one call has one base.** AWS's base is 50 ms, and 1 s after a throttle; here a policy has one.
//!
//! The case "long-polling backoff when the bucket is empty" does not apply: an empty budget ends a call here, and long
//! polls have a schedule of their own (`core::poll`).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use fastrand::Rng;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tidegate_core::backoff::{Backoff, HINT_FLOOR, Kind};
use tidegate_core::budget::{Budget, BudgetRules, Refund};
use tidegate_core::classify::{Facts, Outcome, RetryMatrix};
use tidegate_core::observe::observe;
use tidegate_core::profile::Profile;
use tidegate_core::retry::{Attempts, Next, RetryPolicy, Stop};
use tidegate_core::time::{Mono, Wall};

/// A status and its hint.
type Response = (u16, Option<Duration>);

/// What the specification calls a case's `given`.
#[derive(Clone, Copy)]
struct Given {
    max_attempts: u32,
    tokens: u32,
    base: Duration,
    cap: Duration,
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The defaults of the specification.
const GIVEN: Given = Given { max_attempts: 3, tokens: 500, base: ms(50), cap: ms(20_000) };

/// What one response is to lead to, and the tokens left then.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// Sent again after this wait.
    Retry(u64, Duration),
    /// Delivered.
    Success(u64),
    /// All attempts are used.
    MaxAttempts(u64),
    /// No token is left for a retry.
    QuotaExceeded(u64),
}

use Expected::{MaxAttempts, QuotaExceeded, Retry, Success};

fn policy(given: Given) -> RetryPolicy {
    RetryPolicy {
        max_retries: given.max_attempts - 1,
        backoff: Backoff::try_new(Kind::Full, given.base, given.cap).unwrap(),
        spread: Duration::ZERO,
        // In AWS's services 500 says nothing about execution, and a throttle is a 400 with a code.
        matrix: RetryMatrix {
            refused: Vec::new(),
            refused_with_hint: Vec::new(),
            ambiguous: vec![500, 502, 503, 504],
            throttles: vec![400],
        },
        ..RetryPolicy::default()
    }
}

/// Plays one call; waits are as long as the machine says.
fn play(given: Given, responses: &[Response], budget: &mut Budget, seed: u64) -> Vec<Expected> {
    let policy = policy(given);
    let mut rng = Rng::with_seed(seed);
    let mut attempts = Attempts::new(Facts::new(Method::GET), Mono::ZERO);
    let step = |&(status, hint): &Response| {
        let outcome = Outcome::answered(StatusCode::from_u16(status).unwrap(), hint);
        // The budget's clock stands still: the specification's buckets fill by successes alone.
        let next = attempts.next(Mono::ZERO, &outcome, budget, &policy, &mut rng);
        let left = budget.tokens(Mono::ZERO);
        match next {
            Next::Retry { at, .. } => Retry(left, at - Mono::ZERO),
            Next::Deliver { .. } => Success(left),
            Next::GiveUp { why: Stop::Retries, .. } => MaxAttempts(left),
            Next::GiveUp { why: Stop::Budget, .. } => QuotaExceeded(left),
            other => panic!("{other:?}"),
        }
    };
    responses.iter().map(step).collect()
}

fn rules(given: Given, refund: Refund) -> BudgetRules {
    BudgetRules { capacity: given.tokens, light: 5, heavy: 14, per_success: 1, per_second: 0, refund }
}

/// Checks one case of the specification.
fn check(name: &str, given: Given, responses: &[Response], expected: &[Expected]) {
    let mut longest = vec![Duration::ZERO; expected.len()];
    for seed in 0..2_000 {
        let mut budget = Budget::new(rules(given, Refund::LastRetry), Mono::ZERO);
        let played = play(given, responses, &mut budget, seed);
        for (step, (played, expected)) in played.iter().zip(expected).enumerate() {
            match (played, expected) {
                (Retry(left, wait), Retry(tokens, delay)) => {
                    assert_eq!(left, tokens, "{name}: tokens after response {step}");
                    assert!(wait <= delay, "{name}: {wait:?} after response {step}, at most {delay:?}");
                    longest[step] = longest[step].max(*wait);
                }
                (played, expected) => assert_eq!(played, expected, "{name}: response {step}"),
            }
        }
    }
    for (step, (longest, expected)) in longest.iter().zip(expected).enumerate() {
        if let Retry(_, delay) = expected {
            assert!(*longest >= delay.mul_f64(0.99), "{name}: at most {longest:?} after response {step}");
        }
    }
}

const OK: Response = (200, None);
const FAILED: Response = (500, None);
const BAD_GATEWAY: Response = (502, None);

#[test]
fn a_retry_eventually_succeeds() {
    let expected = [Retry(486, ms(50)), Retry(472, ms(100)), Success(486)];
    check("success", GIVEN, &[FAILED, FAILED, OK], &expected);
}

#[test]
fn a_call_fails_when_all_attempts_are_used() {
    let expected = [Retry(486, ms(50)), Retry(472, ms(100)), MaxAttempts(472)];
    check("max attempts", GIVEN, &[BAD_GATEWAY; 3], &expected);
}

#[test]
fn the_quota_is_reached_after_a_single_retry() {
    let given = Given { tokens: 14, ..GIVEN };
    check("14 tokens", given, &[FAILED; 2], &[Retry(0, ms(50)), QuotaExceeded(0)]);
}

#[test]
fn without_quota_nothing_is_retried() {
    check("no tokens", Given { tokens: 0, ..GIVEN }, &[FAILED], &[QuotaExceeded(0)]);
}

#[test]
fn the_wait_doubles() {
    let expected =
        [Retry(486, ms(50)), Retry(472, ms(100)), Retry(458, ms(200)), Retry(444, ms(400)), MaxAttempts(444)];
    check("doubling", Given { max_attempts: 5, ..GIVEN }, &[FAILED; 5], &expected);
}

#[test]
fn the_wait_has_a_cap() {
    let expected =
        [Retry(486, ms(50)), Retry(472, ms(100)), Retry(458, ms(200)), Retry(444, ms(200)), MaxAttempts(444)];
    check("cap", Given { max_attempts: 5, cap: ms(200), ..GIVEN }, &[FAILED; 5], &expected);
}

#[test]
fn retries_stop_when_the_quota_is_exhausted() {
    let given = Given { max_attempts: 5, tokens: 20, ..GIVEN };
    check("20 tokens", given, &[FAILED, BAD_GATEWAY], &[Retry(6, ms(50)), QuotaExceeded(6)]);
}

#[test]
fn a_throttle_costs_less_and_waits_longer() {
    let given = Given { base: ms(1_000), ..GIVEN };
    check("throttle", given, &[(400, None), OK], &[Retry(495, ms(1_000)), Success(500)]);
}

#[test]
fn a_service_may_have_another_base_and_more_attempts() {
    let given = Given { max_attempts: 4, base: ms(25), ..GIVEN };
    let expected = [Retry(486, ms(25)), Retry(472, ms(50)), Retry(458, ms(100)), MaxAttempts(458)];
    check("dynamodb", given, &[FAILED; 4], &expected);
}

#[test]
fn a_hint_is_waited_out() {
    let responses = [(500, Some(ms(1_500))), OK];
    check("hint", GIVEN, &responses, &[Retry(486, ms(1_500)), Success(500)]);
}

#[test]
fn a_hint_of_zero_waits_the_floor_where_aws_waits_the_backoff() {
    assert_eq!(HINT_FLOOR, ms(100), "twice AWS's 50 ms");
    let responses = [(500, Some(Duration::ZERO)), OK];
    check("hint of zero", GIVEN, &responses, &[Retry(486, HINT_FLOOR), Success(500)]);
}

#[test]
fn a_long_hint_is_waited_out_where_aws_comes_back_early() {
    // AWS waits 5.05 s and is refused again.
    let responses = [(500, Some(ms(10_000))), OK];
    check("long hint", GIVEN, &responses, &[Retry(486, ms(10_000)), Success(500)]);
}

#[test]
fn an_invalid_hint_falls_back_to_the_backoff() {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_static("invalid"));
    let rules = Profile::builtin("generic").unwrap().headers;
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    let hint = observe(&rules, status, &headers, Wall::from_unix_millis(0)).retry_after;
    check("invalid hint", GIVEN, &[(500, hint), OK], &[Retry(486, ms(50)), Success(500)]);
}

#[test]
fn calls_share_one_bucket() {
    let calls: [(&[Response], u64); 4] =
        [(&[FAILED, OK], 30), (&[FAILED, FAILED, OK], 16), (&[FAILED], 2), (&[OK], 3)];
    let mut budget = Budget::new(rules(Given { tokens: 30, ..GIVEN }, Refund::LastRetry), Mono::ZERO);
    for (call, (responses, left)) in calls.into_iter().enumerate() {
        play(GIVEN, responses, &mut budget, 1);
        assert_eq!(budget.tokens(Mono::ZERO), left, "after call {call}");
    }
}

#[test]
fn by_default_a_success_gives_back_one_token_where_aws_gives_back_the_last_retry() {
    for (refund, left) in [(Refund::LastRetry, 486), (Refund::default(), 473)] {
        let mut budget = Budget::new(rules(GIVEN, refund), Mono::ZERO);
        play(GIVEN, &[FAILED, FAILED, OK], &mut budget, 1);
        assert_eq!(budget.tokens(Mono::ZERO), left, "{refund:?}");
    }
}
