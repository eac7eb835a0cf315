//! What is expected of a strategy: ranges, read strictly, checked all at once.
//!
//! A range reads `">= 0.95"`, `"<= 40ms"`, `"0.9..1.1"`, or is one number, which must be met exactly. Times have a unit and
//! are compared in seconds; `%` is a hundredth.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tidegate_core::pace::Class;
use tidegate_sim::text::parse_duration;

use crate::measure::Measures;
use crate::sharing::Sharing;
use crate::strategy::StrategyName;

/// A closed interval, as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    min: f64,
    max: f64,
    text: String,
}

impl Range {
    /// Whether `value` lies in it.
    pub fn holds(&self, value: f64) -> bool {
        // A hair of slack, so that a bound that is met exactly survives the rounding of its own decimals.
        let slack = 1e-9 * value.abs().max(1.0);
        value >= self.min - slack && value <= self.max + slack
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Range {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "is not a range like \">= 0.95\", \"<= 40ms\", \"0.9..1.1\" or 0";
        let number = |text: &str| number(text.trim()).ok_or(EXPECTED);
        let (min, max) = if let Some(bound) = text.trim().strip_prefix(">=") {
            (number(bound)?, f64::INFINITY)
        } else if let Some(bound) = text.trim().strip_prefix("<=") {
            (f64::NEG_INFINITY, number(bound)?)
        } else if let Some((min, max)) = text.split_once("..") {
            (number(min)?, number(max)?)
        } else {
            (number(text)?, number(text)?)
        };
        if min > max {
            return Err(EXPECTED);
        }
        Ok(Self { min, max, text: text.trim().to_owned() })
    }
}

fn number(text: &str) -> Option<f64> {
    if let Some(percent) = text.strip_suffix('%') {
        return Some(percent.trim().parse::<f64>().ok()? / 100.0);
    }
    let plain = text.parse::<f64>().ok().filter(|value| value.is_finite());
    plain.or_else(|| parse_duration(text).ok().map(|value| value.as_secs_f64()))
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(from)? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            other => other.to_string(),
        };
        text.parse().map_err(|error| serde::de::Error::custom(format!("\"{text}\" {error}")))
    }
}

/// A range per class.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerClass {
    /// Of [`Class::Interactive`].
    pub interactive: Option<Range>,
    /// Of [`Class::Sync`].
    pub sync: Option<Range>,
    /// Of [`Class::Bulk`].
    pub bulk: Option<Range>,
    /// Of [`Class::Poll`].
    pub poll: Option<Range>,
}

impl PerClass {
    fn named(&self) -> [(Class, &Option<Range>); 4] {
        [
            (Class::Interactive, &self.interactive),
            (Class::Sync, &self.sync),
            (Class::Bulk, &self.bulk),
            (Class::Poll, &self.poll),
        ]
    }
}

/// The ranges of one strategy. What a key means is said at the field of the same name of [`Measures`].
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ranges {
    /// Ideal against reached.
    pub efficiency: Option<Range>,
    /// From the job's first call to its last answer.
    pub makespan: Option<Range>,
    /// Calls that ended well.
    pub succeeded: Option<Range>,
    /// Calls that ended badly.
    pub failed: Option<Range>,
    /// Calls that had not ended when the run did.
    pub unfinished: Option<Range>,
    /// Calls with a deadline and no good answer by then.
    pub late: Option<Range>,
    /// Answers "too fast".
    pub throttles: Option<Range>,
    /// Per 100 calls that ended well.
    pub throttles_per_100: Option<Range>,
    /// As `efficiency`, after the time of learning.
    pub settled_efficiency: Option<Range>,
    /// As `throttles_per_100`, after the time of learning.
    pub settled_throttles_per_100: Option<Range>,
    /// What the strangers got, per 100 of their admitted calls.
    pub strangers_throttles_per_100: Option<Range>,
    /// Strangers' admitted calls.
    pub strangers: Option<Range>,
    /// What they got of what they were due.
    pub strangers_served: Option<Range>,
    /// The most attempts in progress at the server.
    pub max_in_flight: Option<Range>,
    /// When the run ended.
    pub ended_at: Option<Range>,
    /// From the end of the last brown-out to the next admitted call.
    pub recovery: Option<Range>,
    /// Attempts from then to that call.
    pub recovery_probes: Option<Range>,
    /// Warnings that Retry-After and reset disagree.
    pub hint_mismatches: Option<Range>,
    /// Exchanges with the store per call that ended well.
    pub exchanges_per_call: Option<Range>,
    /// The most exchanges within one second.
    pub exchanges_in_a_second: Option<Range>,
    /// Times that an instance said that the store is away.
    pub store_away: Option<Range>,
    /// Times that one said that it is back.
    pub store_back: Option<Range>,
    /// Times that one was told that the store has forgotten.
    pub store_forgot: Option<Range>,
    /// From the end of the last outage of the store until all share again.
    pub shared_again: Option<Range>,
    /// The most attempts of one instance in one window without the store.
    pub alone_most: Option<Range>,
    /// The same of all together.
    pub alone_together: Option<Range>,
    /// Median wait.
    pub wait_p50: PerClass,
    /// 99th percentile of the wait.
    pub wait_p99: PerClass,
}

/// What a scenario expects, by strategy.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expect {
    /// Of [`StrategyName::Tidegate`].
    pub tidegate: Ranges,
    /// Of [`StrategyName::NoCalendar`].
    pub no_calendar: Ranges,
    /// Of [`StrategyName::Reactive`].
    pub reactive: Ranges,
    /// Of [`StrategyName::ReactiveJitter`].
    pub reactive_jitter: Ranges,
    /// Of [`StrategyName::Guide`].
    pub guide: Ranges,
    /// Of [`StrategyName::FixedRate`].
    pub fixed_rate: Ranges,
    /// Of [`StrategyName::Aimd`].
    pub aimd: Ranges,
}

/// An expectation that was not met.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Violation {
    /// Whose.
    pub strategy: &'static str,
    /// Which.
    pub key: String,
    /// The range, as written.
    pub expected: String,
    /// What was measured; absent if there was nothing to measure.
    pub measured: Option<f64>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} should be {}, ", self.strategy, self.key, self.expected)?;
        match self.measured {
            Some(value) => write!(f, "is {}", rounded(value)),
            None => f.write_str("but there is nothing to measure"),
        }
    }
}

/// Enough digits to see what is wrong.
fn rounded(value: f64) -> String {
    let text = format!("{value:.4}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

impl Expect {
    /// The ranges of one strategy.
    pub fn of_strategy(&self, name: StrategyName) -> &Ranges {
        match name {
            StrategyName::Tidegate => &self.tidegate,
            StrategyName::NoCalendar => &self.no_calendar,
            StrategyName::Reactive => &self.reactive,
            StrategyName::ReactiveJitter => &self.reactive_jitter,
            StrategyName::Guide => &self.guide,
            StrategyName::FixedRate => &self.fixed_rate,
            StrategyName::Aimd => &self.aimd,
        }
    }
}

impl Ranges {
    /// Every expectation that `measures` does not meet.
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
    pub fn violations(&self, measures: &Measures) -> Vec<Violation> {
        let count = |value: u64| Some(value as f64);
        let mut checks = vec![
            ("efficiency".to_owned(), &self.efficiency, Some(measures.efficiency)),
            ("makespan".to_owned(), &self.makespan, measures.makespan),
            ("succeeded".to_owned(), &self.succeeded, count(measures.succeeded)),
            ("failed".to_owned(), &self.failed, count(measures.failed)),
            ("unfinished".to_owned(), &self.unfinished, count(measures.unfinished)),
            ("late".to_owned(), &self.late, count(measures.late)),
            ("throttles".to_owned(), &self.throttles, count(measures.throttles)),
            ("throttles_per_100".to_owned(), &self.throttles_per_100, Some(measures.throttles_per_100)),
            (
                "strangers_throttles_per_100".to_owned(),
                &self.strangers_throttles_per_100,
                Some(measures.strangers_throttles_per_100),
            ),
            (
                "settled_efficiency".to_owned(),
                &self.settled_efficiency,
                measures.settled.map(|settled| settled.efficiency),
            ),
            (
                "settled_throttles_per_100".to_owned(),
                &self.settled_throttles_per_100,
                measures.settled.map(|settled| settled.throttles_per_100),
            ),
            ("strangers".to_owned(), &self.strangers, count(measures.strangers)),
            ("strangers_served".to_owned(), &self.strangers_served, measures.strangers_served),
            ("ended_at".to_owned(), &self.ended_at, Some(measures.ended_at)),
            ("recovery_probes".to_owned(), &self.recovery_probes, measures.recovery_probes.and_then(count)),
            ("max_in_flight".to_owned(), &self.max_in_flight, count(measures.max_in_flight)),
            ("recovery".to_owned(), &self.recovery, measures.recovery),
            ("hint_mismatches".to_owned(), &self.hint_mismatches, count(measures.hint_mismatches)),
        ];
        let shared = measures.sharing;
        let of = |value: fn(&Sharing) -> Option<f64>| shared.as_ref().and_then(value);
        let sharing: [(&str, &Option<Range>, Option<f64>); 8] = [
            ("exchanges_per_call", &self.exchanges_per_call, of(|all| Some(all.exchanges_per_call))),
            (
                "exchanges_in_a_second",
                &self.exchanges_in_a_second,
                shared.and_then(|all| count(all.exchanges_in_a_second)),
            ),
            ("store_away", &self.store_away, shared.and_then(|all| count(all.store_away))),
            ("store_back", &self.store_back, shared.and_then(|all| count(all.store_back))),
            ("store_forgot", &self.store_forgot, shared.and_then(|all| count(all.store_forgot))),
            ("shared_again", &self.shared_again, of(|all| all.shared_again)),
            ("alone_most", &self.alone_most, shared.and_then(|all| count(all.alone_most?))),
            ("alone_together", &self.alone_together, shared.and_then(|all| count(all.alone_together?))),
        ];
        checks.extend(sharing.map(|(key, range, value)| (key.to_owned(), range, value)));
        for (key, ranges) in [("wait_p50", &self.wait_p50), ("wait_p99", &self.wait_p99)] {
            for (class, range) in ranges.named() {
                let waits = measures.waits.get(class.name());
                let value = waits.map(|waits| if key == "wait_p50" { waits.p50 } else { waits.p99 });
                checks.push((format!("{key}.{}", class.name()), range, value));
            }
        }
        let failed = checks.into_iter().filter_map(|(key, range, measured)| {
            let range = range.as_ref()?;
            let met = measured.is_some_and(|value| range.holds(value));
            (!met).then(|| Violation {
                strategy: measures.strategy,
                key,
                expected: range.to_string(),
                measured,
            })
        });
        failed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_hold_their_own_bounds() {
        for (text, inside, outside) in [
            (">= 0.95", 0.95, 0.949),
            ("<= 40ms", 0.04, 0.041),
            ("0.9..1.1", 1.1, 1.11),
            (">= 97%", 0.97, 0.96),
            ("0", 0.0, 1.0),
            ("10s..2m", 120.0, 9.0),
        ] {
            assert!(range(text).holds(inside), "{text} holds {inside}");
            assert!(!range(text).holds(outside), "{text} does not hold {outside}");
        }
        for text in ["much", "> 3", "2..1", ">= ", "5 parsecs", "NaN"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_violation_is_told_not_the_first() {
        let ranges = Ranges {
            efficiency: Some(range(">= 0.9")),
            throttles: Some(range("0")),
            late: Some(range("0")),
            wait_p99: PerClass { bulk: Some(range("<= 1s")), ..PerClass::default() },
            ..Ranges::default()
        };
        let measures = Measures { efficiency: 0.5, throttles: 3, ..Measures::default() };
        let violations = ranges.violations(&measures);
        let keys: Vec<&str> = violations.iter().map(|violation| violation.key.as_str()).collect();
        assert_eq!(keys, ["efficiency", "throttles", "wait_p99.bulk"]);
        assert_eq!(violations[1].to_string(), ": throttles should be 0, is 3");
    }
}
