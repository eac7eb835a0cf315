//! Attaches the token, after the wait for the ticket, so that it cannot age in the queue.
//!
//! A 401 is told to the token's manager by generation: it ends that token and no newer one. So the attempt carries
//! which token it was lent; [`Send`](super::Send) tells, because it hears the answer even if the caller has gone. Whether
//! the attempt is sent again is the retry layer's decision.

use std::sync::Arc;

use http::header::AUTHORIZATION;

use super::{Answered, Around, Attempt, AttemptError, AttemptService};
use crate::credential::Credential;

/// Attaches the call's credential to each attempt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Auth;

impl<S: AttemptService> Around<S, Attempt> for Auth {
    type Below = Attempt;

    async fn handle(self, mut below: S, mut attempt: Attempt) -> Result<Answered, AttemptError> {
        let headers = attempt.request.headers_mut();
        match &attempt.call.credential {
            Credential::Managed(manager) => {
                let lent = manager.lend_by(attempt.send_by).await.map_err(AttemptError::Token)?;
                headers.insert(AUTHORIZATION, lent.value);
                attempt.lent = Some((Arc::clone(manager), lent.generation));
            }
            Credential::Bearer(bearer) => {
                headers.insert(AUTHORIZATION, bearer.value());
            }
            Credential::Anonymous => {}
        }
        below.call(attempt).await
    }
}
