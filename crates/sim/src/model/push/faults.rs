//! What goes wrong on the way of an event: to a socket, and to a webhook.
//!
//! As with calls, a `script` decides exactly what happens to the next messages and goes before the probabilities, and one number
//! is drawn for each message, so that the n-th meets the same fate in every run of a seed.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text::Spread;

/// The fate of one message on its way to one socket or webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessageFault {
    /// Nothing goes wrong.
    None,
    /// It is lost.
    Drop,
    /// It comes twice. A webhook's second copy has a delivery id, timestamp and signature of its own.
    Duplicate,
    /// It comes after the next message, or after a second if there is none.
    Reorder,
    /// Webhooks only: the signature is wrong.
    BadSignature,
    /// Webhooks only: the same bytes come again with the same id, timestamp and signature.
    Replay,
    /// Webhooks only: the signature is right, but the timestamp in it is ten minutes old.
    Stale,
}

impl MessageFault {
    /// The name used in configuration and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::BadSignature => "bad-signature",
            Self::Replay => "replay",
            Self::Stale => "stale",
        }
    }
}

/// What is done to open sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketFault {
    /// The connection is cut, without a close frame.
    Kill,
    /// `v2.system.socket_closing` is sent, and the socket closed a `closing_notice` later.
    Closing,
}

/// What goes wrong with notifications channels; `faults.push`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushFaults {
    /// What happens, once, to all sockets that are open when these faults are set.
    pub sockets: Option<SocketFault>,
    /// Sockets stay open, but nothing comes over them: no heartbeat, no answer to a ping, no event.
    pub silent: bool,
    /// A WebSocket upgrade is answered 503.
    pub refuse_upgrade: bool,
    /// Topics that nobody may subscribe to: exact, or with a `*` at the end.
    pub refuse_topics: Vec<String>,
    /// Probability of [`MessageFault::Drop`].
    pub drop: f64,
    /// Probability of [`MessageFault::Duplicate`].
    pub duplicate: f64,
    /// Probability of [`MessageFault::Reorder`].
    pub reorder: f64,
    /// How much later an event is sent.
    pub delay: Spread,
    /// The fate of the next messages, in order.
    pub script: Vec<MessageFault>,
}

/// What goes wrong with webhooks; `faults.hooks`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookFaults {
    /// Probability of [`MessageFault::Drop`].
    pub drop: f64,
    /// Probability of [`MessageFault::Duplicate`].
    pub duplicate: f64,
    /// Probability of [`MessageFault::Reorder`].
    pub reorder: f64,
    /// Probability of [`MessageFault::BadSignature`].
    pub bad_signature: f64,
    /// Probability of [`MessageFault::Replay`].
    pub replay: f64,
    /// Probability of [`MessageFault::Stale`].
    pub stale: f64,
    /// The fate of the next messages, in order.
    pub script: Vec<MessageFault>,
}

type Chances = Vec<(MessageFault, f64)>;

impl PushFaults {
    fn chances(&self) -> Chances {
        vec![
            (MessageFault::Drop, self.drop),
            (MessageFault::Duplicate, self.duplicate),
            (MessageFault::Reorder, self.reorder),
        ]
    }

    /// Everything that is out of bounds, one line each, keys prefixed with `prefix`.
    pub(crate) fn problems(&self, prefix: &str) -> Vec<String> {
        let mut problems = out_of_bounds(&self.chances(), prefix);
        let foreign = |fault: &&MessageFault| {
            matches!(fault, MessageFault::BadSignature | MessageFault::Replay | MessageFault::Stale)
        };
        if let Some(fault) = self.script.iter().find(foreign) {
            problems.push(format!("{prefix}script: {} is for webhooks only", fault.name()));
        }
        problems
    }
}

impl HookFaults {
    fn chances(&self) -> Chances {
        vec![
            (MessageFault::Drop, self.drop),
            (MessageFault::Duplicate, self.duplicate),
            (MessageFault::Reorder, self.reorder),
            (MessageFault::BadSignature, self.bad_signature),
            (MessageFault::Replay, self.replay),
            (MessageFault::Stale, self.stale),
        ]
    }

    /// Everything that is out of bounds, one line each, keys prefixed with `prefix`.
    pub(crate) fn problems(&self, prefix: &str) -> Vec<String> {
        out_of_bounds(&self.chances(), prefix)
    }
}

fn out_of_bounds(chances: &[(MessageFault, f64)], prefix: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (fault, chance) in chances {
        if !(0.0..=1.0).contains(chance) {
            let key = fault.name().replace('-', "_");
            problems.push(format!("{prefix}{key}: {chance} is not a probability (0 to 1)"));
        }
    }
    let sum: f64 = chances.iter().map(|(_, chance)| chance).sum();
    if sum > 1.0 + 1e-9 {
        problems.push(format!("{prefix}the probabilities add up to {sum}, more than 1"));
    }
    problems
}

/// Decides the fates of messages.
#[derive(Debug)]
pub(super) struct Fates {
    script: VecDeque<MessageFault>,
    chances: Chances,
    rng: fastrand::Rng,
}

impl Fates {
    pub(super) fn new(rng: fastrand::Rng) -> Self {
        Self { script: VecDeque::new(), chances: Vec::new(), rng }
    }

    pub(super) fn for_sockets(&mut self, faults: &PushFaults) {
        self.script = faults.script.iter().copied().collect();
        self.chances = faults.chances();
    }

    pub(super) fn for_hooks(&mut self, faults: &HookFaults) {
        self.script = faults.script.iter().copied().collect();
        self.chances = faults.chances();
    }

    pub(super) fn pick(&mut self) -> MessageFault {
        let mut drawn = self.rng.f64();
        if let Some(fault) = self.script.pop_front() {
            return fault;
        }
        for (fault, chance) in &self.chances {
            if drawn < *chance {
                return *fault;
            }
            drawn -= chance;
        }
        MessageFault::None
    }

    /// How much later a message is sent.
    pub(super) fn delay(&mut self, spread: Spread) -> Duration {
        spread.draw(&mut self.rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_goes_first_and_is_used_up() {
        let mut fates = Fates::new(fastrand::Rng::with_seed(1));
        let script = vec![MessageFault::Drop, MessageFault::Duplicate];
        fates.for_sockets(&PushFaults { script, reorder: 1.0, ..PushFaults::default() });
        let drawn: Vec<MessageFault> = (0..3).map(|_| fates.pick()).collect();
        assert_eq!(drawn, [MessageFault::Drop, MessageFault::Duplicate, MessageFault::Reorder]);
    }

    #[test]
    fn bounds_and_faults_of_webhooks_are_checked() {
        let script = vec![MessageFault::Replay];
        let push = PushFaults { drop: 0.7, duplicate: 0.7, script, ..PushFaults::default() };
        assert_eq!(push.problems("p.").len(), 2);
        let hooks = HookFaults { bad_signature: -1.0, ..HookFaults::default() };
        assert_eq!(hooks.problems("h."), ["h.bad_signature: -1 is not a probability (0 to 1)"]);
    }
}
