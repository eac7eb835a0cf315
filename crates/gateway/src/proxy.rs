//! One request through the gateway: door, identity, call, answer.
//!
//! This file only connects: what may pass is [`hygiene`](crate::hygiene)'s decision, who it is made as is the
//! tenant's, when it leaves and how often is the client stack's, whether a write was sent before is
//! [`once`](crate::once)'s, and the shape of our own answers is [`respond`](crate::respond)'s.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tidegate::body::{ByteBudget, REPLAY_CAP};
use tidegate::layer::{ReconcileBy, Reconciled};
use tidegate::{
    CallOptions, CallReport, CallerId, Class, Error, ErrorKind, Profile, RequestBody, ResponseBody,
};
use tidegate_core::classify::Delivery;
use tidegate_core::key::normalise;
use tidegate_core::mark::{OUTCOME, OutcomeMark};
use tidegate_core::profile::ErrorShape;

use crate::hygiene::{Doors, Refused, clean_request};
use crate::learnt;
use crate::login;
use crate::once::{Fate, Once, Write, key};
use crate::respond::{self, REFUSED};
use crate::silence::Heard;
use crate::tenant::Tenant;

const CLASS: HeaderName = HeaderName::from_static("tidegate-class");
const CALLER: HeaderName = HeaderName::from_static("tidegate-caller");
const DEADLINE: HeaderName = HeaderName::from_static("tidegate-deadline");
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
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) doors: Doors,
    pub(crate) max_wait: Duration,
    pub(crate) bodies: ByteBudget,
    pub(crate) once: Arc<Once>,
}

impl Proxy {
    /// Answers one request. There is always an answer.
    pub(crate) async fn handle(&self, request: Request<Incoming>, peer: IpAddr) -> Response<ResponseBody> {
        match self.admit(&request) {
            Ok(_) if is_path(request.uri(), self.tenant.upstream.token_path()) => self.login(request).await,
            Ok(options) => self.forward(request, options, peer).await,
            Err(refused) => respond::refused(self.tenant.shape(), &refused),
        }
    }

    fn admit(&self, request: &Request<Incoming>) -> Result<CallOptions, Refused> {
        self.doors.check(request.method(), request.uri(), request.headers())?;
        Ok(CallOptions {
            class: read_header::<Class>(request.headers(), &CLASS, "interactive, sync, bulk or poll")?,
            caller: read_header::<Name>(request.headers(), &CALLER, "a name")?.map(|name| name.0),
            deadline: read_header::<Seconds>(request.headers(), &DEADLINE, "seconds, such as 5 or 0.5")?
                .map(|seconds| seconds.0),
            max_wait: Some(self.max_wait),
            reconcile: Some(ReconcileBy { rule: None, within: Some(self.max_wait) }),
            ..CallOptions::default()
        })
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        mut options: CallOptions,
        peer: IpAddr,
    ) -> Response<ResponseBody> {
        let (mut parts, body) = request.into_parts();
        let is_write = !parts.method.is_safe();
        let key = match key::read(&parts.headers) {
            Ok(key) => key.filter(|_| is_write),
            Err(refused) => return respond::refused(self.tenant.shape(), &refused),
        };
        let identified = self.tenant.identify(&parts.headers);
        let bearer = parts.headers.remove(AUTHORIZATION);
        let name = parts.headers.get(&CALLER).and_then(|name| name.to_str().ok()).map(str::to_owned);
        // Who does not say its name is known by whom it calls as and from which machine.
        options.caller.get_or_insert_with(|| CallerId::named((identified.credential.id(), peer)));
        let digest = bearer.as_ref().filter(|_| name.is_none());
        let digest = digest.map(|bearer| learnt::digest(bearer.as_bytes()));
        let caller = name.unwrap_or_else(|| identified.credential.id().to_string());
        options.credential = Some(identified.credential);
        clean_request(&mut parts.headers);
        let logs_out = parts.method == Method::DELETE && is_path(&parts.uri, TOKENS_ME);
        let body = match RequestBody::buffer(Heard::new(body), &self.bodies).await {
            Ok(body) => body,
            Err(error) => return respond::refused(self.tenant.shape(), &unread(&error)),
        };
        let login = Login { bearer: bearer.filter(|_| identified.learnt), logs_out };
        let is_held = body.is_replayable();
        let mut request = Request::from_parts(parts, body);
        // A logout ends with its caller: the login is forgotten when it hangs up, not when the answer comes.
        if is_write && is_held && (key.is_some() || !login.ends()) {
            return self.once.write(Write { request, options, login, caller, bearer: digest, key }).await;
        }
        if key.is_some() {
            // No digest can be made of it, so no promise either.
            let too_large = request.body().size_hint().lower() > REPLAY_CAP as u64;
            return if too_large {
                respond::refused(self.tenant.shape(), &body_too_large())
            } else {
                respond::no_room(self.tenant.shape())
            };
        }
        if is_write {
            let way = self.once.way_past(request.uri());
            request.extensions_mut().insert(way);
        }
        request.extensions_mut().insert(options);
        exchange(&self.tenant, request, login).await.0
    }

    async fn login(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let (mut parts, body) = request.into_parts();
        let form = match http_body_util::Limited::new(Heard::new(body), login::MAX_FORM).collect().await {
            Ok(form) => form.to_bytes(),
            Err(error) => return respond::refused(self.tenant.shape(), &unread(&error)),
        };
        // What a query asks for is not ours to understand: such a login passes through as it is.
        let ours = parts.method == Method::POST && parts.uri.query().is_none_or(str::is_empty);
        let credentials =
            Some(&parts.headers).filter(|_| ours).and_then(|headers| login::read_credentials(headers, &form));
        if let Some(credentials) = credentials {
            return login::client_credentials_login(&self.tenant, credentials, self.max_wait).await;
        }
        let harmless = parts.method.is_safe() || login::is_client_credentials(&form);
        clean_request(&mut parts.headers);
        let upstream = &self.tenant.upstream;
        match upstream.login(Request::from_parts(parts, RequestBody::from(form))).await {
            Ok(response) => respond::of_upstream(upstream, response),
            Err(error) => respond::login_failed(self.tenant.shape(), &error, harmless),
        }
    }
}

/// The learnt login that a call is made with.
#[derive(Debug)]
pub(crate) struct Login {
    /// Its token, as the caller sent it; `None` if the call is made with no such login.
    bearer: Option<HeaderValue>,
    /// Whether the call deletes the token it comes with.
    logs_out: bool,
}

impl Login {
    /// Whether the call ends the login it is made with.
    fn ends(&self) -> bool {
        self.logs_out && self.bearer.is_some()
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
    let logout = bearer.filter(|_| login.logs_out).map(|bearer| Logout { tenant, bearer: Some(bearer) });
    let called = tenant.client.call(request).await;
    match logout {
        Some(logout) if !may_be_logged_out(&called) => logout.undo(),
        logout => drop(logout),
    }
    let refused_login = called.as_ref().is_err_and(|error| error.token().is_some_and(|token| token.refused));
    if let Some(bearer) = bearer.filter(|_| refused_login) {
        tenant.learnt.forget(bearer);
    }
    let fate = fate(tenant, &called);
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

/// A call that deletes the token of a login. However it ends the login is forgotten, also when its caller hangs up:
/// a login that outlived its logout would be renewed behind its owner's back.
struct Logout<'a> {
    tenant: &'a Tenant,
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
    response
}

/// What a caller calls itself.
struct Name(CallerId);

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.is_empty() { Err(()) } else { Ok(Self(CallerId::named(text))) }
    }
}

/// A positive number of seconds.
struct Seconds(Duration);

impl FromStr for Seconds {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let seconds: f64 = text.parse().map_err(|_| ())?;
        Duration::try_from_secs_f64(seconds).ok().filter(|wait| !wait.is_zero()).map(Self).ok_or(())
    }
}

fn read_header<T: FromStr>(
    headers: &HeaderMap,
    name: &HeaderName,
    expected: &'static str,
) -> Result<Option<T>, Refused> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    parsed.map(Some).ok_or_else(|| Refused {
        status: StatusCode::BAD_REQUEST,
        reason: "invalid-request",
        message: format!("{name}: expected {expected}"),
    })
}
