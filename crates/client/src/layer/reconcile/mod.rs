//! Finds out what became of a write where nobody can tell, and sends it again where it was not executed.
//!
//! The outermost layer: its reads are full calls of the same stack, with a ticket, a token and retries of their own, of the
//! class and for the caller of the write. What is asked and what the answer means is the
//! [rule's](tidegate_core::reconcile); this layer asks, waits, and asks again.
//!
//! * **Doubt is remembered.** After a loss only an answer to the write or a finding ends the doubt. A further attempt that
//!   could not be sent leaves it, also where a read had shown nothing: the first attempt may be executed after all.
//! * **The same key.** A write that is sent again carries the key of its first attempt.
//! * **A refusal after a loss is looked into.** An upstream that says "conflict", or of a DELETE "not found", may be speaking
//!   of what the lost attempt has done.
//! * **A conflict is not resent but applied anew**, where that is wanted: the current version is read, the change put on it,
//!   and its new body goes under a new key, because it is another write.
//!
//! * **An answer that is cut is completed.** "Done" with half a body leaves no doubt about the write, but its caller without
//!   the entity; the same read shows it.
//!
//! Bodies that are streamed cannot be sent again, so such writes stay as they are.

mod look;
mod quest;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tidegate_core::reconcile::{Conflict, Rule};
use tower::Service;

use self::quest::{Quest, is_unknown};
use super::{Around, BoxFuture, copy};
use crate::body::{BoxError, RequestBody, ResponseBody};
use crate::call::CallOptions;
use crate::error::{Error, ErrorKind};
use crate::observe::{DoubtDone, DoubtEnd};
use crate::upstream::Upstream;

/// How a call whose outcome nobody knows is found out about; see [`CallOptions::reconcile`].
#[derive(Clone, Debug, Default)]
pub struct ReconcileBy {
    /// The rule; the profile's for the call's method and path unless said otherwise.
    pub rule: Option<Arc<Rule>>,
    /// How long after the write was lost to give up; there is time for one read in any case. Without it, as long as the
    /// rule takes, unless the call is [called off](CallOptions::called_off); with it, looking goes on also then, and only
    /// sending again does not.
    pub within: Option<Duration>,
}

/// In the extensions of an answer that is not the write's own, or whose body is not: the write was found to have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconciled {
    /// How that was found: `confirmed-by-read`, or `already-done` of a DELETE that was sent again and found nothing.
    pub by: &'static str,
}

/// In the extensions of a request: an earlier call has sent the same write, so that this one can be called off before it
/// leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Further;

/// Writes down that a call goes on with another body, before that is sent.
pub trait Amend: fmt::Debug + Send + Sync {
    /// Called with the new body; gives the key it is sent under. An error ends the call, and nothing is sent.
    fn amend(&self, body: Bytes) -> BoxFuture<Result<String, BoxError>>;
}

/// What to do where the upstream refuses a write because its entity has changed; see [`CallOptions::conflict`].
#[derive(Clone, Debug, Default)]
pub struct OnConflict {
    /// Which refusals, and how often; the rule's word, or else 409 and three times, unless said otherwise.
    pub conflict: Option<Conflict>,
    /// Who is told of the new body before it is sent. Without it the new key is made as for any call.
    pub amend: Option<Arc<dyn Amend>>,
}

/// Carries calls through doubt.
#[derive(Clone, Debug)]
pub struct Reconcile {
    upstream: Arc<Upstream>,
}

impl Reconcile {
    /// Finds out by the rules of `upstream`'s profile.
    pub fn new(upstream: Arc<Upstream>) -> Self {
        Self { upstream }
    }
}

impl<S> Around<S, Request<RequestBody>> for Reconcile
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>, Error = Error, Future: Send>,
    S: Clone + Send + 'static,
{
    type Below = Request<RequestBody>;

    async fn handle(
        self,
        mut below: S,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Error> {
        let wanted = |options: &CallOptions| options.reconcile.is_some() || options.conflict.is_some();
        let may_doubt =
            request.extensions().get::<CallOptions>().is_some_and(wanted) && request.body().bytes().is_some();
        if request.method().is_safe() {
            return below.call(request).await;
        }
        if !may_doubt {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let answer = below.call(request).await;
            let lost = match &answer {
                Ok(response) => is_unknown(response).then_some(None),
                Err(error) => (error.kind() == ErrorKind::OutcomeUnknown).then(|| error.source_text()),
            };
            if let Some(why) = lost {
                let (ending, why) = (DoubtEnd::Unknown, why.as_deref());
                let doubt = DoubtDone { method: &method, path: &path, ending, reads: 0, why };
                self.upstream.observers().doubt(&doubt);
            }
            return answer;
        }
        // Boxed, so that the many calls that cannot be in doubt do not carry its size.
        Box::pin(Quest::new(below, self.upstream, request).run()).await
    }
}
