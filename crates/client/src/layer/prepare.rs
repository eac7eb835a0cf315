//! Once per call: where it goes, what it belongs to, and the key it carries on every attempt.
//!
//! The path is normalised here and sent as normalised: what was paced is what is sent, so that no spelling of a
//! path reaches another family's resources. Only a slash at its end stays as the caller wrote it, because servers
//! tell the two apart and no family does; the query is never touched.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use tidegate_core::idempotency::{BodyDigest, Transaction, Write};
use tidegate_core::key::normalise;
use tidegate_core::pace::Class;
use tower::Service;

use super::reconcile::Further;
use super::{Around, Prepared};
use crate::body::{RequestBody, ResponseBody};
use crate::call::{Call, CallOptions, CallReport};
use crate::error::{Error, ErrorKind};
use crate::limits;
use crate::observe::{CallDone, Outcome, Refused};
use crate::upstream::Upstream;

/// The least time kept free for the upstream to answer, where its own times are not known or are shorter.
const LEAST_ANSWER_TIME: Duration = Duration::from_secs(1);

/// How a call ended whose caller did not wait for its end.
const ABANDONED: &str = "abandoned";

/// Turns a request into a prepared call, and reports its end.
#[derive(Clone, Debug)]
pub struct Prepare {
    upstream: Arc<Upstream>,
}

impl Prepare {
    /// Prepares calls for `upstream`.
    pub fn new(upstream: Arc<Upstream>) -> Self {
        Self { upstream }
    }
}

impl<S> Around<S, Request<RequestBody>> for Prepare
where
    S: Service<Prepared, Response = Response<ResponseBody>, Error = Error, Future: Send> + Send + 'static,
{
    type Below = Prepared;

    async fn handle(
        self,
        mut below: S,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Error> {
        let upstream = self.upstream;
        let prepared = prepare(&upstream, request)?;
        let mut ending = Ending { upstream, call: Arc::clone(&prepared.call), reported: false };
        let result = below.call(prepared).await;
        if result.as_ref().is_ok_and(|response| response.status() != StatusCode::UNAUTHORIZED) {
            limits::used(&ending.upstream, &ending.call.credential);
        }
        ending.report(match &result {
            Ok(response) => Outcome::Status(response.status().as_u16()),
            Err(error) => Outcome::Failed(error.kind().name()),
        });
        let mut response = result?;
        // A POST that is known to be a read, a search or a query, creates nothing, whatever its answer links to.
        if let Some(fresh) = ending.upstream.fresh().filter(|_| !ending.call.is_read()) {
            let Call { method, path, .. } = &*ending.call;
            response = fresh.learn(method, path, response, ending.upstream.clock().now()).await;
        }
        response.extensions_mut().insert(ending.call.report());
        Ok(response)
    }
}

fn prepare(upstream: &Upstream, mut request: Request<RequestBody>) -> Result<Prepared, Error> {
    let options = request.extensions_mut().remove::<CallOptions>().unwrap_or_default();
    let method = request.method().clone();
    let invalid = |path: &str, why: String| {
        Error::new(ErrorKind::Invalid, &method, path, CallReport::default()).with_source(why)
    };
    let raw_path = request.uri().path();
    let path = normalise(raw_path).map_err(|problem| invalid(raw_path, problem.to_string()))?.into_owned();
    let family = upstream.profile().family(&method, &path);
    let family = family.map_err(|problem| invalid(raw_path, problem.to_string()))?;
    let slash = if raw_path.len() > 1 && raw_path.ends_with('/') && path != "/" { "/" } else { "" };
    let target = match request.uri().query() {
        Some(query) => format!("{path}{slash}?{query}"),
        None => format!("{path}{slash}"),
    };
    let uri = upstream.target(&target).map_err(|why| invalid(&path, why))?;
    let key = stamp_key(upstream, &mut request, &options, &target).map_err(|why| invalid(&path, why))?;
    *request.uri_mut() = uri;

    let started = upstream.clock().now();
    let class = options.class.unwrap_or(Class::Interactive);
    let credential = options.credential.clone().unwrap_or_else(|| upstream.credential_for(class).clone());
    let give_up_at = options.max_wait.map(|max_wait| {
        let answer_time = upstream.pacer().answer_time(&family).unwrap_or_default().max(LEAST_ANSWER_TIME);
        // At least half is left for waiting: an upstream that was slow for a while would otherwise never be asked
        // again, and never be seen to have become faster.
        started + max_wait.saturating_sub(answer_time.min(max_wait / 2))
    });
    let mut call = Call::new(method, path, family, &options, credential, started, give_up_at);
    call.key = key;
    call.further = request.extensions_mut().remove::<Further>().is_some();
    call.idempotent = call.idempotent.or_else(|| upstream.profile().is_idempotent(&call.method, &call.path));
    call.safe = call.safe || upstream.profile().is_safe(&call.method, &call.path);
    call.fresh_for = upstream.fresh().and_then(|fresh| fresh.left(&call.path, started));
    call.dedup = upstream.profile().idempotency.dedup;
    Ok(Prepared { call: Arc::new(call), request })
}

/// Puts the idempotency key on a write. A header of the same name that the caller sent names the transaction.
fn stamp_key(
    upstream: &Upstream,
    request: &mut Request<RequestBody>,
    options: &CallOptions,
    target: &str,
) -> Result<Option<String>, String> {
    let rules = &upstream.profile().idempotency;
    if !rules.methods.contains(request.method()) {
        return Ok(None);
    }
    let key = options.key.clone().unwrap_or_else(|| make_key(upstream, request, options, target));
    // A key that cannot be sent must not be trusted to be recognised.
    let value = HeaderValue::from_str(&key).map_err(|_| "the key is not a valid header value".to_owned())?;
    request.headers_mut().insert(rules.header.clone(), value);
    Ok(Some(key))
}

fn make_key(
    upstream: &Upstream,
    request: &Request<RequestBody>,
    options: &CallOptions,
    target: &str,
) -> String {
    let rules = &upstream.profile().idempotency;
    let text = |name: &HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let named = options.transaction.as_deref().or_else(|| text(&rules.header));
    // Only what is given a name and can be read again is hashed; everything else is a transaction of its own.
    let (transaction, body) = match (named, request.body().bytes()) {
        (Some(id), Some(bytes)) => (Transaction::Given(id), BodyDigest::of(text(&CONTENT_TYPE), bytes)),
        _ => (Transaction::Random(upstream.clock().random_id()), BodyDigest::raw(&[])),
    };
    let write =
        Write { tenant: upstream.tenant(), transaction, method: request.method(), target, body: &body };
    write.key(rules.stamp).to_string()
}

/// Reports a call's end, also of one whose caller has dropped it.
struct Ending {
    upstream: Arc<Upstream>,
    call: Arc<Call>,
    reported: bool,
}

impl Ending {
    fn report(&mut self, outcome: Outcome) {
        self.reported = true;
        let Self { upstream, call, .. } = self;
        let report = call.report();
        upstream.observers().call(&CallDone {
            method: &call.method,
            family: &call.family,
            class: call.class,
            outcome,
            refused: call.refusal().map(|refusal| Refused { reason: refusal.reason, limit: &refusal.limit }),
            attempts: report.attempts,
            waited: report.waited,
            took: upstream.clock().now() - call.started,
        });
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.reported {
            self.report(Outcome::Failed(ABANDONED));
        }
    }
}

impl Upstream {
    fn target(&self, target: &str) -> Result<Uri, String> {
        format!("{}{target}", self.api_base())
            .parse()
            .map_err(|error: http::uri::InvalidUri| error.to_string())
    }
}
