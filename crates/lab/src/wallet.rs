//! Tokens of one instance: fetched when needed, one login at a time, while the calls that need it wait.
//!
//! Every strategy gets the same good manners here, because tokens are not what they are compared by.

use std::time::Duration;

use http::{HeaderValue, Method};
use tidegate_sim::config::Client;
use tidegate_sim::model::world::TOKEN_PATH;
use tidegate_sim::wire::message::{ApiRequest, ApiResponse};

use crate::call::CallId;

/// After a refused login without a hint.
const PAUSE: Duration = Duration::from_secs(1);
/// A token is renewed this long before its end, or a tenth of its life before it, whichever is shorter.
const EARLY: Duration = Duration::from_secs(30);

/// The token of one OAuth client.
#[derive(Debug)]
pub(crate) struct Purse {
    client: Client,
    /// The `Authorization` header and when it stops being used.
    token: Option<(HeaderValue, Duration)>,
    /// A login is under way; its name at the server once it has arrived.
    pub(crate) login: Option<Login>,
    /// Calls that wait for it.
    pub(crate) waiting: Vec<CallId>,
}

/// A login under way.
#[derive(Debug, Default)]
pub(crate) struct Login {
    pub(crate) world_id: u64,
    pub(crate) response: Option<ApiResponse>,
}

impl Purse {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, token: None, login: None, waiting: Vec::new() }
    }

    /// The OAuth client's id.
    pub(crate) fn id(&self) -> &str {
        &self.client.id
    }

    /// The header to send now, if there is a good token.
    pub(crate) fn header(&self, now: Duration) -> Option<&HeaderValue> {
        self.token.as_ref().filter(|(_, until)| now < *until).map(|(header, _)| header)
    }

    /// The server rejected this header.
    pub(crate) fn discard(&mut self, rejected: Option<&HeaderValue>) {
        if self.token.as_ref().is_some_and(|(header, _)| Some(header) == rejected) {
            self.token = None;
        }
    }

    /// The login request.
    pub(crate) fn request(&self) -> ApiRequest {
        let mut request = ApiRequest::new(Method::POST, TOKEN_PATH);
        // Simulated ids and secrets are plain words; what is not would be refused by the simulator, visibly.
        request.body = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}",
            self.client.id, self.client.secret
        )
        .into_bytes();
        request
    }

    /// Takes the answer to a login. If it is a refusal: how long to wait before another.
    pub(crate) fn receive(&mut self, now: Duration, response: Option<&ApiResponse>) -> Option<Duration> {
        let good = response.filter(|response| response.status == 200);
        let body: Option<serde_json::Value> = good.and_then(|good| serde_json::from_slice(&good.body).ok());
        let token = body.as_ref().and_then(|body| body["access_token"].as_str());
        let header = token.and_then(|token| format!("Bearer {token}").parse::<HeaderValue>().ok());
        let Some(header) = header else {
            let hint = response.and_then(|response| response.header("retry-after")?.parse().ok());
            return Some(hint.map_or(PAUSE, Duration::from_secs));
        };
        let life = body.as_ref().and_then(|body| body["expires_in"].as_u64()).unwrap_or(u64::MAX >> 34);
        let life = Duration::from_secs(life);
        self.token = Some((header, now + life.saturating_sub(EARLY.min(life / 10))));
        None
    }
}
