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

/// A doubt that has ended: for a while nobody could tell whether a write was executed.
#[derive(Clone, Debug)]
pub struct DoubtDone<'a> {
    /// The write's method.
    pub method: &'a Method,
    /// Its path.
    pub path: &'a str,
    /// What came of it.
    pub ending: DoubtEnd,
    /// Reads it took to find out, or that did not tell.
    pub reads: u32,
    /// What was lost, and why it could not be found out, where it could not.
    pub why: Option<&'a str>,
}

/// How a doubt about a write ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoubtEnd {
    /// Nobody knows.
    Unknown,
    /// It was executed.
    Confirmed,
    /// It was not, and is sent again.
    Resent,
}

impl DoubtEnd {
    /// The ending's name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Confirmed => "confirmed",
            Self::Resent => "not-applied-and-resent",
        }
    }
}

/// A call was answered 403 because its credential lacks a permission.
#[derive(Clone, Debug)]
pub struct Denied<'a> {
    /// Who lacks it.
    pub credential: &'a CredentialId,
    /// What was called.
    pub family: &'a Family,
    /// The permissions, as the upstream names them.
    pub missing: &'a str,
}

/// One exchange with the store of a shared quota that has ended.
#[derive(Clone, Debug)]
pub struct StoreDone<'a> {
    /// `answered`, `away`, `unusable` or `refused`.
    pub outcome: &'static str,
    /// Why there is no answer.
    pub why: Option<&'a str>,
    /// How long it took.
    pub took: Duration,
    /// Processes that share the quota, this one included; `None` without an answer.
    pub holders: Option<u32>,
    /// Permits that it brought, by the name of their limit.
    pub granted: Vec<(&'a str, u32)>,
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
    /// A doubt about a write ended.
    fn doubt(&self, _doubt: &DoubtDone<'_>) {}
    /// A credential of ours lacks a permission.
    fn denied(&self, _denied: &Denied<'_>) {}
    /// An exchange with the store of a shared quota ended.
    fn store(&self, _store: &StoreDone<'_>) {}
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

    /// Tells these too.
    #[must_use]
    pub fn and(&self, more: impl IntoIterator<Item = Arc<dyn Observer>>) -> Self {
        Self(self.0.iter().map(Arc::clone).chain(more).collect())
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

    pub(crate) fn doubt(&self, doubt: &DoubtDone<'_>) {
        self.each(|observer| observer.doubt(doubt));
    }

    pub(crate) fn denied(&self, denied: &Denied<'_>) {
        self.each(|observer| observer.denied(denied));
    }

    pub(crate) fn store(&self, store: &StoreDone<'_>) {
        self.each(|observer| observer.store(store));
    }

    fn each(&self, tell: impl Fn(&dyn Observer)) {
        for observer in self.0.iter() {
            tell(&**observer);
        }
    }
}

/// Writes events to `tracing`: state changes, and writes whose outcome was in doubt, each of which somebody may have to look
/// after. So the volume of logs does not grow with the load.
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

    fn call(&self, call: &CallDone<'_>) {
        let CallDone { method, family, class, outcome, attempts, waited, took, .. } = call;
        let class = class.name();
        match outcome {
            Outcome::Status(status) => {
                tracing::trace!(target: "tidegate", class, attempts, ?waited, ?took, "{method} {family}: {status}");
            }
            Outcome::Failed(why) => {
                tracing::trace!(target: "tidegate", class, attempts, ?waited, ?took, "{method} {family}: {why}");
            }
        }
    }

    fn doubt(&self, doubt: &DoubtDone<'_>) {
        let DoubtDone { method, path, ending, reads, why } = doubt;
        match ending {
            DoubtEnd::Unknown => {
                let why = why.unwrap_or("its answer was lost");
                tracing::warn!(target: "tidegate", reads, "{method} {path}: outcome unknown, the upstream may have executed it: {why}");
            }
            DoubtEnd::Confirmed => {
                tracing::info!(target: "tidegate", reads, "{method} {path}: was lost, and found to have been executed");
            }
            DoubtEnd::Resent => {
                tracing::info!(target: "tidegate", reads, "{method} {path}: was lost, and found not to have been executed; it is sent again");
            }
        }
    }

    fn store(&self, store: &StoreDone<'_>) {
        // What it means is an event; here stands what an operator needs to find the cause.
        if let StoreDone { outcome, why: Some(why), took, .. } = store {
            tracing::debug!(target: "tidegate", ?took, "no answer from the store of the shared quota ({outcome}): {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_unknown_outcome_is_a_warning_and_a_confirmed_one_is_not() {
        let log = Log::default();
        let kept = log.clone();
        let writing = tracing_subscriber::fmt().with_ansi(false).with_writer(move || kept.clone());
        let _keep = tracing::subscriber::set_default(writing.finish());
        for (ending, why) in [
            (DoubtEnd::Unknown, Some("connection lost")),
            (DoubtEnd::Confirmed, None),
            (DoubtEnd::Resent, None),
        ] {
            Traced.doubt(&DoubtDone { method: &Method::POST, path: "/a/b", ending, reads: 2, why });
        }
        let text = String::from_utf8(log.0.lock().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        for (line, (level, told)) in lines.iter().zip([
            ("WARN", "POST /a/b: outcome unknown, the upstream may have executed it: connection lost"),
            ("INFO", "POST /a/b: was lost, and found to have been executed"),
            ("INFO", "POST /a/b: was lost, and found not to have been executed; it is sent again"),
        ]) {
            assert!(line.contains(level) && line.contains(told) && line.contains("reads=2"), "{line}");
        }
    }
}
