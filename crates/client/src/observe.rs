//! Who is told what happened.
//!
//! The core returns events and the layers report attempts and calls; an [`Observer`] turns them into whatever it
//! likes. [`Traced`] writes them to `tracing`, telemetry counts them.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tidegate_core::event::{Event, Level};
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::pace::{Class, RefusalReason};

/// One attempt that has ended.
#[derive(Clone, Debug)]
pub struct AttemptDone<'a> {
    /// The family it belonged to.
    pub family: &'a Family,
    /// The answer's status, or `None` if there was no answer.
    pub status: Option<u16>,
    /// From the first byte sent to the answer's headers, or to the failure.
    pub took: Duration,
    /// What kept it from being answered.
    pub failure: Option<&'a str>,
}

/// One call that has ended.
#[derive(Clone, Debug)]
pub struct CallDone<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its family.
    pub family: &'a Family,
    /// Its class.
    pub class: Class,
    /// How it ended: the answer's status, or the name of the error.
    pub outcome: Outcome,
    /// Why an attempt was refused, if that ended it.
    pub refused: Option<Refused<'a>>,
    /// Attempts sent.
    pub attempts: u32,
    /// Time spent waiting for tickets.
    pub waited: Duration,
    /// From the caller's request to the answer's headers.
    pub took: Duration,
}

/// An attempt that could not leave in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// Why.
    pub reason: RefusalReason,
    /// The limit that explains it; the family, where its breaker does.
    pub limit: &'a str,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With the upstream's answer.
    Status(u16),
    /// Without one; the name of the error's kind.
    Failed(&'static str),
}

/// One call of a token endpoint that has ended.
#[derive(Clone, Debug)]
pub struct TokenDone<'a> {
    /// Whose token.
    pub credential: &'a CredentialId,
    /// `granted`, `refused`, `throttled`, `unexpected` or `unreachable`.
    pub outcome: &'static str,
    /// Why there is no token, in the token endpoint's words where it said any.
    pub why: Option<&'a str>,
    /// How long it took.
    pub took: Duration,
}

/// Somebody who is told. All methods are called from the request path and must return at once.
pub trait Observer: Send + Sync {
    /// The core decided or noticed something.
    fn event(&self, _event: &Event) {}
    /// An attempt ended.
    fn attempt(&self, _attempt: &AttemptDone<'_>) {}
    /// A call ended.
    fn call(&self, _call: &CallDone<'_>) {}
    /// A call of the token endpoint ended.
    fn token(&self, _token: &TokenDone<'_>) {}
}

/// Everybody who is told.
#[derive(Clone, Default)]
pub struct Observers(Arc<[Arc<dyn Observer>]>);

impl std::fmt::Debug for Observers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Observers({})", self.0.len())
    }
}

impl Observers {
    /// Tells all of `observers`.
    pub fn new(observers: impl IntoIterator<Item = Arc<dyn Observer>>) -> Self {
        Self(observers.into_iter().collect())
    }

    pub(crate) fn events(&self, events: &[Event]) {
        for event in events {
            self.each(|observer| observer.event(event));
        }
    }

    pub(crate) fn attempt(&self, attempt: &AttemptDone<'_>) {
        self.each(|observer| observer.attempt(attempt));
    }

    pub(crate) fn call(&self, call: &CallDone<'_>) {
        self.each(|observer| observer.call(call));
    }

    pub(crate) fn token(&self, token: &TokenDone<'_>) {
        self.each(|observer| observer.token(token));
    }

    fn each(&self, tell: impl Fn(&dyn Observer)) {
        for observer in self.0.iter() {
            tell(&**observer);
        }
    }
}

/// Writes events to `tracing`: state changes only, so that the volume of logs does not grow with the load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traced;

impl Observer for Traced {
    fn event(&self, event: &Event) {
        match event.level() {
            Level::Warn => tracing::warn!(target: "tidegate", "{event}"),
            Level::Notice => tracing::info!(target: "tidegate", "{event}"),
            Level::Info => tracing::debug!(target: "tidegate", "{event}"),
        }
    }

    fn token(&self, token: &TokenDone<'_>) {
        let TokenDone { credential, outcome, why, took } = token;
        match why {
            None => tracing::debug!(target: "tidegate", %credential, ?took, "token {outcome}"),
            Some(why) => tracing::warn!(target: "tidegate", %credential, ?took, "no token: {why}"),
        }
    }
}
