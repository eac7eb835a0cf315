//! One request through the gateway: door, identity, call, answer.
//!
//! This file only connects: what may pass is [`hygiene`](crate::hygiene)'s decision, who it is made as is the
//! tenant's, when it leaves and how often is the client stack's, and the shape of our own answers is
//! [`respond`](crate::respond)'s.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tidegate::body::ByteBudget;
use tidegate::layer::{ReconcileBy, Reconciled};
use tidegate::{CallOptions, CallReport, CallerId, Class, Error, ErrorKind, RequestBody, ResponseBody};
use tidegate_core::key::normalise;
use tidegate_core::profile::ErrorShape;

use crate::hygiene::{Doors, Refused, clean_request};
use crate::learnt::Learnt;
use crate::login;
use crate::respond;
use crate::silence::Heard;
use crate::tenant::Tenant;

const CLASS: HeaderName = HeaderName::from_static("tidegate-class");
const CALLER: HeaderName = HeaderName::from_static("tidegate-caller");
const DEADLINE: HeaderName = HeaderName::from_static("tidegate-deadline");
const ATTEMPTS: HeaderName = HeaderName::from_static("tidegate-attempts");
const WAIT: HeaderName = HeaderName::from_static("tidegate-wait");
const LIMIT: HeaderName = HeaderName::from_static("tidegate-limit");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Where a caller revokes its own token.
const TOKENS_ME: &str = "/api/v2/tokens/me";

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) doors: Doors,
    pub(crate) max_wait: Duration,
    pub(crate) bodies: ByteBudget,
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
        let identified = self.tenant.identify(&parts.headers);
        let bearer = parts.headers.remove(AUTHORIZATION);
        // Who does not say its name is known by whom it calls as and from which machine.
        options.caller.get_or_insert_with(|| CallerId::named((identified.credential.id(), peer)));
        options.credential = Some(identified.credential);
        clean_request(&mut parts.headers);
        let logs_out = parts.method == Method::DELETE && is_path(&parts.uri, TOKENS_ME);
        let body = match RequestBody::buffer(Heard::new(body), &self.bodies).await {
            Ok(body) => body,
            Err(error) => return respond::refused(self.tenant.shape(), &unread(&error)),
        };
        parts.extensions.insert(options);
        let login = bearer.as_ref().filter(|_| identified.learnt).map(HeaderValue::as_bytes);
        let logout = login
            .filter(|_| logs_out)
            .map(|bearer| Logout { learnt: &self.tenant.learnt, bearer: Some(bearer) });
        let called = self.tenant.client.call(Request::from_parts(parts, body)).await;
        match logout {
            Some(logout) if !may_be_logged_out(&called) => logout.undo(),
            logout => drop(logout),
        }
        let refused_login =
            called.as_ref().is_err_and(|error| error.token().is_some_and(|token| token.refused));
        if let Some(bearer) = login.filter(|_| refused_login) {
            self.tenant.learnt.forget(bearer);
        }
        match called {
            Ok(response) => self.deliver(response),
            Err(error) if identified.learnt && refused_login => {
                mark(respond::login_ended(self.tenant.shape()), error.report())
            }
            Err(error) => failed(self.tenant.shape(), &error),
        }
    }

    /// Hands over the upstream's answer, and what the call went through.
    fn deliver(&self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        let report = response.extensions_mut().remove::<CallReport>().unwrap_or_default();
        let reconciled = response.extensions_mut().remove::<Reconciled>();
        let mut response = respond::of_upstream(&self.tenant.upstream, response);
        if let Some(Reconciled { by }) = reconciled {
            response.headers_mut().insert(respond::OUTCOME, HeaderValue::from_static(by));
        }
        mark(response, &report)
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

/// A call that deletes the token of a login. However it ends the login is forgotten, also when its caller hangs up:
/// a login that outlived its logout would be renewed behind its owner's back.
struct Logout<'a> {
    learnt: &'a Learnt,
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
            self.learnt.forget(bearer);
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

fn failed(shape: ErrorShape, error: &Error) -> Response<ResponseBody> {
    if error.kind() == ErrorKind::OutcomeUnknown {
        tracing::warn!(target: "tidegate", "{error}");
    } else {
        tracing::debug!(target: "tidegate", "{error}");
    }
    mark(respond::failed(shape, error), error.report())
}

fn unread(error: &dyn std::fmt::Display) -> Refused {
    Refused {
        status: StatusCode::BAD_REQUEST,
        reason: "body",
        message: format!("the request's body could not be read: {error}"),
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
