//! What a profile says about refusals, resending, keys, tokens, time-outs and waits.

use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::Value;

use crate::idempotency::Stamp;
use crate::observe::{MAX_BODY, Observation, Reading};

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
    /// The status. One below 400 says it only where `at` is given: what was asked for may hold any text.
    pub status: u16,
    /// The text, in lower case; case is of no account.
    pub contains: String,
    /// Where in a JSON body the text stands, as a JSON pointer (RFC 6901); anywhere in the body if absent.
    pub at: Option<String>,
    /// How long to stay away where the answer does not say.
    pub wait: Option<Duration>,
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
        self.text(status, body).is_some()
    }

    /// How long a throttle asks to stay away that says so neither in headers nor in numbers: GitHub's secondary limits ask for
    /// a minute in their documentation alone. `None` where the answer has a time of its own: a hint, or a limit with nothing left
    /// that says when it ends.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate_core::{observe::Observation, profile::Profile};
    ///
    /// let github = Profile::builtin("github").unwrap();
    /// let body = br#"{"message":"You have exceeded a secondary rate limit."}"#;
    /// let wait = github.throttle.wait(403, &Observation::default(), body);
    /// assert_eq!(wait, Some(Duration::from_secs(60)));
    /// ```
    pub fn wait(&self, status: u16, seen: &Observation, body: &[u8]) -> Option<Duration> {
        let ends = |reading: &Reading| reading.remaining == Some(0) && reading.reset.is_some();
        if seen.retry_after.is_some() || seen.readings.iter().any(ends) {
            return None;
        }
        self.text(status, body)?.wait
    }

    /// Whether the body decides about answers of this status, or how long one is to be heeded.
    pub fn needs_body(&self, status: u16) -> bool {
        self.texts
            .iter()
            .any(|text| text.status == status && (text.wait.is_some() || !self.statuses.contains(&status)))
    }

    /// The rule whose text an answer has.
    fn text(&self, status: u16, body: &[u8]) -> Option<&ThrottleText> {
        let body = &body[..body.len().min(MAX_BODY)];
        let mut json = None;
        self.texts.iter().filter(|text| text.status == status).find(|text| {
            let Some(at) = &text.at else { return has_text(body, text.contains.as_bytes()) };
            let json = json.get_or_insert_with(|| serde_json::from_slice::<Value>(body).unwrap_or_default());
            let found = json.pointer(at).and_then(Value::as_str);
            found.is_some_and(|found| has_text(found.as_bytes(), text.contains.as_bytes()))
        })
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
    pub stamp: Stamp,
    /// How long the upstream says it recognises the key of a write it has done; absent if it does not, or nobody knows.
    pub dedup: Option<Duration>,
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
    /// For the answer to a GET, HEAD or OPTIONS of class `bulk`; a bulk write has the time of any other.
    pub bulk: Duration,
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
