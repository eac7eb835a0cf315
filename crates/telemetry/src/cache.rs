//! What the kept answers of a tenant save, as its scrape shows it.
//!
//! The cache counts for itself; what it has counted is copied when it is scraped. Its counts only grow, so they are counters.

use std::sync::atomic::Ordering;

use tidegate_core::cache::{Bounds, Tally};

use crate::registry::{Counters, Gauges, Labels, as_f64};

/// The cache of one tenant when it is scraped.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheNow {
    /// What it did so far.
    pub tally: Tally,
    /// Answers that it holds.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
    /// How much it may hold.
    pub bounds: Bounds,
}

impl CacheNow {
    /// Those of tenants that are counted together.
    pub(crate) fn join(&mut self, more: &Self) {
        let (tally, other) = (&mut self.tally, more.tally);
        tally.hits += other.hits;
        tally.joins += other.joins;
        tally.fetches += other.fetches;
        tally.renewals += other.renewals;
        tally.lists += other.lists;
        tally.listed += other.listed;
        tally.unchanged += other.unchanged;
        tally.closed += other.closed;
        tally.evicted += other.evicted;
        self.entries += more.entries;
        self.bytes += more.bytes;
        self.bounds.bytes += more.bounds.bytes;
        self.bounds.entries += more.bounds.entries;
    }

    /// The share of reads that cost no call: one less the calls for each read. `None` before the first read.
    ///
    /// Renewals and lists are calls too. Each follows a read that cost none, so the share is never below zero.
    pub fn saved(&self) -> Option<f64> {
        let Tally { hits, joins, fetches, renewals, lists, .. } = self.tally;
        let reads = hits + joins + fetches;
        (reads > 0).then(|| 1.0 - as_f64(fetches + renewals + lists) / as_f64(reads))
    }
}

/// The metrics of caches.
pub(crate) struct CacheMetrics {
    pub(crate) reads: Counters,
    pub(crate) calls: Counters,
    pub(crate) renewed: Counters,
    pub(crate) dropped: Counters,
    pub(crate) saved: Gauges,
    pub(crate) entries: Gauges,
    pub(crate) bytes: Gauges,
}

impl CacheMetrics {
    /// Forgets what is set anew at every scrape.
    pub(crate) fn clear(&self) {
        for gauges in [&self.saved, &self.entries, &self.bytes] {
            gauges.clear();
        }
    }

    /// Shows `now`, which is of whom `of` says.
    pub(crate) fn set(&self, now: &CacheNow, of: impl Fn(Labels) -> Labels) {
        let by = |name: &'static str, value: &str| of(vec![(name, value.to_owned())]);
        let CacheNow { tally, entries, bytes, bounds } = now;
        for (counters, label, counts) in [
            (
                &self.reads,
                "how",
                &[("hit", tally.hits), ("joined", tally.joins), ("fetched", tally.fetches)][..],
            ),
            (
                &self.calls,
                "reason",
                &[("read", tally.fetches), ("renewal", tally.renewals), ("list", tally.lists)],
            ),
            (&self.renewed, "by", &[("condition", tally.unchanged), ("list", tally.listed)]),
            (&self.dropped, "reason", &[("change", tally.closed), ("room", tally.evicted)]),
        ] {
            for (value, count) in counts {
                let counter = counters.get_or_create(&by(label, value)).clone();
                counter.inner().store(*count, Ordering::Relaxed);
            }
        }
        if let Some(saved) = now.saved() {
            self.saved.get_or_create(&by("since", "start")).set(saved);
        }
        for (gauges, held, bound) in
            [(&self.entries, entries, bounds.entries), (&self.bytes, bytes, bounds.bytes)]
        {
            for (value, count) in [("held", *held), ("allowed", bound)] {
                gauges.get_or_create(&by("state", value)).set(as_f64(count as u64));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_what_reads_did_not_cost_in_calls_of_any_kind() {
        let now = |tally| CacheNow { tally, entries: 0, bytes: 0, bounds: Bounds::default() };
        assert_eq!(now(Tally::default()).saved(), None, "nobody has read");
        let tally = Tally { hits: 90, joins: 6, fetches: 4, renewals: 5, lists: 1, ..Tally::default() };
        assert_eq!(now(tally).saved(), Some(0.9));
        let mut both = now(tally);
        both.join(&now(Tally { fetches: 100, ..Tally::default() }));
        assert_eq!(both.saved(), Some(1.0 - 110.0 / 200.0));
    }
}
