//! The innermost service: one attempt over the transport, within its own time-out.
//!
//! A write that has left outlives its caller: it runs in a task of its own, so that a caller that hangs up cannot
//! cut it in half and leave its outcome unknown.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_core::classify::Failure;
use tidegate_core::observe::Observation;
use tidegate_core::profile::Profile;
use tower::Service;

use super::{Answered, Attempt, AttemptError, BoxFuture};
use crate::body::ResponseBody;
use crate::call::Call;
use crate::clock::Clock;
use crate::observe::{AttemptDone, Observers};
use crate::transport::{SendError, SendOptions, Transport};

/// Sends attempts.
#[derive(Clone, Debug)]
pub struct Send {
    transport: Transport,
    profile: Arc<Profile>,
    clock: Clock,
    observers: Observers,
}

impl Send {
    /// A service that sends over `transport` with the time-outs of `profile`.
    pub fn new(transport: Transport, profile: Arc<Profile>, clock: Clock, observers: Observers) -> Self {
        Self { transport, profile, clock, observers }
    }

    fn options(&self, call: &Call) -> SendOptions {
        let careful = !call.method.is_safe();
        let timeouts = &self.profile.timeouts;
        let timeout = if careful { timeouts.write } else { timeouts.read };
        // A read whose answer comes after its deadline is worthless; a write that has left is awaited to its end.
        let left = call.deadline.filter(|_| !careful).map(|deadline| deadline - self.clock.now());
        SendOptions { timeout: timeout.min(left.unwrap_or(Duration::MAX)), careful }
    }
}

impl Service<Attempt> for Send {
    type Response = Answered;
    type Error = AttemptError;
    type Future = BoxFuture<Result<Answered, AttemptError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), AttemptError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let Attempt { call, request, departure } = attempt;
            let options = this.options(&call);
            let transport = this.transport.clone();
            if let Some(departure) = departure {
                departure.leave();
            }
            call.count_attempt();
            let left_at = this.clock.now();
            let exchange = async move { transport.send(request, options).await };
            let sent = if options.careful { outlive_caller(exchange).await } else { exchange.await };
            let took = this.clock.now() - left_at;
            this.observers.attempt(&AttemptDone {
                family: &call.family,
                status: sent.as_ref().ok().map(|response| response.status().as_u16()),
                took,
                failure: sent.as_ref().err().map(|error| error.failure.name()),
            });
            let response = sent.map_err(AttemptError::Send)?.map(ResponseBody::Upstream);
            Ok(Answered { response, seen: Observation::default(), throttled: false, took })
        })
    }
}

async fn outlive_caller<T: std::marker::Send + 'static>(
    exchange: impl Future<Output = Result<T, SendError>> + std::marker::Send + 'static,
) -> Result<T, SendError> {
    match tokio::spawn(exchange).await {
        Ok(sent) => sent,
        Err(stopped) => Err(SendError { failure: Failure::Interrupted, source: stopped.into() }),
    }
}
