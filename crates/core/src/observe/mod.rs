//! What one response says about limits, in relative durations.
//!
//! Servers tell their quota in two dozen dialects: three header fields with a reset in seconds, in milliseconds, as
//! an epoch, as a date; a ratio; a list of pairs; a structured field; a sentence in the body of a 429. This module
//! turns all of them into one [`Observation`], so that pacing knows one language.
//!
//! Rules:
//!
//! * **Relative only.** Absolute times are read against the response's own `Date`, and against the caller's clock
//!   only where there is none: a client whose clock is wrong must not wait an hour for it.
//! * **Malformed fields are ignored and listed**, never fatal. The draft demands it
//!   (draft-ietf-httpapi-ratelimit-headers) and the field's practice needs it: Hugging Face sends an invalid policy
//!   next to a valid limit.
//! * **Units come from the profile, then from sanity.** A "delta" of 10⁹ seconds is an epoch, one of 10¹² is an epoch
//!   in milliseconds ([`ResetUnit`]).
//! * **Durations are bounded by [`MAX_DURATION`].** What lies further away is a unit mistake or an attack; it is
//!   ignored, not clamped, because a clamped value would still close a gate for a year.
//! * **A cached answer says nothing.** With `Age` above zero the quota fields describe the past of somebody else's
//!   request; only `Retry-After` is kept.
//! * **A limit of zero** is what servers with limiting switched off send; the number is dropped, and with it the
//!   reading, unless a reset says when it ends. **Remaining above the limit** is kept as sent (burst credit,
//!   RingCentral): whoever paces takes the greater of the two as the limit.
//! * **At most one reading has no name.** Parallel sets of headers that agree become one reading; where they
//!   disagree they describe two limits, and the later one is named after its dialect.
//! * **Everything is bounded**: [`MAX_READINGS`], [`MAX_IGNORED`], names and values have a greatest length.
//!
//! Counts are in the unit of the header. Those that do not count requests say so in their name: `tokens` of a
//! language model, `default;qu=content-bytes` of a structured field.

mod body;
mod ietf;
mod lists;
mod meters;
pub(crate) mod number;
mod reader;
mod retry_after;
mod rules;
mod seen;
mod take;
mod told;
mod when;

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

pub use self::body::{MAX_BODY, observe_body};
use self::reader::Reader;
pub use self::rules::{HeaderRead, HeaderRule, HeaderRules, ResetUnit};
pub use self::told::{BodyRule, observe_told};
use crate::time::Wall;

/// Greatest number of readings of one response. The busiest vendor known (Anthropic) describes five limits.
pub const MAX_READINGS: usize = 16;

/// Greatest number of listed fields of one response that could not be read.
pub const MAX_IGNORED: usize = 16;

/// Greatest duration any field may give: a leap year. The longest real windows are months; what is longer is
/// milliseconds read as seconds, or nonsense.
pub const MAX_DURATION: Duration = Duration::from_hours(366 * 24);

/// Everything one response said about limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// One per limit the response describes, at most [`MAX_READINGS`], at most one of them without a name.
    pub readings: Vec<Reading>,
    /// The wait the server asks for: `Retry-After`, or what its relatives and the body say. The longest of several.
    pub retry_after: Option<Duration>,
    /// The limit that was hit, where the answer names it.
    pub hit: Option<HitLimit>,
    /// The response's own `Date`.
    pub date: Option<Wall>,
    /// Fields that should have said something but could not be read, at most [`MAX_IGNORED`].
    pub ignored: Vec<Ignored>,
}

/// What the response said about one limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The limit's name, if the headers give it one (an IETF item name, a Discord bucket, a GitHub resource).
    pub name: Option<String>,
    /// Requests per window.
    pub limit: Option<u64>,
    /// Requests left. Where the header counts used requests, `limit - used`.
    pub remaining: Option<u64>,
    /// When more becomes available.
    pub reset: Option<Reset>,
    /// Length of the window.
    pub window: Option<Duration>,
    /// How it was written.
    pub dialect: Dialect,
}

/// When a limit's quota comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// From the response's instant; zero if already past. For draft -11 this is the effective window: `remaining`
    /// may be spent within it.
    pub after: Duration,
    /// The unit of the last digit the server wrote: 1 s for whole seconds, 60 s for minute precision, 1 ms for
    /// milliseconds or three decimals. The truth lies within one grain of `after`.
    pub grain: Duration,
    /// The instant itself, if the header was absolute.
    pub at: Option<Wall>,
}

/// The limit an answer says was hit: `limit{key,namespace,value}` of a Genesys error body, a Discord bucket and scope,
/// the reason header of Jira or Stripe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HitLimit {
    /// The limit's key, such as `token.rate.per.minute`.
    pub key: Option<String>,
    /// The namespace of the key, such as `platform.api`; for Discord the scope.
    pub namespace: Option<String>,
    /// The limit's value.
    pub value: Option<u64>,
}

/// A field that was ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The header field's name, or `body`.
    pub field: String,
    /// Why, in a few words.
    pub why: &'static str,
}

/// How a reading was written. Vendors that share header names share a dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `X-Rate-Limit-Limit`, `-Remaining`, `-Reset`: the guide, Okta, X, Zendesk, `RingCentral`.
    Guide,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Used`, `-Reset`, `-Reset-After`: GitHub, Discord, Jira, most of the world.
    XRateLimit,
    /// `inin-ratelimit-count` (used), `-allowed`, `-reset`: Genesys until 2021.
    Inin,
    /// `RateLimit-Limit`, `-Remaining`, `-Reset`: IETF drafts to -06, GitLab, Microsoft Graph.
    IetfTriple,
    /// `RateLimit: limit=100, remaining=50, reset=30`: IETF draft -07.
    IetfDictionary,
    /// `RateLimit: "default";r=50;t=30` and `RateLimit-Policy`: IETF drafts since -08.
    IetfList,
    /// `X-RateLimit-Limit-Minute`, `-Remaining-Minute`: one pair per period, as Kong writes them.
    Periods,
    /// `x-ratelimit-limit-requests`, `-tokens`: `OpenAI` and its relatives, with Go durations.
    OpenAi,
    /// `anthropic-ratelimit-requests-limit` and its siblings, with RFC 3339 times.
    Anthropic,
    /// `X-HubSpot-RateLimit-*`.
    HubSpot,
    /// `32/40`, used of limit: Shopify, Gorgias.
    Ratio,
    /// `total=100; remaining=99; resets=41` (Zendesk), `api-usage=10018/100000` (Salesforce).
    Pairs,
    /// By a rule of the profile.
    Declared,
}

impl Dialect {
    /// Every dialect that can be recognised without a rule.
    pub const KNOWN: [Self; 12] = [
        Self::Guide,
        Self::XRateLimit,
        Self::Inin,
        Self::IetfTriple,
        Self::IetfDictionary,
        Self::IetfList,
        Self::Periods,
        Self::OpenAi,
        Self::Anthropic,
        Self::HubSpot,
        Self::Ratio,
        Self::Pairs,
    ];

    /// The dialect's name in profiles and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guide => "guide",
            Self::XRateLimit => "x-ratelimit",
            Self::Inin => "inin",
            Self::IetfTriple => "ietf-triple",
            Self::IetfDictionary => "ietf-dictionary",
            Self::IetfList => "ietf-list",
            Self::Periods => "periods",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::HubSpot => "hubspot",
            Self::Ratio => "ratio",
            Self::Pairs => "pairs",
            Self::Declared => "declared",
        }
    }
}

/// Reads the header fields of one response.
///
/// `received` is the wall time at which the response arrived; it is used only where the response has no readable
/// `Date`. Never fails: what cannot be read is listed in [`Observation::ignored`].
///
/// ```
/// use std::time::Duration;
/// use http::{HeaderMap, StatusCode};
/// use tidegate_core::observe::{HeaderRules, observe};
/// use tidegate_core::time::Wall;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("date", "Tue, 14 Nov 2023 22:13:20 GMT".parse()?);
/// headers.insert("x-rate-limit-limit", "300".parse()?);
/// headers.insert("x-rate-limit-remaining", "12".parse()?);
/// headers.insert("x-rate-limit-reset", "1700000042".parse()?);
///
/// let seen = observe(&HeaderRules::default(), StatusCode::OK, &headers, Wall::from_unix_millis(0));
/// assert_eq!(seen.readings[0].remaining, Some(12));
/// assert_eq!(seen.readings[0].reset.unwrap().after, Duration::from_secs(42));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn observe(rules: &HeaderRules, status: StatusCode, headers: &HeaderMap, received: Wall) -> Observation {
    let mut reader = Reader::new(rules, headers, received);
    retry_after::read(&mut reader);
    let seen = seen::Seen::of(headers).among(&rules.read);
    if !seen.any() && rules.declared.is_empty() {
        return reader.out;
    }
    if is_cached(headers) {
        reader.ignore_name("age", "the answer comes from a cache, its quota fields are old");
        return reader.out;
    }
    // The profile's own rules come first, because what they find takes precedence.
    meters::read_declared(&mut reader);
    meters::read(&mut reader, seen);
    ietf::read(&mut reader, seen);
    lists::read(&mut reader, seen);
    meters::read_hit(&mut reader, seen, status);
    reader.out
}

/// Whether the answer was stored before it reached us (RFC 9111 5.1). Only answers that a cache held have an age.
fn is_cached(headers: &HeaderMap) -> bool {
    let age = headers.get(header::AGE).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    age.and_then(|text| text.trim().parse::<u64>().ok()).is_some_and(|seconds| seconds > 0)
}
