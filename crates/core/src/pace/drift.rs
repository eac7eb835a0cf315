//! How often and how far `Retry-After` and the window's reset disagree.
//!
//! Both say when the server will accept again. Where they differ one of them is wrong, and which one is a property of the
//! server that changes with its releases; so a single warning says little, and one beside the last day says whether it is
//! news. Counted are throttles that closed a gate, per family and credential, in hourly buckets of 24 hours.
//!
//! Rules: drift is `Retry-After` less reset, so a hint that is too short is negative; only disagreements have one (small
//! differences are rounding). At most [`Drift::MOST`] pairs are remembered, the longest quiet one goes first.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::key::{CredentialId, Family};
use crate::pace::secs::num;
use crate::time::Mono;

/// The disagreements of one bank in the last 24 hours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Drift {
    pairs: BTreeMap<String, BTreeMap<String, Track>>,
}

/// The hours of one family and credential in which anything happened, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Track {
    hours: VecDeque<Hour>,
}

/// One hour. Drift in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hour {
    /// Its number, from the origin of the clock; in a stored state, from when it was stored.
    number: i64,
    throttles: u64,
    disagreements: u64,
    smallest: f64,
    sum: f64,
    largest: f64,
}

/// Throttles and disagreements of one family and credential in the last 24 hours.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DriftSnapshot {
    /// The family.
    pub family: String,
    /// The credential.
    pub credential: String,
    /// Throttles that closed a gate.
    pub throttles: u64,
    /// Those whose `Retry-After` and reset disagreed.
    pub disagreements: u64,
    /// The smallest `Retry-After` less reset among them, seconds.
    pub smallest_s: f64,
    /// Their mean, seconds.
    pub mean_s: f64,
    /// The largest, seconds.
    pub largest_s: f64,
    /// The hours in which anything happened, the present one first.
    pub hours: Vec<DriftHour>,
}

/// One hour of a [`DriftSnapshot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DriftHour {
    /// How many hours ago it began; 0 is the present one.
    pub hours_ago: u64,
    /// Throttles that closed a gate.
    pub throttles: u64,
    /// Those whose `Retry-After` and reset disagreed.
    pub disagreements: u64,
}

impl Drift {
    /// Pairs of family and credential remembered. A day with more of them that are throttled has other troubles.
    const MOST: usize = 256;
    const HOURS: i64 = 24;

    /// A throttle that is news; `disagreed`: its `Retry-After` and its reset.
    pub(super) fn throttled(
        &mut self,
        now: Mono,
        family: &Family,
        credential: &CredentialId,
        disagreed: Option<(Duration, Duration)>,
    ) {
        let hour = hour_of(now);
        self.make_room(family, credential);
        let of_family = self.pairs.entry(family.to_string()).or_default();
        let track = of_family.entry(credential.to_string()).or_default();
        track.forget(hour - Self::HOURS);
        let bucket = track.bucket(hour);
        bucket.throttles += 1;
        if let Some((retry_after, reset)) = disagreed {
            let drift = retry_after.as_secs_f64() - reset.as_secs_f64();
            let first = bucket.disagreements == 0;
            bucket.disagreements += 1;
            bucket.smallest = if first { drift } else { bucket.smallest.min(drift) };
            bucket.largest = if first { drift } else { bucket.largest.max(drift) };
            bucket.sum += drift;
        }
    }

    /// The last 24 hours of one pair.
    pub(super) fn of(&self, now: Mono, family: &Family, credential: &CredentialId) -> DriftSnapshot {
        let track = self.pairs.get(family.as_str()).and_then(|of_family| of_family.get(credential.as_str()));
        let nothing = Track::default();
        track.unwrap_or(&nothing).snapshot(now, family.as_str(), credential.as_str())
    }

    /// The last 24 hours of all pairs that had any throttle.
    pub(super) fn snapshot(&self, now: Mono) -> Vec<DriftSnapshot> {
        let pairs = self.pairs.iter().flat_map(|(family, of_family)| {
            of_family.iter().map(move |(credential, track)| track.snapshot(now, family, credential))
        });
        pairs.filter(|pair| pair.throttles > 0).collect()
    }

    fn make_room(&mut self, family: &Family, credential: &CredentialId) {
        let known = self.pairs.get(family.as_str());
        let known = known.is_some_and(|of_family| of_family.contains_key(credential.as_str()));
        if known || self.pairs.values().map(BTreeMap::len).sum::<usize>() < Self::MOST {
            return;
        }
        let all = self.pairs.iter().flat_map(|(family, of_family)| {
            of_family.iter().map(move |(credential, track)| (track.latest(), family, credential))
        });
        let Some((_, family, credential)) = all.min() else { return };
        let (family, credential) = (family.clone(), credential.clone());
        if let Some(of_family) = self.pairs.get_mut(&family) {
            of_family.remove(&credential);
            if of_family.is_empty() {
                self.pairs.remove(&family);
            }
        }
    }

    /// As it is stored: hours count back from `now`.
    pub(super) fn keep(&self, now: Mono) -> Self {
        self.shifted(-hour_of(now), i64::MIN)
    }

    /// What was stored `ago`.
    pub(super) fn restore(&mut self, now: Mono, ago: Duration, kept: &Self) {
        let hour = hour_of(now);
        let ago = i64::try_from(ago.as_secs() / SECONDS).unwrap_or(i64::MAX / 2);
        *self = kept.shifted(hour - ago, hour - Self::HOURS);
    }

    /// All hours moved by `by`, without those up to `gone`.
    fn shifted(&self, by: i64, gone: i64) -> Self {
        let mut shifted = self.clone();
        for of_family in shifted.pairs.values_mut() {
            for track in of_family.values_mut() {
                for hour in &mut track.hours {
                    hour.number = hour.number.saturating_add(by);
                }
                track.forget(gone);
            }
            of_family.retain(|_, track| !track.hours.is_empty());
        }
        shifted.pairs.retain(|_, of_family| !of_family.is_empty());
        shifted
    }
}

const SECONDS: u64 = 3600;

fn hour_of(now: Mono) -> i64 {
    i64::try_from(now.as_nanos() / (SECONDS * 1_000_000_000)).unwrap_or(i64::MAX)
}

impl Track {
    fn bucket(&mut self, hour: i64) -> &mut Hour {
        if self.hours.back().is_none_or(|last| last.number != hour) {
            let nothing =
                Hour { number: hour, throttles: 0, disagreements: 0, smallest: 0.0, sum: 0.0, largest: 0.0 };
            self.hours.push_back(nothing);
        }
        self.hours.back_mut().expect("it was just pushed")
    }

    fn forget(&mut self, gone: i64) {
        while self.hours.front().is_some_and(|first| first.number <= gone) {
            self.hours.pop_front();
        }
    }

    fn latest(&self) -> i64 {
        self.hours.back().map_or(i64::MIN, |last| last.number)
    }

    fn snapshot(&self, now: Mono, family: &str, credential: &str) -> DriftSnapshot {
        let now = hour_of(now);
        let day: Vec<&Hour> =
            self.hours.iter().rev().filter(|hour| hour.number > now - Drift::HOURS).collect();
        let disagreed = || day.iter().filter(|hour| hour.disagreements > 0);
        let disagreements = day.iter().map(|hour| hour.disagreements).sum();
        DriftSnapshot {
            family: family.to_owned(),
            credential: credential.to_owned(),
            throttles: day.iter().map(|hour| hour.throttles).sum(),
            disagreements,
            smallest_s: disagreed().map(|hour| hour.smallest).reduce(f64::min).unwrap_or_default(),
            mean_s: day.iter().map(|hour| hour.sum).sum::<f64>() / num(disagreements.max(1)),
            largest_s: disagreed().map(|hour| hour.largest).reduce(f64::max).unwrap_or_default(),
            hours: day
                .iter()
                .map(|hour| DriftHour {
                    hours_ago: (now - hour.number).unsigned_abs(),
                    throttles: hour.throttles,
                    disagreements: hour.disagreements,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: u64) -> Mono {
        Mono::ZERO + Duration::from_hours(hours)
    }

    fn pair() -> (Family, CredentialId) {
        (Family::new("/api/v2/users"), CredentialId::new("wfm"))
    }

    const fn hints(retry_after: u64, reset: u64) -> (Duration, Duration) {
        (Duration::from_secs(retry_after), Duration::from_secs(reset))
    }

    #[test]
    fn a_day_is_remembered_and_no_more() {
        let (family, credential) = pair();
        let mut drift = Drift::default();
        drift.throttled(at(1), &family, &credential, Some(hints(30, 10)));
        drift.throttled(at(10), &family, &credential, Some(hints(2, 6)));
        drift.throttled(at(10), &family, &credential, None);
        let day = drift.of(at(24), &family, &credential);
        assert_eq!((day.throttles, day.disagreements), (3, 2));
        assert!((day.smallest_s + 4.0).abs() < 1e-9 && (day.largest_s - 20.0).abs() < 1e-9);
        assert!((day.mean_s - 8.0).abs() < 1e-9);
        assert_eq!(day.hours.iter().map(|hour| hour.hours_ago).collect::<Vec<_>>(), [14, 23]);
        let day = drift.of(at(25), &family, &credential);
        assert_eq!((day.throttles, day.disagreements), (2, 1), "the first hour has passed");
        assert!((day.largest_s + 4.0).abs() < 1e-9);
    }

    #[test]
    fn many_pairs_are_bounded_and_the_longest_quiet_one_goes() {
        let (family, _) = pair();
        let mut drift = Drift::default();
        for number in 0..2000_u64 {
            drift.throttled(at(number / 200), &family, &CredentialId::new(format!("c{number}")), None);
        }
        let pairs = drift.snapshot(at(10));
        assert_eq!(pairs.len(), Drift::MOST);
        assert!(pairs.iter().all(|pair| pair.hours[0].hours_ago <= 2));
    }

    #[test]
    fn a_stored_day_goes_on_where_it_stopped() {
        let (family, credential) = pair();
        let mut drift = Drift::default();
        drift.throttled(at(100), &family, &credential, Some(hints(1, 5)));
        let text = serde_json::to_string(&drift.keep(at(102))).expect("it is plain data");
        let kept: Drift = serde_json::from_str(&text).expect("it was just written");
        let mut next = Drift::default();
        next.restore(at(0), Duration::from_hours(3), &kept);
        assert_eq!(next.of(at(0), &family, &credential).hours[0].hours_ago, 5);
        next.restore(at(0), Duration::from_hours(30), &kept);
        assert_eq!(next.snapshot(at(0)), []);
    }
}
