//! What a profile says about refusals, resending, keys, tokens, time-outs and waits.

use std::time::Duration;

use http::{HeaderName, Method};

use crate::observe::{MAX_BODY, Observation};

/// What a status says about whether the request was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusRule {
    /// Refused before execution: safe to send again, for any method.
    Refused,
    /// Perhaps executed: safe to send again only where doing it twice is.
    MaybeExecuted,
    /// An answer, not to be retried.
    Final,
}

/// Which statuses say what about execution. A throttle (see [`Throttle`]) is refused whatever its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryMatrix {
    /// Refused before execution.
    pub refused: Vec<u16>,
    /// Perhaps executed.
    pub ambiguous: Vec<u16>,
    /// Refused before execution if the answer says when to come back (503 with `Retry-After`).
    pub refused_with_hint: Vec<u16>,
    /// The statuses that always say "too fast"; the same list as [`Throttle::statuses`].
    pub throttles: Vec<u16>,
}

impl RetryMatrix {
    /// What `status` says, given whether the answer had a hint of when to come back.
    pub fn rule(&self, status: u16, hinted: bool) -> StatusRule {
        if self.refused.contains(&status)
            || self.throttles.contains(&status)
            || (hinted && self.refused_with_hint.contains(&status))
        {
            StatusRule::Refused
        } else if self.ambiguous.contains(&status) {
            StatusRule::MaybeExecuted
        } else {
            StatusRule::Final
        }
    }
}

/// Which answers say "too fast".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Statuses that always do.
    pub statuses: Vec<u16>,
    /// Statuses that do where the answer has a hint of when to come back, or nothing remains (GitHub's 403).
    pub when_exhausted: Vec<u16>,
    /// Statuses that do where the body has a text.
    pub texts: Vec<ThrottleText>,
}

/// A status that says "too fast" where the body has a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThrottleText {
    /// The status.
    pub status: u16,
    /// The text, in lower case; case is of no account.
    pub contains: String,
}

impl Throttle {
    /// Whether an answer says "too fast". Of the body only the first [`MAX_BODY`] bytes are looked at; one may pass an
    /// empty body where [`Self::needs_body`] says so.
    ///
    /// ```
    /// use tidegate_core::{observe::Observation, profile::Profile};
    ///
    /// let oauth = Profile::builtin("genesys").unwrap().oauth.unwrap();
    /// let body = br#"{"error":"invalid_request","description":"Rate limit exceeded"}"#;
    /// assert!(oauth.throttle.applies(400, &Observation::default(), body));
    /// assert!(!oauth.throttle.applies(400, &Observation::default(), b"{}"));
    /// ```
    pub fn applies(&self, status: u16, seen: &Observation, body: &[u8]) -> bool {
        if self.statuses.contains(&status) {
            return true;
        }
        if self.when_exhausted.contains(&status) {
            let nothing_left = seen.readings.iter().any(|reading| reading.remaining == Some(0));
            if seen.retry_after.is_some() || nothing_left {
                return true;
            }
        }
        let body = &body[..body.len().min(MAX_BODY)];
        self.texts.iter().any(|text| text.status == status && has_text(body, text.contains.as_bytes()))
    }

    /// Whether the body decides about answers of this status.
    pub fn needs_body(&self, status: u16) -> bool {
        !self.statuses.contains(&status) && self.texts.iter().any(|text| text.status == status)
    }
}

fn has_text(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len().max(1)).any(|window| window.eq_ignore_ascii_case(text))
}

/// The key a write carries, and what the upstream does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRules {
    /// The header of the key.
    pub header: HeaderName,
    /// The methods that carry one.
    pub methods: Vec<Method>,
    /// How the key is stamped.
    pub uuid: UuidVersion,
    /// Whether the upstream does a write once for each key.
    pub dedup: Dedup,
}

/// The version bits of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UuidVersion {
    /// Random, as upstreams that check expect it (RFC 9562 5.4).
    V4,
    /// Custom, which a hash honestly is (RFC 9562 5.8).
    V8,
}

/// Whether the upstream does a write once for each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dedup {
    /// It does not, or nobody knows.
    None,
    /// It does, for this long.
    For(Duration),
}

impl Dedup {
    /// How long after its first send a write may be sent again: an hour less than the upstream promises, or three
    /// quarters of a promise shorter than four hours, for clocks and queues that are late.
    pub fn trusted_for(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::For(promised) => Some(promised.saturating_sub((promised / 4).min(Duration::from_hours(1)))),
        }
    }
}

/// How tokens are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthRules {
    /// The path of the token endpoint on the login host.
    pub token_path: String,
    /// Which of its answers say "too fast".
    pub throttle: Throttle,
}

/// How long to wait for what, per attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the answer to a GET, HEAD or OPTIONS.
    pub read: Duration,
    /// For the answer to any other method.
    pub write: Duration,
    /// For the answer to a call of class `bulk`.
    pub bulk: Duration,
}

/// How to wait where the upstream does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffSpec {
    /// The formula.
    pub kind: BackoffKind,
    /// The first step.
    pub base: Duration,
    /// The longest wait, not below `base`.
    pub cap: Duration,
}

/// Formulas for waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackoffKind {
    /// Anywhere between zero and the exponential step.
    Full,
    /// Between half of the exponential step and all of it.
    Equal,
    /// Up to three times the previous wait.
    Decorrelated,
    /// The exponential step plus up to one base, as the guide has it.
    Guide,
    /// 3, 9 and 27 s in tiers of five minutes, as Genesys' Java SDK has it; `base` is 3 s and `cap` 27 s.
    GenesysOfficial,
}

impl BackoffKind {
    /// Every formula with its name in profiles.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("full", Self::Full),
        ("equal", Self::Equal),
        ("decorrelated", Self::Decorrelated),
        ("guide", Self::Guide),
        ("genesys-official", Self::GenesysOfficial),
    ];
}

/// The shape of the upstream's errors, in which a gateway writes its own refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorShape {
    /// `{"message", "code", "status", "contextId", "details", "errors"}`.
    Genesys,
    /// RFC 9457: `{"type", "title", "status", "detail"}`.
    Problem,
    /// `{"message"}`.
    Message,
}

impl ErrorShape {
    /// Every shape with its name in profiles.
    pub const NAMES: [(&'static str, Self); 3] =
        [("genesys", Self::Genesys), ("problem", Self::Problem), ("message", Self::Message)];
}
