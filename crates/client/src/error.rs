//! Why a call brought no answer: one error with a kind, what was tried, and the cause.

use std::fmt;
use std::time::Duration;

use tidegate_core::pace::RefusalReason;

use crate::body::BoxError;
use crate::call::CallReport;
use crate::token::TokenError;

/// What kind of failure ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing was sent: the quota does not allow it in time. Come back after [`Error::retry_after`].
    Refused,
    /// Nothing was executed: there is no token, or the one that was sent was rejected (401) and there is no other.
    Token,
    /// Nothing was sent: the upstream cannot be reached.
    Unreachable,
    /// The upstream was asked and did not answer, and a second execution would do no harm: it has failed.
    NoAnswer,
    /// The upstream was asked, and what came back cannot be read; a second execution would do no harm.
    Unreadable,
    /// The upstream may have executed the write, and nothing can tell.
    OutcomeUnknown,
    /// Nothing was sent: what had to be done before sending failed.
    Stopped,
    /// The request itself cannot be sent (its path, its headers).
    Invalid,
}

impl ErrorKind {
    /// The kind's name in logs, metrics and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Token => "no-token",
            Self::Unreachable => "unreachable",
            Self::NoAnswer => "no-answer",
            Self::Unreadable => "unreadable",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Stopped => "stopped",
            Self::Invalid => "invalid",
        }
    }
}

/// A call that brought no answer.
#[derive(Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    method: http::Method,
    path: String,
    report: CallReport,
    retry_after: Option<Duration>,
    refusal: Option<RefusalReason>,
    token: Option<TokenError>,
    settles: bool,
    source: Option<BoxError>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, method: &http::Method, path: &str, report: CallReport) -> Self {
        let inner = Inner {
            kind,
            method: method.clone(),
            path: path.to_owned(),
            report,
            retry_after: None,
            refusal: None,
            token: None,
            settles: false,
            source: None,
        };
        Self { inner: Box::new(inner) }
    }

    pub(crate) fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.inner.retry_after = retry_after;
        self
    }

    pub(crate) fn with_refusal(mut self, reason: RefusalReason) -> Self {
        self.inner.refusal = Some(reason);
        self
    }

    pub(crate) fn with_token(mut self, error: TokenError) -> Self {
        self.inner.retry_after = error.retry_after;
        self.inner.source = Some(Box::new(error.clone()));
        self.inner.token = Some(error);
        self
    }

    pub(crate) fn with_settles(mut self, settles: bool) -> Self {
        self.inner.settles = settles;
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// When it makes sense to try again, from now.
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    /// Why the quota refused, where it did.
    pub fn refusal(&self) -> Option<&RefusalReason> {
        self.inner.refusal.as_ref()
    }

    /// What the token endpoint said, where there is no token.
    pub fn token(&self) -> Option<&TokenError> {
        self.inner.token.as_ref()
    }

    /// Whether the doubt of an [`ErrorKind::OutcomeUnknown`] can still be settled: the last attempt is proven not to
    /// have been executed, an earlier one may have been, and sending the same write again with its key does no harm
    /// yet; or a read would tell, and there was no time for it, or nobody to ask. A caller with a journal keeps such a write
    /// and goes on with it when the upstream is back.
    pub fn can_settle(&self) -> bool {
        self.inner.settles
    }

    pub(crate) fn report_mut(&mut self) -> &mut CallReport {
        &mut self.inner.report
    }

    /// The cause, as it is told.
    pub(crate) fn source_text(&self) -> Option<String> {
        self.inner.source.as_ref().map(ToString::to_string)
    }

    /// What was tried.
    pub fn report(&self) -> &CallReport {
        &self.inner.report
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, method, path, report, retry_after, source, token, .. } = &*self.inner;
        // Only another credential helps then, whenever it is tried.
        let refused = token.as_ref().is_some_and(|token| token.refused);
        write!(f, "{method} {path}: ")?;
        match kind {
            ErrorKind::Refused => match (&self.inner.refusal, &report.limit) {
                (Some(RefusalReason::Window { .. }), Some(window)) => {
                    write!(f, "not sent, {window} holds its class for longer than it can wait")?;
                }
                _ => f.write_str("not sent, the quota does not allow it in time")?,
            },
            ErrorKind::Token => f.write_str("not executed, there is no token")?,
            ErrorKind::Unreachable => f.write_str("not sent, the upstream cannot be reached")?,
            ErrorKind::NoAnswer => f.write_str("the upstream did not answer")?,
            ErrorKind::Unreadable => f.write_str("the upstream's answer cannot be read")?,
            ErrorKind::OutcomeUnknown => f.write_str("outcome unknown, the upstream may have executed it")?,
            ErrorKind::Stopped => f.write_str("not sent")?,
            ErrorKind::Invalid => f.write_str("the request cannot be sent")?,
        }
        if report.attempts > 0 {
            write!(f, " (after {} attempt{})", report.attempts, if report.attempts == 1 { "" } else { "s" })?;
        }
        if let Some(after) = retry_after.filter(|_| !refused) {
            write!(f, "; try again in {:.1} s", after.as_secs_f64())?;
        }
        if let Some(source) = source {
            write!(f, ": {source}")?;
        }
        if refused {
            f.write_str("; trying again does not help, the credential has to be mended")
        } else {
            Ok(())
        }
    }
}

impl std::error::Error for Error {}
