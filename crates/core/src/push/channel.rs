//! One channel, and the words in which a [`Keeper`](super::Keeper) speaks with whoever carries its decisions out.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::time::Mono;

/// The name of a channel. One that is opened anew has a new name, so that what is said of the old one comes too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub(super) u64);

/// The name of a question about subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub(super) u64);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Do {
    /// Create a channel and connect to it. There is one of these at a time.
    Open(ChannelId),
    /// Subscribe.
    Subscribe {
        /// On this channel.
        channel: ChannelId,
        /// As this question.
        ask: AskId,
        /// To these topics.
        topics: Vec<Arc<str>>,
        /// Whether they replace what the channel is subscribed to, or are added to it.
        replace: bool,
    },
    /// Send a ping over the channel's socket.
    Ping(ChannelId),
    /// Close the channel's socket, and forget it.
    Close(ChannelId),
}

/// What was learnt about a topic or a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Events about the topic arrive from now on.
    Covered {
        /// The topic.
        topic: Arc<str>,
        /// The time before, in which events were missed; `None` if it was not covered before.
        gap: Option<Gap>,
    },
    /// Events about the topic arrive no more.
    Uncovered {
        /// The topic.
        topic: Arc<str>,
    },
    /// The upstream tells this caller nothing about the topic.
    Rejected {
        /// The topic.
        topic: Arc<str>,
        /// What the upstream says about it.
        why: Arc<str>,
    },
    /// A channel ended before it was replaced.
    Lost {
        /// Which.
        channel: ChannelId,
        /// Why.
        cause: Cause,
    },
}

/// A time in which nothing was heard of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the channel was last heard.
    pub from: Mono,
    /// When the topic was subscribed to again.
    pub to: Mono,
}

/// Why a channel was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Its socket ended.
    Closed,
    /// Nothing was heard for several heartbeats.
    Silent,
    /// The upstream does not know it any more.
    Gone,
    /// The upstream would not replace its subscriptions.
    Refused,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Closed, Self::Silent, Self::Gone, Self::Refused];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Gone => "gone",
            Self::Refused => "refused",
        }
    }
}

/// A question about subscriptions that is not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) id: AskId,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) replace: bool,
}

/// How far a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// To be opened when it is its turn.
    Waiting,
    Opening,
    Live(Life),
}

/// Instants of a channel that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) since: Mono,
    /// When its socket was last heard.
    pub(super) heard: Mono,
    /// When it was last pinged.
    pub(super) pinged: Mono,
    /// When another is to take its place.
    pub(super) renew_at: Mono,
}

/// One channel.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    pub(super) phase: Phase,
    /// The topics that have their place here.
    pub(super) wants: BTreeSet<Arc<str>>,
    /// Those of them that the upstream has confirmed.
    pub(super) confirmed: BTreeSet<Arc<str>>,
    /// What may be subscribed there: more than is wanted where something was given up.
    pub(super) there: BTreeSet<Arc<str>>,
    pub(super) ask: Option<Ask>,
    /// Since when something is subscribed that nobody wants.
    pub(super) untidy: Option<Mono>,
    /// Not before this are subscriptions asked for again.
    pub(super) ask_after: Mono,
    /// Questions in a row that failed.
    pub(super) fails: u32,
    /// How many topics one question may have.
    pub(super) batch: usize,
    /// Since when nothing is wanted of it.
    pub(super) empty: Option<Mono>,
    /// The channel that takes its place. This one only listens.
    pub(super) successor: Option<ChannelId>,
    /// When that one had everything. If this one is heard after it, nothing was missed between the two.
    pub(super) relieved: Option<Mono>,
}

impl Channel {
    pub(super) fn new(batch: usize) -> Self {
        Self {
            phase: Phase::Waiting,
            wants: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            there: BTreeSet::new(),
            ask: None,
            untidy: None,
            ask_after: Mono::ZERO,
            fails: 0,
            batch,
            empty: None,
            successor: None,
            relieved: None,
        }
    }

    pub(super) fn life(&self) -> Option<&Life> {
        match &self.phase {
            Phase::Live(life) => Some(life),
            Phase::Waiting | Phase::Opening => None,
        }
    }

    pub(super) fn life_mut(&mut self) -> Option<&mut Life> {
        match &mut self.phase {
            Phase::Live(life) => Some(life),
            Phase::Waiting | Phase::Opening => None,
        }
    }

    /// Whether it is to go, and its socket was still heard after another had everything.
    pub(super) fn has_handed_over(&self) -> bool {
        let heard = self.life().map(|life| life.heard);
        self.relieved.is_some_and(|relieved| heard.is_some_and(|heard| heard > relieved))
    }

    /// Whether all that has its place here is confirmed.
    pub(super) fn is_settled(&self) -> bool {
        self.life().is_some() && self.wants.is_subset(&self.confirmed)
    }
}
