//! Which calls a rule is about: a method and a path pattern, and the resource family of a path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::serde_as_text;

/// A pattern such as "PATCH /api/v2/users/**": an optional method, and a path in which `*` is one segment and a final `/**` is
/// everything below, including the bare path itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    method: Option<String>,
    segments: Vec<String>,
    below: bool,
}

impl RouteMatch {
    /// Matches every call.
    pub fn any() -> Self {
        Self { method: None, segments: Vec::new(), below: true }
    }

    /// Whether this call is meant.
    pub fn matches(&self, method: &str, path: &str) -> bool {
        if self.method.as_deref().is_some_and(|wanted| wanted != method) {
            return false;
        }
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let prefix = self
            .segments
            .iter()
            .all(|wanted| parts.next().is_some_and(|part| wanted == "*" || wanted == part));
        prefix && (self.below || parts.next().is_none())
    }
}

impl fmt::Display for RouteMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(method) = &self.method {
            write!(f, "{method} ")?;
        }
        for segment in &self.segments {
            write!(f, "/{segment}")?;
        }
        f.write_str(match (self.below, self.segments.is_empty()) {
            (true, _) => "/**",
            (false, true) => "/",
            (false, false) => "",
        })
    }
}

impl FromStr for RouteMatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("\"{text}\" is not a route like \"PATCH /api/v2/users/**\"");
        let (method, path) = match text.trim().split_once(' ') {
            Some((method, path)) => (Some(method.to_owned()), path.trim()),
            None => (None, text.trim()),
        };
        if method.as_ref().is_some_and(|method| !method.bytes().all(|byte| byte.is_ascii_uppercase())) {
            return Err(error());
        }
        let path = path.strip_prefix('/').ok_or_else(error)?;
        let (path, below) = match path.strip_suffix("**") {
            Some(rest) => (rest, true),
            None => (path, false),
        };
        let segments: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        if segments.iter().any(|part| part.contains("**")) {
            return Err(error());
        }
        Ok(Self { method, segments, below })
    }
}

serde_as_text!(RouteMatch);

/// The resource family of a path: its first three segments (`/api/v2/users`), which is how the platform groups its
/// per-resource limits.
///
/// ```
/// assert_eq!(tidegate_sim::model::route::family("/api/v2/users/17/routingskills"), "/api/v2/users");
/// ```
pub fn family(path: &str) -> String {
    path.split('/')
        .filter(|part| !part.is_empty())
        .take(3)
        .fold(String::new(), |family, part| family + "/" + part)
}

/// Who calls what: everything a limit may partition by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The access token.
    pub token: String,
    /// The OAuth client id.
    pub credential: String,
    /// The method, upper case.
    pub method: String,
    /// The path without query.
    pub path: String,
    /// [`family`] of the path.
    pub family: String,
}

impl Caller {
    /// A caller with the family worked out.
    pub fn new(token: &str, credential: &str, method: &str, path: &str) -> Self {
        Self {
            token: token.to_owned(),
            credential: credential.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            family: family(path),
        }
    }
}

/// By what a limit is counted separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Each access token has its own quota.
    Token,
    /// Each OAuth client has its own quota.
    Credential,
    /// Each resource family has its own quota.
    Family,
    /// One quota for the organisation; adds nothing when combined.
    Tenant,
}

impl Per {
    /// The part of `caller` that this partition distinguishes.
    fn part(self, caller: &Caller) -> &str {
        match self {
            Self::Token => &caller.token,
            Self::Credential => &caller.credential,
            Self::Family => &caller.family,
            Self::Tenant => "",
        }
    }
}

/// The partition of `caller` under `per`, as a map key. The separator cannot occur in a header value or path.
pub(crate) fn partition(per: &[Per], caller: &Caller) -> String {
    per.iter().map(|per| per.part(caller)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_star_matches_the_bare_path_too() {
        let route: RouteMatch = "/api/v2/users/**".parse().unwrap();
        assert!(route.matches("GET", "/api/v2/users"));
        assert!(route.matches("GET", "/api/v2/users/1/routingskills"));
        assert!(!route.matches("GET", "/api/v2/userssettings"));
    }

    #[test]
    fn a_star_is_exactly_one_segment() {
        let route: RouteMatch = "GET /api/v2/users/*".parse().unwrap();
        assert!(route.matches("GET", "/api/v2/users/1"));
        assert!(!route.matches("GET", "/api/v2/users"));
        assert!(!route.matches("GET", "/api/v2/users/1/x"));
        assert!(!route.matches("PUT", "/api/v2/users/1"));
    }

    #[test]
    fn routes_print_as_they_are_written() {
        for text in ["PATCH /api/v2/users/**", "/**", "GET /api/*/users", "/"] {
            assert_eq!(text.parse::<RouteMatch>().unwrap().to_string(), text);
        }
        for text in ["users", "patch /x", "/a/**/b"] {
            assert!(text.parse::<RouteMatch>().is_err(), "{text}");
        }
    }
}
