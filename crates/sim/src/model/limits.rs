//! Several limits at once, each with its own partition, cost and matching routes.
//!
//! # Why
//!
//! Real platforms apply more than one limit to a call: per token, per client, per resource family, a burst rule for writes. The
//! headers describe one of them (or none), and the others are found out by being refused.
//!
//! # Rules
//!
//! * A call needs every limit that matches it; it draws from all of them or from none.
//! * If several refuse, the one with the longest wait is named.
//! * With a penalty, a bucket that has refused stays closed until the wait it told is over, and each call while it is closed
//!   extends the closure by the penalty.
//! * A hidden limit is enforced but not described by headers.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::model::quota::{Admission, QuotaModel, QuotaRule};
use crate::model::route::{Caller, Per, RouteMatch, partition};

/// One rate limit of the server.
#[derive(Debug, Clone)]
pub struct LimitRule {
    /// Names the limit in statistics, IETF headers and 429 bodies.
    pub key: String,
    /// The namespace shown beside the key in 429 bodies.
    pub namespace: String,
    /// How it counts.
    pub quota: QuotaRule,
    /// The number shown in 429 bodies and by the limits API.
    pub value: u32,
    /// By what it is counted separately.
    pub per: Vec<Per>,
    /// Which calls it counts.
    pub route: RouteMatch,
    /// Calls it does not count although they match.
    pub except: Vec<RouteMatch>,
    /// Units one call of a method draws; 1 if absent.
    pub cost: BTreeMap<String, u32>,
    /// Whether headers never mention it.
    pub hidden: bool,
}

impl LimitRule {
    /// What this caller's call costs, or `None` if the limit is not about it.
    fn cost(&self, caller: &Caller) -> Option<u32> {
        let counted = self.route.matches(&caller.method, &caller.path)
            && !self.except.iter().any(|route| route.matches(&caller.method, &caller.path));
        counted.then(|| self.cost.get(&caller.method).copied().unwrap_or(1))
    }
}

/// What the headers may say about one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The limit's key.
    pub key: String,
    /// Its window.
    pub window: Duration,
    /// Its state after the call.
    pub state: Admission,
}

/// Why a call was throttled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Key of the limit that refused.
    pub key: String,
    /// Its namespace.
    pub namespace: String,
    /// The number it is known by.
    pub value: u32,
    /// After which time the same call would be admitted, if nobody else draws.
    pub retry_after: Duration,
}

/// The answer of all limits to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `None` if admitted.
    pub refusal: Option<Refusal>,
    /// The limits that headers may describe, in order of configuration.
    pub described: Vec<Described>,
}

#[derive(Debug, Clone)]
struct Bucket {
    quota: QuotaModel,
    /// Only used with a penalty: refuse everything before this time.
    closed_until: Duration,
}

impl Bucket {
    /// What headers say: a closed bucket has nothing to give until it opens, whatever its counter says.
    fn told(&self, now: Duration, state: Admission) -> Admission {
        let closed = self.closed_until.saturating_sub(now);
        if closed.is_zero() {
            return state;
        }
        Admission {
            remaining: 0,
            reset_after: state.reset_after.max(closed),
            next_after: state.next_after.max(closed),
            ..state
        }
    }
}

/// All rate limits of the server with their state.
#[derive(Debug, Clone)]
pub struct Limits {
    rules: Vec<LimitRule>,
    penalty: Option<Duration>,
    buckets: HashMap<(usize, String), Bucket>,
}

/// Above this many buckets, idle ones are forgotten (tokens come and go).
const SWEEP_ABOVE: usize = 4096;

impl Limits {
    /// The limits of `rules`, nothing drawn.
    pub fn new(rules: Vec<LimitRule>, penalty: Option<Duration>) -> Self {
        Self { rules, penalty, buckets: HashMap::new() }
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[LimitRule] {
        &self.rules
    }

    /// Admits the call, drawing from every limit that counts it, or refuses it and draws from none.
    pub fn admit(&mut self, now: Duration, caller: &Caller) -> Verdict {
        self.sweep(now);
        let counted: Vec<(usize, String, u32)> = self
            .rules
            .iter()
            .enumerate()
            .filter_map(|(index, rule)| Some((index, partition(&rule.per, caller), rule.cost(caller)?)))
            .collect();
        let refusal = counted
            .iter()
            .filter_map(|(index, part, cost)| self.refusal(now, *index, part, *cost))
            .max_by_key(|refusal| refusal.retry_after);
        let mut described = Vec::with_capacity(counted.len());
        for (index, part, cost) in counted {
            let rule = &self.rules[index];
            let bucket = bucket(&mut self.buckets, rule, index, &part);
            let state =
                if refusal.is_some() { bucket.quota.peek(now, 0) } else { bucket.quota.admit(now, cost) };
            if !rule.hidden {
                let state = bucket.told(now, state);
                described.push(Described { key: rule.key.clone(), window: rule.quota.window, state });
            }
        }
        Verdict { refusal, described }
    }

    /// What headers may say to this caller, without drawing.
    pub fn describe(&mut self, now: Duration, caller: &Caller) -> Vec<Described> {
        self.describe_where(now, caller, |rule| rule.cost(caller).is_some())
    }

    /// The same for every limit, whichever calls it counts.
    pub fn describe_all(&mut self, now: Duration, caller: &Caller) -> Vec<Described> {
        self.describe_where(now, caller, |_| true)
    }

    fn describe_where(
        &mut self,
        now: Duration,
        caller: &Caller,
        wanted: impl Fn(&LimitRule) -> bool,
    ) -> Vec<Described> {
        let mut described = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            if rule.hidden || !wanted(rule) {
                continue;
            }
            let bucket = bucket(&mut self.buckets, rule, index, &partition(&rule.per, caller));
            let state = bucket.quota.peek(now, 0);
            let state = bucket.told(now, state);
            described.push(Described { key: rule.key.clone(), window: rule.quota.window, state });
        }
        described
    }

    /// Whether the limit `index` refuses a call; with a penalty this closes the bucket, or keeps it closed for longer.
    fn refusal(&mut self, now: Duration, index: usize, part: &str, cost: u32) -> Option<Refusal> {
        let rule = &self.rules[index];
        let bucket = bucket(&mut self.buckets, rule, index, part);
        let retry_after = match self.penalty {
            Some(penalty) if bucket.closed_until > now => {
                bucket.closed_until += penalty;
                bucket.closed_until.saturating_sub(now)
            }
            penalty => {
                let seen = bucket.quota.peek(now, cost);
                if seen.ok {
                    return None;
                }
                if penalty.is_some() {
                    bucket.closed_until = now + seen.retry_after;
                }
                seen.retry_after
            }
        };
        Some(Refusal {
            key: rule.key.clone(),
            namespace: rule.namespace.clone(),
            value: rule.value,
            retry_after,
        })
    }

    fn sweep(&mut self, now: Duration) {
        if self.buckets.len() > SWEEP_ABOVE {
            self.buckets.retain(|_, bucket| bucket.closed_until > now || !bucket.quota.is_idle(now));
        }
    }
}

fn bucket<'a>(
    buckets: &'a mut HashMap<(usize, String), Bucket>,
    rule: &LimitRule,
    index: usize,
    part: &str,
) -> &'a mut Bucket {
    buckets
        .entry((index, part.to_owned()))
        .or_insert_with(|| Bucket { quota: QuotaModel::new(rule.quota), closed_until: Duration::ZERO })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::quota::Rule;

    fn s(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    fn rule(key: &str, route: &str, limit: u32, per: &[Per]) -> LimitRule {
        LimitRule {
            key: key.to_owned(),
            namespace: "platform.api".to_owned(),
            quota: QuotaRule { rule: Rule::Fixed, limit, window: s(10), phase: s(0), burst: None },
            value: limit,
            per: per.to_vec(),
            route: route.parse().unwrap(),
            except: Vec::new(),
            cost: BTreeMap::new(),
            hidden: false,
        }
    }

    fn call(token: &str, method: &str, path: &str) -> Caller {
        Caller::new(token, "client", method, path)
    }

    #[test]
    fn a_refused_call_draws_from_no_limit() {
        let mut limits = Limits::new(
            vec![
                rule("all", "/**", 10, &[Per::Credential]),
                rule("patch", "PATCH /**", 1, &[Per::Credential]),
            ],
            None,
        );
        let patch = call("t", "PATCH", "/api/v2/users/1");
        assert!(limits.admit(s(0), &patch).refusal.is_none());
        let refused = limits.admit(s(1), &patch);
        assert_eq!(refused.refusal.unwrap().key, "patch");
        assert_eq!(refused.described[0].state.remaining, 9);
    }

    #[test]
    fn partitions_are_counted_separately() {
        let mut limits = Limits::new(vec![rule("users", "/**", 1, &[Per::Token, Per::Family])], None);
        assert!(limits.admit(s(0), &call("a", "GET", "/api/v2/users/1")).refusal.is_none());
        assert!(limits.admit(s(0), &call("a", "GET", "/api/v2/users/2")).refusal.is_some());
        assert!(limits.admit(s(0), &call("b", "GET", "/api/v2/users/2")).refusal.is_none());
        assert!(limits.admit(s(0), &call("a", "GET", "/api/v2/scripts")).refusal.is_none());
    }

    #[test]
    fn a_method_may_cost_more() {
        let mut expensive = rule("all", "/**", 3, &[Per::Tenant]);
        expensive.cost.insert("PATCH".to_owned(), 2);
        let mut limits = Limits::new(vec![expensive], None);
        assert_eq!(limits.admit(s(0), &call("t", "PATCH", "/x")).described[0].state.remaining, 1);
        assert!(limits.admit(s(0), &call("t", "PATCH", "/x")).refusal.is_some());
        assert!(limits.admit(s(0), &call("t", "GET", "/x")).refusal.is_none());
    }

    #[test]
    fn calls_while_closed_extend_the_closure() {
        let mut limits = Limits::new(vec![rule("all", "/**", 1, &[Per::Tenant])], Some(s(5)));
        let get = call("t", "GET", "/x");
        let mut wait = |at| limits.admit(s(at), &get).refusal.map(|refusal| refusal.retry_after);
        assert_eq!(wait(0), None);
        assert_eq!(wait(1), Some(s(9)));
        assert_eq!(wait(2), Some(s(13)), "closed until 10 s plus the penalty of 5 s");
        assert_eq!(wait(14), Some(s(6)));
        assert_eq!(wait(20), None);
    }

    #[test]
    fn a_hidden_limit_refuses_without_being_described() {
        let mut burst = rule("burst", "/**", 1, &[Per::Tenant]);
        burst.hidden = true;
        let mut limits = Limits::new(vec![rule("all", "/**", 9, &[Per::Tenant]), burst], None);
        assert_eq!(limits.admit(s(0), &call("t", "GET", "/x")).described.len(), 1);
        let refused = limits.admit(s(0), &call("t", "GET", "/x"));
        assert_eq!(refused.refusal.unwrap().key, "burst");
        assert_eq!(refused.described[0].state.remaining, 8);
    }
}
