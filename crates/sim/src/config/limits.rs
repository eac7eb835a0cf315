//! From configured numbers to the limits and caps of the model.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SimConfig;
use crate::model::concurrency::CapRule;
use crate::model::limits::LimitRule;
use crate::model::quota::{QuotaRule, Rule};
use crate::model::route::{Per, RouteMatch};
use crate::text::{Burst, duration};
use crate::wire::headers::Dialect;

/// The bulk endpoints, whose allocation is their own.
const BULK: &str = "/api/v2/bulk/**";

/// One more limit: a rate, a cap on calls in progress, or both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// Names the limit; required.
    pub key: String,
    /// Shown beside the key in 429 bodies and in the limits API.
    pub namespace: String,
    /// Which calls it is about, such as "PATCH /api/v2/users/**".
    #[serde(rename = "match")]
    pub route: RouteMatch,
    /// How it counts.
    pub rule: Rule,
    /// Units per window.
    pub quota: Option<u32>,
    /// The window of the quota.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Shifts aligned windows later.
    #[serde(with = "duration")]
    pub phase: Duration,
    /// Capacity of a token bucket.
    pub burst: Option<u32>,
    /// Calls in progress at once.
    pub concurrent: Option<u32>,
    /// By what it is counted separately.
    pub per: Vec<Per>,
    /// Units one call of a method draws.
    pub cost: BTreeMap<String, u32>,
    /// Whether headers never mention it.
    pub hidden: bool,
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            key: String::new(),
            namespace: "platform.api".to_owned(),
            route: RouteMatch::any(),
            rule: Rule::Fixed,
            quota: None,
            window: Duration::from_mins(1),
            phase: Duration::ZERO,
            burst: None,
            concurrent: None,
            per: vec![Per::Credential],
            cost: BTreeMap::new(),
            hidden: false,
        }
    }
}

impl SimConfig {
    /// All rate limits: the main one first, then the configured ones, then the burst and bulk rules.
    pub fn limit_rules(&self) -> Vec<LimitRule> {
        let bulk: RouteMatch = BULK.parse().expect("a valid pattern");
        let mut rules = Vec::new();
        let is_github = self.headers == Dialect::Github;
        if self.limit > 0 {
            // GitHub counts a call against one resource.
            let others =
                self.limits.iter().filter(|limit| is_github && limit.quota.is_some() && !limit.hidden);
            let except = self.bulk_allocation.map(|_| bulk.clone()).into_iter();
            rules.push(LimitRule {
                key: if is_github { "core" } else { "default" }.to_owned(),
                quota: QuotaRule {
                    rule: self.rule,
                    limit: self.limit,
                    window: self.window,
                    phase: self.phase,
                    burst: self.burst,
                },
                value: shown(&self.key, self.limit, self.window),
                per: self.per.clone(),
                except: except.chain(others.map(|limit| limit.route.clone())).collect(),
                cost: self.cost.clone(),
                ..plain_rule(RouteMatch::any())
            });
        }
        rules.extend(self.limits.iter().filter_map(LimitConfig::rate_rule));
        if let Some(burst) = self.patch_burst {
            let route = "PATCH /**".parse().expect("a valid pattern");
            rules.push(LimitRule { hidden: true, ..burst_rule("patch.burst", burst, route) });
        }
        let allocated = self.bulk_allocation.filter(|_| !is_github);
        rules.extend(allocated.map(|burst| burst_rule("bulk", burst, bulk)));
        rules
    }

    /// All caps on calls in progress.
    pub fn cap_rules(&self) -> Vec<CapRule> {
        let organisation = self.concurrency.map(|limit| CapRule {
            key: "org.concurrent.requests.max".to_owned(),
            namespace: "platform.api".to_owned(),
            limit,
            per: vec![Per::Tenant],
            route: RouteMatch::any(),
        });
        organisation.into_iter().chain(self.limits.iter().filter_map(LimitConfig::cap_rule)).collect()
    }
}

/// The number a limit is known by: keys that say "per minute" are told per minute, whatever the window is; others as they are.
fn shown(key: &str, quota: u32, window: Duration) -> u32 {
    if !key.ends_with("per.minute") || window.is_zero() {
        return quota;
    }
    let minute = Duration::from_mins(1).as_nanos();
    u32::try_from(u128::from(quota) * minute / window.as_nanos()).unwrap_or(u32::MAX)
}

fn plain_rule(route: RouteMatch) -> LimitRule {
    LimitRule {
        key: String::new(),
        namespace: "platform.api".to_owned(),
        quota: QuotaRule {
            rule: Rule::Fixed,
            limit: 1,
            window: Duration::from_secs(1),
            phase: Duration::ZERO,
            burst: None,
        },
        value: 1,
        per: vec![Per::Credential],
        route,
        except: Vec::new(),
        cost: BTreeMap::new(),
        hidden: false,
    }
}

fn burst_rule(key: &str, burst: Burst, route: RouteMatch) -> LimitRule {
    let quota = QuotaRule {
        rule: Rule::SlidingLog,
        limit: burst.count,
        window: burst.window,
        phase: Duration::ZERO,
        burst: None,
    };
    LimitRule { key: key.to_owned(), value: burst.count, quota, ..plain_rule(route) }
}

impl LimitConfig {
    pub(super) fn check(&self, place: &str, problems: &mut Vec<String>) {
        if self.key.is_empty() {
            problems.push(format!("{place}.key: a limit needs a name"));
        }
        if self.quota.is_none() && self.concurrent.is_none() {
            problems.push(format!("{place}: a limit needs `quota` or `concurrent`"));
        }
        for (name, value) in [("quota", self.quota), ("concurrent", self.concurrent), ("burst", self.burst)] {
            if value == Some(0) {
                problems.push(format!("{place}.{name}: 0 is below 1"));
            }
        }
        if self.window.is_zero() {
            problems.push(format!("{place}.window: 0s is not longer than zero"));
        }
    }

    fn rate_rule(&self) -> Option<LimitRule> {
        let quota = self.quota?;
        Some(LimitRule {
            value: shown(&self.key, quota, self.window),
            key: self.key.clone(),
            namespace: self.namespace.clone(),
            quota: QuotaRule {
                rule: self.rule,
                limit: quota,
                window: self.window,
                phase: self.phase,
                burst: self.burst,
            },
            per: self.per.clone(),
            route: self.route.clone(),
            except: Vec::new(),
            cost: self.cost.clone(),
            hidden: self.hidden,
        })
    }

    fn cap_rule(&self) -> Option<CapRule> {
        Some(CapRule {
            key: self.key.clone(),
            namespace: self.namespace.clone(),
            limit: self.concurrent?,
            per: self.per.clone(),
            route: self.route.clone(),
        })
    }
}
