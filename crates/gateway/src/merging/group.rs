//! One group on its way: it waits for its turn, its call waits for quota, and what that was answered is told to each.
//!
//! The call waits with an empty body. Which rows it carries is settled at the [door](crate::once::Door), behind the wait for quota
//! and token: until then the group takes further writes, and that is where the saving comes from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Uri};
use parking_lot::Mutex;
use tidegate::layer::AttemptError;
use tidegate::{CallOptions, RequestBody};
use tidegate_core::merge::{EntryId, Item, Placed, Turn};
use tidegate_core::time::Mono;
use tokio::sync::Notify;

use super::told;
use super::{Held, Holder, Merging, left_of};
use crate::once::{Ended, Fate, Write};
use crate::proxy::{Login, exchange};
use crate::respond;
use crate::tenant::Tenant;

/// Those whose rows a call carries.
pub(super) type Carried = Vec<(Holder, Vec<Item>)>;

/// A group, in the extensions of its call's request.
#[derive(Clone)]
pub(crate) struct Group(Arc<Inner>);

struct Inner {
    merging: Arc<Merging>,
    entry: EntryId,
    placed: Placed,
    headers: HeaderMap,
    options: CallOptions,
    login: Login,
    began: Mono,
    sealed: Mutex<Sealed>,
}

#[derive(Default)]
struct Sealed {
    body: Option<Bytes>,
    carried: Carried,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({:?})", self.0.entry)
    }
}

/// How long who is refused because others stand before it is asked to stay away.
pub(crate) const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Group {
    /// A group that begins with `write`.
    pub(super) fn new(
        merging: &Arc<Merging>,
        entry: EntryId,
        placed: Placed,
        write: &Write,
        began: Mono,
    ) -> Self {
        let mut headers = write.request.headers().clone();
        headers.remove(CONTENT_LENGTH);
        // Its answer is read here.
        headers.remove(ACCEPT_ENCODING);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut options = write.options.clone();
        // Its rows are not its request's body, so no read can tell what became of them; what is said of the rule counts.
        options.reconcile = None;
        options.idempotent = Some(merging.rules[placed.rule].idempotent);
        let (merging, login, sealed) = (Arc::clone(merging), write.login.clone(), Mutex::default());
        Self(Arc::new(Inner { merging, entry, placed, headers, options, login, began, sealed }))
    }

    /// Settles which rows the call carries, once for all its attempts.
    ///
    /// # Errors
    /// Everybody has hung up: nothing is sent.
    pub(crate) fn leaves(&self) -> Result<RequestBody, AttemptError> {
        let Inner { merging, entry, placed, .. } = &*self.0;
        let mut sealed = self.0.sealed.lock();
        if sealed.body.is_none() {
            let carried = merging.state.lock().merger.seal(*entry, |holder| holder.exit.leaves_now());
            if carried.is_empty() {
                return Err(AttemptError::Stopped("its callers hung up".into()));
            }
            let body = merging.rules[placed.rule].body(carried.iter().flat_map(|(_, rows)| rows));
            merging.metrics.merged(&merging.rules[placed.rule].name, carried.len());
            (sealed.body, sealed.carried) = (Some(Bytes::from(body)), carried);
        } else {
            // A further attempt overtakes what others have sent in between.
            for (holder, _) in &sealed.carried {
                holder.exit.leaves_now();
            }
        }
        Ok(RequestBody::from(sealed.body.clone().unwrap_or_default()))
    }

    pub(super) async fn run(self, tenant: Arc<Tenant>, wake: Arc<Notify>) {
        let inner = &self.0;
        let held = Arc::new(Held { merging: Arc::clone(&inner.merging), entry: inner.entry });
        let patience = inner.options.max_wait.unwrap_or(Duration::MAX);
        match tokio::time::timeout(patience, self.turn(&wake)).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => {
                let refused = respond::too_many_requests(tenant.shape(), ASK_AGAIN, "cannot-meet");
                return told::all(self.unsent(), &Ended::new(Fate::Unsent, refused));
            }
        }
        let called = exchange(&tenant, self.request(), inner.login.clone());
        let (response, fate) = tokio::select! {
            ended = called => ended,
            () = self.empty(&wake) => return,
        };
        let carried = std::mem::take(&mut inner.sealed.lock().carried);
        if carried.is_empty() {
            // It was refused before it could leave.
            return told::all(self.unsent(), &Ended::new(fate, response));
        }
        told::each(&inner.merging, &tenant, inner.placed.rule, carried, (response, fate), &held);
    }

    /// Waits for its turn; false if everybody has left before it came.
    async fn turn(&self, wake: &Notify) -> bool {
        let merging = &self.0.merging;
        loop {
            match merging.look(self.0.entry) {
                Turn::Now => return true,
                Turn::Empty => return false,
                Turn::Behind => wake.notified().await,
                Turn::At(due) => tokio::select! {
                    () = wake.notified() => {}
                    () = tokio::time::sleep_until(merging.clock.instant(due)) => {}
                },
            }
        }
    }

    /// Returns when everybody has left before the call did.
    async fn empty(&self, wake: &Notify) {
        loop {
            let sealed = self.0.sealed.lock().body.is_some();
            if sealed {
                return std::future::pending().await;
            }
            if self.0.merging.look(self.0.entry) == Turn::Empty {
                return;
            }
            wake.notified().await;
        }
    }

    fn request(&self) -> Request<RequestBody> {
        let Inner { merging, placed, headers, options, began, .. } = &*self.0;
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = merging.rules[placed.rule].method.clone();
        *request.uri_mut() = Uri::try_from(placed.into.as_str()).unwrap_or_default();
        request.headers_mut().clone_from(headers);
        let mut options = options.clone();
        options.max_wait = left_of(options.max_wait, *began, merging.clock.now());
        request.extensions_mut().insert(options);
        request.extensions_mut().insert(self.clone());
        request
    }

    /// Those who wait for a call that did not leave.
    fn unsent(&self) -> Carried {
        let mut state = self.0.merging.state.lock();
        state.merger.give_up(self.0.entry)
    }
}
