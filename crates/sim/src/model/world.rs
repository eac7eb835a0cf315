//! The life of one call in the simulated server, in one file.
//!
//! A shell (sockets, or a virtual-time lab) calls [`World::arrive`] when a request is there, waits as told, calls
//! [`World::decide`], waits as told, delivers the reply, and calls [`World::depart`]. Splitting the latency around the decision is
//! what makes answers arrive late and out of order, as they do in the field.
//!
//! The order inside `decide`, and why:
//!
//! 1. strangers and timed events catch up, so that the quota is as it would be at this instant;
//! 2. authentication, before any quota: the partition of a limit needs to know who calls;
//! 3. brown-outs, which refuse without looking at quotas;
//! 4. concurrency caps, then rate limits: all of them or none;
//! 5. faults, which by then may hit only admitted calls, so that a scripted fault is not used up by a throttle;
//! 6. body bound, scopes, de-duplication, execution;
//! 7. faults after execution: the work is done, the answer is lost or replaced.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::config::{Event, SimConfig};
use crate::model::concurrency::{Caps, Held};
use crate::model::dedup::{Dedup, Remembered};
use crate::model::fault::{Fault, FaultPlan, Faults};
use crate::model::ledger::{Ledger, Stats, WriteContent};
use crate::model::limits::{Described, Limits, Refusal};
use crate::model::oauth::{Login, Oauth};
use crate::model::org::limits::public_key;
use crate::model::org::{Done, Org, scope};
use crate::model::route::Caller;
use crate::model::strangers::Strangers;
use crate::model::{Stream, uuid_text};
use crate::wire::errors::ApiError;
use crate::wire::headers::{RetryAfterForm, Style, ceil_seconds, http_date};
use crate::wire::message::{ApiRequest, ApiResponse};

/// The header by which writes are named across attempts.
pub const REQUEST_ID: &str = "x-genesys-request-id";

/// The token endpoint.
pub const TOKEN_PATH: &str = "/oauth/token";

/// What a fault's 429 tells to wait.
const FAULT_HINT: Duration = Duration::from_secs(1);

/// A request has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Names the call until it departs.
    pub id: u64,
    /// Wait this long before [`World::decide`].
    pub wait: Duration,
}

/// What the caller gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An answer.
    Answer(ApiResponse),
    /// The connection closes without one.
    Close,
}

/// A call has been decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the caller gets.
    pub reply: Reply,
    /// Wait this long before delivering it.
    pub wait: Duration,
}

/// A call between arrival and departure.
#[derive(Debug)]
enum Inside {
    Api { after: Duration, held: Option<Held> },
    Login { after: Duration, client: String },
}

/// What is known about the call being decided.
struct Call<'a> {
    now: Duration,
    id: u64,
    request: &'a ApiRequest,
    context: String,
    described: Vec<Described>,
}

impl Call<'_> {
    fn refuse(&self, error: &ApiError) -> Reply {
        Reply::Answer(error.render(&self.context))
    }

    /// The name of the write transaction, if this is a write that has one.
    fn write_id(&self) -> Option<&str> {
        self.request.header(REQUEST_ID).filter(|_| self.request.is_write())
    }
}

/// The whole simulated server.
#[derive(Debug)]
pub struct World {
    config: SimConfig,
    style: Style,
    /// The wall clock at `now == 0`, since the epoch.
    wall: Duration,
    oauth: Oauth,
    limits: Limits,
    caps: Caps,
    faults: FaultPlan,
    strangers: Strangers,
    events: VecDeque<Event>,
    dedup: Dedup,
    org: Org,
    ledger: Ledger,
    calls: HashMap<u64, Inside>,
    next_id: u64,
    ids: fastrand::Rng,
    latency: fastrand::Rng,
}

impl World {
    /// A server at its start. `wall` is the wall clock at that instant, since the epoch. The configuration must be valid
    /// ([`SimConfig::validate`]).
    pub fn new(config: SimConfig, wall: Duration) -> Self {
        let rules = config.limit_rules();
        let mut events = config.events.clone();
        events.sort_by_key(|event| event.at);
        Self {
            style: Style {
                dialect: config.headers,
                reset: config.reset,
                reset_of: config.reset_of,
                retry_after: config.retry_after,
                short_by: config.short_by,
            },
            wall: (wall + config.clock_ahead).saturating_sub(config.clock_behind),
            oauth: Oauth::new(config.oauth.clone(), Stream::Tokens.rng(config.seed)),
            org: Org::new(&config, &rules),
            limits: Limits::new(rules, config.penalty),
            caps: Caps::new(config.cap_rules()),
            faults: FaultPlan::new(config.faults.clone(), Stream::Faults.rng(config.seed)),
            strangers: Strangers::new(&config.strangers, &mut Stream::Strangers.rng(config.seed)),
            events: events.into(),
            dedup: Dedup::new(config.dedup),
            ledger: Ledger::new(config.seed),
            calls: HashMap::new(),
            next_id: 0,
            ids: Stream::Ids.rng(config.seed),
            latency: Stream::Latency.rng(config.seed),
            config,
        }
    }

    /// A fresh server for `config` that never reuses a call id of this one, so that calls still inside do no harm.
    #[must_use]
    pub fn restarted(&self, config: SimConfig, wall: Duration) -> Self {
        Self { next_id: self.next_id, ..Self::new(config, wall) }
    }

    /// The configuration in force.
    pub fn config(&self) -> &SimConfig {
        &self.config
    }

    /// Replaces the faults; times in them count from `now`.
    pub fn set_faults(&mut self, now: Duration, faults: Faults) {
        self.catch_up(now);
        self.faults.replace(now, faults);
    }

    /// The judge's books; `users` adds every user's skills.
    pub fn stats(&mut self, now: Duration, users: bool) -> Stats {
        self.catch_up(now);
        let all = self.org.users();
        Stats {
            users_total: all.len() as u64,
            users_hash: all.hash(),
            users: users.then(|| all.skills()),
            ..self.ledger.stats(now)
        }
    }

    /// A request has arrived; draws its latency.
    pub fn arrive(&mut self, request: &ApiRequest) -> Arrival {
        let id = self.next_id;
        self.next_id += 1;
        let is_login = request.path == TOKEN_PATH;
        let latency = match (is_login, self.faults.faults().latency) {
            (true, _) => self.config.oauth.latency,
            (false, Some(latency)) => latency,
            (false, None) => self.config.latency,
        };
        let total = latency.draw(&mut self.latency);
        let wait = total.mul_f64(self.config.decide_at);
        let after = total.saturating_sub(wait);
        let inside = if is_login {
            let client = Oauth::client_of(request).unwrap_or_default();
            self.ledger.login_arrived(&client);
            Inside::Login { after, client }
        } else {
            self.ledger.arrived();
            Inside::Api { after, held: None }
        };
        self.calls.insert(id, inside);
        Arrival { id, wait }
    }

    /// Decides a call that has arrived. A call that arrived before a restart is decided without latency.
    pub fn decide(&mut self, now: Duration, id: u64, request: &ApiRequest) -> Decision {
        self.catch_up(now);
        let mut call = Call { now, id, request, context: uuid_text(&mut self.ids), described: Vec::new() };
        let reply = if request.path == TOKEN_PATH { self.login(&call) } else { self.api(&mut call) };
        let reply = match reply {
            Reply::Answer(response) => Reply::Answer(self.finish(&call, response)),
            Reply::Close => Reply::Close,
        };
        let wait = match self.calls.get(&id) {
            Some(Inside::Api { after, .. } | Inside::Login { after, .. }) => *after,
            None => Duration::ZERO,
        };
        Decision { reply, wait }
    }

    /// The reply has been delivered, or the caller has gone. Unknown ids are ignored.
    pub fn depart(&mut self, id: u64) {
        match self.calls.remove(&id) {
            Some(Inside::Api { held, .. }) => {
                self.ledger.departed();
                if let Some(held) = held {
                    self.caps.release(held);
                }
            }
            Some(Inside::Login { client, .. }) => self.ledger.login_departed(&client),
            None => {}
        }
    }

    fn wall(&self, now: Duration) -> Duration {
        self.wall + now
    }

    /// Lets strangers and events happen that were due until `now`.
    fn catch_up(&mut self, now: Duration) {
        while let Some((at, caller)) = self.strangers.next_due(now) {
            let verdict = self.limits.admit(at, &caller);
            self.ledger.stranger(at, verdict.refusal.is_none());
        }
        while self.events.front().is_some_and(|event| event.at <= now) {
            if let Some(event) = self.events.pop_front() {
                self.faults.replace(event.at, event.faults);
            }
        }
    }

    /// The headers of every answer.
    fn finish(&self, call: &Call<'_>, mut response: ApiResponse) -> ApiResponse {
        let wall = self.wall(call.now);
        response.headers.extend([
            ("ININ-Correlation-Id".to_owned(), call.context.clone()),
            ("Strict-Transport-Security".to_owned(), "max-age=600; includeSubDomains".to_owned()),
            ("Cache-Control".to_owned(), "no-cache, no-store, must-revalidate".to_owned()),
            ("Date".to_owned(), http_date(wall)),
        ]);
        response.headers.extend(self.style.describe(&call.described, wall));
        response
    }

    fn login(&mut self, call: &Call<'_>) -> Reply {
        if call.request.method != Method::POST {
            return call.refuse(&ApiError::new(405, "method.not.allowed", "use POST"));
        }
        let client = Oauth::client_of(call.request).unwrap_or_default();
        let fault = self.faults.pick(&Caller::new("", &client, "POST", TOKEN_PATH));
        if let Some(reply) = self.fault_before(call, fault) {
            return reply;
        }
        let (login, response) = self.oauth.login(call.now, call.request);
        self.ledger.login(login);
        match (login, self.fault_after(call, fault)) {
            (Login::Issued, Some(reply)) => reply,
            _ => Reply::Answer(response),
        }
    }

    fn api(&mut self, call: &mut Call<'_>) -> Reply {
        if !call.request.path.starts_with("/api/v2/") {
            return call.refuse(&ApiError::not_found(&call.request.path));
        }
        if call.request.is_write() {
            self.ledger.write_seen(call.write_id());
        }
        let reply = match self.authenticate(call) {
            Ok(caller) => self.serve(call, &caller),
            Err(error) => call.refuse(&error),
        };
        if let Reply::Answer(response) = &reply {
            self.ledger.answered(response.status, call.write_id());
        }
        reply
    }

    fn authenticate(&self, call: &Call<'_>) -> Result<Caller, ApiError> {
        let request = call.request;
        let bearer = request.header("authorization").and_then(|value| value.split_once(' '));
        let Some((_, token)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            return Err(ApiError::no_bearer());
        };
        let token = token.trim();
        let client = self.oauth.client(call.now, token).ok_or_else(ApiError::bad_credentials)?;
        Ok(Caller::new(token, client, request.method.as_str(), &request.path))
    }

    fn serve(&mut self, call: &mut Call<'_>, caller: &Caller) -> Reply {
        if let Some(reply) = self.brown_out(call, caller) {
            return reply;
        }
        if let Err(refusal) = self.admit(call, caller) {
            self.ledger.throttled(call.now, &caller.method, &caller.family, &refusal.key);
            return self.throttle(call, refusal.retry_after, Some(refusal));
        }
        let fault = self.faults.pick(caller);
        if fault == Fault::Throttle {
            self.ledger.throttled(call.now, &caller.method, &caller.family, "fault");
        } else {
            self.ledger.accepted(call.now, &caller.method, &caller.family);
        }
        if let Some(reply) = self.fault_before(call, fault) {
            return reply;
        }
        let reply = self.answer(call, caller);
        self.fault_after(call, fault).unwrap_or(reply)
    }

    fn brown_out(&mut self, call: &Call<'_>, caller: &Caller) -> Option<Reply> {
        let refused = self.faults.brown_out(call.now, &caller.method, &caller.path)?;
        if refused.status == 429 {
            self.ledger.throttled(call.now, &caller.method, &caller.family, "brown-out");
            return Some(match refused.hint {
                Some(wait) => self.throttle(call, wait, None),
                None => call.refuse(&ApiError::throttled(None, None)),
            });
        }
        self.ledger.fault("brown-out");
        Some(Reply::Answer(unavailable(call, refused.hint)))
    }

    /// Takes a place under every cap and draws from every limit, or does neither.
    fn admit(&mut self, call: &mut Call<'_>, caller: &Caller) -> Result<(), Refusal> {
        let held = match self.caps.acquire(caller) {
            Ok(held) => held,
            Err(refusal) => {
                // Quota is left and the headers say so: that is how a client tells a cap from a rate.
                call.described = self.limits.describe(call.now, caller);
                return Err(refusal);
            }
        };
        let verdict = self.limits.admit(call.now, caller);
        call.described = verdict.described;
        match (verdict.refusal, self.calls.get_mut(&call.id)) {
            (None, Some(Inside::Api { held: place, .. })) => *place = Some(held),
            (None, _) => self.caps.release(held),
            (Some(refusal), _) => {
                self.caps.release(held);
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// The 429 with whatever hints this server gives.
    fn throttle(&self, call: &Call<'_>, wait: Duration, refusal: Option<Refusal>) -> Reply {
        let seconds = match self.style.retry_after {
            RetryAfterForm::None => None,
            RetryAfterForm::Short => Some(ceil_seconds(wait.saturating_sub(self.style.short_by))),
            RetryAfterForm::Exact | RetryAfterForm::Date => Some(ceil_seconds(wait)),
        };
        let named = refusal
            .filter(|_| self.config.limit_in_body)
            .map(|refusal| Refusal { key: public_key(&self.config, &refusal.key), ..refusal });
        let response = ApiError::throttled(seconds, named.as_ref()).render(&call.context);
        Reply::Answer(match self.style.retry_after(wait, self.wall(call.now)) {
            Some(value) => response.with("Retry-After", value),
            None => response,
        })
    }

    /// What a fault answers instead of executing the call.
    fn fault_before(&mut self, call: &Call<'_>, fault: Fault) -> Option<Reply> {
        let reply = match fault {
            Fault::None | Fault::DropAfter | Fault::TimeoutAfter => return None,
            Fault::Throttle => self.throttle(call, FAULT_HINT, None),
            Fault::DropBefore => Reply::Close,
            Fault::Unavailable => Reply::Answer(unavailable(call, self.faults.faults().unavailable_hint)),
            Fault::InternalError => {
                call.refuse(&ApiError::new(500, "internal.server.error", "The server encountered an error."))
            }
        };
        self.ledger.fault(fault.name());
        Some(reply)
    }

    /// What a fault makes of the answer of an executed call.
    fn fault_after(&mut self, call: &Call<'_>, fault: Fault) -> Option<Reply> {
        let reply = match fault {
            Fault::DropAfter => Reply::Close,
            Fault::TimeoutAfter => {
                call.refuse(&ApiError::new(504, "request.timeout", "The request timed out."))
            }
            _ => return None,
        };
        self.ledger.fault(fault.name());
        Some(reply)
    }

    /// Everything that happens to an admitted call.
    fn answer(&mut self, call: &Call<'_>, caller: &Caller) -> Reply {
        let request = call.request;
        if request.too_large {
            let message =
                format!("The request is over the size limit. Maximum bytes: {}", self.config.max_body);
            return call.refuse(&ApiError::new(413, "request.entity.too.large", message));
        }
        if request.path == "/api/v2/tokens/me" {
            return self.token(call, caller);
        }
        let needed = scope(&request.method, &request.path);
        if !self.oauth.permits(&caller.credential, &needed) {
            return call.refuse(&ApiError::missing_permission(&needed));
        }
        if let Some(id) = call.write_id()
            && let Some(original) = self.dedup.find(call.now, &caller.credential, id)
        {
            self.ledger.replayed();
            return Reply::Answer(ApiResponse::text(original.status, "application/json", original.body));
        }
        match self.org.execute(call.now, request) {
            Some(done) => self.executed(call, caller, done),
            None => call.refuse(&ApiError::not_found(&format!("{} {}", request.method, request.path))),
        }
    }

    /// `/api/v2/tokens/me`: check the token, or revoke it.
    fn token(&mut self, call: &Call<'_>, caller: &Caller) -> Reply {
        let body = match call.request.method {
            Method::DELETE => {
                self.oauth.revoke(&caller.token);
                json!({})
            }
            Method::GET | Method::HEAD => json!({ "OAuthClient": { "id": caller.credential } }),
            _ => return call.refuse(&ApiError::not_found(&call.request.path)),
        };
        Reply::Answer(ApiResponse::json(200, &body))
    }

    /// Writes down what was executed and renders the answer.
    fn executed(&mut self, call: &Call<'_>, caller: &Caller, done: Done) -> Reply {
        let success = match done.result {
            Ok(success) => success,
            Err(error) => return call.refuse(&error),
        };
        let body = success.body.map(|body| body.to_string().into_bytes());
        if call.request.is_write() {
            let content = WriteContent {
                id: call.write_id(),
                method: &caller.method,
                path: &caller.path,
                body: &call.request.body,
            };
            self.ledger.write_executed(done.endpoint, &content, done.duplicate_emails);
            if let Some(id) = call.write_id() {
                let answer = Remembered { status: success.status, body: body.clone().unwrap_or_default() };
                self.dedup.remember(call.now, &caller.credential, id, answer);
            }
        }
        let response = match body {
            Some(body) => ApiResponse::text(success.status, "application/json", body),
            None => ApiResponse { status: success.status, headers: Vec::new(), body: Vec::new() },
        };
        Reply::Answer(
            success.headers.into_iter().fold(response, |response, (name, value)| response.with(name, value)),
        )
    }
}

fn unavailable(call: &Call<'_>, hint: Option<Duration>) -> ApiResponse {
    let error =
        ApiError::new(503, "service.unavailable", "The service is overloaded or down for maintenance.");
    let response = error.render(&call.context);
    match hint {
        Some(hint) => response.with("Retry-After", ceil_seconds(hint).to_string()),
        None => response,
    }
}
