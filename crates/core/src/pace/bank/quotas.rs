//! The upstream says what a declared limit allows: in its listing, or in the 429 that names it.
//!
//! The number belongs to the limit, so all its gates take it, and those made later too. A pinned limit keeps what was
//! declared.

use std::time::Duration;

use super::{Bank, barriers};
use crate::event::Event;
use crate::pace::policy::ClassPolicy;
use crate::pace::spec::{LimitKind, LimitSpec};
use crate::schedule::Class;

/// What became of a value the upstream named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// It is the quota of the declared limit of that key.
    Used,
    /// The declared number is pinned.
    Pinned,
    /// Another name of the same limit decides.
    Overruled,
    /// Nothing of that key is declared.
    Unknown,
    /// Nothing could be paced by it: it leaves no attempt per window.
    Unusable,
}

impl Named {
    /// Its name in `/api/state`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Pinned => "pinned",
            Self::Overruled => "overruled",
            Self::Unknown => "unknown",
            Self::Unusable => "unusable",
        }
    }
}

/// What the last words of a key say about the time its value is for. Platforms write it into the key (Genesys:
/// `token.rate.per.minute`).
const PERIODS: [(&str, Duration); 4] = [
    ("per.second", Duration::from_secs(1)),
    ("per.minute", Duration::from_mins(1)),
    ("per.hour", Duration::from_hours(1)),
    ("per.day", Duration::from_hours(24)),
];

/// A value of the upstream's listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<'a> {
    /// The name of the limit.
    pub key: &'a str,
    /// What it allows, see [`Bank::set_quota`].
    pub value: u64,
    /// Which answer it stood in: of two names of one limit that of the lower number counts, within one answer the name
    /// that the declaration has first.
    pub answer: usize,
}

impl Bank {
    /// Takes a whole listing: of all names of one limit one decides. Returns what became of each value, in their order.
    pub fn set_quotas(&mut self, listed: &[Quoted<'_>]) -> Vec<Named> {
        let known =
            |at: &Quoted<'_>| self.registry.limit_named(at.key).map(|(index, rank)| (index, at.answer, rank));
        let places: Vec<_> = listed.iter().map(known).collect();
        let overruled = |place: &Option<(usize, usize, usize)>| {
            place.is_some_and(|place| {
                places.iter().flatten().any(|other| other.0 == place.0 && *other < place)
            })
        };
        let taken = places.iter().map(overruled).zip(listed).map(|(overruled, quoted)| {
            if overruled { Named::Overruled } else { self.set_quota(quoted.key, quoted.value) }
        });
        taken.collect()
    }

    /// The upstream says that the limit of this key, or of this alias, allows `value`: attempts in the time that the key's last words name
    /// (`.per.minute`), else in the declared window; or attempts at once, if a concurrency is declared. May change the next
    /// wake-up.
    pub fn set_quota(&mut self, key: &str, value: u64) -> Named {
        let Some((index, _)) = self.registry.limit_named(key) else { return Named::Unknown };
        let limit = self.registry.limit(index);
        if limit.pin {
            return Named::Pinned;
        }
        let Some(kind) = kind_by(limit, key, value) else { return Named::Unusable };
        let news = kind != limit.kind;
        if news || limit.assumed {
            let limit = limit.key.clone();
            for gate in self.registry.set_kind(index, kind) {
                self.schedule.touch(barriers::gate(gate));
            }
            if !news {
                return Named::Used;
            }
            self.quotas_told += 1;
            match kind {
                LimitKind::Rate { quota, .. } => self.learnt(&limit, quota),
                LimitKind::Concurrent { cap } => {
                    self.events.push(Event::LimitLearnt { limit, quota: u64::from(cap) });
                }
            }
        }
        Named::Used
    }

    /// The quota of a rate is known now, or another. A reserve that was set and is more than half of it is cut; what a class
    /// leaves unless the configuration says otherwise nobody has meant for this limit.
    pub(in crate::pace) fn learnt(&mut self, limit: &str, quota: u64) {
        self.events.push(Event::LimitLearnt { limit: limit.to_owned(), quota });
        for (class, policy) in Class::ALL.into_iter().zip(self.config.policies) {
            let reserve = policy.reserve;
            if reserve != ClassPolicy::of(class).reserve && reserve > quota / 2 {
                self.events.push(Event::ReserveCut { limit: limit.to_owned(), quota, class, reserve });
            }
        }
    }
}

/// The limit's kind with the value that was told under `key` in place of the declared number; `None` if that would allow nothing.
fn kind_by(limit: &LimitSpec, key: &str, value: u64) -> Option<LimitKind> {
    let kind = match limit.kind {
        LimitKind::Concurrent { .. } => {
            LimitKind::Concurrent { cap: u32::try_from(value).unwrap_or(u32::MAX) }
        }
        LimitKind::Rate { window, .. } => {
            let named = PERIODS.iter().find(|(words, _)| key.replace('_', ".").ends_with(words));
            let period = named.map_or(window, |(_, period)| *period);
            let quota = u128::from(value) * window.as_nanos() / period.as_nanos().max(1);
            LimitKind::Rate { quota: u64::try_from(quota).unwrap_or(u64::MAX), window }
        }
    };
    let nothing = matches!(kind, LimitKind::Rate { quota: 0, .. } | LimitKind::Concurrent { cap: 0 });
    (!nothing).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glob::PathGlob;
    use crate::pace::spec::Observes;

    fn rate(key: &str, window: Duration) -> LimitSpec {
        LimitSpec {
            key: key.to_owned(),
            aliases: Vec::new(),
            method: None,
            path: PathGlob::parse("/**").unwrap(),
            kind: LimitKind::Rate { quota: 7, window },
            per: Vec::new(),
            pin: false,
            assumed: false,
            observes: Observes::OwnName,
        }
    }

    #[test]
    fn a_value_is_for_the_time_its_key_names() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_mins(1));
        for (key, window, value, quota) in [
            ("token.rate.per.minute", minute, 600, Some(600)),
            ("token.rate.per.minute", 5 * second, 600, Some(50)),
            ("jobs_rate_per_second", minute, 2, Some(120)),
            ("token.rate.per.day", Duration::from_hours(24), 10_000, Some(10_000)),
            ("core", Duration::from_hours(1), 5000, Some(5000)),
            ("superper.minute.rate", 5 * second, 600, Some(600)),
            ("token.rate.per.day", second, 10_000, None),
            ("core", second, 0, None),
            ("core", second, u64::MAX, Some(u64::MAX)),
        ] {
            let told = kind_by(&rate("own", window), key, value);
            assert_eq!(told, quota.map(|quota| LimitKind::Rate { quota, window }), "{key} {value}");
        }
    }

    #[test]
    fn a_concurrency_takes_the_value_as_it_is() {
        let cap = LimitSpec { kind: LimitKind::Concurrent { cap: 5 }, ..rate("jobs.max", Duration::ZERO) };
        assert_eq!(kind_by(&cap, "jobs.max", 20), Some(LimitKind::Concurrent { cap: 20 }));
        assert_eq!(kind_by(&cap, "jobs.max", 0), None);
    }
}
