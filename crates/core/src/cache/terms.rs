//! How long an answer may be given again.
//!
//! Where a [`FreshRule`] speaks, it decides; elsewhere RFC 9111 does, as `http-cache-semantics` reads it, for a private cache (an
//! entry belongs to one credential) and without heuristics: nobody asked for guesses. Ages count from the instant the
//! request left (RFC 9111, section 4.2.3: a cache that cannot know better assumes the whole delay), because the upstream looked
//! at its data at some time after that, and a promise must hold in the worst case.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request, response};
use http_cache_semantics::{AfterResponse, CacheOptions, CachePolicy};
use jiff::Timestamp;

use super::rule::{FreshRule, LONGEST};
use super::wants::Wants;
use crate::time::Wall;

/// What is known about an answer's age and its validators.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    policy: CachePolicy,
    /// How old it may become; zero where it must not be given again.
    pub(super) lifetime: Duration,
    /// How old it was when its request left: other caches tell so.
    pub(super) initial_age: Duration,
}

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
        let request = without_secrets(request);
        let answer = bodiless(response);
        Self::under(
            rule,
            &Wants::read(request.headers()),
            CachePolicy::new_options(&request, &answer, instant(sent).into(), OPTIONS),
            response,
            sent,
        )
    }

    fn under(
        rule: Option<&FreshRule>,
        wants: &Wants,
        policy: CachePolicy,
        response: &response::Parts,
        sent: Wall,
    ) -> Self {
        let initial_age = policy.age(instant(sent).into());
        let varies =
            response.headers.get_all(header::VARY).iter().any(|vary| vary.as_bytes().contains(&b'*'));
        let personal = response.headers.contains_key(header::SET_COOKIE);
        let lifetime = match rule {
            _ if varies || personal || wants.no_store => Duration::ZERO,
            Some(rule) if FACTS.contains(&response.status) => rule.max_age,
            None if policy.is_storable() => {
                (policy.time_to_live(instant(sent).into()) + initial_age).min(LONGEST)
            }
            Some(_) | None => Duration::ZERO,
        };
        Self { policy, lifetime, initial_age }
    }

    /// Whether the answer is one to `request` too, by what it names in `Vary`.
    pub(super) fn fits(&self, request: &request::Parts) -> bool {
        let request = without_secrets(request);
        match self.policy.before_request(&request, Timestamp::UNIX_EPOCH.into()) {
            http_cache_semantics::BeforeRequest::Fresh(_) => true,
            http_cache_semantics::BeforeRequest::Stale { matches, .. } => matches,
        }
    }

    /// The terms and the head of the kept answer after the upstream said "not modified"; `None` where it spoke of another
    /// answer.
    pub(super) fn renewed(
        &self,
        rule: Option<&FreshRule>,
        request: &request::Parts,
        response: &response::Parts,
        sent: Wall,
    ) -> Option<(Self, response::Parts)> {
        let request = without_secrets(request);
        match self.policy.after_response(&request, &bodiless(response), instant(sent).into()) {
            AfterResponse::NotModified(policy, mut head) => {
                // What the library adds for a cache that answers at once; ours is added when it is given.
                head.headers.remove(header::AGE);
                if let Some(date) = response.headers.get(header::DATE) {
                    head.headers.insert(header::DATE, date.clone());
                }
                let wants = Wants::read(request.headers());
                let terms = Self::under(rule, &wants, policy, &head, sent);
                Some((terms, head))
            }
            AfterResponse::Modified(..) => None,
        }
    }
}

/// What to send with a request, so that the upstream need not repeat an answer with these headers if it did not change. Empty
/// where the answer has no validator.
pub(super) fn conditions(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let validators =
        [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)];
    validators.into_iter().filter_map(|(from, to)| Some((to, headers.get(from)?.clone()))).collect()
}

/// The request without what proves who makes it: an entry outlives the call.
fn without_secrets(request: &request::Parts) -> http::Request<()> {
    let mut bare = http::Request::new(());
    *bare.method_mut() = request.method.clone();
    *bare.uri_mut() = request.uri.clone();
    *bare.headers_mut() = request.headers.clone();
    bare.headers_mut().remove(header::AUTHORIZATION);
    bare.headers_mut().remove(header::COOKIE);
    bare
}

fn bodiless(response: &response::Parts) -> http::Response<()> {
    let mut bare = http::Response::new(());
    *bare.status_mut() = response.status;
    *bare.headers_mut() = response.headers.clone();
    bare
}

/// What becomes the library's kind of instant.
fn instant(at: Wall) -> Timestamp {
    Timestamp::from_millisecond(at.unix_millis()).unwrap_or(Timestamp::UNIX_EPOCH)
}
