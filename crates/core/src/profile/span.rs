//! Durations as configuration writes them.

use std::time::Duration;

use crate::observe::MAX_DURATION;
use crate::observe::number::decimal;

/// Reads `250ms`, `5s`, `1.5s`, `1m`, `24h` or `7d`, up to a year. The error says what is wrong and what to write.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::profile::parse_duration;
///
/// assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
/// assert!(parse_duration("5").is_err(), "a unit is needed");
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = match unit {
        "ms" => Some(Duration::from_millis(1)),
        "s" => Some(Duration::from_secs(1)),
        "m" => Some(Duration::from_mins(1)),
        "h" => Some(Duration::from_hours(1)),
        "d" => Some(Duration::from_hours(24)),
        _ => None,
    };
    let (Some(number), Some(unit)) = (decimal(number), unit) else {
        return Err(format!("`{text}` is no duration (write a number and ms, s, m, h or d, such as \"5s\")"));
    };
    let duration = number.times(unit);
    if duration > MAX_DURATION {
        return Err(format!("`{text}` is longer than a year (write less)"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_decimals_are_exact() {
        for (text, millis) in
            [("250ms", 250), ("5s", 5_000), ("1.5s", 1_500), ("1m", 60_000), ("24h", 86_400_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration("7d"), parse_duration("168h"));
    }

    #[test]
    fn what_has_no_unit_or_no_number_is_refused() {
        for text in
            ["", "5", "s", "-5s", "5 s", "5S", "5min", "1m30s", "1e3s", "367d", "99999999999999999999h"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
