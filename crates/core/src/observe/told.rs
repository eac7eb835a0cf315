//! Limits that the body of an answer describes.
//!
//! A GraphQL API counts what a query costs, not queries, and tells it in the body of every answer. Shopify:
//! `"extensions": {"cost": {"requestedQueryCost": 101, "throttleStatus": {"maximumAvailable": 1000.0,
//! "currentlyAvailable": 954, "restoreRate": 50.0}}}`. Pacing counts calls, so the numbers are told in calls *like this
//! one*: what is available, divided by what this call had to have. A queue of equal queries is paced exactly; where
//! cheap and dear ones mix, the gate follows the latest.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::body::MAX_BODY;
use super::number::{Decimal, decimal};
use super::reader::note;
use super::{Dialect, MAX_DURATION, MAX_READINGS, Observation, Reading, Reset};
use crate::glob::PathGlob;

/// A limit that the bodies of some answers describe. The members are JSON pointers (RFC 6901) to numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyRule {
    /// The method of the calls; any if absent.
    pub method: Option<Method>,
    /// Their path.
    pub path: PathGlob,
    /// The limit's name.
    pub name: String,
    /// What there is at most.
    pub limit: String,
    /// What is left.
    pub remaining: String,
    /// How much comes back per second; unknown if absent.
    pub restore: Option<String>,
    /// What the call had to have; one if absent.
    pub cost: Option<String>,
}

impl BodyRule {
    /// Whether the rule is about a call. The path is normalised.
    pub fn applies(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|own| own == method) && self.path.matches(path)
    }
}

/// Adds to `into` what the body of an answer says by `rule`: a reading, and for a throttle without a hint the wait until what
/// the call costs is there. A body that is no JSON, is longer than [`MAX_BODY`] or has no such members says nothing; members
/// that are no numbers are listed as ignored.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::observe::{Observation, observe_told};
/// use tidegate_core::profile::Profile;
///
/// let shopify = Profile::builtin("shopify").unwrap();
/// let rule = shopify.body_rule(&http::Method::POST, "/admin/api/2026-07/graphql.json").unwrap();
/// let body = br#"{"errors":[{"message":"Throttled","extensions":{"code":"THROTTLED"}}],
///     "extensions":{"cost":{"requestedQueryCost":502,"actualQueryCost":null,
///     "throttleStatus":{"maximumAvailable":1000.0,"currentlyAvailable":402,"restoreRate":50.0}}}}"#;
/// let mut seen = Observation::default();
/// observe_told(rule, body, true, &mut seen);
/// assert_eq!((seen.readings[0].limit, seen.readings[0].remaining), (Some(1), Some(0)));
/// assert_eq!(seen.retry_after, Some(Duration::from_secs(2)));
/// ```
pub fn observe_told(rule: &BodyRule, body: &[u8], throttled: bool, into: &mut Observation) {
    if body.len() > MAX_BODY {
        return;
    }
    let Ok(whole) = serde_json::from_slice::<Value>(body) else { return };
    let mut read = |pointer: &String| number(&whole, pointer, into);
    let (limit, remaining) = (read(&rule.limit), read(&rule.remaining));
    let restore = rule.restore.as_ref().and_then(&mut read);
    let cost = rule.cost.as_ref().and_then(&mut read);
    let (Some(limit), Some(remaining)) = (limit, remaining) else { return };
    let cost = cost.map_or(ONE, |cost| cost.billionths.max(1));
    let calls = |amount: Decimal| u64::try_from(amount.billionths / cost).ok();
    // What is restored in a second, so that times are quotients of amounts.
    let after = |amount: u128| restore.and_then(|restore| time(amount, restore.billionths));
    let missing = limit.billionths.saturating_sub(remaining.billionths);
    let reset = after(missing).filter(|after| !after.is_zero());
    let reading = Reading {
        name: Some(rule.name.clone()),
        limit: calls(limit).filter(|limit| *limit > 0),
        remaining: calls(remaining),
        reset: reset.map(|after| Reset { after, grain: GRAIN, at: None }),
        window: after(limit.billionths).filter(|window| !window.is_zero()),
        dialect: Dialect::Declared,
    };
    if throttled && into.retry_after.is_none() {
        into.retry_after = after(cost.saturating_sub(remaining.billionths)).filter(|wait| !wait.is_zero());
    }
    let known = into.readings.iter().any(|known| known.name == reading.name);
    if !known && into.readings.len() < MAX_READINGS {
        into.readings.push(reading);
    }
}

/// Billionths in one.
const ONE: u128 = 1_000_000_000;

/// Amounts come back continuously; a time worked out from them is as good as the clock of the answer.
const GRAIN: Duration = Duration::from_millis(1);

/// How long `amount` takes at `rate` per second, both in billionths; `None` where nothing comes back, or not within the bound.
fn time(amount: u128, rate: u128) -> Option<Duration> {
    let nanos = amount.checked_mul(ONE)?.checked_add(rate.checked_sub(1)?)?.checked_div(rate)?;
    let time = u64::try_from(nanos).map(Duration::from_nanos).ok()?;
    (time <= MAX_DURATION).then_some(time)
}

/// The number a pointer leads to. `null` and nothing say nothing.
fn number(whole: &Value, pointer: &str, into: &mut Observation) -> Option<Decimal> {
    let value = whole.pointer(pointer).filter(|value| !value.is_null())?;
    let number = match value {
        Value::Number(number) => decimal(&number.to_string()),
        Value::String(text) => decimal(text.trim()),
        _ => None,
    };
    if number.is_none() {
        note(into, "body", "not a number where a limit is told");
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> BodyRule {
        BodyRule {
            method: Some(Method::POST),
            path: PathGlob::parse("/graphql").unwrap(),
            name: "points".into(),
            limit: "/max".into(),
            remaining: "/left".into(),
            restore: Some("/rate".into()),
            cost: Some("/cost".into()),
        }
    }

    fn read(body: &str, throttled: bool) -> Observation {
        let mut seen = Observation::default();
        observe_told(&rule(), body.as_bytes(), throttled, &mut seen);
        seen
    }

    #[test]
    fn amounts_are_told_in_calls_of_the_same_cost() {
        let seen = read(r#"{"max":1000.0,"left":954,"rate":50.0,"cost":101}"#, false);
        let reading = &seen.readings[0];
        assert_eq!((reading.limit, reading.remaining), (Some(9), Some(9)));
        assert_eq!(reading.reset.unwrap().after, Duration::from_millis(920));
        assert_eq!((reading.window, seen.retry_after), (Some(Duration::from_secs(20)), None));
        let free = read(r#"{"max":1000,"left":1000,"rate":50,"cost":null}"#, false);
        assert_eq!((free.readings[0].remaining, free.readings[0].reset), (Some(1000), None));
    }

    #[test]
    fn a_throttle_waits_until_its_cost_is_there_and_a_hint_goes_before() {
        let body = r#"{"max":1000,"left":89,"rate":50,"cost":502}"#;
        assert_eq!(read(body, true).retry_after, Some(Duration::from_millis(8_260)));
        assert_eq!(read(body, false).retry_after, None);
        let mut told = Observation { retry_after: Some(Duration::from_secs(1)), ..Observation::default() };
        observe_told(&rule(), body.as_bytes(), true, &mut told);
        assert_eq!(told.retry_after, Some(Duration::from_secs(1)));
        let other = read(r#"{"max":1000,"left":1000,"rate":50,"cost":5}"#, true);
        assert_eq!(other.retry_after, None, "enough is left: something else throttles");
    }

    #[test]
    fn nonsense_is_listed_or_says_nothing() {
        for (body, ignored) in [
            ("", 0),
            ("[]", 0),
            ("{}", 0),
            (r#"{"max":1000}"#, 0),
            (r#"{"max":"many","left":{}}"#, 2),
            (r#"{"max":-1,"left":7}"#, 1),
        ] {
            let seen = read(body, true);
            assert_eq!(
                (seen.readings.len(), seen.ignored.len(), seen.retry_after),
                (0, ignored, None),
                "{body}"
            );
        }
        let rateless = read(r#"{"max":10,"left":3,"rate":0,"cost":0}"#, true);
        assert_eq!((rateless.readings[0].reset, rateless.retry_after), (None, None));
        assert_eq!(read(&" ".repeat(MAX_BODY + 1), true), Observation::default());
    }

    #[test]
    fn a_reading_of_that_name_is_not_doubled_and_the_bound_holds() {
        let mut seen = Observation::default();
        for _ in 0..2 {
            observe_told(&rule(), br#"{"max":10,"left":3}"#, false, &mut seen);
        }
        assert_eq!(seen.readings.len(), 1);
    }
}
