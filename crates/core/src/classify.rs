//! What is known about an attempt's delivery, and whether it may be sent again.
//!
//! The dangerous question after a failure is not "is it worth another try" but "may the server have done it
//! already". So what is known is an enum, [`Delivery`], derived from where on the wire the attempt ended or from
//! the status, and the decision is composed of small classifiers of which each answers *no opinion*, *retry* or
//! *forbidden*. A single *forbidden* outweighs every *retry*.
//!
//! Rules:
//!
//! * *not sent* is proven only by a failed connect or TLS handshake, zero request bytes at the socket, or an h2
//!   stream that the peer declares unprocessed (RFC 9113 §8.7). Everything else on a connection that breaks is
//!   *maybe executed*;
//! * not sent and refused attempts may be repeated with any method;
//! * maybe-executed ones only if repeating is harmless (safe and idempotent methods, RFC 9110 §9.2) or the
//!   upstream is trusted to recognise the key;
//! * a body that cannot be read twice allows a repeat only if nothing of it was consumed.

mod delivery;
mod stream;

use std::time::Duration;

use http::{Method, StatusCode};

pub use self::delivery::{Delivery, Failure, Outcome, RetryMatrix, Wrote, is_already_deleted, is_conflict};
pub use self::stream::StreamEnd;
use crate::time::Mono;

/// What is known about a call before its first attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The method.
    pub method: Method,
    /// The route's own word on whether a repeat is harmless; `None` leaves it to the method.
    pub idempotent: Option<bool>,
    /// It is known to change nothing although its method could: a search by POST.
    pub safe: bool,
    /// For how long after the first send the upstream recognises the key of a repeat; `None` where it is not
    /// trusted to, or where the request carries no key.
    pub dedup: Option<Duration>,
    /// How long before this call began the same write was already sent with an outcome nobody knows (from a
    /// journal); `None` if it never was.
    pub sent_before: Option<Duration>,
    /// Whether the body can be sent again (buffered, or there is none).
    pub replayable: bool,
    /// Whether the token is ours to refresh; `false` for a bearer that the caller brought.
    pub refreshable: bool,
    /// The instant after which an answer is worthless.
    pub give_up_at: Option<Mono>,
    /// For how long from the start of the call a 404 may say that what is asked for, which was created a moment ago, is
    /// not there yet; `None` if it was not.
    pub fresh_for: Option<Duration>,
}

impl Facts {
    /// A call with a buffered body and a token of ours, without a trusted key, a history or a deadline.
    pub fn new(method: Method) -> Self {
        Self {
            method,
            idempotent: None,
            safe: false,
            dedup: None,
            sent_before: None,
            replayable: true,
            refreshable: true,
            give_up_at: None,
            fresh_for: None,
        }
    }

    /// Whether sending the request twice does no more than sending it once.
    pub fn is_repeatable(&self) -> bool {
        self.idempotent.unwrap_or_else(|| self.safe || self.method.is_idempotent())
    }

    /// Whether the request changes nothing: a safe method, or what is known to be a read, unless it is called harmful.
    pub fn is_read(&self) -> bool {
        (self.safe || self.method.is_safe()) && self.idempotent != Some(false)
    }

    /// How long after the first send a repeat is still recognised, with a margin for the time the repeat itself
    /// travels and for clocks of different speed: an hour (so 23 h of 24 h), but at most a tenth.
    pub fn dedup_trust(&self) -> Option<Duration> {
        self.dedup.map(|window| window.saturating_sub(Duration::from_hours(1).min(window / 10)))
    }
}

/// Why an attempt may, or may not, be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was never sent.
    NotSent,
    /// The upstream said "too fast".
    Throttled,
    /// The upstream refused it for now.
    Refused,
    /// It may have been executed, and executing it twice does no harm.
    Repeatable,
    /// It may have been executed, and the upstream recognises the key of a repeat.
    Deduplicated,
    /// The body is consumed.
    BodyGone,
    /// It may have been executed, and a repeat could execute it twice.
    NotRepeatable,
    /// It may have been executed, and the upstream may have forgotten its key by now.
    DedupExpired,
    /// What came back is no answer, and the next attempt would bring the same.
    Unreadable,
    /// It is about something that was created a moment ago and cannot be found yet.
    NotYetThere,
    /// A classifier of the caller's own says so.
    Custom(&'static str),
}

impl Why {
    /// The reason in a few words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotSent => "not sent",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Repeatable => "repeatable",
            Self::Deduplicated => "deduplicated",
            Self::BodyGone => "body gone",
            Self::NotRepeatable => "not repeatable",
            Self::DedupExpired => "key too old",
            Self::Unreadable => "answer unreadable",
            Self::NotYetThere => "not yet there",
            Self::Custom(reason) => reason,
        }
    }
}

/// One classifier's judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This classifier does not know.
    NoOpinion,
    /// It may be sent again.
    Retry(Why),
    /// It must not be sent again, whatever the others say.
    Forbidden(Why),
}

/// What classifiers judge.
#[derive(Clone, Copy, Debug)]
pub struct Attempted<'a> {
    /// The call.
    pub facts: &'a Facts,
    /// How the attempt ended.
    pub outcome: &'a Outcome,
    /// What that says about delivery.
    pub delivery: Delivery,
    /// Whether it is a throttle.
    pub throttled: bool,
    /// The time since the first send of this write, at most.
    pub age: Duration,
}

/// A judgement on an attempt. A plain function: classifiers know nothing but what they are shown.
pub type Classifier = fn(&Attempted<'_>) -> Verdict;

/// The classifiers that are always right to have, in the order in which the reason of a retry is looked for.
pub const STANDARD: [Classifier; 6] =
    [not_sent, refused, maybe_executed, unreadable, body_gone, not_yet_there];

/// The joint verdict: the first *forbidden* of any classifier, else the first *retry*, else no opinion.
pub fn judge<'c>(
    classifiers: impl IntoIterator<Item = &'c Classifier>,
    attempted: &Attempted<'_>,
) -> Verdict {
    let mut joint = Verdict::NoOpinion;
    for classifier in classifiers {
        match (classifier(attempted), joint) {
            (forbidden @ Verdict::Forbidden(_), _) => return forbidden,
            (retry @ Verdict::Retry(_), Verdict::NoOpinion) => joint = retry,
            _ => {}
        }
    }
    joint
}

/// What was not sent may be sent.
pub fn not_sent(attempted: &Attempted<'_>) -> Verdict {
    if attempted.delivery == Delivery::NotSent { Verdict::Retry(Why::NotSent) } else { Verdict::NoOpinion }
}

/// What was refused before execution may be sent later.
pub fn refused(attempted: &Attempted<'_>) -> Verdict {
    if attempted.delivery != Delivery::Refused {
        return Verdict::NoOpinion;
    }
    Verdict::Retry(if attempted.throttled { Why::Throttled } else { Why::Refused })
}

/// What may have been executed may be repeated only without harm.
pub fn maybe_executed(attempted: &Attempted<'_>) -> Verdict {
    if attempted.delivery != Delivery::MaybeExecuted {
        return Verdict::NoOpinion;
    }
    if attempted.facts.is_repeatable() {
        return Verdict::Retry(Why::Repeatable);
    }
    match attempted.facts.dedup_trust() {
        None => Verdict::Forbidden(Why::NotRepeatable),
        Some(trust) if attempted.age < trust => Verdict::Retry(Why::Deduplicated),
        Some(_) => Verdict::Forbidden(Why::DedupExpired),
    }
}

/// An upstream that does not speak our language will not have learnt it by the next attempt.
pub fn unreadable(attempted: &Attempted<'_>) -> Verdict {
    match attempted.outcome {
        Outcome::Failed(Failure::AnswerUnreadable) => Verdict::Forbidden(Why::Unreadable),
        _ => Verdict::NoOpinion,
    }
}

/// A body that is read once is sent once.
pub fn body_gone(attempted: &Attempted<'_>) -> Verdict {
    let gone = !attempted.facts.replayable && attempted.outcome.may_have_read_body();
    // An answer that is final needs no verdict.
    if gone && attempted.delivery != Delivery::Answered {
        Verdict::Forbidden(Why::BodyGone)
    } else {
        Verdict::NoOpinion
    }
}

/// What was created a moment ago may not be found yet: upstreams answer reads from replicas that learn of it later. A 403
/// or 410 never means that, and a DELETE that finds nothing has what it wants.
pub fn not_yet_there(attempted: &Attempted<'_>) -> Verdict {
    let fresh = attempted.facts.fresh_for.is_some_and(|window| attempted.age < window);
    let missing = attempted.outcome.status() == Some(StatusCode::NOT_FOUND);
    if fresh && missing && attempted.facts.replayable && attempted.facts.method != Method::DELETE {
        Verdict::Retry(Why::NotYetThere)
    } else {
        Verdict::NoOpinion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, hint: Option<u64>) -> Outcome {
        Outcome::answered(StatusCode::from_u16(code).unwrap(), hint.map(Duration::from_secs))
    }

    fn verdict(facts: &Facts, outcome: Outcome, age: Duration) -> Verdict {
        let matrix = RetryMatrix::default();
        let delivery = matrix.delivery(&outcome);
        let throttled = matrix.is_throttle(&outcome);
        judge(&STANDARD, &Attempted { facts, outcome: &outcome, delivery, throttled, age })
    }

    #[test]
    fn the_default_matrix_reads_statuses_as_genesys_means_them() {
        let matrix = RetryMatrix::default();
        let cases = [
            (status(429, None), Delivery::Refused),
            (status(429, Some(3)), Delivery::Refused),
            (status(503, Some(3)), Delivery::Refused),
            (status(503, None), Delivery::MaybeExecuted),
            (status(502, Some(3)), Delivery::MaybeExecuted),
            (status(504, None), Delivery::MaybeExecuted),
            (status(408, None), Delivery::MaybeExecuted),
            (status(500, Some(3)), Delivery::Answered),
            (status(413, Some(3)), Delivery::Answered),
            (status(409, None), Delivery::Answered),
            (status(200, None), Delivery::Answered),
        ];
        for (outcome, delivery) in cases {
            assert_eq!(matrix.delivery(&outcome), delivery, "{outcome:?}");
        }
    }

    #[test]
    fn a_throttle_told_by_text_is_refused_whatever_its_status() {
        let outcome = Outcome::Answered { status: StatusCode::BAD_REQUEST, hint: None, throttled: true };
        assert_eq!(RetryMatrix::default().delivery(&outcome), Delivery::Refused);
        let verdict = verdict(&Facts::new(Method::POST), outcome, Duration::ZERO);
        assert_eq!(verdict, Verdict::Retry(Why::Throttled));
    }

    #[test]
    fn every_method_meets_every_failure() {
        let failures = [
            (Failure::ConnectFailed, true),
            (Failure::TlsFailed, true),
            (Failure::ZeroBytesWritten, true),
            (Failure::StreamRefused, true),
            (Failure::TimedOut { wrote: Wrote::Nothing }, true),
            (Failure::TimedOut { wrote: Wrote::Part }, false),
            (Failure::TimedOut { wrote: Wrote::Whole }, false),
            (Failure::Interrupted { whole: false }, false),
            (Failure::Interrupted { whole: true }, false),
            (Failure::AnswerTruncated, false),
        ];
        let methods = [
            (Method::GET, true),
            (Method::HEAD, true),
            (Method::OPTIONS, true),
            (Method::PUT, true),
            (Method::DELETE, true),
            (Method::POST, false),
            (Method::PATCH, false),
        ];
        for (failure, unsent) in failures {
            for (method, harmless) in &methods {
                let verdict = verdict(&Facts::new(method.clone()), Outcome::Failed(failure), Duration::ZERO);
                let expected = match (unsent, harmless) {
                    (true, _) => Verdict::Retry(Why::NotSent),
                    (false, true) => Verdict::Retry(Why::Repeatable),
                    (false, false) => Verdict::Forbidden(Why::NotRepeatable),
                };
                assert_eq!(verdict, expected, "{method} {failure:?}");
            }
        }
    }

    #[test]
    fn an_unreadable_answer_is_not_asked_for_again() {
        for method in [Method::GET, Method::PUT] {
            let facts = Facts::new(method);
            let verdict = verdict(&facts, Outcome::Failed(Failure::AnswerUnreadable), Duration::ZERO);
            assert_eq!(verdict, Verdict::Forbidden(Why::Unreadable));
        }
    }

    #[test]
    fn the_route_overrules_the_method() {
        let lost = Outcome::Failed(Failure::Interrupted { whole: true });
        let mut facts = Facts::new(Method::PUT);
        facts.idempotent = Some(false);
        assert_eq!(verdict(&facts, lost, Duration::ZERO), Verdict::Forbidden(Why::NotRepeatable));
        let mut facts = Facts::new(Method::POST);
        facts.idempotent = Some(true);
        assert_eq!(verdict(&facts, lost, Duration::ZERO), Verdict::Retry(Why::Repeatable));
    }

    #[test]
    fn a_key_is_trusted_for_23_of_its_24_hours() {
        let mut facts = Facts::new(Method::POST);
        facts.dedup = Some(Duration::from_hours(24));
        let lost = Outcome::Failed(Failure::Interrupted { whole: true });
        let just_under = Duration::from_hours(23) - Duration::from_nanos(1);
        assert_eq!(verdict(&facts, lost, just_under), Verdict::Retry(Why::Deduplicated));
        assert_eq!(verdict(&facts, lost, Duration::from_hours(23)), Verdict::Forbidden(Why::DedupExpired));
        facts.dedup = Some(Duration::from_mins(10));
        assert_eq!(facts.dedup_trust(), Some(Duration::from_mins(9)), "short windows keep a tenth as margin");
    }

    #[test]
    fn a_streamed_body_is_repeated_only_if_none_of_it_was_read() {
        let mut facts = Facts::new(Method::PUT);
        facts.replayable = false;
        let unread = Outcome::Failed(Failure::ZeroBytesWritten);
        assert_eq!(verdict(&facts, unread, Duration::ZERO), Verdict::Retry(Why::NotSent));
        for outcome in [
            Outcome::Failed(Failure::StreamRefused),
            Outcome::Failed(Failure::Interrupted { whole: true }),
            status(429, Some(1)),
            status(502, None),
        ] {
            assert_eq!(verdict(&facts, outcome, Duration::ZERO), Verdict::Forbidden(Why::BodyGone));
        }
        assert_eq!(verdict(&facts, status(200, None), Duration::ZERO), Verdict::NoOpinion);
    }

    #[test]
    fn forbidden_wins_from_any_place_in_the_list() {
        fn always(_: &Attempted<'_>) -> Verdict {
            Verdict::Retry(Why::Custom("always"))
        }
        fn never(_: &Attempted<'_>) -> Verdict {
            Verdict::Forbidden(Why::Custom("never"))
        }
        fn shrug(_: &Attempted<'_>) -> Verdict {
            Verdict::NoOpinion
        }
        let facts = Facts::new(Method::GET);
        let outcome = status(200, None);
        let attempted = Attempted {
            facts: &facts,
            outcome: &outcome,
            delivery: Delivery::Answered,
            throttled: false,
            age: Duration::ZERO,
        };
        let lists: [(&[Classifier], Verdict); 5] = [
            (&[], Verdict::NoOpinion),
            (&[shrug], Verdict::NoOpinion),
            (&[shrug, always, not_sent], Verdict::Retry(Why::Custom("always"))),
            (&[always, never], Verdict::Forbidden(Why::Custom("never"))),
            (&[never, always, shrug], Verdict::Forbidden(Why::Custom("never"))),
        ];
        for (list, expected) in lists {
            assert_eq!(judge(list, &attempted), expected);
        }
    }

    #[test]
    fn what_was_created_a_moment_ago_is_not_yet_there_and_what_is_old_is_gone() {
        let window = Duration::from_mins(1);
        let facts = |method| Facts { fresh_for: Some(window), ..Facts::new(method) };
        let ago = |seconds| Duration::from_secs(seconds);
        let not_yet = Verdict::Retry(Why::NotYetThere);
        assert_eq!(verdict(&facts(Method::GET), status(404, None), ago(59)), not_yet);
        assert_eq!(verdict(&facts(Method::PATCH), status(404, None), ago(0)), not_yet);
        for (facts, code, age) in [
            (facts(Method::GET), 404, ago(60)),
            (facts(Method::DELETE), 404, ago(0)),
            (facts(Method::GET), 403, ago(0)),
            (facts(Method::GET), 410, ago(0)),
            (Facts::new(Method::GET), 404, ago(0)),
            (Facts { replayable: false, ..facts(Method::PATCH) }, 404, ago(0)),
        ] {
            assert_eq!(verdict(&facts, status(code, None), age), Verdict::NoOpinion, "{code} {facts:?}");
        }
    }
}
