//! Instants and waits as headers write them.
//!
//! One field, `X-RateLimit-Reset`, is known to carry seconds, milliseconds, an epoch in either with or without
//! decimals, ISO 8601 down to the minute, an HTTP date, what JavaScript prints for a `Date`, and a Go duration. The
//! text tells most of these apart; for plain numbers the profile's unit decides, then size does.

use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::{rfc2822, strtime, temporal};
use jiff::tz::TimeZone;

use super::number::{Decimal, decimal};
use super::rules::ResetUnit;
use super::{MAX_DURATION, Reset};
use crate::time::Wall;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// From here on a number of seconds is an epoch: 10⁹ s is 31 years as a wait and September 2001 as an instant.
const EPOCH_SECONDS: u128 = 1_000_000_000;
/// From here on a number is an epoch in milliseconds: the same instant.
const EPOCH_MILLIS: u128 = 1_000_000_000_000;

/// A wait, or an instant to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// A wait from the response on.
    In { after: Duration, grain: Duration },
    /// An instant.
    At { at: Wall, grain: Duration },
}

impl When {
    /// Reads `text`, whose numbers are in `unit`.
    pub(super) fn parse(text: &str, unit: ResetUnit) -> Result<Self, &'static str> {
        let text = text.trim();
        if let Some(number) = decimal(text) {
            return Self::number(number, unit);
        }
        let read = match unit {
            ResetUnit::Duration => span(text),
            ResetUnit::Date => instant(text),
            _ if text.starts_with('-') => return Err("negative"),
            _ => span(text).or_else(|| instant(text)),
        };
        read.ok_or("neither a number nor a date nor a duration")
    }

    fn number(number: Decimal, unit: ResetUnit) -> Result<Self, &'static str> {
        let size = number.whole();
        let delta = |unit| Ok(Self::In { after: number.times(unit), grain: number.grain(unit) });
        match unit {
            ResetUnit::DeltaSeconds | ResetUnit::Auto if size < EPOCH_SECONDS => delta(SECOND),
            ResetUnit::DeltaMillis if size < EPOCH_MILLIS => delta(MILLISECOND),
            ResetUnit::DeltaSeconds | ResetUnit::Auto if size < EPOCH_MILLIS => Self::epoch(number, SECOND),
            ResetUnit::EpochSeconds => Self::epoch(number, SECOND),
            ResetUnit::DeltaSeconds | ResetUnit::Auto | ResetUnit::DeltaMillis | ResetUnit::EpochMillis => {
                Self::epoch(number, MILLISECOND)
            }
            ResetUnit::Duration => Err("a duration needs units, such as 1m30s"),
            ResetUnit::Date => Err("a number where a date is expected"),
        }
    }

    fn epoch(number: Decimal, unit: Duration) -> Result<Self, &'static str> {
        let millis = number.times(unit).as_nanos().div_ceil(MILLISECOND.as_nanos());
        let at = i64::try_from(millis).map_err(|_| "too large")?;
        Ok(Self::At { at: Wall::from_unix_millis(at), grain: number.grain(unit) })
    }

    /// The reset this is for a response of the instant `now`.
    pub(super) fn resolve(self, now: Wall) -> Result<Reset, &'static str> {
        match self {
            Self::In { after, .. } if after > MAX_DURATION => Err("more than a year ahead"),
            Self::In { after, grain } => Ok(Reset { after, grain, at: None }),
            Self::At { at, grain } => {
                let after = at.since(now).unwrap_or(Duration::ZERO);
                let past = now.since(at).unwrap_or(Duration::ZERO);
                if after > MAX_DURATION {
                    return Err("more than a year ahead");
                }
                if past > MAX_DURATION {
                    return Err("more than a year ago");
                }
                Ok(Reset { after, grain, at: Some(at) })
            }
        }
    }
}

/// Reads an HTTP date: the three forms of RFC 9110 5.6.7, then leniently what mail allows besides (zone `UTC` or
/// `+0000`, a day of one digit, lower case).
pub(super) fn http_date(text: &str) -> Option<Wall> {
    static LENIENT: rfc2822::DateTimeParser = rfc2822::DateTimeParser::new();
    let text = text.trim();
    if let Ok(time) = httpdate::parse_http_date(text) {
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        return i64::try_from(since.as_millis()).ok().map(Wall::from_unix_millis);
    }
    LENIENT.parse_timestamp(text).ok().map(wall)
}

fn wall(timestamp: Timestamp) -> Wall {
    let rounds_up = i64::from(timestamp.subsec_nanosecond() % 1_000_000 > 0);
    Wall::from_unix_millis(timestamp.as_millisecond() + rounds_up)
}

fn instant(text: &str) -> Option<When> {
    // A digit opens ISO 8601 only; every other form opens with the name of a weekday, except the lenient one.
    if text.as_bytes().first().is_some_and(u8::is_ascii_digit)
        && let Some(at) = iso(text)
    {
        return Some(When::At { at, grain: iso_grain(text) });
    }
    let at = http_date(text).or_else(|| js_date(text))?;
    Some(When::At { at, grain: SECOND })
}

/// ISO 8601 and RFC 3339, also with a blank for the `T`. Without a zone it is taken as UTC: every server seen to omit
/// it means that.
fn iso(text: &str) -> Option<Wall> {
    static PARSER: temporal::DateTimeParser = temporal::DateTimeParser::new();
    if let Ok(timestamp) = PARSER.parse_timestamp(text) {
        return Some(wall(timestamp));
    }
    // A date alone is refused: midnight would be a guess.
    if !text.contains(':') {
        return None;
    }
    let civil = PARSER.parse_datetime(text).ok()?;
    TimeZone::UTC.to_timestamp(civil).ok().map(wall)
}

/// The precision of an ISO 8601 time: minutes if it has no seconds (Jira), else the last decimal.
fn iso_grain(text: &str) -> Duration {
    let time = text.get(10..).unwrap_or_default().trim_start_matches(['T', 't', ' ']);
    let end = time.find(|c: char| !matches!(c, '0'..='9' | ':' | '.' | ',')).unwrap_or(time.len());
    let time = &time[..end];
    if time.matches(':').count() < 2 {
        return MINUTE;
    }
    let decimals = time.find(['.', ',']).map_or(0, |point| (time.len() - point - 1).min(9));
    SECOND / 10_u32.pow(u32::try_from(decimals).unwrap_or(9))
}

/// What JavaScript prints for a `Date`: `Sun Nov 22 2026 10:00:00 GMT+0000 (Coordinated Universal Time)`.
fn js_date(text: &str) -> Option<Wall> {
    let text = text.split_once(" (").map_or(text, |(date, _)| date);
    let parts = strtime::parse("%a %b %d %Y %H:%M:%S GMT%z", text).ok()?;
    parts.to_timestamp().ok().map(wall)
}

/// A Go duration: `6m0s`, `34s`, `100ms`, `1h2m3.5s`.
fn span(text: &str) -> Option<When> {
    let mut total = Duration::ZERO;
    let mut grain = Duration::MAX;
    let mut rest = text;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number = decimal(&rest[..number_end])?;
        rest = &rest[number_end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = span_unit(&rest[..unit_end])?;
        rest = &rest[unit_end..];
        total = total.saturating_add(number.times(unit));
        grain = grain.min(number.grain(unit));
    }
    (grain < Duration::MAX).then_some(When::In { after: total, grain })
}

fn span_unit(text: &str) -> Option<Duration> {
    Some(match text {
        "ns" => Duration::from_nanos(1),
        "us" | "µs" | "μs" => Duration::from_micros(1),
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => MINUTE * 60,
        "d" => MINUTE * 60 * 24,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the instant of RFC 9110's examples.
    const RFC_INSTANT: i64 = 784_111_777_000;

    #[test]
    fn all_three_http_dates_of_the_rfc_name_one_instant() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(http_date(text), Some(Wall::from_unix_millis(RFC_INSTANT)), "{text}");
        }
    }

    #[test]
    fn near_http_dates_get_a_second_chance_and_wrong_weekdays_do_not() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 6 Nov 1994 08:49:37 +0000",
            "sun, 06 nov 1994 08:49:37 gmt",
        ] {
            assert_eq!(http_date(text), Some(Wall::from_unix_millis(RFC_INSTANT)), "{text}");
        }
        assert_eq!(http_date("Mon, 06 Nov 1994 08:49:37 GMT"), None);
    }

    #[test]
    fn every_textual_form_of_an_instant_is_read_with_its_precision() {
        let milli = Duration::from_millis(1);
        for (text, late, grain) in [
            ("1994-11-06T08:49:37Z", 0, SECOND),
            ("1994-11-06T09:49:37+01:00", 0, SECOND),
            ("1994-11-06T08:49:37.250Z", 250, milli),
            ("1994-11-06T08:50Z", 23_000, MINUTE),
            ("1994-11-06 08:49:37", 0, SECOND),
            ("Sun Nov 06 1994 08:49:37 GMT+0000 (Coordinated Universal Time)", 0, SECOND),
            ("Sun Nov 06 1994 03:49:37 GMT-0500", 0, SECOND),
        ] {
            let at = Wall::from_unix_millis(RFC_INSTANT + late);
            assert_eq!(When::parse(text, ResetUnit::Auto), Ok(When::At { at, grain }), "{text}");
        }
    }

    #[test]
    fn go_durations_add_up() {
        for (text, millis, grain) in [
            ("6m0s", 360_000, SECOND),
            ("34s", 34_000, SECOND),
            ("100ms", 100, MILLISECOND),
            ("1h2m3.5s", 3_723_500, Duration::from_millis(100)),
            ("0s", 0, SECOND),
        ] {
            let after = Duration::from_millis(millis);
            assert_eq!(When::parse(text, ResetUnit::Auto), Ok(When::In { after, grain }), "{text}");
        }
        for text in ["", "s", "5", "5x", "1m 2s", "-5s"] {
            assert_eq!(span(text), None, "{text}");
        }
    }

    #[test]
    fn size_tells_an_epoch_from_a_wait() {
        let now = Wall::from_unix_millis(1_700_000_000_000);
        let after =
            |text, unit| When::parse(text, unit).and_then(|when| when.resolve(now)).map(|reset| reset.after);
        let seconds = |n| Ok(Duration::from_secs(n));
        assert_eq!(after("42", ResetUnit::Auto), seconds(42));
        assert_eq!(after("1700000042", ResetUnit::Auto), seconds(42));
        assert_eq!(after("1700000042000", ResetUnit::Auto), seconds(42));
        assert_eq!(after("1700000042", ResetUnit::DeltaSeconds), seconds(42), "sanity overrules the profile");
        assert_eq!(after("42000", ResetUnit::DeltaMillis), seconds(42));
        assert_eq!(after("1700000042000", ResetUnit::DeltaMillis), seconds(42));
        assert_eq!(after("1700000042.25", ResetUnit::EpochSeconds), Ok(Duration::from_millis(42_250)));
        assert_eq!(after("42", ResetUnit::EpochSeconds), Err("more than a year ago"));
        assert_eq!(after("999999999", ResetUnit::Auto), Err("more than a year ahead"));
        assert_eq!(after("1699999000", ResetUnit::Auto), seconds(0), "the recent past is now");
    }
}
