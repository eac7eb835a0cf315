//! Header dialects: how a server tells its limits, as text.
//!
//! # Why
//!
//! Nobody agrees on names or units. The guide's dialect gives an epoch, `X-RateLimit-*` mostly seconds, the platform's former own
//! headers count what is *used*, the IETF draft uses structured fields, and the platform today says nothing at all. A client
//! has to cope with each, and with lies: a Retry-After that is too short, a date, or none.
//!
//! # Rules
//!
//! Times are rounded up: whoever waits as told never comes too early. Single-limit dialects describe the tightest limit (least
//! remaining, then longest reset); the IETF dialect describes all of them.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::model::limits::Described;

/// The dialect of the limit headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// `X-Rate-Limit-Limit`, `-Remaining`, `-Reset` (epoch seconds), as the platform guide describes them.
    #[default]
    Guide,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset` (seconds from now).
    XRateLimit,
    /// `inin-ratelimit-count` (used), `-allowed`, `-reset` (whole seconds from now): the platform until 2021.
    Inin,
    /// `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10.
    Ietf,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Used`, `-Reset` (epoch seconds), `-Resource` (the limit's name), and everything else as
    /// GitHub answers it.
    Github,
    /// No limit headers, as the platform today.
    None,
}

/// How a reset is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetForm {
    /// Whole seconds from now, rounded up.
    Delta,
    /// Seconds from now with three decimals, rounded up.
    DeltaExact,
    /// Milliseconds from now, rounded up.
    DeltaMs,
    /// Whole epoch seconds, rounded up.
    Epoch,
    /// Epoch seconds with three decimals, rounded up.
    EpochExact,
    /// Epoch milliseconds, rounded up.
    EpochMs,
}

/// Which instant a reset names where capacity comes back gradually (sliding and bucket rules).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResetOf {
    /// When everything is back.
    #[default]
    Full,
    /// When the next unit is back.
    Next,
}

/// What Retry-After says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryAfterForm {
    /// The wait in whole seconds, rounded up.
    #[default]
    Exact,
    /// Some seconds too short, at least 0.
    Short,
    /// The end of the wait as an HTTP-date, rounded up.
    Date,
    /// The header is missing.
    None,
}

/// Parses the lower-case names that configuration files use, for command lines.
macro_rules! from_name {
    ($name:ty, $what:literal) => {
        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                serde_json::from_value(serde_json::Value::String(text.to_owned()))
                    .map_err(|error| format!(concat!("unknown ", $what, ": {}"), error))
            }
        }
    };
}

from_name!(Dialect, "header dialect");
from_name!(ResetForm, "reset form");
from_name!(ResetOf, "reset meaning");
from_name!(RetryAfterForm, "Retry-After form");

/// How this server writes its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// The dialect.
    pub dialect: Dialect,
    /// How resets are written; the dialect's own form if absent. The IETF dialect always uses whole seconds from now.
    pub reset: Option<ResetForm>,
    /// Which instant a reset names.
    pub reset_of: ResetOf,
    /// What Retry-After says.
    pub retry_after: RetryAfterForm,
    /// How much too early a short Retry-After is.
    pub short_by: Duration,
}

impl Style {
    /// The headers that describe `limits`. `wall` is the server's wall clock since the epoch.
    pub fn describe(&self, limits: &[Described], wall: Duration) -> Vec<(String, String)> {
        let Some(tightest) = tightest(limits) else { return Vec::new() };
        let state = &tightest.state;
        match self.dialect {
            Dialect::None => Vec::new(),
            Dialect::Guide => self.triple("X-Rate-Limit", tightest, wall, ResetForm::Epoch),
            Dialect::XRateLimit => self.triple("X-RateLimit", tightest, wall, ResetForm::Delta),
            Dialect::Github => {
                let used = state.limit.saturating_sub(state.remaining);
                let mut headers = self.triple("X-RateLimit", tightest, wall, ResetForm::Epoch);
                headers.push(("X-RateLimit-Used".to_owned(), used.to_string()));
                headers.push(("X-RateLimit-Resource".to_owned(), tightest.key.clone()));
                headers
            }
            Dialect::Inin => {
                let used = state.limit.saturating_sub(state.remaining);
                vec![
                    ("inin-ratelimit-count".to_owned(), used.to_string()),
                    ("inin-ratelimit-allowed".to_owned(), state.limit.to_string()),
                    ("inin-ratelimit-reset".to_owned(), self.reset(tightest, wall, ResetForm::Delta)),
                ]
            }
            Dialect::Ietf => self.ietf(limits),
        }
    }

    fn triple(
        &self,
        prefix: &str,
        limit: &Described,
        wall: Duration,
        form: ResetForm,
    ) -> Vec<(String, String)> {
        vec![
            (format!("{prefix}-Limit"), limit.state.limit.to_string()),
            (format!("{prefix}-Remaining"), limit.state.remaining.to_string()),
            (format!("{prefix}-Reset"), self.reset(limit, wall, form)),
        ]
    }

    fn reset(&self, limit: &Described, wall: Duration, own_form: ResetForm) -> String {
        let after = self.instant(limit);
        match self.reset.unwrap_or(own_form) {
            ResetForm::Delta => ceil_seconds(after).to_string(),
            ResetForm::DeltaExact => decimals(after),
            ResetForm::DeltaMs => ceil_millis(after).to_string(),
            ResetForm::Epoch => ceil_seconds(wall + after).to_string(),
            ResetForm::EpochExact => decimals(wall + after),
            ResetForm::EpochMs => ceil_millis(wall + after).to_string(),
        }
    }

    fn instant(&self, limit: &Described) -> Duration {
        match self.reset_of {
            ResetOf::Full => limit.state.reset_after,
            ResetOf::Next => limit.state.next_after,
        }
    }

    fn ietf(&self, limits: &[Described]) -> Vec<(String, String)> {
        let list =
            |item: &dyn Fn(&Described) -> String| limits.iter().map(item).collect::<Vec<_>>().join(", ");
        let policy = list(&|limit| {
            format!("\"{}\";q={};w={}", limit.key, limit.state.limit, ceil_seconds(limit.window))
        });
        let state = list(&|limit| {
            format!("\"{}\";r={};t={}", limit.key, limit.state.remaining, ceil_seconds(self.instant(limit)))
        });
        vec![("RateLimit-Policy".to_owned(), policy), ("RateLimit".to_owned(), state)]
    }

    /// The value of Retry-After for a wait of `after`, or `None` if this server does not send it.
    pub fn retry_after(&self, after: Duration, wall: Duration) -> Option<String> {
        match self.retry_after {
            RetryAfterForm::Exact => Some(ceil_seconds(after).to_string()),
            RetryAfterForm::Short => Some(ceil_seconds(after.saturating_sub(self.short_by)).to_string()),
            RetryAfterForm::Date => Some(http_date(Duration::from_secs(ceil_seconds(wall + after)))),
            RetryAfterForm::None => None,
        }
    }
}

/// The limit a single-limit dialect describes: the one with the least left, and of those the one that stays so for longest.
fn tightest(limits: &[Described]) -> Option<&Described> {
    limits.iter().min_by_key(|limit| (limit.state.remaining, std::cmp::Reverse(limit.state.reset_after)))
}

/// An instant of the wall clock as an HTTP-date (RFC 9110 §5.6.7), rounded down to seconds.
pub fn http_date(wall: Duration) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + wall)
}

/// Whole seconds, rounded up.
pub fn ceil_seconds(value: Duration) -> u64 {
    value.as_secs() + u64::from(value.subsec_nanos() > 0)
}

fn ceil_millis(value: Duration) -> u128 {
    value.as_nanos().div_ceil(1_000_000)
}

fn decimals(value: Duration) -> String {
    let millis = ceil_millis(value);
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::quota::Admission;

    /// 2024-05-13 18:00:00.250 UTC.
    const WALL: Duration = Duration::from_millis(1_715_623_200_250);

    fn limit(key: &str, remaining: u32, reset_ms: u64) -> Described {
        let state = Admission {
            ok: true,
            limit: 300,
            remaining,
            reset_after: Duration::from_millis(reset_ms),
            next_after: Duration::from_millis(reset_ms / 2),
            retry_after: Duration::ZERO,
        };
        Described { key: key.to_owned(), window: Duration::from_secs(5), state }
    }

    fn text(dialect: Dialect, reset: Option<ResetForm>, limits: &[Described]) -> String {
        let style = Style {
            dialect,
            reset,
            reset_of: ResetOf::Full,
            retry_after: RetryAfterForm::Exact,
            short_by: Duration::from_secs(5),
        };
        let headers = style.describe(limits, WALL);
        headers.iter().fold(String::new(), |text, (name, value)| text + name + ": " + value + "\n")
    }

    #[test]
    fn the_guide_tells_epoch_seconds_rounded_up() {
        assert_eq!(
            text(Dialect::Guide, None, &[limit("default", 299, 4200)]),
            "X-Rate-Limit-Limit: 300\nX-Rate-Limit-Remaining: 299\nX-Rate-Limit-Reset: 1715623205\n"
        );
    }

    #[test]
    fn github_names_the_limit_it_tells() {
        assert_eq!(
            text(Dialect::Github, None, &[limit("core", 299, 4200), limit("search", 7, 4200)]),
            "X-RateLimit-Limit: 300\nX-RateLimit-Remaining: 7\nX-RateLimit-Reset: 1715623205\nX-RateLimit-Used: 293\nX-RateLimit-Resource: search\n"
        );
    }

    #[test]
    fn the_former_platform_headers_count_what_is_used() {
        assert_eq!(
            text(Dialect::Inin, None, &[limit("default", 299, 4200)]),
            "inin-ratelimit-count: 1\ninin-ratelimit-allowed: 300\ninin-ratelimit-reset: 5\n"
        );
    }

    #[test]
    fn the_ietf_dialect_describes_every_limit() {
        assert_eq!(
            text(
                Dialect::Ietf,
                Some(ResetForm::Epoch),
                &[limit("default", 299, 4200), limit("users", 3, 100)]
            ),
            "RateLimit-Policy: \"default\";q=300;w=5, \"users\";q=300;w=5\n\
             RateLimit: \"default\";r=299;t=5, \"users\";r=3;t=1\n"
        );
    }

    #[test]
    fn one_limit_dialects_describe_the_tightest() {
        let limits = [limit("default", 299, 4200), limit("users", 3, 100), limit("day", 3, 900_000)];
        assert_eq!(
            text(Dialect::XRateLimit, None, &limits),
            "X-RateLimit-Limit: 300\nX-RateLimit-Remaining: 3\nX-RateLimit-Reset: 900\n"
        );
    }

    #[test]
    fn every_reset_form_rounds_up() {
        let forms = [
            (ResetForm::Delta, "5"),
            (ResetForm::DeltaExact, "4.201"),
            (ResetForm::DeltaMs, "4201"),
            (ResetForm::Epoch, "1715623205"),
            (ResetForm::EpochExact, "1715623204.451"),
            (ResetForm::EpochMs, "1715623204451"),
        ];
        for (form, expected) in forms {
            let mut limit = limit("default", 1, 4200);
            limit.state.reset_after += Duration::from_nanos(1);
            let headers = text(Dialect::XRateLimit, Some(form), &[limit]);
            assert!(headers.ends_with(&format!("Reset: {expected}\n")), "{form:?}: {headers}");
        }
    }

    #[test]
    fn silence_is_a_dialect() {
        assert_eq!(text(Dialect::None, None, &[limit("default", 1, 1)]), "");
        assert_eq!(text(Dialect::Guide, None, &[]), "");
    }

    #[test]
    fn retry_after_may_be_exact_short_a_date_or_missing() {
        let value = |retry_after| {
            let style = Style {
                dialect: Dialect::None,
                reset: None,
                reset_of: ResetOf::Full,
                retry_after,
                short_by: Duration::from_secs(5),
            };
            style.retry_after(Duration::from_millis(41_100), WALL)
        };
        assert_eq!(value(RetryAfterForm::Exact).as_deref(), Some("42"));
        assert_eq!(value(RetryAfterForm::Short).as_deref(), Some("37"));
        assert_eq!(value(RetryAfterForm::Date).as_deref(), Some("Mon, 13 May 2024 18:00:42 GMT"));
        assert_eq!(value(RetryAfterForm::None), None);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        assert_eq!("xratelimit".parse(), Ok(Dialect::XRateLimit));
        assert_eq!("delta-exact".parse(), Ok(ResetForm::DeltaExact));
        assert!("guides".parse::<Dialect>().unwrap_err().contains("unknown header dialect"));
    }
}
