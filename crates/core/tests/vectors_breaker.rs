//! The tables of two known breakers, as far as they describe ours.
//!
//! Transcribed from resilience4j's `CircuitBreakerStateMachineTest` (Apache-2.0) and Polly's `CircuitStateControllerTests`
//! (BSD-3-Clause), each test naming its sources. Theirs count *rates* over windows of calls or time; ours counts *consecutive*
//! events (`core::breaker`), because a paced upstream that answers every second call is serving. So their tables of rates are
//! played with runs here, and these of theirs do not apply:
//!
//! | theirs | why not |
//! | --- | --- |
//! | failure and slow-call rates, minimum number of calls, sliding windows | a run has no window; slowness is the pacer's matter |
//! | several permitted calls in half-open (4 in resilience4j's table) | exactly one: a probe is a scout, and a scout goes alone |
//! | forced open, isolated, disabled, metrics-only, manual transitions | no operator's switch exists; a profile's limit or a stop does that |
//! | automatic transition by a timer | the state is asked for with the time; no thread changes it |
//! | events, metrics, names, disposal, telemetry, locks | not of the machine: `event`, `telemetry` |
//! | exceptions ignored or recorded by type | `classify` decides before the breaker hears of it |

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use tidegate_core::breaker::{Admission, Breaker, BreakerConfig};
use tidegate_core::event::BreakerState::{Closed, HalfOpen, Open};
use tidegate_core::time::Mono;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn at(seconds: u64) -> Mono {
    Mono::ZERO + secs(seconds)
}

/// resilience4j's table: five calls decide, five seconds of waiting.
const TABLE: BreakerConfig = BreakerConfig { threshold: 5, cool_down: secs(5), longest_cool_down: secs(40) };

/// One attempt that leaves and fails at once.
fn fail(breaker: &mut Breaker, now: Mono) -> bool {
    breaker.failed(now, now, None).is_some()
}

/// A breaker that opened at 5 s.
fn opened() -> Breaker {
    let mut breaker = Breaker::new(TABLE);
    let opened: Vec<bool> = (1..=5).map(|second| fail(&mut breaker, at(second))).collect();
    assert_eq!(opened, [false, false, false, false, true]);
    breaker
}

/// One that let its probe go at 10 s.
fn half_open() -> Breaker {
    let mut breaker = opened();
    assert_eq!(breaker.admitted(at(10)).unwrap().state, HalfOpen);
    breaker
}

/// Polly: `Ctor_EnsureDefaults`.
#[test]
fn a_new_breaker_is_closed() {
    let breaker = Breaker::new(TABLE);
    assert_eq!((breaker.state(at(0)), breaker.admission(at(0))), (Closed, Admission::Serve));
}

/// resilience4j: `shouldOpenAfterFailureRateThresholdExceeded`; the edge is `>=`: the fifth of five opens, not the sixth.
#[test]
fn it_opens_at_the_threshold_and_not_before() {
    for threshold in 1..=7 {
        let mut breaker = Breaker::new(BreakerConfig { threshold, ..TABLE });
        for event in 1..=threshold {
            let before = breaker.state(at(event.into()));
            assert_eq!(before, Closed, "event {event} of {threshold}");
            assert_eq!(
                fail(&mut breaker, at(event.into())),
                event == threshold,
                "event {event} of {threshold}"
            );
        }
        assert_eq!(breaker.state(at(threshold.into())), Open);
    }
}

/// The same table as it stands (three failures of five, then it opens at 60 %): two successes among the calls end the run, so
/// ours serves on. This is the difference between a rate and a run.
#[test]
fn three_failures_of_five_calls_do_not_open_it() {
    let mut breaker = Breaker::new(TABLE);
    for (second, good) in [(1, false), (2, false), (3, false), (4, true), (5, true)] {
        if good {
            assert_eq!(breaker.alive(at(second)), None);
        } else {
            assert!(!fail(&mut breaker, at(second)));
        }
    }
    assert_eq!(breaker.state(at(5)), Closed);
}

/// resilience4j: `shouldThrowCallNotPermittedExceptionWhenStateIsOpen`; Polly: `OnActionPreExecute_CircuitOpenedByValue`
/// (blocked until now + break duration).
#[test]
fn an_open_breaker_refuses_and_says_until_when() {
    let breaker = opened();
    for millis in [0, 1, 4_999] {
        let now = at(5) + Duration::from_millis(millis);
        assert_eq!(breaker.admission(now), Admission::Refuse(at(10)), "{millis} ms later");
        assert_eq!(breaker.state(now), Open);
    }
}

/// resilience4j: `shouldTransitionToHalfOpenAfterWaitDuration` (3 s: open, 6 s: half-open of a wait of 5 s), at its edges: the
/// last nanosecond is open, the instant itself is half-open.
#[test]
fn it_is_half_open_exactly_when_the_wait_is_over() {
    let breaker = opened();
    let cases = [
        (at(8), Open, Admission::Refuse(at(10))),
        (at(5) + Duration::from_nanos(4_999_999_999), Open, Admission::Refuse(at(10))),
        (at(10), HalfOpen, Admission::Probe),
        (at(11), HalfOpen, Admission::Probe),
    ];
    for (now, state, admission) in cases {
        assert_eq!((breaker.state(now), breaker.admission(now)), (state, admission), "{now:?}");
    }
}

/// resilience4j: `shouldOnlyPermitFourCallsInHalfOpenState`; Polly: `OnActionPreExecute_HalfOpen` (the second call is refused).
/// The number here is one.
#[test]
fn one_probe_goes_and_the_others_wait_for_its_answer() {
    let breaker = half_open();
    for _ in 0..3 {
        assert_eq!(breaker.admission(at(11)), Admission::AwaitProbe);
    }
}

/// resilience4j: `shouldIncreaseCounterOnReleasePermission`: a permission that is given back lets another go.
#[test]
fn a_probe_that_ends_without_an_answer_leaves_its_place_to_another() {
    let mut breaker = half_open();
    breaker.lost(at(9));
    assert_eq!(breaker.admission(at(11)), Admission::AwaitProbe, "that was not the probe");
    breaker.lost(at(10));
    assert_eq!((breaker.state(at(11)), breaker.admission(at(11))), (HalfOpen, Admission::Probe));
    assert_eq!(breaker.admitted(at(11)), None, "it is half-open already");
    assert_eq!(breaker.admission(at(12)), Admission::AwaitProbe);
}

/// Polly: `HalfOpen_EnsureCorrectStateTransitionAfterExecution(true)`, `Flow_Closed_HalfOpen_Closed`; resilience4j:
/// `shouldTransitionBackToClosedStateWhenFailureIsBelowThreshold`.
#[test]
fn a_good_probe_closes_it_and_counts_begin_anew() {
    let mut breaker = half_open();
    assert_eq!(breaker.alive(at(10)).unwrap().state, Closed);
    assert_eq!((breaker.state(at(11)), breaker.admission(at(11))), (Closed, Admission::Serve));
    let opened: Vec<bool> = (11..=15).map(|second| fail(&mut breaker, at(second))).collect();
    assert_eq!(opened, [false, false, false, false, true], "what was counted before is forgotten");
    assert_eq!(breaker.admission(at(15)), Admission::Refuse(at(20)), "and so is the doubling");
}

/// Polly: `HalfOpen_EnsureCorrectStateTransitionAfterExecution(false)`, `OnActionFailureAsync_EnsureCorrectBehavior(HalfOpen)`;
/// resilience4j: `shouldTransitionBackToOpenStateWhenFailureIsAboveThreshold`.
#[test]
fn a_bad_probe_opens_it_again_at_once() {
    let mut breaker = half_open();
    assert_eq!(breaker.failed(at(11), at(10), None).unwrap().state, Open);
    assert_eq!(breaker.state(at(11)), Open);
}

/// resilience4j: `shouldTransitionToHalfOpenAfterWaitInterval` (exponential from 5 s); Polly: the attempts of
/// `BreakDurationGenerator`.
#[test]
fn the_wait_doubles_with_each_opening_in_a_row_up_to_its_cap() {
    let mut breaker = opened();
    let mut now = at(10);
    let mut waits = Vec::new();
    for _ in 0..5 {
        breaker.admitted(now);
        breaker.failed(now, now, None).unwrap();
        let Admission::Refuse(until) = breaker.admission(now) else { panic!("it is open") };
        waits.push((until - now).as_secs());
        now = until;
    }
    assert_eq!(waits, [10, 20, 40, 40, 40]);
}

/// Polly: `OnActionFailureAsync_EnsureBreakDurationGeneration` (42 minutes from the failure's own words): the server's hint.
#[test]
fn a_hint_goes_before_the_computed_wait() {
    let mut breaker = Breaker::new(BreakerConfig { threshold: 1, ..TABLE });
    breaker.failed(at(1), at(0), Some(secs(42 * 60))).unwrap();
    assert_eq!(breaker.admission(at(2)), Admission::Refuse(at(1 + 42 * 60)));
}

/// Polly: `OnActionFailureAsync_EnsureBreakDurationNotOverflow`.
#[test]
fn a_wait_beyond_the_end_of_time_ends_there() {
    let mut breaker = Breaker::new(BreakerConfig { threshold: 1, ..TABLE });
    let late = Mono::from_nanos(u64::MAX - 1);
    breaker.failed(late, late, None).unwrap();
    assert_eq!(breaker.admission(late), Admission::Refuse(Mono::MAX));
}

/// Polly: `OnActionFailureAsync_EnsureCorrectBehavior(Open)`, `OnActionSuccess_EnsureCorrectBehavior(Closed)`; resilience4j:
/// `shouldIgnoreErrorsInOpenState` by its sense: results of calls from before the opening change nothing.
#[test]
fn late_results_of_the_time_before_change_nothing() {
    let mut breaker = opened();
    assert_eq!(breaker.alive(at(4)), None, "a success that left before");
    assert_eq!(breaker.failed(at(6), at(4), None), None, "a failure that left before");
    assert_eq!(
        breaker.admission(at(6)),
        Admission::Refuse(at(10)),
        "it neither closes nor stays open for longer"
    );
    breaker.admitted(at(10));
    assert_eq!(breaker.alive(at(4)), None);
    assert_eq!(breaker.failed(at(11), at(4), None), None);
    assert_eq!(breaker.state(at(11)), HalfOpen, "the probe decides");
}
