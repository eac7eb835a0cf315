//! Counts what the observer hears, and renders it.
//!
//! Values are kept by `prometheus-client`; this file only maps facts to metrics. Label values that come from
//! requests (families, field names) are bounded, for each tenant and for all together: what lies beyond the bound is counted
//! under `other`. So one tenant takes little of what others are told apart by.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tidegate::Class;
use tidegate::observe::{
    AttemptDone, CallDone, Denied, DoubtDone, Observer, Outcome, Refused, StoreDone, TokenDone,
};
use tidegate_core::event::Event;
use tidegate_core::key::CredentialId;
use tidegate_core::pace::{BankSnapshot, FleetSnapshot};

use crate::cache::CacheMetrics;
use crate::name::Metric;
use crate::tenant::{Held, MAX_TENANTS, Now, OTHER, TenantMetrics, together};

/// Label values of one kind that are told apart in one tenant.
const MAX_VALUES: usize = 50;

/// The same over all tenants.
const MAX_ALL: usize = 1000;

/// From a millisecond to a minute: what lies between a cache hit and an SDK that has given up.
const SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

pub(crate) type Labels = Vec<(&'static str, String)>;
pub(crate) type Counters = Family<Labels, Counter>;
pub(crate) type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Histograms = Family<Labels, Histogram, Buckets>;

#[derive(Clone)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    scrape: Mutex<()>,
    tenants: Mutex<HashSet<Arc<str>>>,
    families: Bounded,
    fields: Bounded,
    calls: Counters,
    attempts: Counters,
    call_wait: Histograms,
    call_duration: Histograms,
    upstream_duration: Histograms,
    throttles: Counters,
    hint_mismatches: Counters,
    hint_drift: Gauges,
    headers_ignored: Counters,
    breaker_transitions: Counters,
    token_requests: Counters,
    refusals: Counters,
    limit_listings: Counters,
    quota_exchanges: Counters,
    quota_exchange_duration: Histograms,
    quota_granted: Counters,
    quota_events: Counters,
    quota_instances: Gauges,
    quota_shared: Gauges,
    limit_quota: Gauges,
    limit_remaining: Gauges,
    limit_in_flight: Gauges,
    limit_concurrency: Gauges,
    limit_closed: Gauges,
    limit_strangers: Gauges,
    breaker_open: Gauges,
    window_open: Gauges,
    held: Gauges,
    waiting: Gauges,
    writes_in_doubt: Counters,
    pub(crate) replays: Counters,
    pub(crate) joins: Counters,
    pub(crate) merges: Counters,
    pub(crate) merged_writes: Counters,
    pub(crate) merge_fallbacks: Counters,
    ledger_entries: Gauges,
    permission_denials: Counters,
    pub(crate) push_events: Counters,
    pub(crate) push_losses: Counters,
    pub(crate) push_channels: Gauges,
    pub(crate) push_topics: Gauges,
    pub(crate) push_reads: Counters,
    pub(crate) push_listeners: Counters,
    pub(crate) hooks: Counters,
    outbox_entries: Gauges,
    outbox_oldest: Gauges,
    pub(crate) outbox_ended: Counters,
    sink_entries: Gauges,
    pub(crate) sink_ended: Counters,
    cache: CacheMetrics,
}

/// How a write is known to be one that was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// By its caller's `Idempotency-Key`.
    Key,
    /// By being identical to one whose caller had gone, or whose outcome is unknown.
    Likeness,
}

impl KnownBy {
    pub(crate) fn labels(self) -> Labels {
        let by = match self {
            Self::Key => "key",
            Self::Likeness => "likeness",
        };
        vec![("by", by.to_owned())]
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        Self {
            calls: counters(&mut registry, Metric::Calls),
            attempts: counters(&mut registry, Metric::Attempts),
            call_wait: histograms(&mut registry, Metric::CallWait),
            call_duration: histograms(&mut registry, Metric::CallDuration),
            upstream_duration: histograms(&mut registry, Metric::UpstreamDuration),
            throttles: counters(&mut registry, Metric::Throttles),
            hint_mismatches: counters(&mut registry, Metric::HintMismatches),
            hint_drift: gauges(&mut registry, Metric::HintDrift),
            headers_ignored: counters(&mut registry, Metric::HeadersIgnored),
            breaker_transitions: counters(&mut registry, Metric::BreakerTransitions),
            token_requests: counters(&mut registry, Metric::TokenRequests),
            refusals: counters(&mut registry, Metric::Refusals),
            limit_listings: counters(&mut registry, Metric::LimitListings),
            quota_exchanges: counters(&mut registry, Metric::QuotaExchanges),
            quota_exchange_duration: histograms(&mut registry, Metric::QuotaExchangeDuration),
            quota_granted: counters(&mut registry, Metric::QuotaGranted),
            quota_events: counters(&mut registry, Metric::QuotaEvents),
            quota_instances: gauges(&mut registry, Metric::QuotaInstances),
            quota_shared: gauges(&mut registry, Metric::QuotaShared),
            limit_quota: gauges(&mut registry, Metric::LimitQuota),
            limit_remaining: gauges(&mut registry, Metric::LimitRemaining),
            limit_in_flight: gauges(&mut registry, Metric::LimitInFlight),
            limit_concurrency: gauges(&mut registry, Metric::LimitConcurrency),
            limit_closed: gauges(&mut registry, Metric::LimitClosed),
            limit_strangers: gauges(&mut registry, Metric::LimitStrangers),
            breaker_open: gauges(&mut registry, Metric::BreakerOpen),
            window_open: gauges(&mut registry, Metric::WindowOpen),
            held: gauges(&mut registry, Metric::Held),
            waiting: gauges(&mut registry, Metric::Waiting),
            writes_in_doubt: counters(&mut registry, Metric::WritesInDoubt),
            replays: counters(&mut registry, Metric::Replays),
            joins: counters(&mut registry, Metric::Joins),
            merges: counters(&mut registry, Metric::Merges),
            merged_writes: counters(&mut registry, Metric::MergedWrites),
            merge_fallbacks: counters(&mut registry, Metric::MergeFallbacks),
            ledger_entries: gauges(&mut registry, Metric::LedgerEntries),
            permission_denials: counters(&mut registry, Metric::PermissionDenials),
            push_events: counters(&mut registry, Metric::PushEvents),
            push_losses: counters(&mut registry, Metric::PushLosses),
            push_channels: gauges(&mut registry, Metric::PushChannels),
            push_topics: gauges(&mut registry, Metric::PushTopics),
            push_reads: counters(&mut registry, Metric::PushReads),
            push_listeners: counters(&mut registry, Metric::PushListeners),
            hooks: counters(&mut registry, Metric::Hooks),
            outbox_entries: gauges(&mut registry, Metric::OutboxEntries),
            outbox_oldest: gauges(&mut registry, Metric::OutboxOldest),
            outbox_ended: counters(&mut registry, Metric::OutboxEnded),
            sink_entries: gauges(&mut registry, Metric::SinkEntries),
            sink_ended: counters(&mut registry, Metric::SinkEnded),
            cache: CacheMetrics {
                reads: counters(&mut registry, Metric::CacheReads),
                calls: counters(&mut registry, Metric::CacheCalls),
                renewed: counters(&mut registry, Metric::CacheRenewed),
                dropped: counters(&mut registry, Metric::CacheDropped),
                saved: gauges(&mut registry, Metric::CacheSaved),
                entries: gauges(&mut registry, Metric::CacheEntries),
                bytes: gauges(&mut registry, Metric::CacheBytes),
            },
            registry,
            scrape: Mutex::new(()),
            tenants: Mutex::default(),
            families: Bounded::default(),
            fields: Bounded::default(),
        }
    }

    /// The part of the tenant of this name. Asked for again it is the same part.
    pub fn tenant(self: &Arc<Self>, name: &str) -> TenantMetrics {
        let mut known = self.tenants.lock();
        let label = match known.get(name) {
            Some(label) => Arc::clone(label),
            None if known.len() >= MAX_TENANTS => Arc::from(OTHER),
            None => {
                let label: Arc<str> = Arc::from(name);
                known.insert(Arc::clone(&label));
                label
            }
        };
        TenantMetrics { metrics: Arc::clone(self), label }
    }

    /// The text a Prometheus server scrapes (`OpenMetrics` 1.0), with each tenant as it is now.
    pub fn render(&self, tenants: Vec<Now>) -> String {
        let _one_at_a_time = self.scrape.lock();
        self.set_gauges(&together(tenants));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }

    fn set_gauges(&self, tenants: &BTreeMap<Arc<str>, Now>) {
        for gauges in [
            &self.hint_drift,
            &self.quota_instances,
            &self.quota_shared,
            &self.limit_quota,
            &self.limit_remaining,
            &self.limit_in_flight,
            &self.limit_concurrency,
            &self.limit_closed,
            &self.limit_strangers,
            &self.breaker_open,
            &self.window_open,
            &self.held,
            &self.waiting,
            &self.ledger_entries,
            &self.outbox_entries,
            &self.outbox_oldest,
            &self.sink_entries,
        ] {
            gauges.clear();
        }
        self.cache.clear();
        // Of each tenant as many as all can have.
        let most = (MAX_ALL / tenants.len().max(1)).min(MAX_VALUES);
        for (label, now) in tenants {
            let of = |mut labels: Labels| {
                labels.push(("tenant", label.to_string()));
                labels
            };
            self.set_fleet(now.bank.fleet, of);
            self.set_limits(&now.bank, most, of);
            self.set_drift(&now.bank, most, of);
            self.set_breakers(&now.bank, most, of);
            self.set_calendar(&now.bank, of);
            self.cache.set(&now.cache, of);
            for class in Class::ALL {
                let waiting = now.bank.waiting.of(class);
                self.waiting.get_or_create(&of(by_class(class))).set(as_f64(waiting as u64));
            }
            self.set_outbox(now, of);
            let Some((answered, unknown)) = now.ledger else { continue };
            for (state, count) in [("answered", answered), ("unknown", unknown)] {
                let labels = of(vec![("state", state.to_owned())]);
                self.ledger_entries.get_or_create(&labels).set(as_f64(count));
            }
        }
    }

    fn set_outbox(&self, now: &Now, of: impl Fn(Labels) -> Labels) {
        let states =
            |held: &Held| [("waiting", held.waiting), ("sending", held.sending), ("dead", held.dead)];
        if let Some(outbox) = &now.outbox {
            for (state, count) in states(outbox) {
                let labels = of(vec![("state", state.to_owned())]);
                self.outbox_entries.get_or_create(&labels).set(as_f64(count));
            }
            let labels = of(vec![("statistic", "oldest".to_owned())]);
            self.outbox_oldest.get_or_create(&labels).set(outbox.oldest);
        }
        for (sink, held) in &now.sinks {
            for (state, count) in states(held) {
                let labels = of(vec![("sink", sink.clone()), ("state", state.to_owned())]);
                self.sink_entries.get_or_create(&labels).set(as_f64(count));
            }
        }
    }

    fn set_fleet(&self, fleet: Option<FleetSnapshot>, of: impl Fn(Labels) -> Labels) {
        if let Some(FleetSnapshot { mode, instances: Some(instances) }) = fleet {
            let labels = of(vec![("mode", mode.to_owned())]);
            self.quota_instances.get_or_create(&labels).set(f64::from(instances));
        }
        if let Some(mode) = fleet.map(|fleet| fleet.mode).filter(|mode| *mode != "idle") {
            let joined = if mode == "joined" { 1.0 } else { 0.0 };
            self.quota_shared.get_or_create(&of(vec![("mode", mode.to_owned())])).set(joined);
        }
    }

    fn set_limits(&self, snapshot: &BankSnapshot, most: usize, of: impl Fn(Labels) -> Labels) {
        let mut busiest: Vec<_> = limits(snapshot).into_iter().collect();
        busiest.sort_by_key(|(_, limit)| std::cmp::Reverse(limit.accepted));
        for (name, limit) in busiest.into_iter().take(most) {
            let labels = of(vec![("limit", name.to_owned())]);
            if let Some(quota) = limit.quota {
                self.limit_quota.get_or_create(&labels).set(as_f64(quota));
            }
            if let Some(remaining) = limit.remaining {
                self.limit_remaining.get_or_create(&labels).set(remaining);
            }
            self.limit_in_flight.get_or_create(&labels).set(as_f64(limit.in_flight));
            if let Some(concurrency) = limit.concurrency {
                self.limit_concurrency.get_or_create(&labels).set(concurrency);
            }
            self.limit_closed.get_or_create(&labels).set(as_f64(limit.closed_for_ms) / 1000.0);
            self.limit_strangers.get_or_create(&labels).set(limit.strangers_per_second);
        }
    }

    fn set_drift(&self, snapshot: &BankSnapshot, most: usize, of: impl Fn(Labels) -> Labels) {
        let mut most_drift: Vec<_> = drifts(snapshot).into_iter().collect();
        most_drift.sort_by_key(|(_, drift)| std::cmp::Reverse(drift.disagreements));
        for (family, drift) in most_drift.into_iter().take(most) {
            let mean = drift.sum / as_f64(drift.disagreements);
            for (statistic, value) in
                [("smallest", drift.smallest), ("mean", mean), ("largest", drift.largest)]
            {
                let labels = of(vec![("family", family.to_owned()), ("statistic", statistic.to_owned())]);
                self.hint_drift.get_or_create(&labels).set(value);
            }
        }
    }

    /// The windows of a configuration are few, so each has a value.
    fn set_calendar(&self, snapshot: &BankSnapshot, of: impl Fn(Labels) -> Labels) {
        for window in &snapshot.windows {
            let labels = of(vec![("window", window.name.clone())]);
            self.window_open.get_or_create(&labels).set(if window.open { 1.0 } else { 0.0 });
        }
        for held in &snapshot.held {
            let labels = of(vec![("class", held.class.to_owned())]);
            self.held.get_or_create(&labels).set(as_f64(held.for_ms) / 1000.0);
        }
    }

    fn set_breakers(&self, snapshot: &BankSnapshot, most: usize, of: impl Fn(Labels) -> Labels) {
        // Of a family that several have, as tenants that are counted together do: open if one is.
        let mut serving: BTreeMap<&str, bool> = BTreeMap::new();
        for breaker in &snapshot.breakers {
            *serving.entry(&breaker.family).or_insert(true) &= breaker.state == "closed";
        }
        let mut breakers: Vec<_> = serving.into_iter().collect();
        breakers.sort_by_key(|(_, serves)| *serves);
        for (family, serves) in breakers.into_iter().take(most) {
            let labels = of(vec![("family", family.to_owned())]);
            self.breaker_open.get_or_create(&labels).set(if serves { 0.0 } else { 1.0 });
        }
    }
}

/// One limit over all that have a count of their own: credentials, tokens, families.
#[derive(Default)]
struct Limit {
    quota: Option<u64>,
    remaining: Option<f64>,
    in_flight: u64,
    concurrency: Option<f64>,
    closed_for_ms: u64,
    strangers_per_second: f64,
    accepted: u64,
}

/// The gates of each limit as one. A label for whose count it is would be as many values as there are logins; so an
/// operator sees the whole load, and the count that is nearest to its end.
fn limits(snapshot: &BankSnapshot) -> BTreeMap<&str, Limit> {
    let mut limits: BTreeMap<&str, Limit> = BTreeMap::new();
    for gate in &snapshot.gates {
        let limit = limits.entry(&gate.name).or_default();
        limit.quota = [limit.quota, gate.quota].into_iter().flatten().min();
        limit.remaining = [limit.remaining, gate.remaining].into_iter().flatten().reduce(f64::min);
        limit.in_flight += u64::from(gate.in_flight);
        limit.concurrency = [limit.concurrency, gate.concurrency].into_iter().flatten().reduce(f64::min);
        limit.closed_for_ms = limit.closed_for_ms.max(gate.closed_for_ms);
        limit.strangers_per_second += gate.strangers_per_second;
        limit.accepted += gate.accepted;
    }
    limits
}

/// How far `Retry-After` and reset of one family disagreed, over its credentials. Seconds.
struct FamilyDrift {
    disagreements: u64,
    smallest: f64,
    sum: f64,
    largest: f64,
}

fn drifts(snapshot: &BankSnapshot) -> BTreeMap<&str, FamilyDrift> {
    let mut families: BTreeMap<&str, FamilyDrift> = BTreeMap::new();
    for drift in snapshot.drift.iter().filter(|drift| drift.disagreements > 0) {
        let nothing =
            FamilyDrift { disagreements: 0, smallest: f64::INFINITY, sum: 0.0, largest: f64::NEG_INFINITY };
        let family = families.entry(&drift.family).or_insert(nothing);
        family.disagreements += drift.disagreements;
        family.smallest = family.smallest.min(drift.smallest_s);
        family.sum += drift.mean_s * as_f64(drift.disagreements);
        family.largest = family.largest.max(drift.largest_s);
    }
    families
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge of more than 2^53 requests says nothing more precisely"
)]
pub(crate) fn as_f64(value: u64) -> f64 {
    value as f64
}

fn counters(registry: &mut Registry, metric: Metric) -> Counters {
    let family = Counters::default();
    registry.register(metric.name(), metric.help(), family.clone());
    family
}

fn gauges(registry: &mut Registry, metric: Metric) -> Gauges {
    let family = Gauges::default();
    registry.register(metric.name(), metric.help(), family.clone());
    family
}

fn histograms(registry: &mut Registry, metric: Metric) -> Histograms {
    let family = Histograms::new_with_constructor(Buckets);
    registry.register(metric.name(), metric.help(), family.clone());
    family
}

/// The first values of a label that each tenant was seen with; the rest is [`OTHER`].
#[derive(Default)]
struct Bounded(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    by_tenant: HashMap<Arc<str>, HashSet<String>>,
    count: usize,
}

impl Bounded {
    fn value(&self, tenant: &Arc<str>, value: &str) -> String {
        let mut seen = self.0.lock();
        let Seen { by_tenant, count } = &mut *seen;
        let values = by_tenant.entry(Arc::clone(tenant)).or_default();
        if values.contains(value) {
            return value.to_owned();
        }
        if values.len() >= MAX_VALUES || *count >= MAX_ALL {
            return OTHER.to_owned();
        }
        *count += 1;
        values.insert(value.to_owned());
        value.to_owned()
    }
}

fn by_class(class: Class) -> Labels {
    vec![("class", class.name().to_owned())]
}

impl TenantMetrics {
    fn family(&self, value: &str) -> String {
        self.metrics.families.value(&self.label, value)
    }

    fn field(&self, value: &str) -> String {
        self.metrics.fields.value(&self.label, value)
    }

    fn count(&self, counters: &Counters, labels: Labels) {
        counters.get_or_create(&self.with(labels)).inc();
    }

    fn listing(&self, credential: &CredentialId, outcome: &'static str) {
        let labels = vec![("credential", self.field(credential.as_str())), ("outcome", outcome.to_owned())];
        self.count(&self.metrics.limit_listings, labels);
    }

    fn store_event(&self, event: &'static str) {
        self.count(&self.metrics.quota_events, vec![("event", event.to_owned())]);
    }
}

impl Observer for TenantMetrics {
    fn event(&self, event: &Event) {
        match event {
            Event::Throttled { limit, .. } => {
                self.count(&self.metrics.throttles, vec![("limit", self.family(limit))]);
            }
            Event::HintMismatch { family, .. } => {
                let labels = vec![("family", self.family(family.as_str()))];
                self.count(&self.metrics.hint_mismatches, labels);
            }
            Event::HeaderIgnored { field, .. } => {
                self.count(&self.metrics.headers_ignored, vec![("field", self.field(field))]);
            }
            Event::Breaker { family, state, .. } => {
                let family = self.family(family.as_str());
                let labels = vec![("family", family), ("state", state.name().to_owned())];
                self.count(&self.metrics.breaker_transitions, labels);
            }
            Event::LimitsListed { credential, .. } => self.listing(credential, "fetched"),
            Event::LimitsDenied { credential, .. } => self.listing(credential, "denied"),
            Event::LimitsUnread { credential, .. } => self.listing(credential, "failed"),
            Event::StoreAway { .. } => self.store_event("away"),
            Event::StoreBack { .. } => self.store_event("back"),
            Event::StoreForgot => self.store_event("forgot"),
            Event::StoreUnusable { .. } => self.store_event("unusable"),
            Event::LimitLearnt { .. }
            | Event::ReserveCut { .. }
            | Event::StrangersSeen { .. }
            | Event::TermsDiffer { .. }
            | Event::WindowOpened { .. }
            | Event::WindowClosed { .. } => {}
        }
    }

    fn attempt(&self, attempt: &AttemptDone<'_>) {
        let family = self.family(attempt.family.as_str());
        let status = match (attempt.status, attempt.failure) {
            (Some(status), _) => status.to_string(),
            (None, failure) => failure.unwrap_or("failed").to_owned(),
        };
        self.count(&self.metrics.attempts, vec![("family", family.clone()), ("status", status)]);
        self.metrics
            .upstream_duration
            .get_or_create(&self.with(vec![("family", family)]))
            .observe(attempt.took.as_secs_f64());
    }

    fn call(&self, call: &CallDone<'_>) {
        let outcome = match call.outcome {
            Outcome::Status(status) => status.to_string(),
            Outcome::Failed(kind) => kind.to_owned(),
        };
        let labels = vec![("class", call.class.name().to_owned()), ("outcome", outcome)];
        self.count(&self.metrics.calls, labels);
        if let Some(Refused { reason, limit }) = call.refused {
            let labels = vec![("limit", self.family(limit)), ("reason", reason.name().to_owned())];
            self.count(&self.metrics.refusals, labels);
        }
        self.metrics
            .call_wait
            .get_or_create(&self.with(by_class(call.class)))
            .observe(call.waited.as_secs_f64());
        self.metrics
            .call_duration
            .get_or_create(&self.with(by_class(call.class)))
            .observe(call.took.as_secs_f64());
    }

    fn token(&self, token: &TokenDone<'_>) {
        let credential = self.field(token.credential.as_str());
        let labels = vec![("credential", credential), ("outcome", token.outcome.to_owned())];
        self.count(&self.metrics.token_requests, labels);
    }

    fn doubt(&self, doubt: &DoubtDone<'_>) {
        self.count(&self.metrics.writes_in_doubt, vec![("ending", doubt.ending.name().to_owned())]);
    }

    fn denied(&self, denied: &Denied<'_>) {
        let credential = self.field(denied.credential.as_str());
        self.count(&self.metrics.permission_denials, vec![("credential", credential)]);
    }

    fn store(&self, store: &StoreDone<'_>) {
        let labels = vec![("outcome", store.outcome.to_owned())];
        self.count(&self.metrics.quota_exchanges, labels.clone());
        self.metrics
            .quota_exchange_duration
            .get_or_create(&self.with(labels))
            .observe(store.took.as_secs_f64());
        for &(limit, permits) in &store.granted {
            let labels = vec![("limit", self.family(limit))];
            self.metrics.quota_granted.get_or_create(&self.with(labels)).inc_by(u64::from(permits));
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::pace::{BreakerSnapshot, DriftSnapshot, GateSnapshot};

    use super::*;
    use crate::cache::CacheNow;

    /// What a scrape of one tenant shows.
    fn rendered(bank: BankSnapshot) -> String {
        shown(&Arc::new(Metrics::new()), bank)
    }

    fn shown(metrics: &Metrics, bank: BankSnapshot) -> String {
        metrics.render(vec![Now {
            label: Arc::from("acme"),
            bank,
            ledger: None,
            outbox: None,
            sinks: BTreeMap::new(),
            cache: CacheNow::default(),
        }])
    }

    fn gate(partition: &str, remaining: f64, in_flight: u32) -> GateSnapshot {
        GateSnapshot {
            name: "users".to_owned(),
            partition: partition.to_owned(),
            quota: Some(300),
            remaining: Some(remaining),
            in_flight,
            concurrency: None,
            closed_for_ms: 0,
            waiting: 0,
            state: "open",
            throttles: 0,
            accepted: 1,
            strangers_per_second: 0.0,
            shared: None,
        }
    }

    #[test]
    fn the_fleet_is_shown_with_how_it_is_joined_and_an_unknown_number_is_none() {
        let metrics = Metrics::new();
        let render = |mode, instances| {
            let fleet = Some(FleetSnapshot { mode, instances });
            shown(&metrics, BankSnapshot { fleet, ..BankSnapshot::default() })
        };
        assert!(
            render("joined", Some(8))
                .contains("tidegate_quota_instances{mode=\"joined\",tenant=\"acme\"} 8.0")
        );
        let alone = render("share", Some(7));
        assert!(alone.contains("tidegate_quota_instances{mode=\"share\",tenant=\"acme\"} 7.0"), "{alone}");
        assert!(!alone.contains("mode=\"joined\""), "a mode that is over: {alone}");
        assert!(alone.contains("tidegate_quota_shared{mode=\"share\",tenant=\"acme\"} 0.0"), "{alone}");
        assert!(
            render("joined", Some(8)).contains("tidegate_quota_shared{mode=\"joined\",tenant=\"acme\"} 1.0")
        );
        let never = render("share", None);
        assert!(
            never.contains("tidegate_quota_shared{mode=\"share\",tenant=\"acme\"} 0.0"),
            "never reached: {never}"
        );
        let idle = render("idle", None);
        assert!(!idle.contains("tidegate_quota_instances{"), "{idle}");
        assert!(!idle.contains("tidegate_quota_shared{"), "{idle}");
    }

    #[test]
    fn permits_are_counted_by_their_limit_and_exchanges_by_their_end() {
        let all = Arc::new(Metrics::new());
        let metrics = all.tenant("acme");
        let done = |outcome, granted| StoreDone {
            outcome,
            why: None,
            took: std::time::Duration::from_millis(2),
            holders: None,
            granted,
        };
        metrics.store(&done("answered", vec![("users", 7), ("routing", 1)]));
        metrics.store(&done("answered", vec![("users", 5)]));
        metrics.store(&done("away", Vec::new()));
        metrics.event(&Event::StoreForgot);
        let text = all.render(Vec::new());
        for line in [
            "tidegate_quota_granted_total{limit=\"users\",tenant=\"acme\"} 12",
            "tidegate_quota_granted_total{limit=\"routing\",tenant=\"acme\"} 1",
            "tidegate_quota_exchanges_total{outcome=\"answered\",tenant=\"acme\"} 2",
            "tidegate_quota_exchange_seconds_count{outcome=\"away\",tenant=\"acme\"} 1",
            "tidegate_quota_store_events_total{event=\"forgot\",tenant=\"acme\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn the_drift_of_two_credentials_is_one_of_their_family() {
        let of = |credential: &str, disagreements, mean_s| DriftSnapshot {
            family: "/api/v2/users".to_owned(),
            credential: credential.to_owned(),
            throttles: 9,
            disagreements,
            smallest_s: mean_s - 1.0,
            mean_s,
            largest_s: mean_s + 1.0,
            hours: Vec::new(),
        };
        let drift = vec![of("a", 3, -4.0), of("b", 1, 8.0), of("c", 0, 0.0)];
        let text = rendered(BankSnapshot { drift, ..BankSnapshot::default() });
        for (statistic, value) in [("smallest", "-5.0"), ("mean", "-1.0"), ("largest", "9.0")] {
            let line = format!(
                "tidegate_hint_drift_seconds{{family=\"/api/v2/users\",statistic=\"{statistic}\",tenant=\"acme\"}} {value}"
            );
            assert!(text.contains(&line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn what_holds_a_limit_back_is_shown_by_its_tightest_count() {
        let tight = GateSnapshot {
            concurrency: Some(4.5),
            closed_for_ms: 2_500,
            strangers_per_second: 0.5,
            ..gate("credential=a", 0.0, 0)
        };
        let wide = GateSnapshot {
            concurrency: Some(9.0),
            strangers_per_second: 1.0,
            ..gate("credential=b", 9.0, 0)
        };
        let breakers = [("users", "open"), ("queues", "half-open"), ("scripts", "closed")]
            .map(|(family, state)| BreakerSnapshot { family: family.to_owned(), state, refuses_for_ms: 0 });
        let snapshot =
            BankSnapshot { gates: vec![wide, tight], breakers: breakers.to_vec(), ..BankSnapshot::default() };
        let text = rendered(snapshot);
        for line in [
            "tidegate_limit_concurrency{limit=\"users\",tenant=\"acme\"} 4.5",
            "tidegate_limit_closed_seconds{limit=\"users\",tenant=\"acme\"} 2.5",
            "tidegate_limit_strangers_per_second{limit=\"users\",tenant=\"acme\"} 1.5",
            "tidegate_breaker_open{family=\"users\",tenant=\"acme\"} 1.0",
            "tidegate_breaker_open{family=\"queues\",tenant=\"acme\"} 1.0",
            "tidegate_breaker_open{family=\"scripts\",tenant=\"acme\"} 0.0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn of_many_breakers_the_open_ones_are_shown() {
        let of = |number: usize| BreakerSnapshot {
            family: format!("f{number}"),
            state: if number == 70 { "open" } else { "closed" },
            refuses_for_ms: 0,
        };
        let snapshot = BankSnapshot { breakers: (0..100).map(of).collect(), ..BankSnapshot::default() };
        let text = rendered(snapshot);
        assert!(text.contains("tidegate_breaker_open{family=\"f70\",tenant=\"acme\"} 1.0"), "{text}");
        assert_eq!(text.matches("tidegate_breaker_open{").count(), MAX_VALUES);
    }

    #[test]
    fn the_gates_of_two_credentials_are_one_limit() {
        let gates = vec![gate("credential=a", 7.0, 2), gate("credential=b", 250.0, 3)];
        let snapshot = BankSnapshot { gates, in_flight: 5, ..BankSnapshot::default() };
        let text = rendered(snapshot);
        for line in [
            "tidegate_limit_quota{limit=\"users\",tenant=\"acme\"} 300",
            "tidegate_limit_remaining{limit=\"users\",tenant=\"acme\"} 7",
            "tidegate_limit_in_flight{limit=\"users\",tenant=\"acme\"} 5",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
