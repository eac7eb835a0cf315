//! The other server: what GitHub's REST API says, for headers in its dialect.
//!
//! # Why
//!
//! Its limits have three traits that the platform's lack: they are counted by resource and named on every answer, a throttle is a 403
//! that a missing permission looks like too, and an answer that has not changed since costs nothing. The shapes of the answers
//! are those of <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api> and
//! <https://docs.github.com/en/rest/rate-limit/rate-limit>.
//!
//! # Rules
//!
//! * Any bearer is a user of its own; there is no login.
//! * A limit that headers describe refuses as a primary limit: nothing remains, and no Retry-After. A hidden one, and a cap, refuse as a
//!   secondary limit: a text, and Retry-After as configured.
//! * Every path is there, and what it says never changes; a `POST` answers 201.

use http::Method;
use serde_json::{Map, Value, json};

use super::serve::Call;
use super::{Reply, World};
use crate::model::limits::{Described, Refusal};
use crate::model::route::Caller;
use crate::wire::headers::ceil_seconds;
use crate::wire::message::{ApiRequest, ApiResponse};

/// What is left of everything; asking is free.
const RATE_LIMIT: &str = "/rate_limit";

const ABOUT: &str = "https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api";
const PRIMARY: &str = "API rate limit exceeded for user ID 1.";
const SECONDARY: &str =
    "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";

impl World {
    /// What is answered without counting: the state of the limits, and that nothing has changed.
    pub(super) fn github_free(&mut self, call: &mut Call<'_>, caller: &Caller) -> Option<Reply> {
        let request = call.request;
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        if reads && request.path == RATE_LIMIT {
            let all = self.limits.describe_all(call.now, caller);
            let wall = self.wall(call.now);
            return Some(Reply::Answer(ApiResponse::json(
                200,
                &rate_limit(&all, |state| ceil_seconds(wall + state.state.reset_after)),
            )));
        }
        request.header("if-none-match").filter(|known| reads && *known == tag(request))?;
        call.described = self.limits.describe(call.now, caller);
        let answer = ApiResponse { status: 304, headers: Vec::new(), body: Vec::new() };
        Some(Reply::Answer(kept(answer, request)))
    }

    /// A refusal by a limit that headers describe, or by another.
    pub(super) fn github_throttle(&self, refusal: Option<&Refusal>, hint: Option<String>) -> Reply {
        let told = |key: &str| self.limits.rules().iter().any(|rule| rule.key == key && !rule.hidden);
        if refusal.is_some_and(|refusal| told(&refusal.key)) {
            return Reply::Answer(message(403, PRIMARY));
        }
        let response = message(403, SECONDARY);
        Reply::Answer(match hint {
            Some(hint) => response.with("Retry-After", hint),
            None => response,
        })
    }

    /// The answer to an admitted call.
    pub(super) fn github_answer(&mut self, call: &Call<'_>) -> Reply {
        let request = call.request;
        if let Some(write) = call.write() {
            self.ledger.write_executed("content", &write, 0);
        }
        Reply::Answer(match request.method {
            Method::POST => ApiResponse::json(201, &json!({ "url": request.path })),
            Method::DELETE => ApiResponse { status: 204, headers: Vec::new(), body: Vec::new() },
            _ => kept(ApiResponse::json(200, &json!({ "url": request.path })), request),
        })
    }
}

/// 401 without a token.
pub(super) fn no_token() -> Reply {
    Reply::Answer(message(401, "Requires authentication"))
}

fn message(status: u16, text: &str) -> ApiResponse {
    ApiResponse::json(status, &json!({ "message": text, "documentation_url": ABOUT }))
}

fn rate_limit(limits: &[Described], reset: impl Fn(&Described) -> u64) -> Value {
    let resources: Map<_, _> = limits
        .iter()
        .map(|limit| {
            let state = &limit.state;
            let used = state.limit.saturating_sub(state.remaining);
            let told = json!({ "limit": state.limit, "used": used, "remaining": state.remaining,
                "reset": reset(limit) });
            (limit.key.clone(), told)
        })
        .collect();
    json!({ "rate": resources.get("core"), "resources": resources })
}

/// With the name of what it says, and for how long that may be believed.
fn kept(answer: ApiResponse, request: &ApiRequest) -> ApiResponse {
    answer
        .with("Cache-Control", "private, max-age=60, s-maxage=60")
        .with("Vary", "Accept, Authorization, Cookie, X-GitHub-OTP")
        .with("ETag", tag(request))
}

/// Names what a path says: FNV-1a of the path.
fn tag(request: &ApiRequest) -> String {
    let digest = request.path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("W/\"{digest:016x}\"")
}
