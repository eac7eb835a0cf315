//! Which answers may be given to whom.
//!
//! Two requests share a flight and an answer only where the upstream could not have told them apart: the same person
//! asks (the exact credential, or the very bearer token), for the same target, in the same representation. Whatever
//! can change the answer is part of the key; what only describes the caller (its user agent, a trace id) is not,
//! unless the answer itself names it in `Vary` (RFC 9110, section 12.5.5), which the entry checks.

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
        let mut digest = Sha256::new();
        let mut add = |part: &[u8]| {
            // A length before each part, so that no two lists of parts read alike.
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        };
        add(who.as_bytes());
        add(uri.path().as_bytes());
        add(uri.query().unwrap_or_default().as_bytes());
        let mut selecting: Vec<_> = headers.iter().filter(|(name, _)| selects(name)).collect();
        // Stable, so that values of one name keep their order, which has a meaning.
        selecting.sort_by_key(|(name, _)| name.as_str());
        for (name, value) in selecting {
            add(name.as_str().as_bytes());
            add(value.as_bytes());
        }
        Some(Self { path: Arc::from(path.as_ref()), digest: digest.finalize().into() })
    }

    /// The normalised path, without the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where the keys of `path` begin in the order.
    pub(super) fn first_of(path: &str) -> Self {
        Self { path: Arc::from(path), digest: [0; 32] }
    }
}

/// Headers with which an answer is not shared.
const SPOILERS: [HeaderName; 3] =
    [header::RANGE, header::UPGRADE, HeaderName::from_static("x-http-method-override")];

/// Whether a header of a request can select another answer.
fn selects(name: &HeaderName) -> bool {
    name.as_str().starts_with("accept")
        || matches!(
            *name,
            header::COOKIE
                | header::IF_MATCH
                | header::IF_MODIFIED_SINCE
                | header::IF_NONE_MATCH
                | header::IF_UNMODIFIED_SINCE
        )
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
        ] {
            assert!(other.is_some());
            assert_ne!(other, plain);
        }
    }

    #[test]
    fn what_only_describes_the_caller_is_not() {
        let plain = key("/api/v2/users/1", &[]);
        assert_eq!(key("/api/v2/users/1", &[("user-agent", "bot"), ("x-request-id", "5")]), plain);
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
        assert_eq!(key("/a", &[("x-http-method-override", "DELETE")]), None);
        assert_eq!(key("/a/%2e%2e/%2f", &[]), None, "a path that normalises to nothing certain");
    }
}
