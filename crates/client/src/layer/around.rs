//! What layers have alike, written once: a layer is one function around the service below it.
//!
//! Every tower layer that waits for something needs a service of its own beside it, a boxed future, and the exchange of the
//! service that was asked whether it is ready for its clone. `tower`'s own short forms do not help: [`layer_fn`] still
//! wants the service, and filters and maps see only the way down or the way back.
//!
//! [`layer_fn`]: tower::layer::layer_fn

use std::future::Future;
use std::marker::Send;
use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::{Answered, Attempt, AttemptError, BoxFuture};

/// What a layer does with a request: something before the service below, something after, or instead of it.
///
/// ```
/// use tidegate::layer::{Answered, Around, Attempt, AttemptError, AttemptService, around};
///
/// /// Says who is responsible.
/// #[derive(Clone)]
/// struct Signed(http::HeaderValue);
///
/// impl<S: AttemptService> Around<S, Attempt> for Signed {
///     type Below = Attempt;
///
///     async fn handle(self, mut below: S, mut attempt: Attempt) -> Result<Answered, AttemptError> {
///         attempt.request.headers_mut().insert("x-signed-by", self.0);
///         below.call(attempt).await
///     }
/// }
///
/// let layer = around(Signed(http::HeaderValue::from_static("night shift")));
/// # let _ = tower::ServiceBuilder::new().layer(layer);
/// ```
pub trait Around<S: Service<Self::Below>, R>: Clone {
    /// What the service below takes.
    type Below;

    /// Handles `request`. `below` has said that it is ready for one call.
    fn handle(
        self,
        below: S,
        request: R,
    ) -> impl Future<Output = Result<S::Response, S::Error>> + Send + 'static;
}

/// The layer that does this around the service it is laid on.
pub fn around<A>(what: A) -> AroundLayer<A> {
    AroundLayer(what)
}

/// See [`around`].
#[derive(Clone, Copy, Debug)]
pub struct AroundLayer<A>(A);

/// A service with something [around](around()) it.
#[derive(Clone, Debug)]
pub struct Surrounded<A, S> {
    around: A,
    below: S,
}

impl<A: Clone, S> Layer<S> for AroundLayer<A> {
    type Service = Surrounded<A, S>;

    fn layer(&self, below: S) -> Self::Service {
        Surrounded { around: self.0.clone(), below }
    }
}

impl<A, S, R> Service<R> for Surrounded<A, S>
where
    A: Around<S, R>,
    S: Service<A::Below> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.below.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // The service that was asked whether it is ready goes into the future; its clone stays.
        let clone = self.below.clone();
        let ready = std::mem::replace(&mut self.below, clone);
        Box::pin(self.around.clone().handle(ready, request))
    }
}

/// What stands below a layer that sees attempts: a short name for these bounds.
pub trait AttemptService:
    Service<Attempt, Response = Answered, Error = AttemptError, Future: Send> + Clone + Send + 'static
{
}

impl<S> AttemptService for S where
    S: Service<Attempt, Response = Answered, Error = AttemptError, Future: Send> + Clone + Send + 'static
{
}
