//! A vendor's rules, read from TOML.
//!
//! Every upstream is a file of rules, not code: where it lives, which limits it declares, how its headers read, which
//! answers say "too fast", which may be sent again, what it does with idempotency keys. A profile is checked when it is
//! read, and every problem is reported at once with its line ([`reader`]), because the file is written by hand and
//! usually has more than one mistake.
//!
//! The built-in profiles are the files under `profiles/`; they pass through the same reader.

mod body;
mod family;
mod hosts;
mod limit;
mod near;
mod parse;
mod problem;
pub mod reader;
mod reconcile;
mod route;
mod rules;
mod source;
mod span;

pub use self::family::FamilyRule;
pub use self::hosts::Regions;
pub use self::limit::{parse_place, read_limits};
pub use self::near::nearest;
pub use self::problem::{Problem, Problems};
pub use self::reconcile::read_recipe_rule;
pub use self::route::RouteRule;
pub use self::rules::{ErrorShape, IdempotencyRules, OauthRules, Throttle, ThrottleText, Timeouts};
pub use self::source::LimitsSource;
pub use self::span::parse_duration;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use crate::backoff::Backoff;
use crate::cache::ListRule;
use crate::classify::{Delivery, Outcome, RetryMatrix};
use crate::key::{Family, PathProblem};
use crate::merge::MergeRule;
use crate::observe::{BodyRule, HeaderRules, observe};
use crate::pace::LimitSpec;
use crate::push::PushRules;
use crate::reconcile::Rule;
use crate::time::Wall;

/// A vendor's rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The name by which it is chosen.
    pub name: String,
    /// What it is called in talk.
    pub title: String,
    /// Where the upstream lives; absent if only the user knows.
    pub regions: Option<Regions>,
    /// How many path segments make a family.
    pub family_segments: usize,
    /// Families that segments do not make; the first that matches decides.
    pub family_rules: Vec<FamilyRule>,
    /// The declared limits.
    pub limits: Vec<LimitSpec>,
    /// Where the upstream lists the limits it enforces; absent if it does not.
    pub limits_source: Option<LimitsSource>,
    /// How quota headers read.
    pub headers: HeaderRules,
    /// Limits that bodies describe; the first that matches decides.
    pub bodies: Vec<BodyRule>,
    /// Which answers say "too fast".
    pub throttle: Throttle,
    /// Which answers may be followed by another attempt.
    pub retry: RetryMatrix,
    /// Routes that do otherwise than their method says; the first that matches decides.
    pub routes: Vec<RouteRule>,
    /// The keys of writes.
    pub idempotency: IdempotencyRules,
    /// How to find out what became of a write; the first that matches decides.
    pub reconcile: Vec<Rule>,
    /// Which single writes a bulk call can carry. Used only where merging is switched on.
    pub merge: Vec<MergeRule>,
    /// Lists that tell the versions of many things at once; the first that matches decides.
    pub lists: Arc<[ListRule]>,
    /// For how long something that was created may not be found; absent if it is there at once.
    pub after_create: Option<Duration>,
    /// How tokens are fetched; absent if the upstream has no client-credentials login.
    pub oauth: Option<OauthRules>,
    /// Time-outs of attempts.
    pub timeouts: Timeouts,
    /// Waits where the upstream does not say.
    pub backoff: Backoff,
    /// How its notifications take the place of polling; absent if it has none.
    pub push: Option<PushRules>,
    /// The shape of errors.
    pub errors: ErrorShape,
}

/// The built-in profiles: name and text.
const BUILTIN: [(&str, &str); 13] = [
    ("genesys", include_str!("../../../../profiles/genesys.toml")),
    ("genesys-guide", include_str!("../../../../profiles/genesys-guide.toml")),
    ("generic", include_str!("../../../../profiles/generic.toml")),
    ("ietf", include_str!("../../../../profiles/ietf.toml")),
    ("github", include_str!("../../../../profiles/github.toml")),
    ("discord", include_str!("../../../../profiles/discord.toml")),
    ("okta", include_str!("../../../../profiles/okta.toml")),
    ("shopify", include_str!("../../../../profiles/shopify.toml")),
    ("zendesk", include_str!("../../../../profiles/zendesk.toml")),
    ("hubspot", include_str!("../../../../profiles/hubspot.toml")),
    ("salesforce", include_str!("../../../../profiles/salesforce.toml")),
    ("msgraph", include_str!("../../../../profiles/msgraph.toml")),
    ("slack", include_str!("../../../../profiles/slack.toml")),
];

impl Profile {
    /// Reads a profile. `file` is the name in messages.
    ///
    /// ```
    /// use tidegate_core::profile::Profile;
    ///
    /// let problems = Profile::parse("name = \"mine\"\n[timeouts]\nconect = \"5s\"\n", "mine.toml").unwrap_err();
    /// assert_eq!(problems.to_string(), "mine.toml:3: timeouts.conect: is not a known key (did you mean `connect`?)");
    /// ```
    pub fn parse(toml: &str, file: &str) -> Result<Self, Problems> {
        reader::read(toml, file, parse::profile)
    }

    /// The built-in profile of this name.
    pub fn builtin(name: &str) -> Option<Self> {
        let text = Self::builtin_text(name)?;
        Some(Self::parse(text, name).expect("every built-in profile is read by the tests"))
    }

    /// The text of a built-in profile, as a start for one's own.
    pub fn builtin_text(name: &str) -> Option<&'static str> {
        BUILTIN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// The names of the built-in profiles; the first is the default.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// The profile's limits with those of a configuration. One that bears a name of the profile's replaces it, and keeps the
    /// names the upstream has for it: whoever raises a limit still wants to know it in a refusal.
    pub fn limits_with(&self, mut configured: Vec<LimitSpec>) -> Vec<LimitSpec> {
        let mut limits = Vec::new();
        for rule in &self.limits {
            let replaces = |limit: &LimitSpec| limit.names().any(|name| rule.rank_of(name).is_some());
            let Some(by) = configured.iter().position(replaces) else {
                limits.push(rule.clone());
                continue;
            };
            for name in rule.names() {
                if configured.iter().all(|limit| limit.rank_of(name).is_none()) {
                    configured[by].aliases.push(name.to_owned());
                }
            }
        }
        limits.extend(configured);
        limits
    }

    /// What an answer says about delivery, by everything the profile says of statuses, headers and texts. `now` is what dates
    /// in the headers are read against where the answer has none of its own.
    ///
    /// ```
    /// use http::{HeaderMap, StatusCode};
    /// use tidegate_core::classify::Delivery;
    /// use tidegate_core::profile::Profile;
    /// use tidegate_core::time::Wall;
    ///
    /// let github = Profile::builtin("github").unwrap();
    /// let (headers, now) = (HeaderMap::new(), Wall::from_unix_millis(0));
    /// let limited = br#"{"message":"You have exceeded a secondary rate limit."}"#;
    /// assert_eq!(github.delivery(StatusCode::FORBIDDEN, &headers, limited, now), Delivery::Refused);
    /// assert_eq!(github.delivery(StatusCode::FORBIDDEN, &headers, b"{}", now), Delivery::Answered);
    /// ```
    pub fn delivery(&self, status: StatusCode, headers: &HeaderMap, body: &[u8], now: Wall) -> Delivery {
        let seen = observe(&self.headers, status, headers, now);
        let throttled = self.throttle.applies(status.as_u16(), &seen, body);
        self.retry.delivery(&Outcome::Answered { status, hint: seen.retry_after, throttled })
    }

    /// The family of a call: what a rule names, else the first segments of the path.
    ///
    /// ```
    /// use http::Method;
    /// use tidegate_core::profile::Profile;
    ///
    /// let slack = Profile::builtin("slack").unwrap();
    /// assert_eq!(slack.family(&Method::POST, "/api/chat.postMessage").unwrap().as_str(), "/api/chat.postMessage");
    /// ```
    ///
    /// # Errors
    /// What [`normalise`](crate::key::normalise) says of the path.
    pub fn family(&self, method: &Method, path: &str) -> Result<Family, PathProblem> {
        family::of(&self.family_rules, self.family_segments, method, path)
    }

    /// How the answer to a call describes a limit in its body; `None` if none does. The path is normalised.
    pub fn body_rule(&self, method: &Method, path: &str) -> Option<&BodyRule> {
        self.bodies.iter().find(|rule| rule.applies(method, path))
    }

    /// How to find out what became of a write; `None` if no rule says. The path is normalised.
    pub fn reconcile_rule(&self, method: &Method, path: &str) -> Option<&Rule> {
        self.reconcile.iter().find(|rule| rule.applies(method, path))
    }

    /// Whether executing a call twice is harmless, where a route says otherwise than the method or the same explicitly.
    ///
    /// ```
    /// use http::Method;
    /// use tidegate_core::profile::Profile;
    ///
    /// let genesys = Profile::builtin("genesys").unwrap();
    /// assert_eq!(genesys.is_idempotent(&Method::POST, "/api/v2/users/search"), Some(true));
    /// assert_eq!(genesys.is_idempotent(&Method::POST, "/api/v2/users"), None);
    /// ```
    pub fn is_idempotent(&self, method: &Method, path: &str) -> Option<bool> {
        self.route(method, path).map(|route| route.idempotent)
    }

    /// Whether a route says that a call changes nothing, whatever its method says.
    ///
    /// ```
    /// use http::Method;
    /// use tidegate_core::profile::Profile;
    ///
    /// let genesys = Profile::builtin("genesys").unwrap();
    /// assert!(genesys.is_safe(&Method::POST, "/api/v2/users/search"));
    /// assert!(!genesys.is_safe(&Method::POST, "/api/v2/users"));
    /// ```
    pub fn is_safe(&self, method: &Method, path: &str) -> bool {
        self.route(method, path).is_some_and(|route| route.safe)
    }

    fn route(&self, method: &Method, path: &str) -> Option<&RouteRule> {
        let matches = |route: &&RouteRule| {
            route.method.as_ref().is_none_or(|own| own == method) && route.path.matches(path)
        };
        self.routes.iter().find(matches)
    }

    /// The API's and the login's host for a region (see [`Regions::hosts`]).
    ///
    /// ```
    /// use tidegate_core::profile::Profile;
    ///
    /// let genesys = Profile::builtin("genesys").unwrap();
    /// let (api, login) = genesys.hosts("eu-central-1").unwrap();
    /// assert_eq!((api.as_str(), login.as_str()), ("api.mypurecloud.de", "login.mypurecloud.de"));
    /// assert_eq!(genesys.hosts("mypurecloud.example"), None);
    /// ```
    pub fn hosts(&self, region: &str) -> Option<(String, String)> {
        self.regions.as_ref()?.hosts(region)
    }
}
