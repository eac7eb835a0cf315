//! What callers ask of the bank, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::key::{CredentialId, Family};
use crate::observe::Observation;
use crate::pace::ticket::TicketId;
use crate::schedule::{CallerId, Class};
use crate::time::Mono;

/// A token's lineage: a refreshed token keeps its predecessor's slot, and with it the gates of limits per token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenSlot(pub u64);

impl TokenSlot {
    /// The one line of tokens that a client has in all processes, where they have one. Any other is this process's own, and counts
    /// by itself though it is of the same client.
    pub const FLEET: Self = Self(u64::MAX - 1);
}

/// One attempt asks to leave.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path: normalised, without a query.
    pub path: &'a str,
    /// Its resource family.
    pub family: &'a Family,
    /// The credential it will use.
    pub credential: &'a CredentialId,
    /// The token lineage it will use.
    pub token: TokenSlot,
    /// Its class.
    pub class: Class,
    /// Whose it is: callers of one class get shares by their weights of what they compete for.
    pub caller: CallerId,
    /// After this instant the answer is worthless.
    pub deadline: Option<Mono>,
    /// It must have left before this instant.
    pub give_up_at: Option<Mono>,
}

/// Names a waiter. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub(super) u64);

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a granted ticket that is forgotten holds its place in flight for ever"]
pub enum Asked {
    /// Go now.
    Granted(TicketId),
    /// Wait until the bank's `advance` names this waiter.
    Queued(WaiterId),
    /// Not before `retry_after`.
    Refused(Refusal),
}

/// What became of a waiter.
#[derive(Clone, Debug, PartialEq)]
pub enum Woken {
    /// Go now.
    Granted(TicketId),
    /// Not before `retry_after`.
    Refused(Refusal),
}

/// Why, and until when, a call is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// The caller's own forecast place in the queue: the refused come back spread, not together.
    pub retry_after: Duration,
    /// The limit that explains it; the family, where its breaker does; `window "NAME"`, where one of the calendar does.
    pub limit: Arc<str>,
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The queue has its bound.
    QueueFull,
    /// The family's breaker is open.
    Breaker,
    /// The store of the shared quota is away, and nothing is to leave without it.
    QuotaStore,
    /// It could not leave, or not be answered, in time.
    CannotMeet {
        /// When it could leave at the earliest, from now.
        forecast: Duration,
    },
    /// A window of the calendar holds its class for longer than it can wait.
    Window {
        /// When it could leave at the earliest, from now.
        forecast: Duration,
    },
}

impl RefusalReason {
    /// The reason's name in logs, metrics and response headers.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::Breaker => "breaker-open",
            Self::QuotaStore => "quota-store",
            Self::CannotMeet { .. } => "cannot-meet",
            Self::Window { .. } => "window",
        }
    }
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// Handled: 2xx, 3xx, and other 4xx.
    Accepted,
    /// "Too fast": a 429, or what the profile says is one.
    Throttled,
    /// 5xx, a connection lost on the way, time-out.
    HardFailure,
    /// No connection, or a failure before anything left: the upstream cannot have counted it.
    NotSent,
    /// 404: proves nothing about the family.
    NotFound,
    /// 401.
    Unauthorized,
}

/// The answer to a sent attempt.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// What it came to.
    pub kind: AnswerKind,
    /// What it said about limits; empty if there was no response.
    pub observation: &'a Observation,
}
