//! The token endpoint: client credentials, tokens that really expire, and a throttle of its own.
//!
//! # Why
//!
//! Token handling goes wrong under load: tokens expire in the middle of a wait, many workers refresh at once, and the token
//! endpoint throttles with status 400 instead of 429, which naive clients take for wrong credentials. All of that happens here,
//! and the books say how many token calls there were and how many overlapped.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::config::OauthConfig;
use crate::model::quota::{QuotaModel, QuotaRule, Rule};
use crate::wire::errors::oauth_error;
use crate::wire::form;
use crate::wire::headers::ceil_seconds;
use crate::wire::message::{ApiRequest, ApiResponse};

/// What became of a token call; the judge counts these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// A token was issued.
    Issued,
    /// Too many token calls.
    Throttled,
    /// Wrong client, secret or grant.
    Refused,
}

#[derive(Debug)]
struct Token {
    client: String,
    expires: Duration,
}

/// Clients and their tokens.
#[derive(Debug)]
pub struct Oauth {
    config: OauthConfig,
    tokens: HashMap<String, Token>,
    /// Valid or not, oldest first, per client; only used to enforce `max_tokens` and to forget expired ones.
    order: BTreeMap<String, VecDeque<String>>,
    throttles: BTreeMap<String, QuotaModel>,
    rng: fastrand::Rng,
}

impl Oauth {
    /// No tokens yet.
    pub fn new(config: OauthConfig, rng: fastrand::Rng) -> Self {
        Self { config, tokens: HashMap::new(), order: BTreeMap::new(), throttles: BTreeMap::new(), rng }
    }

    /// The client id a token request names, known or not.
    pub fn client_of(request: &ApiRequest) -> Option<String> {
        credentials(request).map(|(id, _)| id)
    }

    /// Answers `POST /oauth/token`.
    pub fn login(&mut self, now: Duration, request: &ApiRequest) -> (Login, ApiResponse) {
        let refused = |response| (Login::Refused, response);
        let Some((id, secret)) = credentials(request) else {
            let text = "client credentials are missing";
            return refused(oauth_error(400, "invalid_request", text, text));
        };
        let Some(client) = self.config.clients.iter().find(|client| client.id == id) else {
            let long = format!("client not found: {id}");
            return refused(oauth_error(400, "invalid_client", "client not found", &long));
        };
        if client.secret != secret {
            let text = "authentication failed";
            return refused(oauth_error(
                401,
                "invalid_client",
                text,
                "authentication failed: wrong client secret",
            ));
        }
        if let Some(wait) = self.throttle(now, &id) {
            return (Login::Throttled, self.throttled(wait));
        }
        if field(request, "grant_type").as_deref() != Some("client_credentials") {
            let text = "only client_credentials is supported";
            return refused(oauth_error(400, "unsupported_grant_type", text, text));
        }
        (Login::Issued, self.issue(now, id))
    }

    fn throttle(&mut self, now: Duration, client: &str) -> Option<Duration> {
        let burst = self.config.throttle?;
        let rule = QuotaRule {
            rule: Rule::Fixed,
            limit: burst.count,
            window: burst.window,
            phase: Duration::ZERO,
            burst: None,
        };
        let model = self.throttles.entry(client.to_owned()).or_insert_with(|| QuotaModel::new(rule));
        let seen = model.admit(now, 1);
        (!seen.ok).then_some(seen.retry_after)
    }

    fn throttled(&self, wait: Duration) -> ApiResponse {
        let seconds = ceil_seconds(wait);
        let long = format!("rate limit exceeded; retry the request in {seconds} seconds");
        let response = oauth_error(400, "invalid_request", "rate limit exceeded", &long);
        if self.config.throttle_hint { response.with("Retry-After", seconds.to_string()) } else { response }
    }

    fn issue(&mut self, now: Duration, client: String) -> ApiResponse {
        let ttl = self.config.token_ttl;
        let token = format!("sim-{:032x}{:016x}", self.rng.u128(..), self.rng.u64(..));
        self.tokens.insert(token.clone(), Token { client: client.clone(), expires: now + ttl });
        let order = self.order.entry(client).or_default();
        order.push_back(token.clone());
        let allowed = self.config.max_tokens.map_or(usize::MAX, |max| max as usize);
        while let Some(oldest) = order.front() {
            let expired = self.tokens.get(oldest).is_none_or(|token| token.expires <= now);
            if !expired && order.len() <= allowed {
                break;
            }
            self.tokens.remove(oldest);
            order.pop_front();
        }
        let body = json!({
            "access_token": token,
            "token_type": "bearer",
            // Rounded down: a client must not believe in a token that is dead already.
            "expires_in": ttl.as_secs().max(1),
        });
        ApiResponse::json(200, &body)
    }

    /// The client a bearer belongs to, if the token is valid now.
    pub fn client(&self, now: Duration, token: &str) -> Option<&str> {
        let token = self.tokens.get(token)?;
        (now < token.expires).then_some(token.client.as_str())
    }

    /// Whether a client may do what needs `scope`. "edit:x" includes "view:x".
    pub fn permits(&self, client: &str, scope: &str) -> bool {
        let Some(client) = self.config.clients.iter().find(|known| known.id == client) else { return false };
        let Some(scopes) = &client.scopes else { return true };
        let edit = scope.strip_prefix("view:").map(|area| format!("edit:{area}"));
        scopes.iter().any(|granted| granted == scope || Some(granted) == edit.as_ref())
    }

    /// Revokes a token at once.
    pub fn revoke(&mut self, token: &str) {
        self.tokens.remove(token);
    }
}

/// Client id and secret, from HTTP Basic or from the form body (RFC 6749 §2.3.1 allows both).
fn credentials(request: &ApiRequest) -> Option<(String, String)> {
    if let Some(value) = request.header("authorization")
        && let Some((scheme, encoded)) = value.split_once(' ')
        && scheme.eq_ignore_ascii_case("basic")
    {
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (id, secret) = decoded.split_once(':')?;
        return Some((id.to_owned(), secret.to_owned()));
    }
    Some((field(request, "client_id")?, field(request, "client_secret")?))
}

fn field(request: &ApiRequest, name: &str) -> Option<String> {
    let body = std::str::from_utf8(&request.body).ok()?;
    form::parse(body).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Burst;
    use http::Method;

    const S: Duration = Duration::from_secs(1);

    fn oauth(change: impl FnOnce(&mut OauthConfig)) -> Oauth {
        let mut config = OauthConfig::default();
        change(&mut config);
        Oauth::new(config, fastrand::Rng::with_seed(1))
    }

    fn request(body: &str) -> ApiRequest {
        let mut request = ApiRequest::new(Method::POST, "/oauth/token");
        request.body = body.as_bytes().to_vec();
        request
    }

    fn good() -> ApiRequest {
        request("grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret")
    }

    fn token(response: &ApiResponse) -> String {
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        body["access_token"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_token_dies_when_its_life_is_over() {
        let mut oauth = oauth(|config| config.token_ttl = Duration::from_millis(2500));
        let (login, response) = oauth.login(S, &good());
        assert_eq!(login, Login::Issued);
        assert!(String::from_utf8_lossy(&response.body).contains("\"expires_in\":2"));
        let token = token(&response);
        assert_eq!(oauth.client(S * 3, &token), Some("demo-client"));
        assert_eq!(oauth.client(Duration::from_millis(3500), &token), None);
    }

    #[test]
    fn basic_credentials_work_too() {
        let mut basic = request("grant_type=client_credentials");
        let value = format!("Basic {}", STANDARD.encode("demo-client:demo-secret"));
        basic.headers.insert("authorization", value.parse().unwrap());
        assert_eq!(oauth(|_| ()).login(S, &basic).0, Login::Issued);
    }

    #[test]
    fn wrong_clients_and_secrets_are_told_apart_by_status() {
        let mut oauth = oauth(|_| ());
        let wrong =
            |id: &str| request(&format!("grant_type=client_credentials&client_id={id}&client_secret=nope"));
        assert_eq!(oauth.login(S, &wrong("demo-client")).1.status, 401);
        let (login, response) = oauth.login(S, &wrong("stranger"));
        assert_eq!((login, response.status), (Login::Refused, 400));
        assert!(String::from_utf8_lossy(&response.body).starts_with(
            r#"{"error":"invalid_client","description":"client not found","error_description":"#
        ));
    }

    #[test]
    fn the_throttle_is_a_400_that_says_rate_limit_exceeded() {
        let mut oauth = oauth(|config| config.throttle = Some(Burst { count: 2, window: S * 10 }));
        for _ in 0..2 {
            assert_eq!(oauth.login(S, &good()).0, Login::Issued);
        }
        let (login, response) = oauth.login(S * 2, &good());
        assert_eq!((login, response.status), (Login::Throttled, 400));
        assert!(String::from_utf8_lossy(&response.body).contains("\"description\":\"rate limit exceeded\""));
        assert_eq!(oauth.login(S * 11, &good()).0, Login::Issued);
    }

    #[test]
    fn the_eleventh_token_kills_the_first() {
        let mut oauth = oauth(|config| config.max_tokens = Some(10));
        let tokens: Vec<String> = (0..11).map(|_| token(&oauth.login(S, &good()).1)).collect();
        assert_eq!(oauth.client(S, &tokens[0]), None);
        assert!(tokens[1..].iter().all(|token| oauth.client(S, token).is_some()));
    }

    #[test]
    fn editing_includes_viewing() {
        let oauth = oauth(|config| config.clients[0].scopes = Some(vec!["edit:users".to_owned()]));
        assert!(oauth.permits("demo-client", "view:users"));
        assert!(!oauth.permits("demo-client", "view:scripts"));
    }
}
