//! How long an answer may be given again.
//!
//! Where a [`FreshRule`] speaks, it decides; elsewhere RFC 9111 does, as `http-cache-semantics` reads it, for a private cache (an
//! entry belongs to one credential) and without heuristics: nobody asked for guesses. Ages count from the instant the
//! request left (RFC 9111, section 4.2.3: a cache that cannot know better assumes the whole delay), because the upstream looked
//! at its data at some time after that, and a promise must hold in the worst case.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request, response};
use http_cache_semantics::{CacheOptions, CachePolicy};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::rule::{FreshRule, LONGEST};
use super::vary::Vary;
use super::wants::Wants;
use crate::time::Wall;

/// What is known about how long and to whom an answer may be given.
#[derive(Debug)]
pub(super) struct Terms {
    /// On what of its request it depends.
    pub(super) vary: Vary,
    /// Whether it is for its own reader only.
    pub(super) is_own: bool,
    /// How old it may become; zero where it must not be given again.
    pub(super) lifetime: Duration,
    /// How old it was when its request left: other caches tell so.
    pub(super) initial_age: Duration,
}

/// Put into the extensions of an answer that refuses although its status says otherwise: some upstreams throttle with 200. It is
/// an event, no fact, and not given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusesNow;

const OPTIONS: CacheOptions = CacheOptions {
    shared: false,
    cache_heuristic: 0.0,
    immutable_min_time_to_live: Duration::ZERO,
    ignore_cargo_cult: false,
};

/// What a rule keeps: answers that state a fact. A throttle, a failure or a missing permission is an event.
const FACTS: [StatusCode; 7] = [
    StatusCode::OK,
    StatusCode::NON_AUTHORITATIVE_INFORMATION,
    StatusCode::NO_CONTENT,
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::NOT_MODIFIED,
    StatusCode::NOT_FOUND,
    StatusCode::GONE,
];

impl Terms {
    /// The terms of an answer to `request`, which left at `sent`.
    pub(super) fn of(
        rule: Option<&FreshRule>,
        request: &request::Parts,
        response: &response::Parts,
        sent: Wall,
    ) -> Self {
        let policy = policy(request, response, sent);
        let now = instant(sent).into();
        let initial_age = policy.age(now);
        let vary = Vary::of(&request.headers, &response.headers);
        let is_own = vary == Vary::Any || response.headers.contains_key(header::SET_COOKIE);
        let refused = response.extensions.get::<RefusesNow>().is_some();
        let lifetime = match rule {
            _ if is_own || refused || Wants::read(&request.headers).no_store => Duration::ZERO,
            Some(rule) if FACTS.contains(&response.status) => rule.max_age,
            None if policy.is_storable() => (policy.time_to_live(now) + initial_age).min(LONGEST),
            Some(_) | None => Duration::ZERO,
        };
        Self { vary, is_own, lifetime, initial_age }
    }
}

/// The head of a kept answer after the upstream said "not modified" at `sent` (RFC 9111, sections 3.2 and 4.3.4); `None` where it spoke of
/// another answer.
///
/// An answer without any validator speaks of the one that was asked about: its request carried the validators of this one alone.
pub(super) fn renewed(
    old: (StatusCode, &HeaderMap),
    mut response: response::Parts,
    sent: Wall,
) -> Option<response::Parts> {
    let (status, kept) = old;
    if !speaks_of(kept, &response.headers) {
        return None;
    }
    for name in OF_THE_BODY {
        response.headers.remove(name);
    }
    // A recipient with a clock adds what the upstream left out (RFC 9110, section 6.6.1): `Expires` counts from it.
    if !response.headers.contains_key(header::DATE)
        && let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&instant(sent))
        && let Ok(date) = HeaderValue::try_from(date)
    {
        response.headers.insert(header::DATE, date);
    }
    let mut merged = kept.clone();
    for name in response.headers.keys() {
        merged.remove(name);
    }
    for (name, value) in &response.headers {
        merged.append(name, value.clone());
    }
    response.status = status;
    response.headers = merged;
    Some(response)
}

/// Headers that say what the body is, which a 304 does not have (RFC 9111, section 3.2).
const OF_THE_BODY: [HeaderName; 5] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
];

/// Whether a 304 with the headers `new` speaks of what is kept.
fn speaks_of(kept: &HeaderMap, new: &HeaderMap) -> bool {
    if let Some(tag) = new.get(header::ETAG) {
        return kept.get(header::ETAG).is_some_and(|kept| opaque(kept) == opaque(tag));
    }
    match new.get(header::LAST_MODIFIED) {
        Some(modified) => kept.get(header::LAST_MODIFIED) == Some(modified),
        None => true,
    }
}

/// A tag without its `W/`: conditions on reads compare weakly (RFC 9110, section 13.1.2).
fn opaque(tag: &HeaderValue) -> &[u8] {
    let tag = tag.as_bytes().trim_ascii();
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// What to send with a request, so that the upstream need not repeat an answer with these headers if it did not change. Empty
/// where the answer has no validator.
pub(super) fn conditions(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let validators =
        [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)];
    validators.into_iter().filter_map(|(from, to)| Some((to, headers.get(from)?.clone()))).collect()
}

/// What the library makes of an answer.
fn policy(request: &request::Parts, response: &response::Parts, sent: Wall) -> CachePolicy {
    let mut asked = http::Request::new(());
    for name in [header::CACHE_CONTROL, header::PRAGMA] {
        for value in request.headers.get_all(&name) {
            asked.headers_mut().append(&name, value.clone());
        }
    }
    let mut answer = http::Response::new(());
    *answer.status_mut() = response.status;
    *answer.headers_mut() = response.headers.clone();
    CachePolicy::new_options(&asked, &answer, instant(sent).into(), OPTIONS)
}

/// What becomes the library's kind of instant.
fn instant(at: Wall) -> Timestamp {
    Timestamp::from_millisecond(at.unix_millis()).unwrap_or(Timestamp::UNIX_EPOCH)
}
