//! One read that several may wait for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use tidegate::{CallReport, RequestBody, ResponseBody};
use tidegate_core::cache::{Errand, FlightId, Landed, Landing};
use tidegate_core::time::Wall;
use tokio::sync::oneshot;

use super::{Ask, End, Readers};
use crate::proxy;
use crate::respond;
use crate::tenant::Tenant;

/// How long a body may take to come whole. One that takes longer is a stream, whatever it says, and its reader waits for
/// every piece of it.
const BODY_WITHIN: Duration = Duration::from_secs(2);

/// A flight that has not ended. Dropped, it ends with nothing.
#[derive(Debug)]
pub(super) struct Flight {
    readers: Arc<Readers>,
    errand: Errand,
}

impl Flight {
    pub(super) fn new(readers: Arc<Readers>, errand: Errand) -> Self {
        Self { readers, errand }
    }

    /// Sends it, in a task of its own. What can be given to one reader only goes to `leader`.
    pub(super) fn depart(
        self,
        tenant: &Arc<Tenant>,
        ask: &Arc<Ask>,
        leader: Option<oneshot::Sender<Response<ResponseBody>>>,
    ) {
        let (tenant, ask) = (Arc::clone(tenant), Arc::clone(ask));
        tokio::spawn(self.fly(tenant, ask, leader));
    }

    async fn fly(
        mut self,
        tenant: Arc<Tenant>,
        ask: Arc<Ask>,
        leader: Option<oneshot::Sender<Response<ResponseBody>>>,
    ) {
        loop {
            let response = self.send(&tenant, &ask).await;
            let response = match self.hold(&tenant, response).await {
                Ok(held) => held,
                Err(stream) => {
                    // The reader first: it must find its answer when it is told that there is none for all.
                    if let Some(leader) = leader {
                        // Whoever asked for it may have gone.
                        drop(leader.send(stream));
                    }
                    return;
                }
            };
            match self.land(&ask, response) {
                Some(again) => self.errand = again,
                None => return,
            }
        }
    }

    async fn send(&self, tenant: &Tenant, ask: &Ask) -> Response<ResponseBody> {
        let mut request: Request<RequestBody> = ask.request();
        for (name, value) in &self.errand.conditions {
            request.headers_mut().insert(name, value.clone());
        }
        request.extensions_mut().insert(ask.options.clone());
        proxy::exchange(tenant, request, ask.login.clone()).await.0
    }

    /// Reads the answer to its end. Gives it back as it is where that cannot be shared.
    async fn hold(
        &self,
        tenant: &Tenant,
        response: Response<ResponseBody>,
    ) -> Result<Response<Bytes>, Response<ResponseBody>> {
        let endless = |value: &HeaderValue| value.as_bytes().starts_with(b"text/event-stream");
        if response.headers().get(CONTENT_TYPE).is_some_and(endless) {
            return Err(response);
        }
        let (head, body) = response.into_parts();
        let (_, body) = body.peek(self.readers.bounds.entry_bytes, BODY_WITHIN).await;
        let mut response = Response::from_parts(head, body);
        if response.body().is_cut() {
            response = respond::cut_read(tenant.shape(), response);
        }
        match response.body().held().cloned() {
            Some(bytes) => Ok(response.map(|_| bytes)),
            None => Err(response),
        }
    }

    /// Tells everybody. Gives the call to make instead where the answer was of no use.
    fn land(&self, ask: &Arc<Ask>, response: Response<Bytes>) -> Option<Errand> {
        let readers = &self.readers;
        let (now, wall) = (readers.clock.now(), readers.clock.wall());
        let sent = response.extensions().get::<CallReport>().and_then(|report| report.left_at).unwrap_or(now);
        let (response, body) = response.into_parts();
        let ago = i64::try_from((now - sent).as_millis()).unwrap_or(i64::MAX);
        let landing = Landing {
            request: &ask.request,
            response,
            length: body.len(),
            body,
            sent,
            sent_wall: Wall::from_unix_millis(wall.unix_millis().saturating_sub(ago)),
        };
        let mut state = readers.state.lock();
        match state.cache.land(self.errand.flight, landing, Arc::clone(ask), now) {
            Landed::Answer(kept) => {
                end(state.ends.remove(&self.errand.flight), End::Answer(kept));
                None
            }
            Landed::Again(errand) => Some(errand),
        }
    }

    fn id(&self) -> FlightId {
        self.errand.flight
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.readers.state.lock();
        // After a landing there is nothing left to end.
        if let Some(sender) = state.ends.remove(&self.id()) {
            state.cache.fail(self.errand.flight);
            end(Some(sender), End::Alone);
        }
    }
}

fn end(sender: Option<tokio::sync::watch::Sender<Option<End>>>, how: End) {
    if let Some(sender) = sender {
        sender.send_replace(Some(how));
    }
}
