//! One request through the gateway: door, identity, call, answer.
//!
//! This file only connects: what may pass is [`hygiene`](crate::hygiene)'s decision, whose it is
//! [`identity`](crate::identity)'s, when it leaves and how often is the client stack's, whether a write was sent before is
//! [`once`](crate::once)'s, and the shape of our own answers is [`respond`](crate::respond)'s.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tidegate::body::REPLAY_CAP;
use tidegate::layer::Reconciled;
use tidegate::{CallReport, Error, ErrorKind, Profile, RequestBody, ResponseBody};
use tidegate_core::classify::Delivery;
use tidegate_core::key::normalise;
use tidegate_core::mark::{OUTCOME, OutcomeMark};
use tidegate_core::profile::ErrorShape;
use tokio::sync::watch;

use crate::http2::unify;
use crate::hygiene::{Doors, Refused, clean_request};
use crate::identity::{Admission, Admitted, Identity, Shown};
use crate::learnt;
use crate::login;
use crate::merging::ASK_AGAIN;
use crate::once::{self, Fate, Write, key};
use crate::outbox::{Asked, Outbox, id_in, prefer};
use crate::places::Held;
use crate::push::{self, Hooks, Slow};
use crate::respond::{self, REFUSED};
use crate::silence::Heard;
use crate::tenant::Tenant;
use crate::tenants::{Started, Tenants};

/// What [`mark`] adds.
pub(crate) const ATTEMPTS: HeaderName = HeaderName::from_static("tidegate-attempts");
pub(crate) const WAIT: HeaderName = HeaderName::from_static("tidegate-wait");
pub(crate) const LIMIT: HeaderName = HeaderName::from_static("tidegate-limit");
pub(crate) const MISSING: HeaderName = HeaderName::from_static("tidegate-missing");
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Where a caller revokes its own token.
const TOKENS_ME: &str = "/api/v2/tokens/me";

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) doors: Doors,
    pub(crate) admission: Admission,
    pub(crate) outbox: Option<Arc<Outbox>>,
    pub(crate) hooks: Hooks,
    /// Becomes true when the gateway stops.
    pub(crate) stop: watch::Receiver<bool>,
}

/// For how long who finds no place is asked to stay away: about as long as a place is held.
const NO_PLACE: Duration = Duration::from_secs(1);

impl Proxy {
    /// Answers one request. There is always an answer.
    pub(crate) async fn handle(&self, request: Request<Incoming>, peer: IpAddr) -> Response<ResponseBody> {
        let (mut parts, body) = request.into_parts();
        let path = self.outbox.as_ref().map(|_| parts.uri.path().to_owned());
        let unified = unify(&mut parts);
        let checked = unified.and_then(|()| self.doors.check(&parts.method, &parts.uri, &parts.headers));
        if checked.is_ok() && self.hooks.is_about(parts.uri.path()) {
            return self.hooks.deliver(&self.tenants, Request::from_parts(parts, body)).await;
        }
        let admitted = checked.and_then(|()| self.admission.admit(&self.tenants, &mut parts));
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => return respond::refused(self.tenants.shape(None), &refused),
        };
        let shape = self.tenants.shape(Some(admitted.tenant));
        let asked = match self.asked(&admitted, &parts, path.as_deref()) {
            Ok(asked) => asked,
            Err(refused) => return respond::refused(shape, &refused),
        };
        if let Some((outbox, asked)) = &asked
            && let Some(id) = id_in(parts.uri.path())
        {
            let tenant = self.tenants.name(admitted.tenant);
            return outbox.status(shape, &parts.method, id, tenant, asked).await;
        }
        let served = match self.tenants.start(admitted.tenant).await {
            Ok(served) => served,
            Err(why) => return respond::not_started(shape, &why),
        };
        let own = self.admission.callers.places(admitted.caller.as_deref());
        let Some(place) = self.tenants.take_places(&served.tenant, own) else {
            return respond::too_many_requests(shape, NO_PLACE, "queue-full");
        };
        if parts.uri.path() == push::EVENTS {
            let slow = parts.extensions.remove::<Arc<Slow>>().unwrap_or_default();
            return push::listen(&served, &parts, self.stop.clone(), slow);
        }
        let request = Request::from_parts(parts, body);
        if is_path(request.uri(), served.tenant.upstream.token_path()) {
            if let Shown::AsClient(key) = &admitted.shown {
                return respond::key_for_token(key);
            }
            self.login(&served.tenant, request).await
        } else if admitted.shown == Shown::AsToken && is_logout(request.method(), request.uri()) {
            // The token that it would delete is the one that all are lent.
            respond::logged_out()
        } else {
            forward(&served, request, admitted, peer, asked, &place).await
        }
    }

    /// What a request asks of the outbox; `None` where there is none. `path`: as it was before its tenant was cut off.
    fn asked(
        &self,
        admitted: &Admitted,
        parts: &Parts,
        path: Option<&str>,
    ) -> Result<Option<(Arc<Outbox>, Asked)>, Refused> {
        let Some((outbox, path)) = self.outbox.as_ref().zip(path) else { return Ok(None) };
        let prefix = path.strip_suffix(parts.uri.path()).unwrap_or_default().to_owned();
        let asked = Asked {
            prefers: prefer::read(&parts.headers),
            order_key: Asked::order_key(&parts.headers)?,
            owner: admitted.named(&parts.headers).unwrap_or_default(),
            prefix,
            has_token: parts.headers.contains_key(AUTHORIZATION),
        };
        Ok(Some((Arc::clone(outbox), asked)))
    }

    async fn login(&self, tenant: &Tenant, request: Request<Incoming>) -> Response<ResponseBody> {
        let (mut parts, body) = request.into_parts();
        let form = match http_body_util::Limited::new(Heard::new(body), login::MAX_FORM).collect().await {
            Ok(form) => form.to_bytes(),
            Err(error) => return respond::refused(tenant.shape(), &unread(&error)),
        };
        // What a query asks for is not ours to understand: such a login passes through as it is.
        let ours = parts.method == Method::POST && parts.uri.query().is_none_or(str::is_empty);
        let credentials =
            Some(&parts.headers).filter(|_| ours).and_then(|headers| login::read_credentials(headers, &form));
        if let Some(credentials) = credentials {
            return login::client_credentials_login(tenant, credentials, self.admission.max_wait).await;
        }
        let harmless = parts.method.is_safe() || login::is_client_credentials(&form);
        clean_request(&mut parts.headers);
        let upstream = &tenant.upstream;
        match upstream.login(Request::from_parts(parts, RequestBody::from(form))).await {
            Ok(response) => respond::of_upstream(upstream, response),
            Err(error) => respond::login_failed(tenant.shape(), &error, harmless),
        }
    }
}

/// Makes the call that a request asks for.
async fn forward(
    served: &Started,
    request: Request<Incoming>,
    mut admitted: Admitted,
    peer: IpAddr,
    asked: Option<(Arc<Outbox>, Asked)>,
    place: &Held,
) -> Response<ResponseBody> {
    let Started { tenant, once, .. } = served;
    let (mut parts, body) = request.into_parts();
    let is_write = !parts.method.is_safe();
    let key = match key::read(&parts.headers) {
        Ok(key) => key.filter(|_| is_write),
        Err(refused) => return respond::refused(tenant.shape(), &refused),
    };
    let identity = Identity::of(tenant, &mut admitted, &mut parts.headers, peer);
    let seen_as = identity.seen_as();
    let Identity { caller, credential, bearer, learnt, digest } = identity;
    let mut options = admitted.options;
    options.credential = Some(credential);
    clean_request(&mut parts.headers);
    let logs_out = is_logout(&parts.method, &parts.uri);
    let body = match RequestBody::buffer(Heard::new(body), &tenant.bodies).await {
        Ok(body) => body,
        Err(error) => return respond::refused(tenant.shape(), &unread(&error)),
    };
    let login = Login { bearer: bearer.filter(|_| learnt), seen_as: Arc::from(seen_as.as_str()), logs_out };
    let is_held = body.is_replayable();
    let mut request = Request::from_parts(parts, body);
    // A logout ends with its caller: the login is forgotten when it hangs up, not when the answer comes.
    if is_write && is_held && (key.is_some() || !login.ends()) {
        let mut write = Write { request, options, login, caller, bearer: digest, key, seat: None };
        if let Some((outbox, asked)) = asked {
            write = match outbox.take(served, write, &asked).await {
                Ok(answered) => return answered,
                Err(write) => write,
            };
        }
        return once.write(write).await;
    }
    if key.is_some() {
        // No digest can be made of it, so no promise either.
        let too_large = request.body().size_hint().lower() > REPLAY_CAP as u64;
        return if too_large {
            respond::refused(tenant.shape(), &body_too_large())
        } else {
            respond::no_room(tenant.shape())
        };
    }
    if !is_write {
        if let Some(push) = &served.push {
            push.read(request.uri().path());
        }
        return tenant.readers.read(tenant, &seen_as, request, options, login, place).await;
    }
    // What is too large to be merged waits for what is on its way all the same.
    let turn = tenant.merging.as_ref().and_then(|merging| {
        let who = once::who(&options, &login, &caller, digest.as_ref());
        merging.stream(request.method(), request.uri(), &who)
    });
    if let Some(turn) = &turn
        && !turn.come(&mut options).await
    {
        return respond::too_many_requests(tenant.shape(), ASK_AGAIN, "cannot-meet");
    }
    let way = once.way_past(request.uri());
    request.extensions_mut().insert(way);
    request.extensions_mut().insert(options);
    exchange(tenant, request, login).await.0
}

/// The learnt login that a call is made with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Login {
    /// Its token, as the caller sent it; `None` if the call is made with no such login.
    bearer: Option<HeaderValue>,
    /// Whom the upstream sees in it.
    seen_as: Arc<str>,
    /// Whether the call deletes the token it comes with.
    logs_out: bool,
}

impl Login {
    /// Whether the call ends the login it is made with.
    pub(crate) fn ends(&self) -> bool {
        self.logs_out && self.bearer.is_some()
    }

    /// Names the login without its token.
    pub(crate) fn digest(&self) -> Option<[u8; 32]> {
        self.bearer.as_ref().map(|bearer| learnt::digest(bearer.as_bytes()))
    }

    /// Whether the call is made with a login through this gateway.
    pub(crate) fn is_learnt(&self) -> bool {
        self.bearer.is_some()
    }
}

/// Makes a call. Returns what its caller is given, and what that says about a write.
pub(crate) async fn exchange(
    tenant: &Tenant,
    request: Request<RequestBody>,
    login: Login,
) -> (Response<ResponseBody>, Fate) {
    let is_write = !request.method().is_safe();
    let is_repeatable = is_repeatable(tenant.upstream.profile(), &request);
    let bearer = login.bearer.as_ref().map(HeaderValue::as_bytes);
    let readers = &tenant.readers;
    let writing = is_write
        .then(|| readers.writing(tenant.upstream.profile(), request.method(), request.uri().path()))
        .flatten();
    let seen_as = &*login.seen_as;
    let logout = bearer.filter(|_| login.logs_out);
    let logout = logout.map(|bearer| Logout { tenant, seen_as, bearer: Some(bearer) });
    let called = tenant.client.call(request).await;
    match logout {
        Some(logout) if !may_be_logged_out(&called) => logout.undo(),
        logout => drop(logout),
    }
    let refused_login = called.as_ref().is_err_and(|error| error.token().is_some_and(|token| token.refused));
    if let Some(bearer) = bearer.filter(|_| refused_login) {
        tenant.learnt.forget(bearer);
    }
    let is_unknown = called.as_ref().is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED);
    if refused_login || is_unknown {
        tenant.readers.forget(seen_as);
    }
    let fate = fate(tenant, &called);
    if let Some(writing) = writing.filter(|_| changed_nothing(fate, &called)) {
        writing.undo();
    }
    let response = match called {
        Ok(response) => deliver(tenant, response, is_write),
        Err(error) if bearer.is_some() && refused_login => {
            mark(respond::login_ended(tenant.shape()), error.report())
        }
        Err(error) => failed(tenant.shape(), &error, is_repeatable),
    };
    (response, fate)
}

/// Whether executing a call twice does no more than executing it once.
pub(crate) fn is_repeatable<B>(profile: &Profile, request: &Request<B>) -> bool {
    let (method, path) = (request.method(), normalise(request.uri().path()));
    let told = path.ok().and_then(|path| profile.is_idempotent(method, &path));
    told.unwrap_or_else(|| method.is_idempotent())
}

/// Hands over the upstream's answer, and what the call went through.
fn deliver(tenant: &Tenant, mut response: Response<ResponseBody>, is_write: bool) -> Response<ResponseBody> {
    let report = response.extensions_mut().remove::<CallReport>().unwrap_or_default();
    let reconciled = response.extensions_mut().remove::<Reconciled>();
    let mut response = respond::of_upstream(&tenant.upstream, response);
    if is_write && response.body().is_cut() {
        // A caller that is reset in the middle of an answer sends its write again.
        let status = response.status();
        tracing::warn!(target: "tidegate", %status, "the answer of a write was cut; its caller is told so");
        response = respond::cut(tenant.shape(), response);
    }
    if let Some(Reconciled { by }) = reconciled {
        response.headers_mut().insert(OUTCOME, HeaderValue::from_static(by));
    }
    mark(response, &report)
}

/// What the end of a call says about a write.
fn fate(tenant: &Tenant, called: &Result<Response<ResponseBody>, Error>) -> Fate {
    let response = match called {
        Ok(response) => response,
        Err(error) => {
            return match error.kind() {
                ErrorKind::OutcomeUnknown | ErrorKind::NoAnswer | ErrorKind::Unreadable => Fate::Unknown,
                _ => Fate::Unsent,
            };
        }
    };
    let (status, headers) = (response.status(), response.headers());
    // Another gateway of ours in between: its mark says what its status does not.
    if headers.contains_key(REFUSED) || status == StatusCode::UNAUTHORIZED {
        return Fate::Unsent;
    }
    // Who may not do it yet may be allowed to: with the same write, and under the same key.
    let doubtful = response.extensions().get::<CallReport>().is_some_and(|report| report.doubtful);
    if status == StatusCode::FORBIDDEN && !doubtful {
        return Fate::Unsent;
    }
    if matches!(OutcomeMark::of(headers), Some(OutcomeMark::Unknown | OutcomeMark::InFlight)) {
        return Fate::Unknown;
    }
    let body = response.body().held().map_or(&[][..], AsRef::as_ref);
    let now = tenant.upstream.clock().wall();
    match tenant.upstream.profile().delivery(status, headers, body, now) {
        Delivery::Answered => Fate::Done,
        Delivery::MaybeExecuted => Fate::Unknown,
        Delivery::NotSent | Delivery::Refused => Fate::Unsent,
    }
}

/// Whether a write certainly changed nothing (RFC 9111, section 4.4: an error closes nothing).
fn changed_nothing(fate: Fate, called: &Result<Response<ResponseBody>, Error>) -> bool {
    let response = match called {
        Ok(response) => response,
        Err(error) => return error.report().attempts == 0,
    };
    let doubtful = response.extensions().get::<CallReport>().is_some_and(|report| report.doubtful);
    let refused = matches!(fate, Fate::Unsent) || response.status().is_client_error();
    !doubtful && !matches!(fate, Fate::Unknown) && refused
}

/// A call that deletes the token of a login. However it ends the login is forgotten, also when its caller hangs up:
/// a login that outlived its logout would be renewed behind its owner's back.
struct Logout<'a> {
    tenant: &'a Tenant,
    seen_as: &'a str,
    bearer: Option<&'a [u8]>,
}

impl Logout<'_> {
    /// The token is alive, and so is its login.
    fn undo(mut self) {
        self.bearer = None;
    }
}

impl Drop for Logout<'_> {
    fn drop(&mut self) {
        if let Some(bearer) = self.bearer {
            self.tenant.learnt.forget(bearer);
            self.tenant.readers.forget(self.seen_as);
        }
    }
}

/// Whether the upstream may have ended a login: it was asked to, and did not clearly refuse. Where it says that the
/// token is invalid or gone, it has ended.
fn may_be_logged_out(called: &Result<Response<ResponseBody>, Error>) -> bool {
    match called {
        Ok(response) => {
            let ended = [StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND];
            !response.status().is_client_error() || ended.contains(&response.status())
        }
        Err(error) => error.report().attempts > 0,
    }
}

/// Whether a call deletes the token it is made with.
fn is_logout(method: &Method, uri: &Uri) -> bool {
    *method == Method::DELETE && is_path(uri, TOKENS_ME)
}

/// Whether `uri` is another spelling of `path`: what is sent is normalised, so what is compared must be too.
fn is_path(uri: &Uri, path: &str) -> bool {
    normalise(uri.path()).is_ok_and(|normal| normal == path)
}

fn failed(shape: ErrorShape, error: &Error, is_repeatable: bool) -> Response<ResponseBody> {
    tracing::debug!(target: "tidegate", "{error}");
    mark(respond::failed(shape, error, is_repeatable), error.report())
}

fn unread(error: &dyn std::fmt::Display) -> Refused {
    Refused {
        status: StatusCode::BAD_REQUEST,
        reason: "body",
        message: format!("the request's body could not be read: {error}"),
    }
}

fn body_too_large() -> Refused {
    Refused {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        reason: "body",
        message:
            "the body is too large to keep it for an Idempotency-Key: send a smaller one, or send it without a key"
                .to_owned(),
    }
}

/// Adds what the call went through.
fn mark(mut response: Response<ResponseBody>, report: &CallReport) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    headers.insert(ATTEMPTS, HeaderValue::from(report.attempts));
    let seconds = report.waited.as_secs_f64();
    if let Ok(wait) = HeaderValue::try_from(format!("{seconds:.3}")) {
        headers.insert(WAIT, wait);
    }
    if let Ok(timing) = HeaderValue::try_from(format!("tidegate;dur={:.1}", seconds * 1000.0)) {
        headers.append(SERVER_TIMING, timing);
    }
    if let Some(limit) = report.limit.as_deref().and_then(|limit| HeaderValue::try_from(limit).ok()) {
        headers.insert(LIMIT, limit);
    }
    if let Some(missing) = report.missing.as_deref().and_then(|missing| HeaderValue::try_from(missing).ok()) {
        headers.insert(MISSING, missing);
    }
    response.extensions_mut().insert(report.clone());
    response
}
