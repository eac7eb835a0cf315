//! Everything that can be simulated, as one documented structure.
//!
//! A configuration is TOML (or JSON, in `POST /sim/reset`); every key has a default, unknown keys and values out of bounds are
//! reported all at once. Durations read "5s", "250ms"; see [`crate::text`].

mod limits;
mod push;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::SimError;
use crate::model::fault::Faults;
use crate::model::push::hooks::Target;
use crate::model::quota::Rule;
use crate::model::route::Per;
use crate::model::strangers::Stranger;
use crate::strict;
use crate::text::{Burst, Spread, duration, maybe_duration};
use crate::wire::headers::{Dialect, ResetForm, ResetOf, RetryAfterForm};

pub use limits::LimitConfig;
pub use push::{LiveConfig, NotificationConfig};

/// What to simulate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimConfig {
    /// Seed of all randomness: ids, latencies, faults, irregular strangers.
    pub seed: u64,
    /// How many users exist at the start. The n-th (from 0) has the id `00000000-0000-4000-8000-` and n + 1 in 12 hex digits.
    pub users: u32,
    /// How many scripts exist at the start.
    pub scripts: u32,

    /// How the main limit counts.
    pub rule: Rule,
    /// Units of the main limit per window; 0 switches the main limit off.
    pub limit: u32,
    /// Window of the main limit.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Shifts aligned windows later (rules `fixed-aligned` and `sliding-counter`), counted from the start of the simulation.
    #[serde(with = "duration")]
    pub phase: Duration,
    /// Capacity of a token bucket; `limit` if absent.
    pub burst: Option<u32>,
    /// By what the main limit is counted separately.
    pub per: Vec<Per>,
    /// Units one call of a method draws from the main limit, such as `{ PATCH = 2 }`; 1 if absent.
    pub cost: BTreeMap<String, u32>,
    /// Key of the main limit in 429 bodies and in the limits API.
    pub key: String,
    /// What the limits API lists among the platform's defaults for the main limit, where the organisation has another
    /// number; the same if absent.
    pub limit_default: Option<u32>,
    /// A burst rule for PATCH calls that headers never mention, such as "12 per 5s".
    pub patch_burst: Option<Burst>,
    /// The separate allocation of `/api/v2/bulk/**`; if absent those calls draw from the main limit.
    pub bulk_allocation: Option<Burst>,
    /// How many calls of one organisation may be in progress at once.
    pub concurrency: Option<u32>,
    /// More limits, all applied together with the main one.
    pub limits: Vec<LimitConfig>,
    /// Punishes calls while limited: each extends the closure by this much.
    #[serde(with = "maybe_duration")]
    pub penalty: Option<Duration>,

    /// How (and whether) responses describe the limits.
    pub headers: Dialect,
    /// How resets are written; the dialect's own form if absent.
    pub reset: Option<ResetForm>,
    /// Which instant a reset names where capacity comes back gradually.
    pub reset_of: ResetOf,
    /// What Retry-After says on a 429.
    pub retry_after: RetryAfterForm,
    /// How much too early a `short` Retry-After is.
    #[serde(with = "duration")]
    pub short_by: Duration,
    /// Whether 429 bodies carry `limit: {key, namespace, value}`.
    pub limit_in_body: bool,
    /// How far the server's wall clock is ahead of the true time.
    #[serde(with = "duration")]
    pub clock_ahead: Duration,
    /// How far it is behind.
    #[serde(with = "duration")]
    pub clock_behind: Duration,

    /// The time from the arrival of a request to its answer.
    pub latency: Spread,
    /// The share of the latency that passes before the server decides (counts and executes), 0 to 1.
    pub decide_at: f64,
    /// Largest accepted request body, in bytes; larger ones are answered 413.
    pub max_body: usize,

    /// How long writes are de-duplicated by `X-Genesys-Request-Id`; "none" switches it off.
    #[serde(with = "maybe_duration")]
    pub dedup: Option<Duration>,
    /// How long a created object is not found yet (eventual consistency).
    #[serde(with = "duration")]
    pub lag: Duration,
    /// Whether creating a user with an existing email is refused with 409 instead of creating a duplicate.
    pub unique_email: bool,
    /// Whether updating a user without a version is refused with 400.
    pub require_version: bool,

    /// Tokens and clients.
    pub oauth: OauthConfig,
    /// Asynchronous jobs.
    pub jobs: JobConfig,
    /// What changes without anybody calling.
    pub live: LiveConfig,
    /// Notifications channels.
    pub notifications: NotificationConfig,
    /// Where events are posted.
    pub webhooks: Vec<Target>,
    /// Who else draws from the quota.
    pub strangers: Vec<Stranger>,
    /// What goes wrong from the start.
    pub faults: Faults,
    /// Changes of the faults over time.
    pub events: Vec<Event>,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            users: 500,
            scripts: 20,
            rule: Rule::Fixed,
            limit: 300,
            window: Duration::from_mins(1),
            phase: Duration::ZERO,
            burst: None,
            per: vec![Per::Credential],
            cost: BTreeMap::new(),
            key: "client.credentials.token.rate.per.minute".to_owned(),
            limit_default: None,
            patch_burst: None,
            bulk_allocation: Some(Burst { count: 300, window: Duration::from_mins(1) }),
            concurrency: None,
            limits: Vec::new(),
            penalty: None,
            headers: Dialect::default(),
            reset: None,
            reset_of: ResetOf::default(),
            retry_after: RetryAfterForm::default(),
            short_by: Duration::from_secs(5),
            limit_in_body: false,
            clock_ahead: Duration::ZERO,
            clock_behind: Duration::ZERO,
            latency: Spread::default(),
            decide_at: 0.5,
            max_body: 512_000,
            dedup: None,
            lag: Duration::ZERO,
            unique_email: false,
            require_version: false,
            oauth: OauthConfig::default(),
            jobs: JobConfig::default(),
            live: LiveConfig::default(),
            notifications: NotificationConfig::default(),
            webhooks: Vec::new(),
            strangers: Vec::new(),
            faults: Faults::default(),
            events: Vec::new(),
        }
    }
}

/// Tokens and the clients that may have them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OauthConfig {
    /// How long a token is valid. Told in whole seconds, rounded down, at least 1.
    #[serde(with = "duration")]
    pub token_ttl: Duration,
    /// The clients that may log in.
    pub clients: Vec<Client>,
    /// How many token calls one client may make; unlimited if absent. Reported as 400, as the platform does.
    pub throttle: Option<Burst>,
    /// Whether a throttled token call carries Retry-After.
    pub throttle_hint: bool,
    /// The time a token call takes.
    pub latency: Spread,
    /// How many tokens one client may hold; the oldest dies when another is issued. Unlimited if absent.
    pub max_tokens: Option<u32>,
}

impl Default for OauthConfig {
    fn default() -> Self {
        Self {
            token_ttl: Duration::from_hours(24),
            clients: vec![Client::default()],
            throttle: None,
            throttle_hint: false,
            latency: Spread::default(),
            max_tokens: None,
        }
    }
}

/// One OAuth client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Client {
    /// Client id.
    pub id: String,
    /// Client secret. Simulated clients have no real secrets, so it is not masked.
    pub secret: String,
    /// What it may do, such as `["view:users", "edit:users"]`; everything if absent.
    pub scopes: Option<Vec<String>>,
}

impl Default for Client {
    fn default() -> Self {
        Self { id: "demo-client".to_owned(), secret: "demo-secret".to_owned(), scopes: None }
    }
}

/// How asynchronous jobs progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobConfig {
    /// How long a job is queued.
    #[serde(with = "duration")]
    pub queued: Duration,
    /// How long it runs after that.
    #[serde(with = "duration")]
    pub running: Duration,
    /// How many items one result page holds at most.
    pub page: u32,
    /// How likely a job is to fail in the end.
    pub fail: f64,
    /// How likely an item of a job is to be refused as retryable.
    pub retryable: f64,
    /// How long after a job's end its results are gone; never if absent.
    #[serde(with = "maybe_duration")]
    pub expire: Option<Duration>,
    /// How many recording jobs may be open at once.
    pub concurrent: u32,
}

impl Default for JobConfig {
    fn default() -> Self {
        Self {
            queued: Duration::from_millis(200),
            running: Duration::from_millis(800),
            page: 100,
            fail: 0.0,
            retryable: 0.0,
            expire: None,
            concurrent: 2,
        }
    }
}

/// A change of the faults at a time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Event {
    /// When, counted from the start of the simulation.
    #[serde(with = "duration")]
    pub at: Duration,
    /// What holds from then on; replaces all faults before it.
    pub faults: Faults,
}

impl SimConfig {
    /// Reads a configuration; every problem is reported at once.
    ///
    /// ```
    /// let error = tidegate_sim::SimConfig::from_toml("limt = 3\nwindow = \"5\"").unwrap_err();
    /// assert!(error.to_string().starts_with("2 problems in the configuration:"));
    /// ```
    pub fn from_toml(text: &str) -> Result<Self, SimError> {
        let config: Self = strict::read_toml("configuration", text)?;
        config.validate()?;
        Ok(config)
    }

    /// This configuration with the keys of a JSON object replaced (objects are merged, lists are not).
    pub fn overridden(&self, json: &[u8]) -> Result<Self, SimError> {
        let mut tree = serde_json::to_value(self)
            .map_err(|error| SimError::Syntax { what: "configuration", reason: error.to_string() })?;
        strict::overlay(&mut tree, strict::json_tree("configuration", json)?);
        let config: Self = strict::read("configuration", tree)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks all bounds; lists everything that is wrong.
    pub fn validate(&self) -> Result<(), SimError> {
        let mut problems = self.faults.problems("faults.");
        if self.limit > 0 && self.window.is_zero() {
            problems.push("window: 0s is not longer than zero".to_owned());
        }
        if self.burst == Some(0) {
            problems.push("burst: 0 is below 1".to_owned());
        }
        if self.concurrency == Some(0) {
            problems.push("concurrency: 0 is below 1".to_owned());
        }
        if !(0.0..=1.0).contains(&self.decide_at) {
            problems.push(format!("decide_at: {} is not between 0 and 1", self.decide_at));
        }
        if self.jobs.page == 0 {
            problems.push("jobs.page: 0 is below 1".to_owned());
        }
        for (key, share) in [("fail", self.jobs.fail), ("retryable", self.jobs.retryable)] {
            if !(0.0..=1.0).contains(&share) {
                problems.push(format!("jobs.{key}: {share} is not between 0 and 1"));
            }
        }
        if self.jobs.concurrent == 0 {
            problems.push("jobs.concurrent: 0 is below 1".to_owned());
        }
        if self.oauth.clients.is_empty() {
            problems.push("oauth.clients: at least one client is needed".to_owned());
        }
        if self.oauth.max_tokens == Some(0) {
            problems.push("oauth.max_tokens: 0 is below 1".to_owned());
        }
        problems.extend(self.notifications.problems());
        problems.extend(self.live.problems());
        for (index, target) in self.webhooks.iter().enumerate() {
            problems.extend(target.problems(&format!("webhooks[{index}]")));
        }
        for (index, limit) in self.limits.iter().enumerate() {
            limit.check(&format!("limits[{index}]"), &mut problems);
        }
        for (index, stranger) in self.strangers.iter().enumerate() {
            // The bound keeps the bookkeeping of an idle hour below a second.
            if !(stranger.rate > 0.0 && stranger.rate <= 10_000.0) || stranger.burst == 0 {
                problems.push(format!(
                    "strangers[{index}]: rate must be above 0 and at most 10000, burst at least 1"
                ));
            }
        }
        for (index, event) in self.events.iter().enumerate() {
            problems.extend(event.faults.problems(&format!("events[{index}].faults.")));
        }
        if problems.is_empty() { Ok(()) } else { Err(SimError::Invalid { what: "configuration", problems }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unknown_key_is_named_with_its_place() {
        let error = SimConfig::from_toml(
            "limits_ = 1\n[oauth]\nttl = \"2s\"\n[[limits]]\nkey = \"users\"\nqouta = 3\n[[strangers]]\nrate = \"fast\"\n",
        );
        let text = error.unwrap_err().to_string();
        for part in [
            "4 problems",
            "limits_: unknown",
            "oauth.ttl: unknown",
            "limits[0].qouta: unknown",
            "strangers[0].rate:",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }

    #[test]
    fn every_bound_is_checked_at_once() {
        let error = SimConfig::from_toml(
            "window = \"0s\"\nburst = 0\ndecide_at = 2.0\n[oauth]\nclients = []\n[[limits]]\n[[strangers]]\nrate = 0.0\n[faults]\ndrop_after = 1.5\n",
        );
        let text = error.unwrap_err().to_string();
        // The faults have two: 1.5 is no probability, and the sum is above 1; the limit has no key and no quota.
        assert!(text.starts_with("9 problems in the configuration:"), "{text}");
    }

    #[test]
    fn overriding_with_nothing_changes_nothing() {
        let toml = "seed = 9\nlatency = \"5ms..9ms\"\ndedup = \"24h\"\npatch_burst = \"12 per 5s\"\n[[limits]]\nkey = \"users\"\nmatch = \"PATCH /api/v2/users/**\"\nquota = 60\nper = [\"credential\", \"family\"]\n[faults]\nscript = [\"drop-after\"]\n";
        let config = SimConfig::from_toml(toml).unwrap();
        assert_eq!(config.overridden(b"").unwrap(), config);
        let changed = config.overridden(br#"{"dedup": "none", "oauth": {"token_ttl": "2s"}}"#).unwrap();
        assert_eq!((changed.dedup, changed.oauth.token_ttl), (None, Duration::from_secs(2)));
        assert_eq!((changed.seed, changed.oauth.clients.len()), (9, 1));
    }

    #[test]
    fn bulk_calls_leave_the_main_limit_only_if_they_have_their_own() {
        let keys =
            |config: &SimConfig| config.limit_rules().into_iter().map(|rule| rule.key).collect::<Vec<_>>();
        let mut config = SimConfig::default();
        assert_eq!(keys(&config), ["default", "bulk"]);
        config.bulk_allocation = None;
        assert!(config.limit_rules()[0].except.is_empty());
        config.limit = 0;
        assert_eq!(keys(&config), Vec::<String>::new());
    }
}
