//! The judge's books of what was told to whom.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What became of the events of one class of topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TopicBook {
    /// Events that happened.
    pub emitted: u64,
    /// Messages handed to a socket, duplicates included.
    pub sent: u64,
    /// Messages that were lost: by a fault, in silence, or because their socket ended first.
    pub dropped: u64,
    /// Subscribed channels that had no socket when an event happened.
    pub unheard: u64,
}

/// Notifications channels and their sockets; the part `push` of the books.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PushStats {
    /// Channels created.
    pub channels_created: u64,
    /// Channels that had to go because their owner created another.
    pub channels_evicted: u64,
    /// Channels that came to the end of their life.
    pub channels_expired: u64,
    /// Channels that exist.
    pub channels_open: u64,
    /// Topics subscribed to by the channels that exist.
    pub subscriptions: u64,
    /// The most topics any channel ever had.
    pub subscriptions_max: u64,
    /// Topics that were asked for and rejected.
    pub topics_rejected: u64,
    /// sockets opened.
    pub sockets_opened: u64,
    /// sockets that are open.
    pub sockets_open: u64,
    /// sockets that were closed because another was opened for their channel.
    pub sockets_replaced: u64,
    /// sockets cut on purpose.
    pub sockets_killed: u64,
    /// sockets told `v2.system.socket_closing`.
    pub sockets_closing: u64,
    /// Upgrades refused: by a fault, or because there is no such channel.
    pub upgrades_refused: u64,
    /// Heartbeats sent.
    pub heartbeats: u64,
    /// Pings answered.
    pub pings: u64,
    /// Faults injected into messages, by name.
    pub faults: BTreeMap<String, u64>,
    /// What became of events, by topic with `{id}` in place of ids.
    pub topics: BTreeMap<String, TopicBook>,
}

impl PushStats {
    /// The entry of a class of topics.
    pub(super) fn topic(&mut self, class: &str) -> &mut TopicBook {
        self.topics.entry(class.to_owned()).or_default()
    }
}

/// Outbound webhooks; the part `hooks` of the books.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HookStats {
    /// Deliveries made, duplicates and replays included.
    pub sent: u64,
    /// Deliveries by the status that was answered.
    pub answers: BTreeMap<u16, u64>,
    /// Deliveries that got no answer within ten seconds, or no connection.
    pub unanswered: u64,
    /// Faults injected, by name.
    pub faults: BTreeMap<String, u64>,
    /// Deliveries by topic with `{id}` in place of ids.
    pub topics: BTreeMap<String, u64>,
}
