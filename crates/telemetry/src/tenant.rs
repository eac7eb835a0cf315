//! One tenant's part of the metrics: what it counts carries its name.
//!
//! Every metric has the label `tenant`. Names come from the configuration, but their number must not decide how much a scrape
//! costs: the first 50 that are counted are told apart, the others are counted together under [`OTHER`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tidegate_core::pace::{BankSnapshot, FleetSnapshot, WaitingSnapshot};

use crate::cache::CacheNow;
use crate::registry::{KnownBy, Labels, Metrics};

/// Tenants that are told apart.
pub(crate) const MAX_TENANTS: usize = 50;

/// What is beyond a bound is counted under this value. No tenant may have it for a name.
pub const OTHER: &str = "other";

/// Counts what one tenant's upstream observes.
#[derive(Clone)]
pub struct TenantMetrics {
    pub(crate) metrics: Arc<Metrics>,
    /// The value of the label `tenant`.
    pub(crate) label: Arc<str>,
}

impl fmt::Debug for TenantMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantMetrics({})", self.label)
    }
}

impl TenantMetrics {
    /// The name that its counts bear: the tenant's, or [`OTHER`].
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// A write was answered by what had become of an earlier sending.
    pub fn replayed(&self, by: KnownBy) {
        self.metrics.replays.get_or_create(&self.with(by.labels())).inc();
    }

    /// A write waited for the end of an earlier sending.
    pub fn joined(&self, by: KnownBy) {
        self.metrics.joins.get_or_create(&self.with(by.labels())).inc();
    }

    /// A bulk call left that carries so many writes, by this rule.
    pub fn merged(&self, rule: &str, writes: usize) {
        let labels = self.with(vec![("rule", rule.to_owned())]);
        self.metrics.merges.get_or_create(&labels).inc();
        self.metrics.merged_writes.get_or_create(&labels).inc_by(writes as u64);
    }

    /// A write is sent alone, because the bulk call of this rule that carried it told nothing that is its own.
    pub fn fell_back(&self, rule: &str) {
        self.metrics.merge_fallbacks.get_or_create(&self.with(vec![("rule", rule.to_owned())])).inc();
    }

    /// A write of the outbox ended: `delivered` or `dead`.
    pub fn outbox_ended(&self, ending: &'static str) {
        let labels = self.with(vec![("ending", ending.to_owned())]);
        self.metrics.outbox_ended.get_or_create(&labels).inc();
    }

    /// An event for a sink ended: `delivered`, `dead` or `lost`.
    pub fn sink_ended(&self, sink: &str, ending: &'static str) {
        let labels = self.with(vec![("ending", ending.to_owned()), ("sink", sink.to_owned())]);
        self.metrics.sink_ended.get_or_create(&labels).inc();
    }

    /// `labels`, and whose they are.
    pub(crate) fn with(&self, mut labels: Labels) -> Labels {
        labels.push(("tenant", self.label.to_string()));
        labels
    }
}

/// How one tenant is when it is scraped.
#[derive(Debug)]
pub struct Now {
    /// The name that it is counted under ([`TenantMetrics::label`]).
    pub label: Arc<str>,
    /// Its gates.
    pub bank: BankSnapshot,
    /// Writes under keys that are remembered: those with an answer, and those whose outcome is not known. `None` shows nothing.
    pub ledger: Option<(u64, u64)>,
    /// Writes that are to be sent later; `None` where there is no outbox.
    pub outbox: Option<Held>,
    /// Events that are to be told to sinks, by the sink's name.
    pub sinks: BTreeMap<String, Held>,
    /// Its kept answers.
    pub cache: CacheNow,
}

/// What an outbox holds and has not delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Held {
    /// To be sent.
    pub waiting: u64,
    /// Being sent.
    pub sending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Age in seconds of the oldest that is not dead.
    pub oldest: f64,
}

impl Held {
    fn and(self, more: Self) -> Self {
        Self {
            waiting: self.waiting + more.waiting,
            sending: self.sending + more.sending,
            dead: self.dead + more.dead,
            oldest: self.oldest.max(more.oldest),
        }
    }
}

/// Those that are counted under one name, as one.
pub(crate) fn together(all: Vec<Now>) -> BTreeMap<Arc<str>, Now> {
    let mut by_label: BTreeMap<Arc<str>, Now> = BTreeMap::new();
    for now in all {
        match by_label.get_mut(&now.label) {
            Some(known) => join(known, now),
            None => drop(by_label.insert(Arc::clone(&now.label), now)),
        }
    }
    by_label
}

fn join(known: &mut Now, more: Now) {
    let (bank, other) = (&mut known.bank, more.bank);
    bank.gates.extend(other.gates);
    bank.breakers.extend(other.breakers);
    bank.drift.extend(other.drift);
    bank.in_flight += other.in_flight;
    bank.waiting = WaitingSnapshot {
        interactive: bank.waiting.interactive + other.waiting.interactive,
        sync: bank.waiting.sync + other.waiting.sync,
        bulk: bank.waiting.bulk + other.waiting.bulk,
        poll: bank.waiting.poll + other.waiting.poll,
    };
    // One that does without the store is what somebody has to know.
    let joined = |fleet: &FleetSnapshot| matches!(fleet.mode, "joined" | "idle");
    if bank.fleet.as_ref().is_none_or(joined) {
        bank.fleet = other.fleet.or(bank.fleet);
    }
    known.outbox = match (known.outbox, more.outbox) {
        (Some(one), Some(other)) => Some(one.and(other)),
        (one, other) => one.or(other),
    };
    for (sink, held) in more.sinks {
        let one = known.sinks.entry(sink).or_default();
        *one = one.and(held);
    }
    known.cache.join(&more.cache);
    known.ledger = match (known.ledger, more.ledger) {
        (Some((answered, unknown)), Some((more, doubts))) => Some((answered + more, unknown + doubts)),
        (one, other) => one.or(other),
    };
}

#[cfg(test)]
mod tests {
    use tidegate::observe::{AttemptDone, Observer as _};
    use tidegate_core::cache::{Bounds, Tally};
    use tidegate_core::key::Family;

    use super::*;

    fn attempt(metrics: &TenantMetrics, family: &str) {
        let family = Family::of(family);
        let took = std::time::Duration::from_millis(1);
        metrics.attempt(&AttemptDone { family: &family, status: Some(200), took, failure: None });
    }

    #[test]
    fn tenants_beyond_the_bound_are_counted_together_and_nobody_takes_anothers_families() {
        let metrics = Arc::new(Metrics::new());
        let tenants: Vec<_> =
            (0..MAX_TENANTS + 5).map(|number| metrics.tenant(&format!("t{number}"))).collect();
        for number in 0..200 {
            attempt(&tenants[0], &format!("/api/v2/f{number}"));
        }
        for tenant in &tenants {
            attempt(tenant, "/api/v2/users");
        }
        let now = |tenant: &TenantMetrics| {
            let waiting = WaitingSnapshot { bulk: 2, ..WaitingSnapshot::default() };
            let bank = BankSnapshot { waiting, ..BankSnapshot::default() };
            let tally = Tally { hits: 3, fetches: 1, ..Tally::default() };
            let cache = CacheNow { tally, entries: 1, bytes: 10, bounds: Bounds::default() };
            Now {
                label: Arc::clone(tenant.label()),
                bank,
                ledger: Some((1, 0)),
                outbox: Some(Held { dead: 1, ..Held::default() }),
                sinks: BTreeMap::new(),
                cache,
            }
        };
        let text = metrics.render(tenants.iter().map(now).collect());
        for line in [
            "tidegate_attempts_total{family=\"other\",status=\"200\",tenant=\"t0\"} 151",
            "tidegate_attempts_total{family=\"/api/v2/users\",status=\"200\",tenant=\"t1\"} 1",
            "tidegate_attempts_total{family=\"/api/v2/users\",status=\"200\",tenant=\"other\"} 5",
            "tidegate_waiting{class=\"bulk\",tenant=\"t7\"} 2.0",
            "tidegate_waiting{class=\"bulk\",tenant=\"other\"} 10.0",
            "tidegate_ledger_entries{state=\"answered\",tenant=\"other\"} 5.0",
            "tidegate_outbox_entries{state=\"dead\",tenant=\"other\"} 5.0",
            "tidegate_cache_reads_total{how=\"hit\",tenant=\"t7\"} 3",
            "tidegate_cache_reads_total{how=\"hit\",tenant=\"other\"} 15",
            "tidegate_cache_saved_ratio{since=\"start\",tenant=\"other\"} 0.75",
            "tidegate_cache_bytes{state=\"held\",tenant=\"other\"} 50.0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is missing");
        }
        assert!(!text.contains("tenant=\"t50\""));
        assert_eq!(metrics.tenant("t3").label().as_ref(), "t3", "one that is known stays so");
    }

    #[test]
    fn a_scrape_is_bounded_however_many_tenants_have_however_many_families() {
        let metrics = Arc::new(Metrics::new());
        for number in 0..200 {
            let tenant = metrics.tenant(&format!("t{number}"));
            (0..100).for_each(|family| attempt(&tenant, &format!("/api/v2/f{family}")));
        }
        let text = metrics.render(Vec::new());
        let series = text.matches("tidegate_attempts_total{").count();
        assert!(series <= 1_000 + MAX_TENANTS + 1, "{series}");
    }
}
