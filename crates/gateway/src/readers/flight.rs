//! One read that several may wait for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use tidegate::{CallOptions, CallReport, RequestBody, ResponseBody};
use tidegate_core::cache::{Errand, FlightId, Kept, Landed, Landing, RefusesNow};
use tidegate_core::classify::Delivery;
use tidegate_core::time::Wall;
use tokio::sync::{Notify, oneshot, watch};

use super::wait::{End, Ending, Patience};
use super::{Ask, Readers, give};
use crate::places::Held;
use crate::proxy;
use crate::respond;
use crate::tenant::Tenant;

/// How long a body may take to come whole. One that takes longer is a stream, whatever it says, and its reader waits for
/// every piece of it.
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(2);

/// A flight that has not ended. Dropped, it ends with nothing.
#[derive(Debug)]
pub(super) struct Flight {
    readers: Arc<Readers>,
    errand: Errand,
    patience: Patience,
    end: watch::Sender<Option<End>>,
    /// Told when another flight brings the answer.
    folded: Arc<Notify>,
}

/// For whom a flight begins.
#[derive(Debug)]
pub(super) struct Leader {
    /// Takes what can be given to no other reader.
    pub(super) own: oneshot::Sender<Response<ResponseBody>>,
    /// Its places are taken as long as its flight works for it, also where it hangs up before.
    pub(super) place: Held,
}

/// Tells the cache that a flight is about to leave; in the extensions of its request.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    readers: Arc<Readers>,
    flight: FlightId,
}

impl Start {
    /// Whether it may: it may not where another call that left meanwhile brings its answer, or nobody waits for it any more.
    pub(crate) fn leaves(&self) -> bool {
        self.readers.leaves(self.flight)
    }
}

impl Flight {
    /// One that waits as long as `patience` says. Its end is told through `ending`.
    pub(super) fn new(readers: Arc<Readers>, errand: Errand, patience: Patience, ending: &Ending) -> Self {
        let (end, folded) = (ending.sender.clone(), Arc::clone(&ending.folded));
        Self { readers, errand, patience, end, folded }
    }

    pub(super) fn id(&self) -> FlightId {
        self.errand.flight
    }

    /// Sends it, in a task of its own. One that has no leader is a renewal.
    pub(super) fn depart(self, tenant: &Arc<Tenant>, ask: &Arc<Ask>, leader: Option<Leader>) {
        let (tenant, ask) = (Arc::clone(tenant), Arc::clone(ask));
        tokio::spawn(self.fly(tenant, ask, leader));
    }

    async fn fly(mut self, tenant: Arc<Tenant>, ask: Arc<Ask>, leader: Option<Leader>) {
        let (own, place) = leader.map(|Leader { own, place }| (own, place)).unzip();
        let _place = place;
        loop {
            let response = tokio::select! {
                biased;
                response = self.send(&tenant, &ask) => response,
                () = self.forsaken(), if own.is_some() => return,
                () = self.folded.notified() => return,
            };
            let response = match self.hold(&tenant, response).await {
                Ok(held) => held,
                Err(stream) => {
                    // The reader first: it must find its answer when it is told that there is none for all.
                    if let Some(own) = own {
                        // Whoever asked for it may have gone.
                        drop(own.send(stream));
                    }
                    return;
                }
            };
            match self.land(&ask, response) {
                Arrived::Told => return,
                Arrived::Again(again) => self.errand = again,
                Arrived::Own(kept) => {
                    if let Some(own) = own {
                        drop(own.send(give::shared(&kept, give::MISS)));
                    }
                    return;
                }
            }
        }
    }

    /// Returns when nobody waits for it, if it has not left: what would it leave for?
    async fn forsaken(&self) {
        loop {
            self.end.closed().await;
            let mut state = self.readers.state.lock();
            // A reader may have come meanwhile; under the lock none can.
            if self.end.receiver_count() > 0 {
                continue;
            }
            if state.cache.forsake(self.errand.flight) {
                state.ends.remove(&self.errand.flight);
                return;
            }
            break;
        }
        std::future::pending::<()>().await;
    }

    async fn send(&self, tenant: &Tenant, ask: &Ask) -> Response<ResponseBody> {
        let mut request: Request<RequestBody> = ask.request();
        for (name, value) in &self.errand.conditions {
            request.headers_mut().insert(name, value.clone());
        }
        let start = Start { readers: Arc::clone(&self.readers), flight: self.errand.flight };
        let left = self.patience.left(&ask.options, self.readers.clock.now());
        request.extensions_mut().insert(CallOptions { class: Some(self.errand.class), ..left });
        request.extensions_mut().insert(start);
        proxy::exchange(tenant, request, ask.login.clone()).await.0
    }

    /// Reads the answer to its end. Gives it back as it is where that cannot be shared.
    async fn hold(
        &self,
        tenant: &Tenant,
        response: Response<ResponseBody>,
    ) -> Result<Response<Bytes>, Response<ResponseBody>> {
        let most = self.readers.bounds.entry_bytes;
        let known = response.body().size_hint().exact();
        let length = known.map_or(most, |known| usize::try_from(known).unwrap_or(usize::MAX));
        if is_stream(&response) || length > most {
            return Err(response);
        }
        let Some(_room) = self.readers.answers.hold(length) else { return Err(response) };
        let (head, body) = response.into_parts();
        let (_, body) = body.peek(most, BODY_WITHIN).await;
        let mut response = Response::from_parts(head, body);
        if response.body().is_cut() {
            response = respond::cut_read(tenant.shape(), response);
        }
        match response.body().held().cloned() {
            Some(bytes) => Ok(response.map(|_| bytes)),
            None => Err(response),
        }
    }

    /// Tells everybody whom the answer is for.
    fn land(&self, ask: &Arc<Ask>, response: Response<Bytes>) -> Arrived {
        let readers = &self.readers;
        let (now, wall) = (readers.clock.now(), readers.clock.wall());
        let report = response.extensions().get::<CallReport>();
        let sent = report.and_then(|report| report.left_at).unwrap_or(now);
        let refused = report.is_some_and(|report| report.delivery == Some(Delivery::Refused));
        let (mut response, body) = response.into_parts();
        if refused {
            response.extensions.insert(RefusesNow);
        }
        let list = readers.lists.iter().find(|list| list.id_of(ask.key.path()).is_some());
        let version =
            list.filter(|_| response.status == StatusCode::OK).and_then(|list| list.version_of(&body));
        let ago = i64::try_from((now - sent).as_millis()).unwrap_or(i64::MAX);
        let landing = Landing {
            request: &ask.request,
            response,
            length: body.len(),
            body,
            sent,
            ask_length: ask.length(),
            sent_wall: Wall::from_unix_millis(wall.unix_millis().saturating_sub(ago)),
            version,
        };
        let mut state = readers.state.lock();
        match state.cache.land(self.errand.flight, landing, Arc::clone(ask), now) {
            Landed::Answer(kept) => {
                end(state.ends.remove(&self.errand.flight), End::Answer(kept));
                Arrived::Told
            }
            Landed::Own(kept) => Arrived::Own(kept),
            Landed::Again(errand) => Arrived::Again(errand),
        }
    }
}

/// Types of answers that come piece by piece, each of which is of use by itself.
const STREAMS: [&str; 6] = [
    "text/event-stream",
    "application/x-ndjson",
    "application/jsonl",
    "application/json-seq",
    "application/stream+json",
    "multipart/x-mixed-replace",
];

/// Whether an answer says that its reader wants every piece of it as it comes.
fn is_stream(response: &Response<ResponseBody>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    STREAMS.iter().any(|stream| kind.eq_ignore_ascii_case(stream))
}

/// What is left to do after a landing.
enum Arrived {
    /// Nothing: all were told.
    Told,
    /// To give the answer to the reader for whom it was asked; the others ask for themselves.
    Own(Arc<Kept<Bytes>>),
    /// To make this call instead: the answer was of no use.
    Again(Errand),
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.readers.state.lock();
        // After a landing there is nothing left to end.
        if let Some(ending) = state.ends.remove(&self.errand.flight) {
            state.cache.fail(self.errand.flight);
            end(Some(ending), End::Alone);
        }
    }
}

fn end(ending: Option<Ending>, how: End) {
    if let Some(ending) = ending {
        ending.sender.send_replace(Some(how));
    }
}
