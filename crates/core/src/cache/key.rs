//! Which answers may be given to whom.
//!
//! Two requests share a flight and an answer only where the upstream could not have told them apart: the same person
//! asks (the exact credential, or the very bearer token), for the same target, with the same headers. A header whose
//! meaning is not known may be a credential, a division or a version of the interface: every header is part of the key but those
//! of a short list, which only describe the call (its user agent, a trace id) or are obeyed by the cache itself. Of these too the
//! answer may depend; then it names them in `Vary` (RFC 9110, section 12.5.5), which is checked for every reader.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method, Uri, header};
use sha2::{Digest, Sha256};

use crate::key::normalise;

/// What names an answer: a path, and everything else that selects it as a digest.
///
/// The path is kept readable and comes first in the order, because a write closes whole subtrees of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey {
    path: Arc<str>,
    digest: [u8; 32],
    /// What selects the answer beside the target, as a digest; `None` where the target has a query.
    alike: Option<[u8; 32]>,
    /// Whose it is.
    person: u64,
    /// Tells answers apart that depend on the user agent; zero where it is of no account.
    agent: u64,
}

impl CacheKey {
    /// The key of a request that `who` makes, or `None` where its answer is nobody else's: another method than GET, a
    /// part of an answer (`Range`), a request that says it means another method, or a path that is not understood.
    ///
    /// `who` must differ wherever the upstream sees another person; it is digested and not kept.
    ///
    /// ```
    /// use http::{HeaderMap, Method, Uri};
    /// use tidegate_core::cache::CacheKey;
    ///
    /// let uri = Uri::from_static("/api/v2/scripts/7?expand=pages");
    /// let key = CacheKey::of("client a", &Method::GET, &uri, &HeaderMap::new()).unwrap();
    /// assert_eq!(key.path(), "/api/v2/scripts/7");
    /// assert_ne!(Some(key), CacheKey::of("client b", &Method::GET, &uri, &HeaderMap::new()));
    /// assert_eq!(CacheKey::of("client a", &Method::HEAD, &uri, &HeaderMap::new()), None);
    /// ```
    pub fn of(who: &str, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        if method != Method::GET || SPOILERS.iter().any(|name| headers.contains_key(name)) {
            return None;
        }
        let path = normalise(uri.path()).ok()?;
        let mut selecting: Vec<_> = headers.iter().filter(|(name, _)| selects(name)).collect();
        // Stable, so that values of one name keep their order, which has a meaning.
        selecting.sort_by_key(|(name, _)| name.as_str());
        let fields = selecting.iter().flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
        let alike = digest(std::iter::once(who.as_bytes()).chain(fields));
        let target = [&alike[..], uri.path().as_bytes(), uri.query().unwrap_or_default().as_bytes()];
        let alike = uri.query().is_none().then_some(alike);
        let path = Arc::from(path.as_ref());
        Some(Self { path, digest: digest(target), alike, person: person(who), agent: 0 })
    }

    /// What is the same in the keys of reads that one person makes in one representation, whatever they are of; `None` for a read with
    /// a query, and where the answer depends on the user agent.
    pub(super) fn alike(&self) -> Option<[u8; 32]> {
        self.alike.filter(|_| self.agent == 0)
    }

    /// Whether it is of the person whom `who` names as in [`CacheKey::of`].
    pub(super) fn is_of(&self, who: &str) -> bool {
        self.person == person(who)
    }

    /// The same, of the answers to one user agent only, as `headers` name it.
    pub(super) fn for_agent(&self, headers: &HeaderMap) -> Self {
        let mut hasher = DefaultHasher::new();
        headers.get_all(header::USER_AGENT).iter().for_each(|agent| agent.hash(&mut hasher));
        Self { agent: hasher.finish().max(1), ..self.clone() }
    }

    /// The same, whatever the user agent.
    pub(super) fn for_all(&self) -> Self {
        Self { agent: 0, ..self.clone() }
    }

    /// The normalised path, without the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where the keys of `path` begin in the order.
    pub(super) fn first_of(path: &str) -> Self {
        Self { path: Arc::from(path), digest: [0; 32], alike: None, person: 0, agent: 0 }
    }
}

fn person(who: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    who.hash(&mut hasher);
    hasher.finish()
}

fn digest<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        // A length before each part, so that no two lists of parts read alike.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Headers with which an answer is not shared: it is a part, or the request means another method than it has.
const SPOILERS: [HeaderName; 7] = [
    header::RANGE,
    header::UPGRADE,
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-method"),
    HeaderName::from_static("x-rewrite-method"),
];

/// Headers that name a call and not what it asks for.
const DESCRIBING: [HeaderName; 14] = [
    header::USER_AGENT,
    // The gateway's own name, by whatever spelling it was called; the upstream gets its own.
    header::HOST,
    // Of a call without a body, which is all there are: zero.
    header::CONTENT_LENGTH,
    // What these ask of a cache the cache does.
    header::CACHE_CONTROL,
    header::PRAGMA,
    // https://www.w3.org/TR/trace-context/ and https://www.w3.org/TR/baggage/
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
    // https://github.com/openzipkin/b3-propagation, in one header.
    HeaderName::from_static("b3"),
    HeaderName::from_static("request-id"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-correlation-id"),
    HeaderName::from_static("inin-correlation-id"),
    HeaderName::from_static("x-amzn-trace-id"),
];

/// Whether a header of a request can select another answer without the answer saying so.
pub(super) fn selects(name: &HeaderName) -> bool {
    !DESCRIBING.contains(name)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key(uri: &'static str, headers: &[(&'static str, &'static str)]) -> Option<CacheKey> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        CacheKey::of("anna", &Method::GET, &Uri::from_static(uri), &map)
    }

    #[test]
    fn what_selects_an_answer_is_part_of_its_key() {
        let plain = key("/api/v2/users/1", &[]);
        for other in [
            key("/api/v2/users/2", &[]),
            key("/api/v2/users/1?expand=skills", &[]),
            key("/api/v2/users/1", &[("accept", "text/csv")]),
            key("/api/v2/users/1", &[("accept-language", "de")]),
            key("/api/v2/users/1", &[("if-none-match", "\"7\"")]),
            key("/api/v2/users/1", &[("cookie", "a=b")]),
            key("/api/v2/users/1", &[("x-shopify-access-token", "shop-a")]),
            key("/api/v2/users/1", &[("x-api-key", "a")]),
            key("/api/v2/users/1", &[("x-forwarded-host", "evil.example")]),
            key("/api/v2/users/1", &[("x-original-url", "/admin")]),
            key("/api/v2/users/1", &[("authorization", "Bearer a")]),
        ] {
            assert!(other.is_some());
            assert_ne!(other, plain);
        }
    }

    #[test]
    fn what_only_describes_the_call_is_not() {
        let plain = key("/api/v2/users/1", &[]);
        for (name, value) in [
            ("user-agent", "bot"),
            ("x-request-id", "5"),
            ("host", "localhost:1"),
            ("cache-control", "max-age=1"),
        ] {
            assert_eq!(key("/api/v2/users/1", &[(name, value)]), plain, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_that_is_not_known_to_describe_only_separates(name in "[a-z][a-z0-9-]{0,24}", value in "[ -~]{0,12}") {
            let name: HeaderName = name.parse().unwrap();
            let of = |headers: &HeaderMap| CacheKey::of("anna", &Method::GET, &Uri::from_static("/a"), headers);
            let with = of(&HeaderMap::from_iter([(name.clone(), HeaderValue::from_str(&value).unwrap())]));
            let same = with == of(&HeaderMap::new());
            proptest::prop_assert_eq!(same, DESCRIBING.contains(&name));
        }
    }

    #[test]
    fn the_order_of_different_headers_is_of_no_account() {
        let one = key("/a", &[("accept", "a"), ("accept-language", "b")]);
        assert_eq!(one, key("/a", &[("accept-language", "b"), ("accept", "a")]));
        assert_ne!(
            key("/a", &[("accept", "a"), ("accept", "b")]),
            key("/a", &[("accept", "b"), ("accept", "a")])
        );
    }

    #[test]
    fn parts_of_answers_are_shared_with_nobody() {
        assert_eq!(key("/a", &[("range", "bytes=0-9")]), None);
        assert_eq!(key("/a/%2e%2e/%2f", &[]), None, "a path that normalises to nothing certain");
    }

    #[test]
    fn what_means_another_method_is_always_sent() {
        for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
            assert_eq!(key("/a", &[(name, "DELETE")]), None, "{name}");
        }
    }
}
