//! Dates as the API's bodies have them: ISO 8601 in UTC, with milliseconds.

use std::time::Duration;

/// An instant of the wall clock, such as `2023-11-14T22:13:20.000Z`.
pub fn iso_date(wall: Duration) -> String {
    let (year, month, day) = civil(wall.as_secs() / 86_400);
    let seconds = wall.as_secs() % 86_400;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", wall.subsec_millis())
}

/// Year, month and day of a number of days since 1970-01-01, by the era arithmetic of Howard Hinnant's "chrono-compatible low-level date
/// algorithms": years begin in March, so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_have_their_dates() {
        let date = |millis| iso_date(Duration::from_millis(millis));
        assert_eq!(date(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(date(1_700_000_000_250), "2023-11-14T22:13:20.250Z");
        assert_eq!(date(1_709_210_096_789), "2024-02-29T12:34:56.789Z");
        assert_eq!(date(4_107_542_399_000), "2100-02-28T23:59:59.000Z");
        assert_eq!(date(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }
}
