//! Five ways in which servers count a quota, behind one enum.
//!
//! # Why five
//!
//! "300 per minute" says nothing about *when* the 300 come back, and a client that guesses wrong either wastes quota or is
//! throttled. Servers in the field use all of these:
//!
//! | rule | who | what comes back when |
//! | --- | --- | --- |
//! | [`Rule::Fixed`] | legacy Genesys headers suggest it | everything, one window after the *first* request of the window |
//! | [`Rule::FixedAligned`] | most simple counters | everything, at multiples of the window (plus a phase) |
//! | [`Rule::SlidingLog`] | exact Redis limiters | each request, exactly one window after it was made |
//! | [`Rule::SlidingCounter`] | nginx/Cloudflare style approximations | the previous window's count fades out linearly |
//! | [`Rule::TokenBucket`] | Shopify, AWS | continuously, up to a burst capacity |
//!
//! # Rules
//!
//! Arithmetic is exact (integers, nanoseconds): a call made exactly `retry_after` after a refusal is admitted if nobody else
//! draws, and one made a nanosecond earlier is not. A refused call draws nothing. `now` must not go backwards. A cost above the
//! whole quota can never be admitted; its `retry_after` is one window.

mod bucket;
mod fixed;
mod sliding;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a limit counts; see the module's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A window opened by its first request.
    #[default]
    Fixed,
    /// Windows at multiples of their length, plus a phase.
    FixedAligned,
    /// Every request counts for exactly one window.
    SlidingLog,
    /// The previous window's count, fading linearly, plus the current window's.
    SlidingCounter,
    /// Continuous refill up to a capacity.
    TokenBucket,
}

impl std::str::FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "fixed" => Self::Fixed,
            "fixed-aligned" => Self::FixedAligned,
            "sliding-log" => Self::SlidingLog,
            "sliding-counter" => Self::SlidingCounter,
            "token-bucket" => Self::TokenBucket,
            _ => {
                return Err(format!(
                    "unknown rule \"{text}\" (known: fixed, fixed-aligned, sliding-log, sliding-counter, token-bucket)"
                ));
            }
        })
    }
}

/// The numbers of one quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaRule {
    /// How it counts.
    pub rule: Rule,
    /// Units per window; at least 1.
    pub limit: u32,
    /// The window; longer than zero.
    pub window: Duration,
    /// Shifts the aligned windows of [`Rule::FixedAligned`] and [`Rule::SlidingCounter`] later.
    pub phase: Duration,
    /// Capacity of a [`Rule::TokenBucket`]; `limit` if absent.
    pub burst: Option<u32>,
}

/// What a quota answered to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Whether the call was admitted (and drew its cost).
    pub ok: bool,
    /// The quota the server would name in its headers.
    pub limit: u32,
    /// What is left after this call, rounded down.
    pub remaining: u32,
    /// Until the whole quota is back, if nobody draws; zero if nothing is drawn.
    pub reset_after: Duration,
    /// Until the next unit comes back, if nobody draws; zero if nothing is drawn.
    pub next_after: Duration,
    /// Zero if admitted; else the time after which this same call would be admitted, if nobody else draws.
    pub retry_after: Duration,
}

/// One counted quota.
#[derive(Debug, Clone)]
pub enum QuotaModel {
    /// See [`Rule::Fixed`] and [`Rule::FixedAligned`].
    Fixed(fixed::FixedWindow),
    /// See [`Rule::SlidingLog`].
    SlidingLog(sliding::SlidingLog),
    /// See [`Rule::SlidingCounter`].
    SlidingCounter(sliding::SlidingCounter),
    /// See [`Rule::TokenBucket`].
    TokenBucket(bucket::TokenBucket),
}

impl QuotaModel {
    /// A quota of which nothing has been drawn.
    ///
    /// # Panics
    /// If the limit or the window is zero; [`crate::SimConfig::validate`] refuses such settings before they get here.
    pub fn new(rule: QuotaRule) -> Self {
        assert!(rule.limit > 0 && !rule.window.is_zero(), "a quota needs a limit and a window above zero");
        match rule.rule {
            Rule::Fixed => Self::Fixed(fixed::FixedWindow::opened_by_first(rule.limit, rule.window)),
            Rule::FixedAligned => {
                Self::Fixed(fixed::FixedWindow::aligned(rule.limit, rule.window, rule.phase))
            }
            Rule::SlidingLog => Self::SlidingLog(sliding::SlidingLog::new(rule.limit, rule.window)),
            Rule::SlidingCounter => {
                Self::SlidingCounter(sliding::SlidingCounter::new(rule.limit, rule.window, rule.phase))
            }
            Rule::TokenBucket => {
                let capacity = rule.burst.unwrap_or(rule.limit);
                Self::TokenBucket(bucket::TokenBucket::new(rule.limit, rule.window, capacity))
            }
        }
    }

    /// Draws `cost` units if they are there. Refusals draw nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate_sim::model::quota::{QuotaModel, QuotaRule, Rule};
    /// let rule = QuotaRule { rule: Rule::Fixed, limit: 2, window: Duration::from_secs(5), phase: Duration::ZERO, burst: None };
    /// let mut quota = QuotaModel::new(rule);
    /// let at = Duration::from_secs;
    /// assert!(quota.admit(at(1), 1).ok);
    /// assert_eq!(quota.admit(at(2), 1).remaining, 0);
    /// assert_eq!(quota.admit(at(4), 1).retry_after, at(2)); // the window opened at 1 s
    /// ```
    pub fn admit(&mut self, now: Duration, cost: u32) -> Admission {
        let seen = self.peek(now, cost);
        if !seen.ok {
            return seen;
        }
        match self {
            Self::Fixed(model) => model.draw(now, cost),
            Self::SlidingLog(model) => model.draw(now, cost),
            Self::SlidingCounter(model) => model.draw(cost),
            Self::TokenBucket(model) => model.draw(cost),
        }
        Admission { ok: true, retry_after: Duration::ZERO, ..self.peek(now, 0) }
    }

    /// What a call of this cost would be answered, without drawing. `remaining` is what is left *before* the call. Needs `&mut`
    /// only to forget what has expired.
    pub fn peek(&mut self, now: Duration, cost: u32) -> Admission {
        match self {
            Self::Fixed(model) => model.look(now, cost),
            Self::SlidingLog(model) => model.look(now, cost),
            Self::SlidingCounter(model) => model.look(now, cost),
            Self::TokenBucket(model) => model.look(now, cost),
        }
    }

    /// Whether the model holds nothing but its start state, so that forgetting it changes nothing.
    pub fn is_idle(&mut self, now: Duration) -> bool {
        self.peek(now, 0).reset_after.is_zero()
    }
}

/// A duration of `nanos`, saturating; quotas of centuries are nobody's.
fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// A count that is known to be at most a `u32` limit.
fn units(value: u128) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
