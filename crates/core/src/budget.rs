//! How much extra load retries may be.
//!
//! Retries multiply load exactly when a server can bear it least. Two designs are common: tower's ratio (retries
//! may be 20 % of the recent calls) and AWS's token bucket (500 tokens; a retry costs 5, after a time-out 10; a
//! success gives some back). The bucket is used here, because it needs no window to tune and its state is one
//! number, but with the ratio's promise: a success gives back exactly one token, never the cost of its own retry.
//! AWS's refund lets an upstream that fails every first attempt be sent double load for ever; without it, retries
//! are at most 20 % of successes in the long run (10 % of the costly kind), with a burst of 100 in hand. Who wants AWS's
//! refund all the same, to behave as the other SDKs of a fleet do, sets [`Refund::LastRetry`].
//!
//! Rules:
//!
//! * waits that the server ordered (a throttle with a hint) cost nothing: they are work it asked to be sent later;
//! * time gives back too, slowly, so that a tenant with few calls is not locked out for ever;
//! * nothing is drawn from chance, and a `now` before the last one changes nothing.

use std::time::Duration;

use crate::time::Mono;

/// What a retry costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// The attempt did little work at the upstream: refused, or never sent.
    Light,
    /// The attempt may have been executed: a time-out, a lost connection, a gateway's error.
    Heavy,
}

/// What a success gives back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refund {
    /// [`BudgetRules::per_success`] tokens, whatever it took.
    #[default]
    One,
    /// What its last retry took; [`BudgetRules::per_success`] tokens where the last attempt had taken nothing. AWS SDKs'
    /// "standard" mode counts so: a call that succeeds at its third attempt gives back one of its two prices
    /// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>).
    LastRetry,
}

/// The numbers of a budget. The defaults are argued in the [module documentation](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetRules {
    /// Tokens in a full bucket.
    pub capacity: u32,
    /// Tokens one [`Cost::Light`] retry takes.
    pub light: u32,
    /// Tokens one [`Cost::Heavy`] retry takes.
    pub heavy: u32,
    /// Tokens a success gives back.
    pub per_success: u32,
    /// Tokens a second gives back.
    pub per_second: u32,
    /// What a success gives back of its retries' prices.
    pub refund: Refund,
}

impl Default for BudgetRules {
    fn default() -> Self {
        Self { capacity: 500, light: 5, heavy: 10, per_success: 1, per_second: 1, refund: Refund::One }
    }
}

/// The retry budget of one tenant on one upstream, shared by all its calls.
///
/// ```
/// use tidegate_core::budget::{Budget, BudgetRules, Cost};
/// use tidegate_core::time::Mono;
///
/// let mut budget = Budget::new(BudgetRules::default(), Mono::ZERO);
/// let granted = (0..1_000).filter(|_| budget.try_take(Mono::ZERO, Cost::Light)).count();
/// assert_eq!(granted, 100, "the burst of a full bucket");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    rules: BudgetRules,
    /// Thousandths of a token, so that a millisecond can give back its part.
    level: u64,
    counted: Mono,
}

const MILLI: u64 = 1_000;

impl Budget {
    /// A full budget.
    pub fn new(rules: BudgetRules, now: Mono) -> Self {
        Self { rules, level: u64::from(rules.capacity) * MILLI, counted: now }
    }

    /// Takes the tokens of one retry, or takes nothing and answers `false`: then the retry must not be sent.
    #[must_use]
    pub fn try_take(&mut self, now: Mono, cost: Cost) -> bool {
        self.refill(now);
        let cost = self.price(cost);
        let enough = self.level >= cost;
        if enough {
            self.level -= cost;
        }
        enough
    }

    /// Counts one successful call. `last` is what its last attempt was paid with: `None` for a first attempt, and for one
    /// after a wait that the server ordered.
    pub fn success(&mut self, now: Mono, last: Option<Cost>) {
        self.refill(now);
        let back = match (self.rules.refund, last) {
            (Refund::LastRetry, Some(cost)) => self.price(cost),
            (Refund::LastRetry, None) | (Refund::One, _) => u64::from(self.rules.per_success) * MILLI,
        };
        self.add(back);
    }

    /// Whole tokens in the bucket at `now`.
    pub fn tokens(&mut self, now: Mono) -> u64 {
        self.refill(now);
        self.level / MILLI
    }

    /// The time from `now` until a retry of `cost` is affordable without any success; `None` if time alone never
    /// gets there.
    pub fn affordable_in(&mut self, now: Mono, cost: Cost) -> Option<Duration> {
        self.refill(now);
        let price = self.price(cost);
        let missing = price.saturating_sub(self.level);
        if missing == 0 {
            return Some(Duration::ZERO);
        }
        // A thousandth of a token per millisecond and token per second: the units cancel.
        let rate = u64::from(self.rules.per_second);
        let reachable = rate > 0 && price <= u64::from(self.rules.capacity) * MILLI;
        reachable.then(|| Duration::from_millis(missing.div_ceil(rate)))
    }

    fn price(&self, cost: Cost) -> u64 {
        let tokens = match cost {
            Cost::Light => self.rules.light,
            Cost::Heavy => self.rules.heavy,
        };
        u64::from(tokens) * MILLI
    }

    fn refill(&mut self, now: Mono) {
        let passed = u64::try_from(now.since(self.counted).as_millis()).unwrap_or(u64::MAX);
        // Only whole milliseconds are counted as passed, so that frequent calls lose nothing.
        self.counted += Duration::from_millis(passed);
        self.add(passed.saturating_mul(u64::from(self.rules.per_second)));
        if self.level >= u64::from(self.rules.capacity) * MILLI {
            // A full bucket earns nothing: the rest of this millisecond must not count once there is room again.
            self.counted = self.counted.max(now);
        }
    }

    fn add(&mut self, millitokens: u64) {
        self.level = self.level.saturating_add(millitokens).min(u64::from(self.rules.capacity) * MILLI);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(now: Mono) -> Budget {
        let mut budget = Budget::new(BudgetRules::default(), now);
        while budget.try_take(now, Cost::Light) {}
        budget
    }

    #[test]
    fn a_full_bucket_allows_a_hundred_light_or_fifty_heavy_retries() {
        for (cost, expected) in [(Cost::Light, 100), (Cost::Heavy, 50)] {
            let mut budget = Budget::new(BudgetRules::default(), Mono::ZERO);
            assert_eq!((0..500).filter(|_| budget.try_take(Mono::ZERO, cost)).count(), expected);
            assert_eq!(budget.tokens(Mono::ZERO), 0);
        }
    }

    #[test]
    fn in_the_long_run_retries_are_a_fifth_of_successes() {
        let mut budget = drained(Mono::ZERO);
        let mut granted = 0;
        for _ in 0..10_000 {
            budget.success(Mono::ZERO, Some(Cost::Light));
            granted += u32::from(budget.try_take(Mono::ZERO, Cost::Light));
        }
        assert_eq!(granted, 2_000);
    }

    #[test]
    fn the_last_retry_is_refunded_only_where_that_is_asked_for() {
        let left = |refund, last| {
            let mut budget =
                Budget::new(BudgetRules { refund, per_second: 0, ..BudgetRules::default() }, Mono::ZERO);
            assert!(budget.try_take(Mono::ZERO, Cost::Light) && budget.try_take(Mono::ZERO, Cost::Heavy));
            budget.success(Mono::ZERO, last);
            budget.tokens(Mono::ZERO)
        };
        for (last, back) in [(None, 1), (Some(Cost::Light), 5), (Some(Cost::Heavy), 10)] {
            assert_eq!(left(Refund::LastRetry, last), 485 + back);
            assert_eq!(left(Refund::One, last), 486);
        }
    }

    #[test]
    fn a_refused_retry_takes_nothing() {
        let mut budget = drained(Mono::ZERO);
        for _ in 0..4 {
            budget.success(Mono::ZERO, Some(Cost::Light));
            assert!(!budget.try_take(Mono::ZERO, Cost::Light));
        }
        budget.success(Mono::ZERO, Some(Cost::Light));
        assert!(budget.try_take(Mono::ZERO, Cost::Light));
    }

    #[test]
    fn time_gives_back_even_in_steps_below_a_millisecond() {
        let mut budget = drained(Mono::ZERO);
        assert_eq!(budget.affordable_in(Mono::ZERO, Cost::Light), Some(Duration::from_secs(5)));
        for step in 0..50_000_u64 {
            assert!(!budget.try_take(Mono::from_nanos(step * 99_999), Cost::Light), "step {step}");
        }
        assert!(budget.try_take(Mono::from_nanos(5_000_000_000), Cost::Light));
    }

    #[test]
    fn a_clock_that_jumps_far_fills_the_bucket_and_no_more() {
        let mut budget = drained(Mono::ZERO);
        assert_eq!(budget.tokens(Mono::MAX), 500);
        assert_eq!(budget.tokens(Mono::ZERO), 500, "an earlier now changes nothing");
    }

    #[test]
    fn a_price_above_the_capacity_is_never_affordable() {
        let rules = BudgetRules { capacity: 4, ..BudgetRules::default() };
        let mut budget = Budget::new(rules, Mono::ZERO);
        assert_eq!(budget.affordable_in(Mono::ZERO, Cost::Light), None);
        let rules = BudgetRules { per_second: 0, ..BudgetRules::default() };
        let mut budget = Budget::new(rules, Mono::ZERO);
        while budget.try_take(Mono::ZERO, Cost::Light) {}
        assert_eq!(budget.affordable_in(Mono::ZERO, Cost::Light), None);
    }
}
