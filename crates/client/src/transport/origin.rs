//! Where a request goes: scheme and authority, apart from the target that is written to the connection.

use std::fmt;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri};
use tidegate_core::classify::Failure;

use super::SendError;

/// One server. Cheap to clone and to compare, since every attempt does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    scheme: Scheme,
    authority: Authority,
}

impl Origin {
    /// The origin of an absolute URI.
    pub(super) fn of(uri: Uri) -> Result<(Self, PathAndQuery), SendError> {
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(SendError::new(Failure::ConnectFailed, "the target is not an absolute URL"));
        };
        let target = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok((Self { scheme, authority }, target))
    }

    /// Splits the origin off a request, leaving the target in origin form with a `Host` that names the origin.
    pub(super) fn split_off<B>(request: &mut Request<B>) -> Result<Self, SendError> {
        let (origin, target) = Self::of(std::mem::take(request.uri_mut()))?;
        let host = HeaderValue::from_str(origin.authority.as_str())
            .map_err(|error| SendError::new(Failure::ConnectFailed, error))?;
        request.headers_mut().insert(HOST, host);
        *request.uri_mut() = Uri::from(target);
        Ok(origin)
    }

    /// The origin as a URI, to connect to.
    pub(super) fn uri(&self) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
        Uri::from_parts(parts).expect("a scheme, an authority and a path make a URI")
    }

    /// The absolute form of a target in origin form, which HTTP/2 sends in parts (RFC 9113 §8.3.1).
    pub(super) fn uri_of(&self, target: &Uri) -> Uri {
        let mut parts = target.clone().into_parts();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        Uri::from_parts(parts).expect("a scheme, an authority and a path make a URI")
    }

    /// Whether requests are encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}
