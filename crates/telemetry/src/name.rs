//! The one list of metric names.
//!
//! Everything that speaks of a metric (the registry, the documentation, dashboards) takes its name, labels and help
//! from here, so that they cannot drift apart. Names follow the Prometheus conventions: base units, `_total` on
//! counters (added by the encoder), no label whose values a caller can invent without bound.

/// A metric of Tidegate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Calls that have ended.
    Calls,
    /// Attempts that have ended.
    Attempts,
    /// Time calls spent waiting for their quota.
    CallWait,
    /// Time from a caller's request to the answer's headers.
    CallDuration,
    /// Time the upstream took for an attempt.
    UpstreamDuration,
    /// Gate closings because of a throttle.
    Throttles,
    /// Answers whose `Retry-After` and reset disagree.
    HintMismatches,
    /// By how much they disagree.
    HintDrift,
    /// Header fields about limits that could not be read.
    HeadersIgnored,
    /// Changes of a breaker's state.
    BreakerTransitions,
    /// Renewals of a token.
    TokenRequests,
    /// Calls refused before they were sent, or between their attempts.
    Refusals,
    /// Fetches of the upstream's own listing of its limits.
    LimitListings,
    /// Exchanges with the store of a shared quota.
    QuotaExchanges,
    /// How long they took.
    QuotaExchangeDuration,
    /// Permits that they brought.
    QuotaGranted,
    /// Losses of the store, and what else happened to it.
    QuotaEvents,
    /// Processes that share the quota.
    QuotaInstances,
    /// Whether permits come from the store.
    QuotaShared,
    /// Requests per window.
    LimitQuota,
    /// What a gate believes is left in its window.
    LimitRemaining,
    /// Attempts of a limit in flight.
    LimitInFlight,
    /// The bound on attempts in flight.
    LimitConcurrency,
    /// For how long a gate stays closed.
    LimitClosed,
    /// What others draw from a limit.
    LimitStrangers,
    /// Whether a breaker is open.
    BreakerOpen,
    /// Whether a window of the calendar is open.
    WindowOpen,
    /// For how long a window holds a class.
    Held,
    /// Calls waiting.
    Waiting,
    /// Writes that were in doubt.
    WritesInDoubt,
    /// Writes that were answered by what became of an earlier sending.
    Replays,
    /// Writes that waited for the end of the same write in flight.
    Joins,
    /// Bulk calls that carried writes of callers.
    Merges,
    /// Writes that left in such calls.
    MergedWrites,
    /// Writes that were sent alone after such a call.
    MergeFallbacks,
    /// Writes under keys that are remembered.
    LedgerEntries,
    /// Calls that were refused for a missing permission.
    PermissionDenials,
    /// Events that came of an upstream's own accord.
    PushEvents,
    /// Channels that were lost.
    PushLosses,
    /// Channels that are kept.
    PushChannels,
    /// Topics that are wanted.
    PushTopics,
    /// Reads of what events arrive about.
    PushReads,
    /// Programs that listened to events.
    PushListeners,
    /// Deliveries to webhooks.
    Hooks,
    /// Writes that are to be sent later.
    OutboxEntries,
    /// The oldest of them.
    OutboxOldest,
    /// Writes that were sent later.
    OutboxEnded,
    /// Events that are to be told to a sink.
    SinkEntries,
    /// Events that were told to a sink.
    SinkEnded,
    /// Reads by how they were answered: from memory, by a call that others had begun, or by one of their own.
    CacheReads,
    /// Calls of reads that are shared, by what they were made for: a read, the renewal of an answer, or a list that renews many.
    CacheCalls,
    /// Answers that were renewed without being sent again, by who said that they had not changed.
    CacheRenewed,
    /// Answers that were dropped before their time, for a change or for room.
    CacheDropped,
    /// Share of reads that cost the upstream no call, renewals and lists counted as calls.
    CacheSaved,
    /// Answers that are kept, and how many may be.
    CacheEntries,
    /// Bytes of answers that are kept, and how many may be.
    CacheBytes,
}

impl Metric {
    /// All of them, in the order they are listed.
    pub const ALL: [Self; 56] = [
        Self::Calls,
        Self::Attempts,
        Self::CallWait,
        Self::CallDuration,
        Self::UpstreamDuration,
        Self::Throttles,
        Self::HintMismatches,
        Self::HintDrift,
        Self::HeadersIgnored,
        Self::BreakerTransitions,
        Self::TokenRequests,
        Self::Refusals,
        Self::LimitListings,
        Self::QuotaExchanges,
        Self::QuotaExchangeDuration,
        Self::QuotaGranted,
        Self::QuotaEvents,
        Self::QuotaInstances,
        Self::QuotaShared,
        Self::LimitQuota,
        Self::LimitRemaining,
        Self::LimitInFlight,
        Self::LimitConcurrency,
        Self::LimitClosed,
        Self::LimitStrangers,
        Self::BreakerOpen,
        Self::WindowOpen,
        Self::Held,
        Self::Waiting,
        Self::WritesInDoubt,
        Self::Replays,
        Self::Joins,
        Self::Merges,
        Self::MergedWrites,
        Self::MergeFallbacks,
        Self::LedgerEntries,
        Self::PermissionDenials,
        Self::PushEvents,
        Self::PushLosses,
        Self::PushChannels,
        Self::PushTopics,
        Self::PushReads,
        Self::PushListeners,
        Self::Hooks,
        Self::OutboxEntries,
        Self::OutboxOldest,
        Self::OutboxEnded,
        Self::SinkEntries,
        Self::SinkEnded,
        Self::CacheReads,
        Self::CacheCalls,
        Self::CacheRenewed,
        Self::CacheDropped,
        Self::CacheSaved,
        Self::CacheEntries,
        Self::CacheBytes,
    ];

    /// The name, without the suffix the encoder adds to counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calls => "tidegate_calls",
            Self::Attempts => "tidegate_attempts",
            Self::CallWait => "tidegate_call_wait_seconds",
            Self::CallDuration => "tidegate_call_duration_seconds",
            Self::UpstreamDuration => "tidegate_upstream_duration_seconds",
            Self::Throttles => "tidegate_throttles",
            Self::HintMismatches => "tidegate_hint_mismatches",
            Self::HintDrift => "tidegate_hint_drift_seconds",
            Self::HeadersIgnored => "tidegate_headers_ignored",
            Self::BreakerTransitions => "tidegate_breaker_transitions",
            Self::TokenRequests => "tidegate_token_requests",
            Self::Refusals => "tidegate_refusals",
            Self::LimitListings => "tidegate_limit_listings",
            Self::QuotaExchanges => "tidegate_quota_exchanges",
            Self::QuotaExchangeDuration => "tidegate_quota_exchange_seconds",
            Self::QuotaGranted => "tidegate_quota_granted",
            Self::QuotaEvents => "tidegate_quota_store_events",
            Self::QuotaInstances => "tidegate_quota_instances",
            Self::QuotaShared => "tidegate_quota_shared",
            Self::LimitQuota => "tidegate_limit_quota",
            Self::LimitRemaining => "tidegate_limit_remaining",
            Self::LimitInFlight => "tidegate_limit_in_flight",
            Self::LimitConcurrency => "tidegate_limit_concurrency",
            Self::LimitClosed => "tidegate_limit_closed_seconds",
            Self::LimitStrangers => "tidegate_limit_strangers_per_second",
            Self::BreakerOpen => "tidegate_breaker_open",
            Self::WindowOpen => "tidegate_window_open",
            Self::Held => "tidegate_held_seconds",
            Self::Waiting => "tidegate_waiting",
            Self::WritesInDoubt => "tidegate_writes_in_doubt",
            Self::Replays => "tidegate_replays",
            Self::Joins => "tidegate_joins",
            Self::Merges => "tidegate_merges",
            Self::MergedWrites => "tidegate_merged_writes",
            Self::MergeFallbacks => "tidegate_merge_fallbacks",
            Self::LedgerEntries => "tidegate_ledger_entries",
            Self::PermissionDenials => "tidegate_permission_denials",
            Self::PushEvents => "tidegate_push_events",
            Self::PushLosses => "tidegate_push_losses",
            Self::PushChannels => "tidegate_push_channels",
            Self::PushTopics => "tidegate_push_topics",
            Self::PushReads => "tidegate_push_reads",
            Self::PushListeners => "tidegate_push_listeners",
            Self::Hooks => "tidegate_hooks",
            Self::OutboxEntries => "tidegate_outbox_entries",
            Self::OutboxOldest => "tidegate_outbox_age_seconds",
            Self::OutboxEnded => "tidegate_outbox_ended",
            Self::SinkEntries => "tidegate_sink_entries",
            Self::SinkEnded => "tidegate_sink_ended",
            Self::CacheReads => "tidegate_cache_reads",
            Self::CacheCalls => "tidegate_cache_calls",
            Self::CacheRenewed => "tidegate_cache_unchanged",
            Self::CacheDropped => "tidegate_cache_dropped",
            Self::CacheSaved => "tidegate_cache_saved_ratio",
            Self::CacheEntries => "tidegate_cache_entries",
            Self::CacheBytes => "tidegate_cache_bytes",
        }
    }

    /// What it says, in one sentence.
    #[expect(clippy::too_many_lines, reason = "a sentence for each")]
    pub const fn help(self) -> &'static str {
        match self {
            Self::Calls => "Calls that have ended, by class and by how they ended",
            Self::Attempts => "Attempts that have ended, by family and status",
            Self::CallWait => "Time calls spent waiting for their quota",
            Self::CallDuration => "Time from a caller's request to the headers of its answer",
            Self::UpstreamDuration => "Time from sending an attempt to the headers of its answer",
            Self::Throttles => "Times a limit's gate closed because the upstream said it was asked too fast",
            Self::HintMismatches => {
                "Throttles whose Retry-After and reset disagree; the later one is honoured unless the limit is known to refill bit by bit"
            }
            Self::HintDrift => {
                "Retry-After less reset where they disagreed in the last 24 hours: smallest, mean and largest"
            }
            Self::HeadersIgnored => "Header fields about limits that could not be read",
            Self::BreakerTransitions => "Changes of a breaker's state",
            Self::TokenRequests => "Renewals of a token",
            Self::Refusals => {
                "Calls that ended because an attempt could not leave in time, by reason and by the limit or family that explains it"
            }
            Self::LimitListings => "Fetches of the upstream's own listing of its limits",
            Self::QuotaExchanges => "Exchanges with the store of a shared quota, by how they ended",
            Self::QuotaExchangeDuration => "Time an exchange with the store of a shared quota took",
            Self::QuotaGranted => "Permits of a limit that exchanges brought",
            Self::QuotaEvents => {
                "Times the store of a shared quota went away, came back, had lost its state, or could not be used"
            }
            Self::QuotaInstances => {
                "Processes that share the quota, this one included, as the store last said"
            }
            Self::QuotaShared => {
                "1 if permits come from the store of the shared quota, 0 if this process does without it"
            }
            Self::LimitQuota => "Requests a limit allows per window, as declared or learnt",
            Self::LimitRemaining => "Requests that a limit's gate would let leave now",
            Self::LimitInFlight => "Attempts counted against a limit and not yet answered",
            Self::LimitConcurrency => {
                "Attempts at once that a limit allows, where it has such a bound, declared or learnt"
            }
            Self::LimitClosed => {
                "Time for which a limit's gate stays closed after a throttle; 0 if it is open"
            }
            Self::LimitStrangers => "Requests per second that others are estimated to draw from a limit",
            Self::BreakerOpen => {
                "1 if the breaker of a family holds calls back or probes, 0 if it lets them through"
            }
            Self::WindowOpen => "1 while a window of the calendar is open, 0 otherwise",
            Self::Held => {
                "Time for which calls of a class are still held by windows of the calendar, the own stagger included"
            }
            Self::Waiting => "Calls waiting for their quota, by class",
            Self::WritesInDoubt => {
                "Times that nobody could tell whether a write was executed, by how that ended: nobody knows, a read shows that it was, or that it was not, so that it was sent again"
            }
            Self::Replays => {
                "Writes that were answered by what had become of an earlier sending of the same write, by how they were recognised"
            }
            Self::Joins => {
                "Writes that waited for the end of an earlier sending of the same write, by how they were recognised"
            }
            Self::Merges => "Bulk calls that carried single writes of callers",
            Self::MergedWrites => "Single writes that left in bulk calls",
            Self::MergeFallbacks => {
                "Single writes that were sent alone after the bulk call that carried them, because its answer told nothing that was their own"
            }
            Self::LedgerEntries => {
                "Writes under an Idempotency-Key that are remembered, answered or without a known outcome"
            }
            Self::PermissionDenials => {
                "Calls that the upstream refused because their credential lacks a permission"
            }
            Self::PushEvents => {
                "What came of an upstream's own accord, by how it came and what it was: new, late or duplicate events, and gaps in which events about a topic may have been missed"
            }
            Self::PushLosses => "Notification channels that ended before they were replaced, by cause",
            Self::PushChannels => "Notification channels, open or waiting to be",
            Self::PushTopics => {
                "Topics that are wanted: those whose events arrive, those that wait for it, and those that the upstream rejects"
            }
            Self::PushReads => {
                "Reads of what events arrive about, by what answered them: events (without which it had been a call), age, or a call"
            }
            Self::PushListeners => {
                "Programs that listened to events, by how that ended: they left, or were cut off because they did not read"
            }
            Self::Hooks => "Deliveries to webhooks, by hook and by how they ended",
            Self::OutboxEntries => "Writes in the outbox that are not delivered, by state",
            Self::OutboxOldest => "Age of the oldest write in the outbox that is neither delivered nor dead",
            Self::OutboxEnded => "Writes of the outbox that were delivered, or became dead letters",
            Self::SinkEntries => "Events for a sink that are not delivered, by state",
            Self::SinkEnded => {
                "Events for a sink that were delivered, became dead letters, or were lost because too many waited"
            }
            Self::CacheReads => {
                "Reads by how they were answered: from memory, by a call that others had begun, or by one of their own"
            }
            Self::CacheCalls => {
                "Calls of reads that are shared, by what they were made for: a read, the renewal of an answer, or a list that renews many"
            }
            Self::CacheRenewed => {
                "Answers that were renewed without being sent again, by who said that they had not changed"
            }
            Self::CacheDropped => "Answers that were dropped before their time, for a change or for room",
            Self::CacheSaved => {
                "Share of reads that cost the upstream no call, renewals and lists counted as calls"
            }
            Self::CacheEntries => "Answers that are kept, and how many may be",
            Self::CacheBytes => "Bytes of answers that are kept, and how many may be",
        }
    }

    /// Its labels, beside `tenant`, which all have.
    pub const fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Calls => &["class", "outcome"],
            Self::Attempts => &["family", "status"],
            Self::CallWait | Self::CallDuration | Self::Held | Self::Waiting => &["class"],
            Self::WindowOpen => &["window"],
            Self::Throttles
            | Self::QuotaGranted
            | Self::LimitQuota
            | Self::LimitRemaining
            | Self::LimitInFlight
            | Self::LimitConcurrency
            | Self::LimitClosed
            | Self::LimitStrangers => &["limit"],
            Self::UpstreamDuration | Self::HintMismatches | Self::BreakerOpen => &["family"],
            Self::HintDrift => &["family", "statistic"],
            Self::HeadersIgnored => &["field"],
            Self::BreakerTransitions => &["family", "state"],
            Self::Refusals => &["limit", "reason"],
            Self::QuotaExchanges | Self::QuotaExchangeDuration => &["outcome"],
            Self::QuotaEvents => &["event"],
            Self::QuotaInstances | Self::QuotaShared => &["mode"],
            Self::TokenRequests | Self::LimitListings => &["credential", "outcome"],
            Self::WritesInDoubt | Self::PushListeners | Self::OutboxEnded => &["ending"],
            Self::Replays | Self::Joins | Self::CacheRenewed => &["by"],
            Self::Merges | Self::MergedWrites | Self::MergeFallbacks => &["rule"],
            Self::OutboxOldest => &["statistic"],
            Self::LedgerEntries
            | Self::PushChannels
            | Self::PushTopics
            | Self::OutboxEntries
            | Self::CacheEntries
            | Self::CacheBytes => &["state"],
            Self::PermissionDenials => &["credential"],
            Self::PushEvents => &["by", "kind"],
            Self::PushLosses => &["cause"],
            Self::PushReads => &["answer"],
            Self::Hooks => &["hook", "outcome"],
            Self::SinkEntries => &["sink", "state"],
            Self::SinkEnded => &["ending", "sink"],
            Self::CacheReads => &["how"],
            Self::CacheCalls | Self::CacheDropped => &["reason"],
            Self::CacheSaved => &["since"],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let mut seen = HashSet::new();
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("tidegate_"), "{name}");
            assert!(!name.ends_with("_total"), "{name}: the encoder adds the suffix");
            assert!(!metric.help().ends_with('.'), "{name}: the encoder ends the help text");
            assert!(!metric.labels().is_empty(), "{name}");
        }
    }
}
