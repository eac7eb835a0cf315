//! A ticket: permission for one attempt, given back on drop as far as its stage allows.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::key::Family;
use tidegate_core::pace::{Answer, AnswerKind, TicketId};

use super::Pacer;

/// Families whose answer times are remembered; beyond it the estimate of the profile's floor is used.
const MAX_TIMED_FAMILIES: usize = 1024;

/// Permission for one attempt.
///
/// Dropped before it is sent it gives back what it held. Dropped after, what the upstream may have counted stays
/// spent.
#[derive(Debug)]
#[must_use = "a ticket that is dropped is given back"]
pub struct Ticket {
    id: TicketId,
    pacer: Pacer,
    waited: Duration,
    settled: bool,
}

impl Ticket {
    /// How long the limits made it wait: zero if it was there at once, however slow this machine is.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The limit that explains the wait for this ticket.
    pub fn limit(&self) -> Arc<str> {
        self.pacer.shared.state.lock().bank.ticket_limit(self.id)
    }

    /// The attempt leaves now: from here on its quota counts as spent.
    pub fn leave(&mut self) {
        self.pacer.locked(|state, now| state.bank.sent(now, self.id));
    }

    /// Counts its attempt among those that outlive their callers, until the returned value is dropped.
    pub(crate) fn outlive(&self) -> Outliving {
        self.pacer.shared.outliving.send_modify(|outliving| *outliving += 1);
        Outliving { pacer: self.pacer.clone() }
    }

    /// Settles the ticket with what the answer said, and how long it took to come.
    pub fn answered(mut self, answer: &Answer<'_>, family: &Family, took: Option<Duration>) {
        self.settled = true;
        self.pacer.locked(|state, now| {
            state.bank.answered(now, self.id, answer);
            // Every mistyped path is a family of its own: those must not take the place of real ones.
            let Some(took) = took.filter(|_| answer.kind != AnswerKind::NotFound) else { return };
            if let Some(recent) = state.answer_times.get_mut(family) {
                recent.record(took);
            } else if state.answer_times.len() < MAX_TIMED_FAMILIES {
                state.answer_times.entry(family.clone()).or_default().record(took);
            }
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.pacer.locked(|state, now| state.bank.dropped(now, self.id));
        }
    }
}

/// One attempt that goes on when its caller has gone.
pub(crate) struct Outliving {
    pacer: Pacer,
}

impl Drop for Outliving {
    fn drop(&mut self) {
        self.pacer.shared.outliving.send_modify(|outliving| *outliving -= 1);
    }
}

impl Pacer {
    pub(super) fn ticket(&self, id: TicketId, waited: Duration) -> Ticket {
        Ticket { id, pacer: self.clone(), waited, settled: false }
    }

    /// Attempts in flight that go on when their caller has gone.
    pub fn outliving(&self) -> usize {
        *self.shared.outliving.borrow()
    }

    /// Waits until there is none of them.
    pub async fn idle(&self) {
        // The sender lives as long as this pacer, so there is always an answer.
        drop(self.shared.outliving.subscribe().wait_for(|outliving| *outliving == 0).await);
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::key::CredentialId;
    use tidegate_core::observe::Observation;
    use tidegate_core::pace::{Ask, BankConfig, CallerId, Class, TokenSlot};

    use super::*;
    use crate::clock::Clock;
    use crate::observe::Observers;

    #[tokio::test]
    async fn answer_times_are_kept_of_families_that_exist() {
        let pacer = Pacer::new(BankConfig::default(), Clock::start(), Observers::default()).expect("a bank");
        let credential = CredentialId::new("c");
        for (path, kind, known) in
            [("/api/v2/users", AnswerKind::Accepted, true), ("/api/v2/typo", AnswerKind::NotFound, false)]
        {
            let family = Family::of(path);
            let ask = Ask {
                method: &http::Method::GET,
                path,
                family: &family,
                credential: &credential,
                token: TokenSlot(1),
                class: Class::Interactive,
                caller: CallerId::ANYBODY,
                deadline: None,
                give_up_at: None,
            };
            for _ in 0..32 {
                let mut ticket = pacer.acquire(&ask).await.expect("a ticket");
                ticket.leave();
                let nothing = Observation::default();
                let answer = Answer { kind, observation: &nothing };
                ticket.answered(&answer, &family, Some(Duration::from_millis(5)));
            }
            assert_eq!(pacer.answer_time(&family).is_some(), known, "{path}");
        }
    }
}
