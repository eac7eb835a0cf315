//! The windows of a scenario: the product's calendar, by the run's own clock.
//!
//! A run begins at a minute of its wall clock that the seed moves by a fraction of a second. So a window is told by when it
//! opens after the start, in whole minutes, and is made a window of the core that comes once a year at that minute.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tidegate_core::calendar::{Calendar, Cron, Window, Zone};
use tidegate_core::pace::Class;
use tidegate_core::time::Wall;

use crate::fleet::Fleet;
use crate::text;

/// A time in which classes are held.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Opening {
    /// When it opens, in whole minutes after the start of the run (the seed begins the run up to a second later in its minute).
    #[serde(deserialize_with = "text::duration")]
    pub from: Duration,
    /// How long it lasts.
    #[serde(rename = "for", deserialize_with = "text::duration")]
    pub lasts: Duration,
    /// The class that gets nothing in it.
    #[serde(deserialize_with = "text::parsed")]
    pub hold: Class,
    /// Over which time its calls begin again, each instance at a moment of its own.
    #[serde(deserialize_with = "text::duration")]
    pub stagger: Duration,
}

impl Default for Opening {
    fn default() -> Self {
        let lasts = Duration::from_mins(1);
        Self { from: Duration::ZERO, lasts, hold: Class::Bulk, stagger: Duration::ZERO }
    }
}

impl Opening {
    /// Everything that is out of bounds.
    pub(crate) fn check(&self, place: &str, problems: &mut Vec<String>) {
        if !self.from.as_secs().is_multiple_of(60) || self.from.subsec_nanos() > 0 {
            problems.push(format!("{place}.from: {:?} is not in whole minutes", self.from));
        }
        if self.lasts.is_zero() {
            problems.push(format!("{place}.for: is zero"));
        }
        if self.from > Duration::from_hours(24) {
            problems.push(format!("{place}.from: {:?} is above 24h", self.from));
        }
    }

    fn window(&self, index: usize, start: Duration) -> Window {
        let minute = (start.as_secs() / 60) * 60 + self.from.as_secs();
        let at = Wall::from_unix_millis(i64::try_from(minute).unwrap_or(i64::MAX).saturating_mul(1000));
        let zone = Zone::utc();
        let cron =
            Cron::parse(&zone.show(at, "%-M %-H %-d %-m *")).expect("every minute is a time of the year");
        let mut hold = [false; Class::COUNT];
        hold[self.hold.index()] = true;
        Window {
            name: format!("window {}", index + 1),
            cron,
            zone,
            lasts: self.lasts,
            hold,
            reserve: [0; Class::COUNT],
            stagger: self.stagger,
        }
    }
}

impl Fleet {
    /// The calendar of a run whose wall clock shows `start` at its beginning.
    pub(crate) fn calendar(&self, start: Duration) -> Arc<Calendar> {
        let windows = self.window.iter().enumerate().map(|(index, opening)| opening.window(index, start));
        Arc::new(Calendar::new(windows.collect()))
    }
}
