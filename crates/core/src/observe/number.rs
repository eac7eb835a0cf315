//! Numbers as headers write them.
//!
//! Decimals are kept exactly, as billionths, because a float would turn `1470173023.123` into a different
//! millisecond. Digits after the ninth decimal round up: a wait may be a nanosecond long, never short.

use std::time::Duration;

/// Billionths in one.
const UNIT: u128 = 1_000_000_000;

/// A number that is not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    /// The value times 10⁹.
    pub(crate) billionths: u128,
    /// Digits written after the point, at most nine.
    pub(crate) decimals: u32,
}

impl Decimal {
    /// The value times `unit`, saturating far beyond every bound this crate accepts.
    pub(crate) fn times(self, unit: Duration) -> Duration {
        let nanos = self.billionths.saturating_mul(unit.as_nanos()).div_ceil(UNIT);
        u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
    }

    /// The weight of the last written digit, in `unit`s: 1 s for `42`, 10 ms for `2.05`.
    pub(crate) fn grain(self, unit: Duration) -> Duration {
        unit / 10_u32.pow(self.decimals)
    }

    /// The integer part.
    pub(crate) const fn whole(self) -> u128 {
        self.billionths / UNIT
    }
}

/// Reads `42`, `2.0` or `0.123`: digits, and digits after a point. No sign, no exponent, no spaces within.
pub(crate) fn decimal(text: &str) -> Option<Decimal> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() > 20 {
        return None;
    }
    let mut billionths = whole.parse::<u128>().ok()?.checked_mul(UNIT)?;
    let mut weight = UNIT;
    for byte in fraction.bytes().take(9) {
        weight /= 10;
        billionths += u128::from(byte - b'0') * weight;
    }
    if fraction.bytes().skip(9).any(|byte| byte != b'0') {
        billionths += 1;
    }
    let decimals = if text.contains('.') { u32::try_from(fraction.len().min(9)).unwrap_or(9) } else { 0 };
    Some(Decimal { billionths, decimals })
}

/// Reads a count of requests. Token buckets written in floating point (`99.97`) count whole requests only.
pub(super) fn count(text: &str) -> Option<u64> {
    u64::try_from(decimal(text)?.whole()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_and_round_up_beyond_the_ninth_digit() {
        let read = |text| decimal(text).map(|number| number.billionths);
        assert_eq!(read("42"), Some(42_000_000_000));
        assert_eq!(read("1470173023.123"), Some(1_470_173_023_123_000_000));
        assert_eq!(read("0.0000000001"), Some(1), "a tenth of a billionth rounds up");
        assert_eq!(read("0.0000000000"), Some(0));
    }

    #[test]
    fn signs_exponents_spaces_and_empty_parts_are_refused() {
        for text in ["", "-1", "+1", "1e3", "1.", ".5", "1 0", "1.2.3", "٣", "0x10", "123456789012345678901"]
        {
            assert_eq!(decimal(text), None, "{text}");
        }
    }

    #[test]
    fn a_count_is_the_whole_part_and_must_fit() {
        assert_eq!(count("99.97"), Some(99));
        assert_eq!(count("18446744073709551615"), Some(u64::MAX));
        assert_eq!(count("18446744073709551616"), None);
    }

    #[test]
    fn grain_is_the_weight_of_the_last_written_digit() {
        let second = Duration::from_secs(1);
        assert_eq!(decimal("42").unwrap().grain(second), second);
        assert_eq!(decimal("2.0").unwrap().grain(second), Duration::from_millis(100));
        assert_eq!(decimal("2.050").unwrap().grain(second), Duration::from_millis(1));
        assert_eq!(decimal("41").unwrap().grain(Duration::from_millis(1)), Duration::from_millis(1));
    }
}
