//! What came of sharing a quota: exchanges with the store, and what instances did without it.

use std::time::Duration;

use serde::Serialize;
use tidegate_core::event::Event;

use crate::headline::Headline;
use crate::plan::Plan;

/// What one instance did.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// When it began exchanges, those said again included.
    began: Vec<Duration>,
    /// Those that brought no answer.
    pub(crate) unanswered: u64,
    /// How often it was told that the store had forgotten.
    forgot: u64,
    /// When it went on by itself, and until when.
    alone: Vec<(Duration, Option<Duration>)>,
    /// When attempts left meanwhile.
    left: Vec<Duration>,
}

impl Record {
    /// An exchange begins.
    pub(crate) fn begins(&mut self, now: Duration) {
        self.began.push(now);
    }

    /// The bank said something.
    pub(crate) fn event(&mut self, now: Duration, event: &Event) {
        match event {
            Event::StoreAway { .. } => self.alone.push((now, None)),
            Event::StoreBack { .. } => {
                if let Some((_, until)) = self.alone.last_mut() {
                    *until = Some(now);
                }
            }
            Event::StoreForgot => self.forgot += 1,
            _ => {}
        }
    }

    /// An attempt leaves.
    pub(crate) fn left(&mut self, now: Duration) {
        if self.alone.last().is_some_and(|(_, until)| until.is_none()) {
            self.left.push(now);
        }
    }
}

/// What a fleet with a store did. Times in seconds of virtual time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Sharing {
    /// Exchanges with the store, those said again included.
    pub exchanges: u64,
    /// `exchanges` over the calls that ended well.
    pub exchanges_per_call: f64,
    /// The most exchanges that began within one second.
    pub exchanges_in_a_second: u64,
    /// Exchanges to which no answer came in time.
    pub unanswered: u64,
    /// How often an instance said that the store is away and went on by itself.
    pub store_away: u64,
    /// How often one said that it is back.
    pub store_back: u64,
    /// How often one was told that the store has forgotten.
    pub store_forgot: u64,
    /// From the end of the last outage until all instances share again; absent if none did without the store then, or one never
    /// came back.
    pub shared_again: Option<f64>,
    /// The most attempts of one instance within one window of the limit while it went on by itself; absent if none did, or
    /// the limit has no window.
    pub alone_most: Option<u64>,
    /// The same of all of them together.
    pub alone_together: Option<u64>,
}

impl Sharing {
    /// What instances did, of whose calls so many ended well.
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
    pub(crate) fn of(plan: &Plan<'_>, records: &[Record], succeeded: u64) -> Option<Self> {
        if records.is_empty() {
            return None;
        }
        let sum =
            |count: fn(&Record) -> usize| records.iter().map(|record| count(record) as u64).sum::<u64>();
        let exchanges = sum(|record| record.began.len());
        let window = match Headline::of(plan) {
            Headline::Rate(rule) => Some(rule.quota.window),
            Headline::Cap(_) | Headline::None => None,
        };
        let store_away = sum(|record| record.alone.len());
        let window = window.filter(|_| store_away > 0);
        let together = |which: fn(&Record) -> &Vec<Duration>| {
            let mut all: Vec<Duration> = records.iter().flat_map(which).copied().collect();
            all.sort_unstable();
            all
        };
        let all = together(|record| &record.left);
        Some(Self {
            exchanges,
            exchanges_per_call: exchanges as f64 / succeeded.max(1) as f64,
            exchanges_in_a_second: most_within(&together(|record| &record.began), Duration::from_secs(1)),
            unanswered: records.iter().map(|record| record.unanswered).sum(),
            store_away,
            store_back: sum(|record| record.alone.iter().filter(|(_, until)| until.is_some()).count()),
            store_forgot: records.iter().map(|record| record.forgot).sum(),
            shared_again: shared_again(plan, records),
            alone_most: window
                .and_then(|window| records.iter().map(|record| most_within(&record.left, window)).max()),
            alone_together: window.map(|window| most_within(&all, window)),
        })
    }
}

fn shared_again(plan: &Plan<'_>, records: &[Record]) -> Option<f64> {
    let end = plan.fleet().quota.outages.last()?.to;
    let returns = records.iter().flat_map(|record| &record.alone).map(|(_, until)| *until);
    let last = returns.collect::<Option<Vec<Duration>>>()?.into_iter().max()?;
    Some(last.saturating_sub(end).as_secs_f64())
}

/// The most of these instants, which ascend, that lie within one `window`.
fn most_within(instants: &[Duration], window: Duration) -> u64 {
    let within =
        |(first, at): (usize, &Duration)| instants[first..].partition_point(|other| *other < *at + window);
    instants.iter().enumerate().map(within).max().unwrap_or(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_window_may_begin_with_any_instant() {
        let at = |tenths: &[u64]| tenths.iter().map(|t| Duration::from_millis(100 * t)).collect::<Vec<_>>();
        let second = Duration::from_secs(1);
        assert_eq!(
            most_within(&at(&[0, 8, 9, 17, 18, 30]), second),
            3,
            "0, 8, 9 or 8, 9, 17; 18 is one later"
        );
        assert_eq!(most_within(&at(&[0, 10, 20]), second), 1, "a window ends before its length is over");
        assert_eq!(most_within(&[], second), 0);
    }
}
