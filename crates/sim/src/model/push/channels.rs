//! Channels: who owns them, what they hear, and when they go.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

/// One notifications channel.
#[derive(Debug, Clone)]
pub(super) struct Channel {
    pub(super) id: String,
    /// The client that created it.
    pub(super) owner: String,
    /// When its life is over.
    pub(super) expires: Duration,
    /// What was subscribed to, as written, with the topics that stands for.
    subscriptions: BTreeMap<String, BTreeSet<String>>,
    /// All those topics.
    topics: HashSet<String>,
    /// Its one open socket.
    pub(super) socket: Option<u64>,
}

impl Channel {
    pub(super) fn new(id: String, owner: &str, expires: Duration) -> Self {
        Self {
            id,
            owner: owner.to_owned(),
            expires,
            subscriptions: BTreeMap::new(),
            topics: HashSet::new(),
            socket: None,
        }
    }

    pub(super) fn hears(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }

    /// How many topics it has, each as written.
    pub(super) fn subscribed(&self) -> usize {
        self.subscriptions.len()
    }

    pub(super) fn subscriptions(&self) -> impl Iterator<Item = &String> {
        self.subscriptions.keys()
    }

    /// How many topics it would have with `more`.
    pub(super) fn subscribed_with<'a>(&self, more: impl Iterator<Item = &'a String>) -> usize {
        let new: BTreeSet<&String> = more.filter(|text| !self.subscriptions.contains_key(*text)).collect();
        self.subscriptions.len() + new.len()
    }

    pub(super) fn subscribe(&mut self, more: BTreeMap<String, BTreeSet<String>>) {
        self.topics.extend(more.values().flatten().cloned());
        self.subscriptions.extend(more);
    }

    pub(super) fn unsubscribe_all(&mut self) {
        self.subscriptions.clear();
        self.topics.clear();
    }
}

/// All channels, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Channels(Vec<Channel>);

impl Channels {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.0.iter()
    }

    pub(super) fn of<'a>(&'a self, owner: &'a str) -> impl Iterator<Item = &'a Channel> {
        self.0.iter().filter(move |channel| channel.owner == owner)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Channel> {
        self.0.iter_mut().find(|channel| channel.id == id)
    }

    pub(super) fn insert(&mut self, channel: Channel) {
        self.0.push(channel);
    }

    /// Takes the owner's oldest channel without a socket away; false if all have one.
    pub(super) fn evict(&mut self, owner: &str) -> bool {
        let oldest = self.0.iter().position(|channel| channel.owner == owner && channel.socket.is_none());
        oldest.map(|index| self.0.remove(index)).is_some()
    }

    pub(super) fn take_expired(&mut self, now: Duration) -> Vec<Channel> {
        self.0.extract_if(.., |channel| channel.expires <= now).collect()
    }
}
