//! The five fields of a crontab line, read and looked up.
//!
//! Minute, hour, day of the month, month and day of the week, as POSIX describes them (*crontab*, IEEE Std 1003.1-2017), with the
//! additions that every cron has: steps (`*/15`, `8-18/2`), names of months and days (`MON`), and 7 for Sunday. As there, a
//! day has to be in both day fields, unless both are restricted: then one of them is enough.
//!
//! Why not a library: the one that is kept well brings a second library of calendars with it (chrono, 20 packages), and what
//! happens around a switch of clocks is decided here in any case. These are civil times: zones are [`super::zone`]'s part.

use std::fmt;

use jiff::ToSpan as _;
use jiff::civil::{Date, DateTime, Time, date};

/// When something happens, in civil time.
///
/// ```
/// use tidegate_core::calendar::Cron;
///
/// let mondays = Cron::parse("0 6 * * MON").unwrap();
/// let next = mondays.next(jiff::civil::date(2026, 3, 4).at(12, 0, 0, 0)).unwrap();
/// assert_eq!(next, jiff::civil::date(2026, 3, 9).at(6, 0, 0, 0));
/// assert!(Cron::parse("0 0 31 2 *").is_err(), "no February has 31 days");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: String,
    /// A bit each, from 0.
    minutes: u64,
    hours: u64,
    /// From 1.
    days: u64,
    months: u64,
    /// From 0, which is Sunday.
    weekdays: u64,
    /// Both day fields are restricted, so one of them is enough.
    either_day: bool,
}

/// What a field may say.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    /// Names of the numbers from `least` on.
    names: &'static [&'static str],
    example: &'static str,
}

const MINUTE: Field =
    Field { name: "minute", least: 0, most: 59, names: &[], example: "0 to 59, such as 0, */15 or 0,30" };
const HOUR: Field =
    Field { name: "hour", least: 0, most: 23, names: &[], example: "0 to 23, such as 6 or 8-18" };
const DAY: Field =
    Field { name: "day of the month", least: 1, most: 31, names: &[], example: "1 to 31, such as 1 or 1,15" };
const MONTH: Field = Field {
    name: "month",
    least: 1,
    most: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    example: "1 to 12 or JAN to DEC",
};
const WEEKDAY: Field = Field {
    name: "day of the week",
    least: 0,
    most: 7,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    example: "0 to 7 or SUN to SAT, such as MON or MON-FRI",
};

/// The days of each month, in a leap year.
const MONTH_DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// From one 29 February to the next there are eight years at most: 1896 to 1904, and 2096 to 2104.
const LONGEST_SEARCH: i64 = 8 * 366;

impl Cron {
    /// Reads five fields.
    ///
    /// # Errors
    /// What is wrong, and in parentheses what to write: a field that cannot be read, or a time that never comes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!(
                "`{text}` has {} fields (write five: minute, hour, day of the month, month, day of the week, such as \"0 6 * * MON\")",
                fields.len()
            ));
        };
        let mut problems = Vec::new();
        let mut read = |field: &Field, text: &str| {
            field.read(text).unwrap_or_else(|what| {
                problems.push(what);
                0
            })
        };
        let mut cron = Self {
            text: fields.join(" "),
            minutes: read(&MINUTE, minute),
            hours: read(&HOUR, hour),
            days: read(&DAY, day),
            months: read(&MONTH, month),
            weekdays: read(&WEEKDAY, weekday),
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        // Sunday is 0 and 7.
        cron.weekdays = (cron.weekdays | cron.weekdays >> 7) & 0x7f;
        if !cron.either_day && !cron.has_a_date() {
            return Err(format!(
                "`{text}` never comes: none of its months has such a day (write another day, or another month)"
            ));
        }
        Ok(cron)
    }

    fn has_a_date(&self) -> bool {
        let months = (1..).zip(MONTH_DAYS).filter(|&(month, _)| has(self.months, month));
        months.into_iter().any(|(_, days)| (1..=days).any(|day| has(self.days, day)))
    }

    /// The first time that is later than `after`. `None` at the end of the calendar.
    pub fn next(&self, after: DateTime) -> Option<DateTime> {
        let (mut day, time) = (after.date(), after.time());
        if self.falls_on(day)
            && let Some(minute) = self.minute_from(minute_of(time) + 1)
        {
            return Some(at(day, minute));
        }
        let first = self.minute_from(0)?;
        for _ in 0..LONGEST_SEARCH {
            day = day.tomorrow().ok()?;
            if self.falls_on(day) {
                return Some(at(day, first));
            }
        }
        None
    }

    /// The shortest time between two in a row, in minutes, as clocks show it.
    pub fn shortest_gap(&self) -> u32 {
        let minutes: Vec<u32> =
            std::iter::successors(self.minute_from(0), |&last| self.minute_from(last + 1)).collect();
        let within = minutes.windows(2).map(|pair| pair[1] - pair[0]).min();
        let (Some(first), Some(last)) = (minutes.first(), minutes.last()) else { return u32::MAX };
        let over_night = self.shortest_days().map(|days| days * DAY_MINUTES - last + first);
        within.into_iter().chain(over_night).min().unwrap_or(u32::MAX)
    }

    /// Days between two days in a row. Weekdays and dates repeat in the same order after 400 years; what is shortest shows in one
    /// round of leap years and weekdays, which is 28 years.
    fn shortest_days(&self) -> Option<u32> {
        let (mut last, mut shortest) = (None, None::<u32>);
        let days = date(2000, 1, 1).series(1.day()).take(28 * 366);
        for (index, _) in (0_u32..).zip(days).filter(|&(_, day)| self.falls_on(day)) {
            if let Some(last) = last.replace(index) {
                let days = index - last;
                shortest = Some(shortest.map_or(days, |shortest| shortest.min(days)));
            }
            if shortest == Some(1) {
                break;
            }
        }
        shortest
    }

    fn falls_on(&self, day: Date) -> bool {
        let by_date = has(self.days, u32::from(day.day().unsigned_abs()));
        let by_weekday = has(self.weekdays, u32::from(day.weekday().to_sunday_zero_offset().unsigned_abs()));
        let on_day = if self.either_day { by_date || by_weekday } else { by_date && by_weekday };
        on_day && has(self.months, u32::from(day.month().unsigned_abs()))
    }

    /// The first minute of the day that is not before `from`.
    fn minute_from(&self, from: u32) -> Option<u32> {
        let (hour, minute) = (from / 60, from % 60);
        let within = (minute..60).find(|&minute| has(self.minutes, minute));
        if let Some(minute) = within.filter(|_| has(self.hours, hour)) {
            return Some(hour * 60 + minute);
        }
        let hour = (hour + 1..24).find(|&hour| has(self.hours, hour))?;
        Some(hour * 60 + self.minutes.trailing_zeros())
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const DAY_MINUTES: u32 = 24 * 60;

fn has(bits: u64, number: u32) -> bool {
    bits.checked_shr(number).is_some_and(|bits| bits & 1 == 1)
}

fn minute_of(time: Time) -> u32 {
    u32::from(time.hour().unsigned_abs()) * 60 + u32::from(time.minute().unsigned_abs())
}

fn at(day: Date, minute: u32) -> DateTime {
    let part = |number: u32| i8::try_from(number).unwrap_or_default();
    day.at(part(minute / 60), part(minute % 60), 0, 0)
}

impl Field {
    /// The numbers that a field names, a bit each.
    fn read(&self, text: &str) -> Result<u64, String> {
        let mut bits = 0;
        for part in text.split(',') {
            bits |= self
                .read_part(part)
                .ok_or_else(|| format!("`{text}` is no {} (write * or {})", self.name, self.example))?;
        }
        Ok(bits)
    }

    fn read_part(&self, part: &str) -> Option<u64> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(whole(step)?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (self.number(from)?, self.number(to)?),
            None if range == "*" => (self.least, self.most),
            None => {
                let from = self.number(range)?;
                (from, if step.is_some() { self.most } else { from })
            }
        };
        let step = step.unwrap_or(1);
        if from > to || step == 0 {
            return None;
        }
        let step = usize::try_from(step).ok()?;
        Some((from..=to).step_by(step).fold(0, |bits, number| bits | 1 << number))
    }

    fn number(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let number = match named {
            Some(index) => self.least + u32::try_from(index).ok()?,
            None => whole(text)?,
        };
        (self.least..=self.most).contains(&number).then_some(number)
    }
}

/// Digits only: a sign is no number here.
fn whole(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use jiff::civil::DateTime;
    use proptest::prelude::*;

    use super::*;

    fn next(cron: &str, after: &str) -> String {
        let after: DateTime = after.parse().unwrap();
        Cron::parse(cron).unwrap().next(after).unwrap().to_string()
    }

    #[test]
    fn five_fields_are_read_as_crontabs_are() {
        for (cron, after, expected) in [
            ("0 6 * * MON", "2026-11-22T12:00", "2026-11-23T06:00:00"),
            ("0 6 * * mon", "2026-11-23T06:00", "2026-11-30T06:00:00"),
            ("*/15 * * * *", "2026-11-22T12:07:30", "2026-11-22T12:15:00"),
            ("5/20 * * * *", "2026-11-22T12:45", "2026-11-22T13:05:00"),
            ("0 8-18/5 * * *", "2026-11-22T13:00", "2026-11-22T18:00:00"),
            ("30 23 31 12 *", "2026-12-31T23:30", "2027-12-31T23:30:00"),
            ("0 0 * * 7", "2026-11-22T00:00", "2026-11-29T00:00:00"),
            ("0 0 * * 5-7", "2026-11-22T00:00", "2026-11-27T00:00:00"),
            ("0 0 13 * FRI", "2026-11-14T00:00", "2026-11-20T00:00:00"),
            ("0 0 */10 * FRI", "2026-11-02T00:00", "2026-12-11T00:00:00"),
            ("0 0 29 FEB *", "2096-03-01T00:00", "2104-02-29T00:00:00"),
        ] {
            assert_eq!(next(cron, after), expected, "{cron} after {after}");
        }
    }

    #[test]
    fn what_is_no_time_is_told_with_its_field() {
        for (cron, part) in [
            ("0 6 * *", "has 4 fields"),
            ("@weekly", "has 1 fields"),
            ("60 6 * * *", "`60` is no minute"),
            ("0 24 * * *", "`24` is no hour"),
            ("0 6 0 * *", "`0` is no day of the month"),
            ("0 6 * 13 *", "`13` is no month"),
            ("0 6 * * MOON", "`MOON` is no day of the week"),
            ("0 6 * * FRI-MON", "`FRI-MON` is no day of the week"),
            ("*/0 6 * * *", "`*/0` is no minute"),
            ("+5 6 * * *", "`+5` is no minute"),
            ("1,,2 6 * * *", "`1,,2` is no minute"),
            ("0 0 31 2 *", "never comes"),
            ("0 0 31 4,6,9,11 *", "never comes"),
            ("0 0 30 feb *", "never comes"),
        ] {
            let problem = Cron::parse(cron).unwrap_err();
            assert!(problem.contains(part), "{cron}: {problem}");
        }
        let both = Cron::parse("99 99 * * *").unwrap_err();
        assert!(both.contains("minute") && both.contains("hour"), "{both}");
    }

    #[test]
    fn the_shortest_gap_is_found_within_a_day_and_over_nights() {
        for (cron, gap) in [
            ("0 6 * * MON", 7 * 1440),
            ("0 6 * * MON,TUE", 1440),
            ("*/7 * * * *", 4),
            ("0 0,23 * * *", 60),
            ("0 6 1,31 * *", 1440),
            ("0 6 1 1 *", 365 * 1440),
            ("0 6 29 2 *", 1461 * 1440),
            ("* * * * *", 1),
        ] {
            assert_eq!(Cron::parse(cron).unwrap().shortest_gap(), gap, "{cron}");
        }
    }

    fn field(least: u32, most: u32) -> impl Strategy<Value = String> {
        let number = least..=most;
        let range = (number.clone(), number.clone(), 1..7_u32)
            .prop_map(|(one, other, step)| format!("{}-{}/{step}", one.min(other), one.max(other)));
        let list = proptest::collection::vec(number.prop_map(|number| number.to_string()), 1..4)
            .prop_map(|numbers| numbers.join(","));
        prop_oneof![3 => Just("*".to_owned()), 1 => (1..9_u32).prop_map(|step| format!("*/{step}")), 2 => range, 3 => list]
    }

    /// A field as a person reads it, one number at a time.
    fn names(field: &str, most: u32, number: u32) -> bool {
        field.split(',').any(|part| {
            let (range, step) = part.split_once('/').unwrap_or((part, "1"));
            let step: u32 = step.parse().unwrap();
            let bounds = match range {
                "*" => (None, most),
                range => {
                    let (from, to) = range.split_once('-').unwrap_or((range, range));
                    (Some(from.parse().unwrap()), to.parse().unwrap())
                }
            };
            let from = bounds.0.unwrap_or(u32::from(most == 31 || most == 12));
            (from..=bounds.1).contains(&number) && (number - from).is_multiple_of(step)
        })
    }

    proptest! {
        /// Against a walk through every minute.
        #[test]
        fn the_next_time_is_the_first_minute_whose_fields_match(
            (minute, hour, day, month, weekday) in
                (field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)),
            days in 0..1500_i32,
            offset in 0..1440_i32,
        ) {
            let text = format!("{minute} {hour} {day} {month} {weekday}");
            let cron = Cron::parse(&text).unwrap();
            let after = date(2026, 1, 1).at(0, 0, 0, 0) + days.days() + offset.minutes();
            let either = !day.starts_with('*') && !weekday.starts_with('*');
            let matches = |time: DateTime| {
                let number = |part: i8| u32::from(part.unsigned_abs());
                let on_date = names(&day, 31, number(time.day()));
                let on_weekday = names(&weekday, 6, number(time.weekday().to_sunday_zero_offset()));
                let on_day = if either { on_date || on_weekday } else { on_date && on_weekday };
                names(&minute, 59, number(time.minute()))
                    && names(&hour, 23, number(time.hour()))
                    && names(&month, 12, number(time.month()))
                    && on_day
            };
            // Five days at most: the rest is that nothing lies before what was found.
            let walked = (1..=5 * 1440).map(|minutes: i32| after + minutes.minutes()).find(|&time| matches(time));
            let found = cron.next(after);
            match walked {
                Some(walked) => prop_assert_eq!(found, Some(walked)),
                None => prop_assert!(found.is_none_or(|found| found > after + 5.days() && matches(found))),
            }
        }
    }
}
