//! The order of the stack, and the reason for each place.
//!
//! Outside in, once per write as its caller means it:
//!
//! 1. [`Reconcile`]: find out by reads what became of a write where nobody can tell, send it again where it was not
//!    executed. Outermost, because its reads are full calls, with tickets, tokens and retries of their own.
//!
//! Once per call:
//!
//! 2. [`Prepare`]: normalise the path, find family, credential and deadline, make the idempotency key. First,
//!    because everything below speaks of these, and because the key must be the same on every attempt.
//! 3. [`Retry`](crate::layer::Retry): the loop. Outside everything that belongs to one attempt, so that each attempt needs its own
//!    ticket, its own look at the breaker, and a token that is checked again.
//!
//! Per attempt:
//!
//! 4. [`Pace`]: wait for a ticket from every gate; breaker and deadline are asked by the same bank, before any
//!    quota is taken. Outside the token, because waiting is where tokens age.
//! 5. [`Auth`]: attach the token now that the attempt may leave, and note which one it was.
//! 6. [`Send`]: mark the ticket as spent, start the attempt's own time-out, send, settle the ticket with the answer, tell
//!    a 401 to the token's manager. The time-out is innermost, so that no wait above can trip it; the settling too,
//!    because a write goes on here when its caller has gone.

use std::sync::Arc;

use http::{Request, Response};
use tower::layer::util::Identity;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceBuilder};

use crate::body::{RequestBody, ResponseBody};
use crate::error::Error;
use crate::layer::{AttemptService, Auth, Pace, Prepare, Reconcile, RetryLayer, Send, around};
use crate::upstream::Upstream;

/// The whole stack as one service.
pub type Stack = BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, Error>;

/// Builds the stack for `upstream`.
pub fn stack(upstream: &Arc<Upstream>) -> Stack {
    stack_with(upstream, Identity::new())
}

/// Builds the stack with one more layer where an attempt has its ticket and its token and is about to leave: the
/// place for what must be durable before the first byte is sent.
pub fn stack_with<L>(upstream: &Arc<Upstream>, before_send: L) -> Stack
where
    L: Layer<Send, Service: AttemptService + Sync>,
{
    let profile = upstream.profile();
    let clock = *upstream.clock();
    let send =
        Send::new(Arc::clone(upstream.wire()), Arc::clone(profile), clock, upstream.observers().clone());
    let service = ServiceBuilder::new()
        .layer(around(Reconcile::new(Arc::clone(upstream))))
        .layer(around(Prepare::new(Arc::clone(upstream))))
        .layer(RetryLayer::new(Arc::clone(upstream.retry_policy()), Arc::clone(upstream.budget()), clock))
        .layer(around(Pace::new(upstream.pacer().clone())))
        .layer(around(Auth))
        .layer(before_send)
        .service(send);
    BoxCloneSyncService::new(service)
}
