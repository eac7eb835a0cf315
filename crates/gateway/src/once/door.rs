//! The way out: what was waiting when its last caller hung up never leaves, and what leaves under a key is noted first.
//!
//! The layer sits behind the wait for quota and token. A write passes it once, with its first attempt: either it is on
//! its way out, and then it is followed to its end, or it is held back, and then nothing was sent. There is nothing in
//! between. Reads that several may wait for pass it too: see [`readers`](crate::readers).

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tidegate::clock::Clock;
use tidegate::layer::{Answered, Around, Attempt, AttemptError, AttemptService};
use tidegate_store::ledger::{EntryId, Ledger, LedgerError, NewEntry, Now};

use super::later::Intent;
use super::order::Turn;
use crate::merging::Group;
use crate::readers::Start;

/// One write's way out, in the extensions of its request.
#[derive(Clone, Debug)]
pub(crate) struct Exit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stage: Mutex<Stage>,
    turn: Turn,
    note: Option<Note>,
    intent: Option<Arc<dyn Intent>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It waits for quota or token.
    #[default]
    Waiting,
    /// It is being noted, or may have left.
    Leaving,
    /// It was stopped before it could leave.
    Held,
}

/// What is noted of a keyed write.
#[derive(Debug)]
struct Note {
    ledger: Arc<Ledger>,
    new: NewEntry,
    noted: OnceLock<Result<EntryId, LedgerError>>,
}

impl Exit {
    /// The way out of a write that is not noted.
    pub(super) fn new(turn: Turn) -> Self {
        Self(Arc::new(Inner { stage: Mutex::default(), turn, note: None, intent: None }))
    }

    /// The way out of a write that is noted in `ledger` first, with the key that it is sent with.
    pub(super) fn noted(turn: Turn, ledger: Arc<Ledger>, new: NewEntry) -> Self {
        let note = Some(Note { ledger, new, noted: OnceLock::new() });
        Self(Arc::new(Inner { stage: Mutex::default(), turn, note, intent: None }))
    }

    /// The way out of a write that `intent` notes: one of the outbox.
    pub(super) fn intended(turn: Turn, intent: Arc<dyn Intent>) -> Self {
        let intent = Some(intent);
        Self(Arc::new(Inner { stage: Mutex::default(), turn, note: None, intent }))
    }

    /// Whether it may still be adopted: no other write to its path has left since.
    pub(super) fn is_last(&self) -> bool {
        self.0.turn.is_last()
    }

    /// Keeps it from leaving; false if it is too late for that.
    pub(super) fn hold(&self) -> bool {
        let mut stage = self.0.stage.lock();
        if *stage == Stage::Waiting {
            *stage = Stage::Held;
        }
        *stage == Stage::Held
    }

    /// Whether it may have left.
    pub(super) fn may_have_left(&self) -> bool {
        *self.0.stage.lock() == Stage::Leaving && !matches!(self.entry(), Some(Err(_)))
    }

    /// Its entry in the ledger, or why it could not be made; `None` if it has none.
    pub(super) fn entry(&self) -> Option<Result<EntryId, LedgerError>> {
        self.0.note.as_ref()?.noted.get().cloned()
    }

    /// It leaves as a row of another call, which is not noted; false if it was stopped before.
    pub(crate) fn leaves_now(&self) -> bool {
        self.step_out().is_some()
    }

    /// It leaves: whether it has left before, or `None` if it was stopped.
    fn step_out(&self) -> Option<bool> {
        let mut stage = self.0.stage.lock();
        let further = match *stage {
            Stage::Waiting => false,
            Stage::Leaving => true,
            Stage::Held => return None,
        };
        *stage = Stage::Leaving;
        self.0.turn.leaves();
        Some(further)
    }

    async fn leave(&self, sent_key: Option<&str>, clock: Clock) -> Result<(), AttemptError> {
        match self.step_out() {
            Some(false) => {}
            Some(true) => return Ok(()),
            None => return Err(AttemptError::Stopped("its caller hung up".into())),
        }
        if let Some(intent) = &self.0.intent {
            let noted = intent.intend(sent_key.unwrap_or_default().to_owned()).await;
            return noted.map_err(|error| AttemptError::Stopped(Box::new(error)));
        }
        let Some(note) = &self.0.note else { return Ok(()) };
        let new = NewEntry { sent_key: sent_key.unwrap_or_default().to_owned(), ..note.new.clone() };
        let now = Now { wall: clock.wall(), mono: clock.now() };
        let noted = note.ledger.intend(new, now).await;
        match note.noted.get_or_init(|| noted) {
            Ok(_) => Ok(()),
            Err(error) => Err(AttemptError::Stopped(Box::new(error.clone()))),
        }
    }
}

/// Lets attempts out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    pub(crate) clock: Clock,
}

impl<S: AttemptService> Around<S, Attempt> for Door {
    type Below = Attempt;

    async fn handle(self, mut below: S, mut attempt: Attempt) -> Result<Answered, AttemptError> {
        if let Some(group) = attempt.request.extensions().get::<Group>() {
            let rows = group.leaves()?;
            *attempt.request.body_mut() = rows;
        }
        if let Some(exit) = attempt.request.extensions().get::<Exit>() {
            exit.leave(attempt.key(), self.clock).await?;
        }
        if let Some(start) = attempt.request.extensions().get::<Start>()
            && !start.leaves()
        {
            return Err(AttemptError::Stopped("another call brings its answer".into()));
        }
        below.call(attempt).await
    }
}
