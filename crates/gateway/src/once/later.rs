//! Writes that nobody waits for: sent from the outbox.
//!
//! They go the way of every other write: noted at the door before they leave, followed to their end, and counted among those that
//! have overtaken others.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use tidegate::{CallOptions, CallReport, RequestBody, ResponseBody};
use tidegate_store::ledger::Kept;

use super::answer::{Ended, Fate};
use super::door::Exit;
use super::flight::Flight;
use super::order::Turn;
use super::{Once, Write};
use crate::proxy::Login;
use crate::respond::REFUSED;

/// Answers above this are not kept for who asks for them later.
pub(crate) const ANSWER_CAP: usize = 256 * 1024;

/// Says, in an answer that is kept, that its body was too large for that.
pub(crate) const TOO_LARGE: &str = "tidegate-answer";

/// Notes that a write is about to leave.
pub(crate) trait Intent: fmt::Debug + Send + Sync {
    /// Notes it, and under which key of the upstream's. The write may leave when this has returned.
    fn intend(&self, key: String) -> BoxFuture<'_, Result<(), tidegate_store::outbox::OutboxError>>;
}

/// Such a write on its way.
#[derive(Clone, Debug)]
pub(crate) struct Later(Arc<Flight>);

impl Later {
    /// Stops it if it has not left; otherwise no further attempt is made.
    pub(crate) fn call_off(&self) {
        self.0.call_off();
    }

    /// The task that sends it, to be stopped with it.
    pub(crate) fn runs_in(&self, task: tokio::task::AbortHandle) {
        self.0.runs_in(task);
    }
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) fate: Fate,
    pub(crate) answer: Kept,
    /// Why the gateway itself did not send it.
    pub(crate) refused: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// Attempts that left.
    pub(crate) attempts: u32,
}

impl Once {
    /// A write to `path` that is noted by `intent` before it leaves.
    pub(crate) fn later(&self, path: &str, intent: Arc<dyn Intent>) -> Later {
        let exit = Exit::intended(Turn::new(&self.order, path, None), intent);
        Later(Arc::new(Flight::new(None, exit)))
    }

    /// Sends it.
    pub(crate) async fn send_later(
        &self,
        later: &Later,
        request: Request<RequestBody>,
        options: CallOptions,
    ) -> Delivered {
        let (login, caller) = (Login::default(), String::new());
        let write = Write { request, options, login, caller, bearer: None, key: None, seat: None };
        let (response, fate) = self.exchange(write, &later.0).await;
        let refused = response.headers().get(REFUSED).and_then(|why| why.to_str().ok()).map(str::to_owned);
        let seconds = response.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
        let attempts = response.extensions().get::<CallReport>().map_or(0, |report| report.attempts);
        let answer = kept(fate, response).await;
        Delivered { fate, answer, refused, retry_after: seconds.map(Duration::from_secs), attempts }
    }
}

/// An answer as it is kept: of one that is too large, or that broke off, what came before its body.
async fn kept(fate: Fate, response: Response<ResponseBody>) -> Kept {
    let (parts, body) = response.into_parts();
    let (body, whole) = match body.bytes(ANSWER_CAP).await {
        Ok(body) => (body, true),
        Err(_) => (bytes::Bytes::new(), false),
    };
    let mut response = Response::from_parts(parts, ResponseBody::from(body));
    if !whole {
        response.headers_mut().insert(TOO_LARGE, http::HeaderValue::from_static("not-kept"));
    }
    Ended::new(fate, response).kept().unwrap_or_default()
}

/// Whether a write that did not leave was kept back by its quota, which orders the wait.
pub(crate) fn is_ordered(status: u16, refused: Option<&str>) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || matches!(refused, Some("quota-store" | "stopped"))
}
