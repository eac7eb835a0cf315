//! Intent before send: the layer that makes an item's intent durable when its attempt is about to leave.
//!
//! It sits behind the wait for quota and token, so that an item that was only waiting when the process died is
//! known not to have been sent. Only the first attempt writes: later ones are covered by the same intent.
//!
//! The same door stops an item that has not left yet: either its intent is begun, and then it is carried out, or it is
//! held back, and then it never leaves. There is nothing in between.

use std::sync::Arc;

use parking_lot::Mutex;
use tidegate::clock::Clock;
use tidegate::layer::{Answered, Around, Attempt, AttemptError, AttemptService};
use tidegate_core::classify::Delivery;
use tidegate_store::{Journal, fault};
use tokio::sync::watch;

use crate::health::Health;

/// One item's way out of this process, in the extensions of its request.
#[derive(Clone, Debug)]
pub(super) struct Exit {
    seq: u64,
    stage: Arc<Mutex<Stage>>,
}

#[derive(Debug)]
enum Stage {
    /// It waits for quota or token.
    Waiting,
    /// Its intent is being written.
    Intending,
    /// Its intent is on disk: it may have left.
    Intended,
    /// It was stopped before it could leave.
    Held,
    /// Its intent could not be written, and it did not leave.
    Failed(tidegate_store::Error),
}

impl Exit {
    /// An item that has not left.
    pub(super) fn new(seq: u64) -> Self {
        Self { seq, stage: Arc::new(Mutex::new(Stage::Waiting)) }
    }

    /// Keeps it from leaving; false if it is too late for that.
    pub(super) fn hold(&self) -> bool {
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Waiting) {
            *stage = Stage::Held;
        }
        matches!(*stage, Stage::Held)
    }

    /// It has another body, of which nothing was sent: the next attempt is intended anew.
    pub(super) fn again(&self) {
        *self.stage.lock() = Stage::Waiting;
    }

    /// Whether its intent is on disk.
    pub(super) fn is_intended(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Intended)
    }

    /// Why its intent could not be written.
    pub(super) fn failure(&self) -> Option<tidegate_store::Error> {
        match &*self.stage.lock() {
            Stage::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Writes its intent, once. It may leave when this has returned.
    ///
    /// # Errors
    /// It must not leave.
    async fn leave(&self, journal: &Journal, clock: &Clock) -> Result<(), AttemptError> {
        {
            let mut stage = self.stage.lock();
            match &*stage {
                Stage::Waiting => *stage = Stage::Intending,
                Stage::Intended => return Ok(()),
                _ => return Err(AttemptError::Stopped("the run is stopping".into())),
            }
        }
        let written = journal.intend(vec![self.seq], clock.wall()).await;
        let (stage, result) = match written {
            Ok(()) => (Stage::Intended, Ok(())),
            Err(error) => (Stage::Failed(error.clone()), Err(AttemptError::Stopped(Box::new(error)))),
        };
        *self.stage.lock() = stage;
        result
    }
}

/// A gateway in between sent nothing, and not for want of quota.
fn is_away(response: &http::Response<tidegate::ResponseBody>) -> bool {
    response.headers().contains_key("tidegate-refused")
        && response.status() != http::StatusCode::TOO_MANY_REQUESTS
}

/// Writes the intent before an item's first attempt leaves.
#[derive(Clone, Debug)]
pub(super) struct Intent {
    pub(super) journal: Arc<Journal>,
    pub(super) clock: Clock,
    /// What the attempts say about the upstream.
    pub(super) health: Arc<Health>,
    /// Given when nothing more is to leave.
    pub(super) halt: watch::Receiver<bool>,
}

impl<S: AttemptService> Around<S, Attempt> for Intent {
    type Below = Attempt;

    async fn handle(self, mut below: S, attempt: Attempt) -> Result<Answered, AttemptError> {
        let Self { journal, clock, health, halt } = self;
        let exit = attempt.request.extensions().get::<Exit>().cloned();
        if let Some(exit) = &exit {
            // Also of an attempt that repeats an earlier one.
            if *halt.borrow() {
                return Err(AttemptError::Stopped("the run is stopping".into()));
            }
            exit.leave(&journal, &clock).await?;
            fault::point("bulk.sent");
        }
        let sent = below.call(attempt).await;
        if exit.is_some() {
            fault::point("bulk.answered");
        }
        match &sent {
            Ok(answered) if is_away(&answered.response) => {
                health.away(clock.now(), format!("the gateway answered {}", answered.response.status()));
            }
            Ok(_) => health.served(),
            Err(AttemptError::Send(error)) if error.failure.delivery() == Delivery::NotSent => {
                health.away(clock.now(), error.to_string());
            }
            Err(_) => {}
        }
        sent
    }
}
