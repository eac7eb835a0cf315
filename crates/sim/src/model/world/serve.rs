//! What happens to a call when it is decided, in order, with the reason for each place.
//!
//! 1. strangers and timed events catch up, so that the quota is as it would be at this instant;
//! 2. authentication, before any quota: the partition of a limit needs to know who calls;
//! 3. brown-outs, which refuse without looking at quotas;
//! 4. concurrency caps, then rate limits: all of them or none;
//! 5. faults, which by then may hit only admitted calls, so that a scripted fault is not used up by a throttle;
//! 6. body bound, scopes, de-duplication, execution;
//! 7. faults after execution: the work is done, the answer is lost or replaced.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::tell::NOTIFICATIONS;
use super::{Inside, REQUEST_ID, Reply, TOKEN_PATH, World, github};
use crate::model::dedup::Remembered;
use crate::model::fault::Fault;
use crate::model::ledger::WriteContent;
use crate::model::limits::{Described, Refusal};
use crate::model::oauth::{Login, Oauth};
use crate::model::org::limits::public_key;
use crate::model::org::{Done, scope};
use crate::model::route::Caller;
use crate::wire::errors::ApiError;
use crate::wire::headers::{RetryAfterForm, ceil_seconds};
use crate::wire::message::{ApiRequest, ApiResponse};

/// What a fault's 429 tells to wait.
const FAULT_HINT: Duration = Duration::from_secs(1);

/// What is known about the call being decided.
pub(super) struct Call<'a> {
    pub(super) now: Duration,
    pub(super) id: u64,
    pub(super) request: &'a ApiRequest,
    pub(super) context: String,
    pub(super) described: Vec<Described>,
}

impl Call<'_> {
    fn refuse(&self, error: &ApiError) -> Reply {
        Reply::Answer(error.render(&self.context))
    }

    /// The name of the write transaction, if this is a write that has one.
    fn write_id(&self) -> Option<&str> {
        self.request.header(REQUEST_ID).filter(|_| self.request.is_write())
    }

    /// What identifies it as a write, if it is one.
    pub(super) fn write(&self) -> Option<WriteContent<'_>> {
        self.request.is_write().then(|| WriteContent {
            id: self.write_id(),
            method: self.request.method.as_str(),
            path: &self.request.path,
            body: &self.request.body,
        })
    }
}

impl World {
    /// Answers the token endpoint.
    pub(super) fn login(&mut self, call: &Call<'_>) -> Reply {
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

    /// Answers everything else.
    pub(super) fn api(&mut self, call: &mut Call<'_>) -> Reply {
        if !self.is_github() && !call.request.path.starts_with("/api/v2/") {
            return call.refuse(&ApiError::not_found(&call.request.path));
        }
        if let Some(write) = call.write() {
            self.ledger.write_seen(call.now, &write);
        }
        let reply = match self.authenticate(call) {
            Ok(caller) => match self.is_github().then(|| self.github_free(call, &caller)).flatten() {
                Some(reply) => reply,
                None => self.serve(call, &caller),
            },
            Err(_) if self.is_github() => github::no_token(),
            Err(error) => call.refuse(&error),
        };
        if let Reply::Answer(response) = &reply {
            self.ledger.answered(response.status, call.write().as_ref());
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
        if self.is_github() && !token.is_empty() {
            return Ok(Caller::new(token, token, request.method.as_str(), &request.path));
        }
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
        if fault == Fault::Late {
            return self.park(call, caller);
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
        self.ledger.fault("brown-out", call.write().as_ref());
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
        if self.is_github() {
            let hint = self.style.retry_after(wait, self.wall(call.now));
            return self.github_throttle(refusal.as_ref(), hint);
        }
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
            Fault::None | Fault::DropAfter | Fault::Late | Fault::TimeoutAfter => return None,
            Fault::Throttle => self.throttle(call, FAULT_HINT, None),
            Fault::DropBefore => Reply::Close,
            Fault::Unavailable => Reply::Answer(unavailable(call, self.faults.faults().unavailable_hint)),
            Fault::InternalError => {
                call.refuse(&ApiError::new(500, "internal.server.error", "The server encountered an error."))
            }
        };
        self.ledger.fault(fault.name(), call.write().as_ref());
        Some(reply)
    }

    /// What a fault makes of the answer of an executed call.
    fn fault_after(&mut self, call: &Call<'_>, fault: Fault) -> Option<Reply> {
        let reply = match fault {
            // A login has nothing to be late with.
            Fault::DropAfter | Fault::Late => Reply::Close,
            Fault::TimeoutAfter => {
                call.refuse(&ApiError::new(504, "request.timeout", "The request timed out."))
            }
            _ => return None,
        };
        self.ledger.fault(fault.name(), call.write().as_ref());
        Some(reply)
    }

    /// Everything that happens to an admitted call.
    pub(super) fn answer(&mut self, call: &Call<'_>, caller: &Caller) -> Reply {
        let request = call.request;
        if request.too_large {
            let message =
                format!("The request is over the size limit. Maximum bytes: {}", self.config.max_body);
            return call.refuse(&ApiError::new(413, "request.entity.too.large", message));
        }
        if self.is_github() {
            return self.github_answer(call);
        }
        if request.path == "/api/v2/tokens/me" {
            return self.token(call, caller);
        }
        let about_channels = request.path.starts_with(NOTIFICATIONS);
        let needed = scope(&request.method, &request.path);
        if !about_channels && !self.oauth.permits(&caller.credential, &needed) {
            return call.refuse(&ApiError::missing_permission(&needed));
        }
        if let Some(id) = call.write_id()
            && let Some(original) = self.dedup.find(call.now, &caller.credential, id)
        {
            self.ledger.replayed();
            return Reply::Answer(ApiResponse::text(original.status, "application/json", original.body));
        }
        let done = if about_channels {
            self.notifications(call.now, request, caller)
        } else {
            self.org.execute(call.now, request)
        };
        self.tell();
        match done {
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
        if let Some(write) = call.write() {
            self.ledger.write_executed(done.endpoint, &write, done.duplicate_emails);
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
