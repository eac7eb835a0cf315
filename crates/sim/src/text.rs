//! Values that are written as text in configuration files and on the command line: durations, bursts and spreads.
//!
//! Durations read "5s", "250ms", "1.5s", "2m", "24h", "1d". A burst reads "12 per 5s". A spread reads "20ms" (always that) or
//! "10ms..50ms" (uniform between the two). A bare number is refused: nobody remembers which unit it had.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The units, largest first so that formatting finds the shortest exact text.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Why a text is not one of the values of this module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not {expected}")]
pub struct TextError {
    text: String,
    expected: &'static str,
}

const DURATION: &str = "a duration like \"5s\", \"250ms\" or \"24h\"";

/// Reads a duration such as "250ms".
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(tidegate_sim::text::parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
/// assert!(tidegate_sim::text::parse_duration("5").is_err());
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, TextError> {
    let error = || TextError { text: text.to_owned(), expected: DURATION };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
    let (number, unit) = trimmed.split_at(split);
    let unit = unit.trim_start();
    let nanos = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, nanos)| *nanos).ok_or_else(error)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || fraction.len() > 9 {
        return Err(error());
    }
    let whole: u64 = whole.parse().map_err(|_| error())?;
    let mut total = u128::from(whole) * nanos;
    if !fraction.is_empty() {
        let digits: u128 = fraction.parse().map_err(|_| error())?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| error())?);
        total += digits * nanos / scale;
    }
    u64::try_from(total).map(Duration::from_nanos).map_err(|_| error())
}

/// Writes a duration in the largest unit that keeps it exact; the inverse of [`parse_duration`].
pub fn format_duration(value: Duration) -> String {
    let nanos = value.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    UNITS
        .iter()
        .find(|(_, unit)| nanos.is_multiple_of(*unit))
        .map_or_else(|| format!("{nanos}ns"), |(name, unit)| format!("{}{name}", nanos / unit))
}

/// `#[serde(with = "text::duration")]` for a [`Duration`].
pub mod duration {
    use super::{Deserialize, Deserializer, Duration, Serializer, format_duration, parse_duration};
    use serde::de::Error as _;

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// `#[serde(with = "text::maybe_duration")]` for an optional [`Duration`]; "none" and null mean absent.
pub mod maybe_duration {
    use super::{Deserialize, Deserializer, Duration, Serializer, format_duration, parse_duration};
    use serde::de::Error as _;

    #[expect(clippy::ref_option, reason = "the signature is given by serde's `with`")]
    pub(crate) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_str(&format_duration(*value)),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        match Option::<String>::deserialize(from)?.as_deref() {
            None | Some("none") => Ok(None),
            Some(text) => parse_duration(text).map(Some).map_err(D::Error::custom),
        }
    }
}

/// So many calls per so much time: "12 per 5s".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// How many calls.
    pub count: u32,
    /// In how much time.
    pub window: Duration,
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.count, format_duration(self.window))
    }
}

impl FromStr for Burst {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let error = || TextError { text: text.to_owned(), expected: "a rate like \"12 per 5s\"" };
        let (count, window) = text.split_once(" per ").ok_or_else(error)?;
        let count = count.trim().parse().map_err(|_| error())?;
        let window = parse_duration(window).map_err(|_| error())?;
        if count == 0 || window.is_zero() {
            return Err(error());
        }
        Ok(Self { count, window })
    }
}

/// A random duration, uniform between two bounds (both may be equal): "20ms" or "10ms..50ms".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Spread {
    /// Always the same duration.
    pub const fn fixed(value: Duration) -> Self {
        Self { min: value, max: value }
    }

    /// Draws one duration. Draws from `rng` even if the bounds are equal, so that a changed latency does not shift later draws.
    pub fn draw(&self, rng: &mut fastrand::Rng) -> Duration {
        let width = self.max.saturating_sub(self.min);
        self.min + width.mul_f64(rng.f64())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_duration(self.min))?;
        if self.max != self.min {
            write!(f, "..{}", format_duration(self.max))?;
        }
        Ok(())
    }
}

impl FromStr for Spread {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let error = || TextError {
            text: text.to_owned(),
            expected: "a duration like \"20ms\" or a range like \"10ms..50ms\"",
        };
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let min = parse_duration(min).map_err(|_| error())?;
        let max = parse_duration(max).map_err(|_| error())?;
        if min > max {
            return Err(error());
        }
        Ok(Self { min, max })
    }
}

/// Implements serde by `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($($name:ty),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(crate) use serde_as_text;

serde_as_text!(Burst, Spread);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_without_a_unit_is_refused() {
        for text in ["5", "", "s", "5 parsecs", "-1s", "1.2.3s", ".5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bursts_and_spreads_refuse_nonsense() {
        assert_eq!("12 per 5s".parse(), Ok(Burst { count: 12, window: Duration::from_secs(5) }));
        assert!("0 per 5s".parse::<Burst>().is_err());
        assert!("12/5s".parse::<Burst>().is_err());
        assert!("50ms..10ms".parse::<Spread>().is_err());
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(nanos in any::<u64>()) {
            let value = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(value)), Ok(value));
        }

        #[test]
        fn a_draw_stays_within_its_bounds(min in 0_u64..1000, more in 0_u64..1000, seed in any::<u64>()) {
            let spread = Spread { min: Duration::from_millis(min), max: Duration::from_millis(min + more) };
            let drawn = spread.draw(&mut fastrand::Rng::with_seed(seed));
            prop_assert!(drawn >= spread.min && drawn <= spread.max);
        }
    }
}
