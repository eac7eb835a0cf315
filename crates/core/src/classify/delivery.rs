//! How far an attempt got, and what that says about its execution.
//!
//! Where the wire tells (a [`Failure`]) the rules are fixed; where a status tells they are the vendor's
//! ([`RetryMatrix`]).

use std::time::Duration;

use http::{Method, StatusCode};

/// What is known about whether the upstream executed an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Proven: no byte of the request was processed.
    NotSent,
    /// The upstream said that it did not execute the request: a throttle, or unavailable with a time to return.
    Refused,
    /// Nobody knows.
    MaybeExecuted,
    /// The upstream's final word on the request, good or bad.
    Answered,
}

impl Delivery {
    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotSent => "not sent",
            Self::Refused => "refused",
            Self::MaybeExecuted => "maybe executed",
            Self::Answered => "answered",
        }
    }
}

/// How much of a request was written to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// No byte.
    Nothing,
    /// Some, but not its last byte.
    Part,
    /// All of it.
    Whole,
}

/// How an attempt ended without a complete answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: name not resolved, refused, unreachable.
    ConnectFailed,
    /// The TLS handshake failed; requests only follow it.
    TlsFailed,
    /// The connection broke, and the socket counted no byte of this request.
    ZeroBytesWritten,
    /// h2 `REFUSED_STREAM`, or a GOAWAY whose last stream lies below ours.
    StreamRefused,
    /// The connection broke after bytes of the request were written and before an answer. Servers act on requests
    /// whose end they have not seen, so a part says no more about execution than the whole.
    Interrupted {
        /// Whether the request was written to its last byte.
        whole: bool,
    },
    /// The attempt's time-out ended.
    TimedOut {
        /// How much of the request had been written.
        wrote: Wrote,
    },
    /// The answer began and was cut: the request was executed, its answer is lost.
    AnswerTruncated,
    /// What came back is no answer within our bounds (not HTTP, thousands of header fields): asking again would
    /// bring the same.
    AnswerUnreadable,
}

impl Failure {
    /// What the failure says about delivery.
    pub const fn delivery(self) -> Delivery {
        match self {
            Self::ConnectFailed
            | Self::TlsFailed
            | Self::ZeroBytesWritten
            | Self::StreamRefused
            | Self::TimedOut { wrote: Wrote::Nothing } => Delivery::NotSent,
            Self::Interrupted { .. }
            | Self::TimedOut { wrote: Wrote::Part | Wrote::Whole }
            | Self::AnswerTruncated
            | Self::AnswerUnreadable => Delivery::MaybeExecuted,
        }
    }

    /// Whether bytes of the body may have been read from its source. A refused stream may have taken some with it
    /// although the peer processed none.
    pub const fn may_have_read_body(self) -> bool {
        !matches!(
            self,
            Self::ConnectFailed
                | Self::TlsFailed
                | Self::ZeroBytesWritten
                | Self::TimedOut { wrote: Wrote::Nothing }
        )
    }

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectFailed => "connect failed",
            Self::TlsFailed => "tls failed",
            Self::ZeroBytesWritten => "closed before sending",
            Self::StreamRefused => "stream refused",
            Self::Interrupted { whole: false } => "connection lost while sending",
            Self::Interrupted { whole: true } => "connection lost",
            Self::TimedOut { wrote: Wrote::Part } => "timed out while sending",
            Self::TimedOut { .. } => "timed out",
            Self::AnswerTruncated => "answer cut",
            Self::AnswerUnreadable => "answer unreadable",
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A complete answer.
    Answered {
        /// Its status.
        status: StatusCode,
        /// How long the upstream asked to wait, whatever field said so; `None` if it did not or nonsensically.
        hint: Option<Duration>,
        /// The answer is a throttle for a reason other than its status (by the profile's throttle text).
        throttled: bool,
    },
    /// No complete answer.
    Failed(Failure),
}

impl Outcome {
    /// An answer with this status and hint.
    pub const fn answered(status: StatusCode, hint: Option<Duration>) -> Self {
        Self::Answered { status, hint, throttled: false }
    }

    /// The status, if there was an answer.
    pub const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Answered { status, .. } => Some(*status),
            Self::Failed(_) => None,
        }
    }

    /// The server's hint, if it gave one.
    pub const fn hint(&self) -> Option<Duration> {
        match self {
            Self::Answered { hint, .. } => *hint,
            Self::Failed(_) => None,
        }
    }

    /// Whether bytes of the body may have been read from its source.
    pub const fn may_have_read_body(&self) -> bool {
        match self {
            Self::Answered { .. } => true,
            Self::Failed(failure) => failure.may_have_read_body(),
        }
    }
}

/// What a vendor's statuses say about execution. A profile produces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryMatrix {
    /// Never executed.
    pub refused: Vec<u16>,
    /// Never executed if the answer carries a hint.
    pub refused_with_hint: Vec<u16>,
    /// Perhaps executed.
    pub ambiguous: Vec<u16>,
    /// "Too fast": never executed, and every gate is told.
    pub throttles: Vec<u16>,
}

impl Default for RetryMatrix {
    /// Genesys: 429 is rejected before execution; 503 with `Retry-After` too; 408, 502, 503 and 504 say nothing.
    /// 500 is final, as in Genesys' own resilience sample.
    fn default() -> Self {
        Self {
            refused: vec![429],
            refused_with_hint: vec![503],
            ambiguous: vec![408, 502, 503, 504],
            throttles: vec![429],
        }
    }
}

impl RetryMatrix {
    /// Whether `outcome` says "too fast".
    pub fn is_throttle(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Answered { status, throttled, .. } => {
                *throttled || self.throttles.contains(&status.as_u16())
            }
            Outcome::Failed(_) => false,
        }
    }

    /// What `outcome` says about delivery.
    pub fn delivery(&self, outcome: &Outcome) -> Delivery {
        let (status, hint) = match outcome {
            Outcome::Failed(failure) => return failure.delivery(),
            Outcome::Answered { status, hint, .. } => (status.as_u16(), hint.is_some()),
        };
        let refused = self.is_throttle(outcome)
            || self.refused.contains(&status)
            || hint && self.refused_with_hint.contains(&status);
        if refused {
            Delivery::Refused
        } else if self.ambiguous.contains(&status) {
            Delivery::MaybeExecuted
        } else {
            Delivery::Answered
        }
    }
}

/// Whether an answer tells that a DELETE is done: nothing is there (404, 410), and an earlier attempt of it may have seen to
/// that (`doubted`). Without doubt the same answer says that there never was anything to delete.
///
/// ```
/// use http::{Method, StatusCode};
/// use tidegate_core::classify::is_already_deleted;
///
/// assert!(is_already_deleted(&Method::DELETE, StatusCode::NOT_FOUND, true));
/// assert!(!is_already_deleted(&Method::DELETE, StatusCode::NOT_FOUND, false));
/// ```
pub fn is_already_deleted(method: &Method, status: StatusCode, doubted: bool) -> bool {
    doubted && *method == Method::DELETE && matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// Whether an answer refuses a write for what its target is by now: a conflict (409), or a precondition that does not hold
/// (412). Where an earlier attempt of the same write may have been executed, the refusal may be of its own doing and says
/// nothing (RFC 9110 §9.2.2: a client should not retry automatically unless it can tell that the first one was not applied).
///
/// ```
/// use http::StatusCode;
/// use tidegate_core::classify::is_conflict;
///
/// assert!(is_conflict(StatusCode::CONFLICT) && is_conflict(StatusCode::PRECONDITION_FAILED));
/// assert!(!is_conflict(StatusCode::NOT_FOUND));
/// ```
pub fn is_conflict(status: StatusCode) -> bool {
    matches!(status, StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED)
}
