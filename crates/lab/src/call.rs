//! Calls: what is called, by whom, and how it ends.

use std::str::FromStr;
use std::sync::Arc;

use http::Method;
use serde::{Deserialize, Deserializer};
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::pace::{CallerId, Class};
use tidegate_core::time::Mono;

/// Stands for the id of one of the simulated users.
const USER: &str = "{user}";

/// A call as written in a scenario: "PATCH /api/v2/users/{user}".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteText {
    /// The method.
    pub method: Method,
    /// The path, in which `{user}` stands for a user's id.
    pub template: String,
}

impl Default for RouteText {
    fn default() -> Self {
        Self { method: Method::GET, template: "/api/v2/users/{user}".to_owned() }
    }
}

impl FromStr for RouteText {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "is not a call like \"GET /api/v2/users/{user}\"";
        let (method, path) = text.trim().split_once(' ').ok_or(EXPECTED)?;
        let method = method.parse::<Method>().map_err(|_| EXPECTED)?;
        let template = path.trim();
        let rest = template.replacen(USER, "", 1);
        let plain = rest.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'?'));
        if !template.starts_with("/api/v2/") || !plain {
            return Err(EXPECTED);
        }
        Ok(Self { method, template: template.to_owned() })
    }
}

impl<'de> Deserialize<'de> for RouteText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        crate::text::parsed(from)
    }
}

/// A call's method, path and family, worked out once per run.
#[derive(Debug)]
pub struct Route {
    /// The method.
    pub method: Method,
    template: String,
    /// The family by the profile's number of segments.
    pub family: Family,
    /// The family by the guide's rule: the first three segments.
    pub area: Family,
}

impl Route {
    /// The route of `text` under a profile whose families have `segments` segments.
    pub fn new(text: &RouteText, segments: usize) -> Self {
        let example = text.template.replacen(USER, &user_id(0), 1);
        Self {
            method: text.method.clone(),
            family: Family::with_segments(&example, segments).unwrap_or_else(|_| Family::of(&example)),
            area: Family::of(&example),
            template: text.template.clone(),
        }
    }

    /// The path for the `user`-th user.
    pub fn path(&self, user: u32) -> String {
        if self.template.contains(USER) {
            self.template.replacen(USER, &user_id(user), 1)
        } else {
            self.template.clone()
        }
    }

    /// Whether the method may change something.
    pub fn is_write(&self) -> bool {
        !self.method.is_safe()
    }
}

/// The id the simulator gives its n-th user, from 0.
fn user_id(user: u32) -> String {
    format!("00000000-0000-4000-8000-{:012x}", u64::from(user) + 1)
}

/// Names a call while it is open; free again when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub(crate) u32);

/// What a strategy knows of a call.
#[derive(Debug, Clone)]
pub struct CallInfo {
    /// Its name.
    pub id: CallId,
    /// What is called.
    pub route: Arc<Route>,
    /// The concrete path.
    pub path: Arc<str>,
    /// Who it is called as.
    pub credential: CredentialId,
    /// Its class.
    pub class: Class,
    /// Whose it is: each load is a caller.
    pub caller: CallerId,
    /// After this its answer is worthless.
    pub deadline: Option<Mono>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a good answer.
    Good,
    /// With an answer that will not change: a 4xx other than 401, 408 and 429.
    Rejected,
    /// The strategy stopped trying.
    GaveUp,
    /// It may have been executed, nobody knows.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_and_filled_in() {
        let text: RouteText = "PATCH /api/v2/users/{user}/routingskills".parse().unwrap();
        let route = Route::new(&text, 3);
        assert_eq!(route.path(254), "/api/v2/users/00000000-0000-4000-8000-0000000000ff/routingskills");
        assert_eq!((route.family.as_str(), route.is_write()), ("/api/v2/users", true));
    }

    #[test]
    fn what_is_no_call_is_refused() {
        for text in ["/api/v2/users", "GET users", "GET /api/v2/{id}", "GET /api/v2/users?x=1", "GET /other"]
        {
            assert!(text.parse::<RouteText>().is_err(), "{text}");
        }
    }
}
