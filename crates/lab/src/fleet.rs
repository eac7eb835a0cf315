//! The clients of a scenario: `[fleet]` and its loads.
//!
//! An *instance* is a process: it paces on its own and knows nothing of the others, unless they share their quotas through a
//! store ([`Quota`]). A *load* is something that every
//! instance does: a closed loop of callers who each send the next call when the last is answered, or calls that arrive at a
//! rate whether or not the last are answered.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tidegate_core::pace::Class;
use tidegate_core::profile::Profile;
use tidegate_sim::SimConfig;
use tidegate_sim::text::Spread;

use crate::calendar::Opening;
use crate::call::RouteText;
use crate::classes::Classes;
use crate::quota::Quota;
use crate::strategy::StrategyName;
use crate::text;

/// Who calls, from where, and by which strategies in turn.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fleet {
    /// Processes.
    pub instances: u32,
    /// Network round trip between client and server, beside the server's own latency; half of a draw each way.
    pub rtt: Spread,
    /// When an instance starts.
    pub start: Spread,
    /// OAuth clients; the instances take them in turn.
    pub credentials: Vec<String>,
    /// The core's profile, a built-in one.
    pub profile: String,
    /// Whether `tidegate` is told the server's limits, as an operator does with `[[limit]]`.
    pub declared: bool,
    /// What each class of `tidegate` leaves to others.
    pub class: Classes,
    /// Whether the instances of `tidegate` share their quotas, and through what.
    pub quota: Quota,
    /// What comes before, counted from the start of the run, is learning: the `settled_...` measures begin here.
    #[serde(deserialize_with = "text::maybe_duration")]
    pub settle: Option<Duration>,
    /// Which strategies are run.
    #[serde(deserialize_with = "strategies")]
    pub strategies: Vec<StrategyName>,
    /// What every instance does.
    pub load: Vec<Load>,
    /// The calendar of `tidegate`; `no-calendar` has none.
    pub window: Vec<Opening>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            instances: 1,
            rtt: Spread::default(),
            start: Spread::default(),
            credentials: vec!["demo-client".to_owned()],
            profile: "generic".to_owned(),
            declared: false,
            class: Classes::default(),
            quota: Quota::default(),
            settle: None,
            strategies: StrategyName::usual(),
            load: Vec::new(),
            window: Vec::new(),
        }
    }
}

/// One thing that every instance does.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// The class of its calls.
    #[serde(deserialize_with = "text::parsed")]
    pub class: Class,
    /// What is called, in turn, such as "GET /api/v2/users/{user}".
    pub calls: Vec<RouteText>,
    /// The body of its writes.
    pub body: String,
    /// Callers of a closed loop, per instance. Without a rate at least one.
    pub callers: u32,
    /// Calls per second and instance that arrive by themselves; absent: a closed loop.
    pub rate: Option<f64>,
    /// By how much the rate differs between instances (Zipf's exponent): the n-th has a share of all in proportion to
    /// `n^-skew`, and `rate` is their mean.
    pub skew: f64,
    /// Calls that arrive at one instant; `rate = 2, burst = 10` makes ten calls every five seconds.
    pub burst: u32,
    /// Spreads each burst uniformly over its interval instead of placing it at the start.
    pub irregular: bool,
    /// Calls per instance after which the load is done; absent: it goes on.
    pub requests: Option<u64>,
    /// When it begins, after the instance's own start.
    #[serde(deserialize_with = "text::duration")]
    pub from: Duration,
    /// No new call from then on.
    #[serde(deserialize_with = "text::maybe_duration")]
    pub to: Option<Duration>,
    /// Each call's deadline, from when it began.
    #[serde(deserialize_with = "text::maybe_duration")]
    pub deadline: Option<Duration>,
    /// The OAuth client of this load, instead of the instance's.
    pub credential: Option<String>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            class: Class::Bulk,
            calls: vec![RouteText::default()],
            body: r#"{"title":"Lab"}"#.to_owned(),
            callers: 1,
            rate: None,
            skew: 0.0,
            burst: 1,
            irregular: false,
            requests: None,
            from: Duration::ZERO,
            to: None,
            deadline: None,
            credential: None,
        }
    }
}

impl Load {
    /// A closed loop with an end: the time it takes is the makespan.
    pub fn is_job(&self) -> bool {
        self.rate.is_none() && self.requests.is_some()
    }

    /// The rate of the `instance`-th of so many, from 0, where `all` is [`Load::weights`] of them.
    pub(crate) fn rate_of(&self, instance: usize, instances: u32, all: f64) -> Option<f64> {
        let rate = self.rate?;
        // Without skew exactly the rate that was written, so that rounding changes no run.
        let even = self.skew == 0.0;
        Some(if even { rate } else { rate * f64::from(instances) * self.weight(instance) / all })
    }

    /// The sum of the weights of so many instances.
    pub(crate) fn weights(&self, instances: u32) -> f64 {
        (0..instances as usize).map(|instance| self.weight(instance)).sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "there are far fewer instances than 2^53")]
    fn weight(&self, instance: usize) -> f64 {
        ((instance + 1) as f64).powf(-self.skew)
    }

    /// Whether it ends by itself.
    pub fn ends(&self) -> bool {
        self.requests.is_some() || self.to.is_some()
    }
}

/// Bounds that keep a slip of the pen from filling the memory.
const MOST_INSTANCES: u32 = 100_000;
const MOST_CALLERS: u32 = 100_000;
const FASTEST: f64 = 100_000.0;
const MOST_SKEW: f64 = 3.0;

impl Fleet {
    /// Whether any load is a job.
    pub fn has_job(&self) -> bool {
        self.load.iter().any(Load::is_job)
    }

    /// Everything that is out of bounds in the fleet itself.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(1..=MOST_INSTANCES).contains(&self.instances) {
            problems
                .push(format!("fleet.instances: {} is not between 1 and {MOST_INSTANCES}", self.instances));
        }
        if !Profile::builtin_names().any(|name| name == self.profile) {
            let known = Profile::builtin_names().collect::<Vec<_>>().join(", ");
            problems.push(format!("fleet.profile: \"{}\" is not built in (there are {known})", self.profile));
        }
        if self.strategies.is_empty() {
            problems.push("fleet.strategies: none is named".to_owned());
        }
        for (at, name) in self.strategies.iter().enumerate() {
            if self.strategies[..at].contains(name) {
                problems.push(format!("fleet.strategies: `{name}` is named twice (remove one)"));
            }
        }
        if self.load.is_empty() {
            problems.push("fleet.load: nobody calls (add a [[fleet.load]])".to_owned());
        }
        if self.credentials.is_empty() {
            problems.push("fleet.credentials: at least one is needed".to_owned());
        }
        self.quota.check(&mut problems);
        for (index, window) in self.window.iter().enumerate() {
            window.check(&format!("fleet.window[{index}]"), &mut problems);
        }
        for (index, load) in self.load.iter().enumerate() {
            load.check(&format!("fleet.load[{index}]"), &mut problems);
        }
        problems
    }

    /// Everything that does not fit this server, or this duration of the run.
    pub fn misfits(&self, server: &SimConfig, duration: Option<Duration>) -> Vec<String> {
        let mut problems = Vec::new();
        let known = |id: &str| server.oauth.clients.iter().any(|client| client.id == id);
        for id in self.credentials.iter().filter(|id| !known(id)) {
            problems.push(format!("fleet.credentials: \"{id}\" is none of server.oauth.clients"));
        }
        if let Some(settle) = self.settle {
            if duration.is_none_or(|duration| settle >= duration) {
                problems.push("fleet.settle: the scenario's duration must be set, and longer".to_owned());
            }
            if self.has_job() {
                // Jobs end when they are done, so that two of them are never measured over the same time.
                problems.push("fleet.settle: no load may have both callers and requests".to_owned());
            }
        }
        for (index, load) in self.load.iter().enumerate() {
            let place = format!("fleet.load[{index}]");
            if let Some(id) = load.credential.as_deref().filter(|id| !known(id)) {
                problems.push(format!("{place}.credential: \"{id}\" is none of server.oauth.clients"));
            }
            if !load.ends() && duration.is_none() {
                problems.push(format!(
                    "{place}: never ends (set its requests or to, or the scenario's duration)"
                ));
            }
        }
        problems
    }
}

impl Load {
    fn check(&self, place: &str, problems: &mut Vec<String>) {
        if self.calls.is_empty() {
            problems.push(format!("{place}.calls: at least one is needed"));
        }
        if self.rate.is_none() && !(1..=MOST_CALLERS).contains(&self.callers) {
            problems.push(format!("{place}.callers: {} is not between 1 and {MOST_CALLERS}", self.callers));
        }
        if let Some(rate) = self.rate
            && !(rate > 0.0 && rate <= FASTEST)
        {
            problems.push(format!("{place}.rate: {rate} is not above 0 and at most {FASTEST}"));
        }
        if !(0.0..=MOST_SKEW).contains(&self.skew) {
            problems.push(format!("{place}.skew: {} is not between 0 and {MOST_SKEW}", self.skew));
        } else if self.skew > 0.0 && self.rate.is_none() {
            problems.push(format!("{place}.skew: only a load with a rate can be uneven"));
        }
        if self.burst == 0 {
            problems.push(format!("{place}.burst: 0 is below 1"));
        }
        if self.requests == Some(0) {
            problems.push(format!("{place}.requests: 0 is below 1"));
        }
        if self.to.is_some_and(|to| to <= self.from) {
            problems.push(format!("{place}.to: must be later than `from`"));
        }
    }
}

fn strategies<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<StrategyName>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    names
        .iter()
        .map(|name| name.parse().map_err(|error| serde::de::Error::custom(format!("\"{name}\" {error}"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_load_is_as_large_in_all_as_an_even_one() {
        let load = Load { rate: Some(2.0), skew: 0.8, ..Load::default() };
        let all = load.weights(32);
        let rates: Vec<f64> = (0..32).filter_map(|instance| load.rate_of(instance, 32, all)).collect();
        assert!((rates.iter().sum::<f64>() - 64.0).abs() < 1e-9, "{rates:?}");
        assert!((rates[0] / rates[31] - 32.0_f64.powf(0.8)).abs() < 1e-9, "the first has most");
        let even = Load { skew: 0.0, ..load };
        assert_eq!(even.rate_of(31, 32, even.weights(32)), Some(2.0));
    }
}
