//! Holds each attempt until every limit has room for it.
//!
//! The ticket travels with the attempt, and [`Send`](super::Send) settles it with what the answer said: at the place
//! that outlives the caller of a write, so that an answer nobody waits for any more still teaches the gates.

use std::sync::Arc;

use tidegate_core::pace::Ask;

use super::{Answered, Around, Attempt, AttemptError, AttemptService};
use crate::pacer::Pacer;

/// Gives each attempt a ticket before it leaves.
#[derive(Clone, Debug)]
pub struct Pace {
    pacer: Pacer,
}

impl Pace {
    /// Paces by the gates of `pacer`.
    pub fn new(pacer: Pacer) -> Self {
        Self { pacer }
    }
}

impl<S: AttemptService> Around<S, Attempt> for Pace {
    type Below = Attempt;

    async fn handle(self, mut below: S, mut attempt: Attempt) -> Result<Answered, AttemptError> {
        let call = Arc::clone(&attempt.call);
        let credential = call.credential.id();
        let ask = Ask {
            method: &call.method,
            path: &call.path,
            family: &call.family,
            credential: &credential,
            token: call.credential.token_slot(),
            class: call.class,
            caller: call.caller,
            deadline: call.deadline,
            give_up_at: attempt.send_by,
        };
        let ticket = self.pacer.acquire(&ask).await.map_err(AttemptError::Refused)?;
        call.add_wait(ticket.waited(), || ticket.limit());
        attempt.ticket = Some(ticket);
        below.call(attempt).await
    }
}
