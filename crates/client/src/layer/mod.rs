//! The layers of the stack, each one idea. Their order, and the reason for it, stands in [`stack`](crate::stack).
//!
//! Outside the retry layer a request is a caller's request; inside it is an [`Attempt`]: one send, with the call it
//! belongs to. A layer of your own can go between any two of them; [`Around`] is the short
//! way to write one.

mod around;
mod auth;
mod denied;
pub(crate) mod fresh;
mod pace;
mod prepare;
mod reconcile;
mod retry;
mod send;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tidegate_core::observe::Observation;
use tidegate_core::pace::Refusal;
use tidegate_core::time::Mono;
use tidegate_core::token::Generation;

pub use self::around::{Around, AroundLayer, AttemptService, Surrounded, around};
pub use self::auth::Auth;
pub use self::pace::Pace;
pub use self::prepare::Prepare;
pub use self::reconcile::{Amend, OnConflict, Reconcile, ReconcileBy, Reconciled};
pub use self::retry::{Retry, RetryLayer};
pub use self::send::Send;
use crate::body::{BoxError, RequestBody, ResponseBody};
use crate::call::Call;
use crate::pacer::Ticket;
use crate::token::{TokenError, TokenManager};
use crate::transport::SendError;

/// The future of every layer. Boxed: a call makes a handful of allocations against a network round trip.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + std::marker::Send>>;

/// A call that was prepared: what the retry layer takes.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) call: Arc<Call>,
    pub(crate) request: Request<RequestBody>,
}

/// One send of a call.
///
/// Dropped before it reached [`Send`], it gives its ticket back: nothing was sent.
#[derive(Debug)]
pub struct Attempt {
    pub(crate) call: Arc<Call>,
    /// What will be sent. Its URI is absolute.
    pub request: Request<RequestBody>,
    /// Permission to send it; there once it has waited.
    pub(crate) ticket: Option<Ticket>,
    /// From here on it must not be sent any more.
    pub(crate) send_by: Option<Mono>,
    /// Whose token it carries, and which: who is to be told of a 401.
    pub(crate) lent: Option<(Arc<TokenManager>, Generation)>,
}

impl Attempt {
    /// Which send of its call this is, from 1.
    pub fn number(&self) -> u32 {
        self.call.attempts() + 1
    }

    /// The idempotency key it carries.
    pub fn key(&self) -> Option<&str> {
        self.call.key.as_deref()
    }
}

/// The answer to an attempt, and what it said about limits.
#[derive(Debug)]
pub struct Answered {
    /// The upstream's answer.
    pub response: Response<ResponseBody>,
    /// What its headers, and the body of a throttle, said about limits.
    pub seen: Observation,
    /// Whether it said "too fast".
    pub throttled: bool,
    /// From the first byte sent to its headers.
    pub took: Duration,
}

/// Why an attempt brought no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum AttemptError {
    /// It did not get a ticket in time. Nothing was sent.
    Refused(Refusal),
    /// There is no token. Nothing was sent.
    Token(TokenError),
    /// The time until which it was worth sending, or safe, passed while it waited. Nothing was sent.
    TooLate,
    /// A layer before the send stopped it. Nothing was sent.
    Stopped(BoxError),
    /// It was sent, or sending it was tried.
    Send(SendError),
}

/// A second copy of `request`, if its body can be sent again.
fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let body = request.body().try_clone()?;
    let mut copy = Request::new(body);
    request.method().clone_into(copy.method_mut());
    request.uri().clone_into(copy.uri_mut());
    request.headers().clone_into(copy.headers_mut());
    *copy.version_mut() = request.version();
    request.extensions().clone_into(copy.extensions_mut());
    Some(copy)
}
