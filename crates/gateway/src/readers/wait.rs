//! Waiting for the end of a flight, no longer than the reader itself would have waited.
//!
//! A flight is bounded by what its first reader said. Whoever joins has bounds of its own, counted from its own arrival: they end its
//! wait, and what is left of them goes with whatever it asks next.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate::CallOptions;
use tidegate::clock::Clock;
use tidegate_core::cache::Kept;
use tidegate_core::time::Mono;
use tokio::sync::{Notify, watch};

/// How a flight ended, as those who wait for it are told.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// With an answer for all.
    Answer(Arc<Kept<Bytes>>),
    /// With nothing that can be shared.
    Alone,
    /// It did not leave: this flight did, for the same answer.
    Folded(Waiting),
}

/// Where the end of a flight is told.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) sender: watch::Sender<Option<End>>,
    pub(super) folded: Arc<Notify>,
    /// When it gives up on an answer, as its first reader said.
    pub(super) deadline: Option<Mono>,
}

impl Ending {
    /// That of a new flight, which gives up at `deadline`.
    pub(super) fn new(deadline: Option<Mono>) -> Self {
        let (sender, folded) = (watch::Sender::new(None), Arc::default());
        Self { sender, folded, deadline }
    }

    pub(super) fn waiting(&self) -> Waiting {
        Waiting { end: self.sender.subscribe(), deadline: self.deadline }
    }
}

/// One who waits for a flight.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    end: watch::Receiver<Option<End>>,
    deadline: Option<Mono>,
}

impl Waiting {
    /// Waits for the end of the flight, or of that which took its place; `None` where the reader's time is over before. A flight of its `own`
    /// ends by itself when that time is over, and says more about why.
    pub(super) async fn ended(mut self, own: bool, patience: &Patience, clock: &Clock) -> Option<Ended> {
        let mut moved = false;
        loop {
            let end = tokio::select! {
                biased;
                end = self.end.wait_for(Option::is_some) => end.ok().and_then(|end| end.clone()),
                () = patience.expired(clock), if moved || !own => return None,
            };
            match end.unwrap_or(End::Alone) {
                End::Folded(next) => (self, moved) = (next, true),
                end => return Some(Ended { end, moved, deadline: self.deadline }),
            }
        }
    }
}

/// What a reader waited for.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: End,
    /// Whether it ended in another flight than it began in.
    pub(super) moved: bool,
    /// When the flight would have given up on an answer.
    pub(super) deadline: Option<Mono>,
}

/// Until when one reader waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// After this an answer is of no use to it.
    pub(super) deadline: Option<Mono>,
    /// Until then a call for it has to have left.
    pub(super) give_up: Option<Mono>,
}

impl Patience {
    /// That of a call whose answer is needed by an instant.
    pub(super) fn until(by: Option<Mono>) -> Self {
        Self { deadline: by, give_up: by }
    }

    /// That of a reader with `options`, who came at `now`.
    pub(super) fn of(options: &CallOptions, now: Mono) -> Self {
        let by = |within: Option<Duration>| within.map(|within| now + within);
        Self { deadline: by(options.deadline), give_up: by(options.max_wait) }
    }

    /// Whether the answer of a flight that gave up at `deadline` may say more about that than about the upstream.
    pub(super) fn outlasts(&self, deadline: Option<Mono>) -> bool {
        deadline.is_some_and(|theirs| self.deadline.is_none_or(|own| own > theirs))
    }

    /// What is left of it at `now`, as options of another call.
    pub(super) fn left(&self, options: &CallOptions, now: Mono) -> CallOptions {
        let left = |by: Option<Mono>| by.map(|by| by - now);
        CallOptions { deadline: left(self.deadline), max_wait: left(self.give_up), ..options.clone() }
    }

    /// Returns when the deadline is over.
    pub(super) async fn expired(&self, clock: &Clock) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(clock.instant(deadline)).await,
            None => std::future::pending().await,
        }
    }
}
