//! What happens although nobody calls: conversations take their course, users come and go.
//!
//! Everything that moves has a random stream of its own, so that what clients do to one does not change the course of the others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::{Change, Org, users};
use crate::config::SimConfig;
use crate::model::Stream;
use crate::text::Spread;

/// Who moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mover {
    Conversation(usize),
    Presence(usize),
}

/// When whom moves next.
#[derive(Debug)]
pub(super) struct Live {
    due: BinaryHeap<Reverse<(Duration, Mover)>>,
    conversations: Option<(Spread, Vec<fastrand::Rng>)>,
    presences: Option<(Spread, Vec<fastrand::Rng>)>,
}

impl Live {
    pub(super) fn new(config: &SimConfig) -> Self {
        let mut seeds = Stream::Live.rng(config.seed);
        let mut streams = |dwell: Option<Spread>, count: u32| {
            dwell.map(|dwell| (dwell, (0..count).map(|_| seeds.fork()).collect()))
        };
        let conversations = streams(config.live.dwell, config.live.conversations);
        let presences = streams(config.live.presence_dwell, config.users);
        let mut live = Self { due: BinaryHeap::new(), conversations, presences };
        for index in 0..config.live.conversations as usize {
            live.plan(Duration::ZERO, Mover::Conversation(index));
        }
        for index in 0..config.users as usize {
            live.plan(Duration::ZERO, Mover::Presence(index));
        }
        live
    }

    /// Draws when `mover` moves after `now`, if it moves by itself.
    fn plan(&mut self, now: Duration, mover: Mover) {
        let (stream, index) = match mover {
            Mover::Conversation(index) => (&mut self.conversations, index),
            Mover::Presence(index) => (&mut self.presences, index),
        };
        if let Some((dwell, streams)) = stream {
            self.due.push(Reverse((now + dwell.draw(&mut streams[index]), mover)));
        }
    }

    /// When the next one moves.
    fn next(&self) -> Option<Duration> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }
}

impl Org {
    /// When something happens next although nobody calls.
    pub fn next_move(&self) -> Option<Duration> {
        self.live.next()
    }

    /// Lets everything happen that was due until `now`, in order.
    pub fn advance(&mut self, now: Duration) {
        while self.live.next().is_some_and(|due| due <= now) {
            let Some(Reverse((at, mover))) = self.live.due.pop() else { return };
            let body = match mover {
                Mover::Conversation(index) => Some(self.contacts.turn(index, None)),
                Mover::Presence(index) => {
                    let user = users::id(index);
                    self.users
                        .exists(at, &user)
                        .then(|| self.presences.turn_presence(&user, None).ok())
                        .flatten()
                }
            };
            self.changes.extend(body.into_iter().flat_map(|body| Change::told(at, &body)));
            self.live.plan(at, mover);
        }
    }
}
