//! One call of a token endpoint: the client-credentials grant of RFC 6749 §4.4.
//!
//! Genesys answers a throttled login with 400 and a text, not with 429, so what counts as "too fast" comes from the
//! profile. The secret is held masked and leaves only in the `Authorization` header of this call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tidegate_core::observe::observe;
use tidegate_core::profile::Profile;
use tidegate_core::token::RefreshFailure;

use super::throttled::Throttled;
use crate::body::RequestBody;
use crate::clock::Clock;
use crate::transport::{SendError, SendOptions, Wire};

/// A token answer larger than this is not one.
const MAX_ANSWER: usize = 64 * 1024;

/// The form of a login that asks for nothing in particular.
const FORM: &str = "grant_type=client_credentials";

/// A client id and its secret, as the `Authorization` header of a login, and what the login asks for.
#[derive(Clone)]
pub struct ClientCredentials {
    client_id: String,
    basic: SecretString,
    /// Masked like the secret: what a vendor lets a login carry beside its scope is not for logs either.
    form: SecretString,
}

impl ClientCredentials {
    /// From a client id and its secret. RFC 6749 §2.3.1: both are form-encoded before they are joined.
    pub fn new(client_id: &str, client_secret: &SecretString) -> Self {
        let pair = format!("{}:{}", form_encode(client_id), form_encode(client_secret.expose_secret()));
        let basic = SecretString::from(format!("Basic {}", BASE64_STANDARD.encode(pair)));
        Self { client_id: client_id.to_owned(), basic, form: SecretString::from(FORM) }
    }

    /// From the `Authorization` header of somebody's login, kept as it is: many clients skip the form-encoding, and
    /// what the upstream accepted once is what it will accept again. `None` if it is not a Basic login.
    pub fn from_basic(header: &str) -> Option<Self> {
        let (scheme, encoded) = header.split_once(' ')?;
        let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
        let client_id = decoded.split(|byte| *byte == b':').next().filter(|id| id.len() < decoded.len())?;
        scheme.eq_ignore_ascii_case("basic").then(|| Self {
            client_id: String::from_utf8_lossy(client_id).into_owned(),
            basic: SecretString::from(header),
            form: SecretString::from(FORM),
        })
    }

    /// Adds fields to the form of every login (`scope`, RFC 6749 §4.4.2, and what a vendor knows beside it): a login
    /// that asks for less than the client may have must not be given all of it.
    #[must_use]
    pub fn with_fields<'a>(mut self, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut form = self.form.expose_secret().to_owned();
        for (name, value) in fields {
            form.extend(["&", &form_encode(name), "=", &form_encode(value)]);
        }
        self.form = SecretString::from(form);
        self
    }

    /// The client id. Not secret, but not for logs either: the credential has a name.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCredentials(***)")
    }
}

/// A token that was granted.
#[derive(Clone)]
pub struct Grant {
    /// `Bearer …`, marked sensitive.
    pub bearer: HeaderValue,
    /// Its life, if the endpoint said.
    pub expires_in: Option<Duration>,
    /// The endpoint's answer as it came, to be handed to a caller that logged in through us.
    pub answer: Response<Bytes>,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// Why no token was granted.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The endpoint says that logins come too fast.
    #[error("the token endpoint is throttling logins")]
    Throttled {
        /// When it says to come back.
        hint: Option<Duration>,
        /// Whether it said so to this login; otherwise it was another one's of the same client, and nothing was sent.
        asked: bool,
    },
    /// The endpoint refused the credential.
    #[error("the token endpoint refused the client id or secret ({status}: {text})")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its words.
        text: String,
        /// Its answer as it came.
        answer: Box<Response<Bytes>>,
    },
    /// The endpoint answered, but not with a token.
    #[error("the token endpoint answered {status} without a token ({text})")]
    Unexpected {
        /// Its status.
        status: StatusCode,
        /// What was wrong.
        text: String,
        /// Its answer as it came, if it came to its end.
        answer: Option<Box<Response<Bytes>>>,
    },
    /// The endpoint could not be reached.
    #[error("{0}")]
    Unreachable(#[from] SendError),
}

impl GrantError {
    /// What it was, for metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Throttled { .. } => "throttled",
            Self::Refused { .. } => "refused",
            Self::Unexpected { .. } => "unexpected",
            Self::Unreachable(_) => "unreachable",
        }
    }

    /// What this means for the token's life.
    pub(super) fn as_failure(&self) -> RefreshFailure {
        match self {
            Self::Throttled { hint, .. } => RefreshFailure::Throttled { hint: *hint },
            Self::Refused { .. } => RefreshFailure::Refused,
            Self::Unexpected { .. } | Self::Unreachable(_) => RefreshFailure::Transient,
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenRefusal {
    error: Option<String>,
    error_description: Option<String>,
    description: Option<String>,
}

impl TokenRefusal {
    fn text(&self) -> String {
        let parts = [&self.error, &self.error_description, &self.description];
        let mut text: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
        text.dedup();
        text.join(": ")
    }
}

/// A token endpoint and the way to it. Its clones share which clients it throttles.
#[derive(Clone, Debug)]
pub struct TokenEndpoint {
    uri: Uri,
    wire: Arc<dyn Wire>,
    profile: Arc<Profile>,
    clock: Clock,
    throttled: Arc<Throttled>,
}

impl TokenEndpoint {
    /// The endpoint at `uri`.
    pub fn new(uri: Uri, wire: Arc<dyn Wire>, profile: Arc<Profile>, clock: Clock) -> Self {
        Self { uri, wire, profile, clock, throttled: Arc::default() }
    }

    /// Asks for a token, unless the endpoint has told this client to wait.
    ///
    /// # Errors
    /// What the endpoint said, or that it could not be asked.
    pub async fn fetch(&self, credentials: &ClientCredentials) -> Result<Grant, GrantError> {
        let client = credentials.client_id();
        if let Some(left) = self.throttled.left(self.clock.now(), client) {
            return Err(GrantError::Throttled { hint: Some(left), asked: false });
        }
        let granted = self.ask(credentials).await;
        match &granted {
            Ok(_) => self.throttled.served(client),
            Err(GrantError::Throttled { hint, .. }) => {
                self.throttled.throttled(self.clock.now(), client, *hint);
            }
            Err(_) => {}
        }
        granted
    }

    async fn ask(&self, credentials: &ClientCredentials) -> Result<Grant, GrantError> {
        // Careful, although a second login would do no harm: a connection that was closed a moment ago would make
        // every caller wait for the memory of this failure.
        let timeout = self.profile.timeouts.read;
        let response =
            self.wire.send(self.request(credentials), SendOptions { timeout, careful: true }).await?;
        let (parts, body) = response.into_parts();
        let unexpected = |text: String| GrantError::Unexpected { status: parts.status, text, answer: None };
        let answer = tokio::time::timeout(timeout, body.bytes(MAX_ANSWER))
            .await
            .map_err(|_| unexpected(format!("its body did not end within {timeout:?}")))?
            .map_err(|error| unexpected(error.to_string()))?;
        let answer = Response::from_parts(parts, answer);
        if answer.status().is_success() { read_grant(answer) } else { Err(self.refusal(answer)) }
    }

    fn request(&self, credentials: &ClientCredentials) -> Request<RequestBody> {
        let mut basic =
            HeaderValue::from_str(credentials.basic.expose_secret()).expect("it was a header, or is base64");
        basic.set_sensitive(true);
        let mut request = Request::new(RequestBody::from(credentials.form.expose_secret().to_owned()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, basic);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        request
    }

    fn refusal(&self, response: Response<Bytes>) -> GrantError {
        let status = response.status();
        let body = response.body();
        let text = serde_json::from_slice::<TokenRefusal>(body).unwrap_or_default().text();
        let seen = observe(&self.profile.headers, status, response.headers(), self.clock.wall());
        let throttle = self.profile.oauth.as_ref().map_or(&self.profile.throttle, |oauth| &oauth.throttle);
        if throttle.applies(status.as_u16(), &seen, body) {
            let hint = seen.retry_after.or_else(|| throttle.wait(status.as_u16(), &seen, body));
            return GrantError::Throttled { hint, asked: true };
        }
        match status {
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                GrantError::Refused { status, text, answer: Box::new(response) }
            }
            _ => GrantError::Unexpected { status, text, answer: Some(Box::new(response)) },
        }
    }
}

fn read_grant(answer: Response<Bytes>) -> Result<Grant, GrantError> {
    match read_token(answer.body()) {
        Ok((bearer, expires_in)) => Ok(Grant { bearer, expires_in, answer }),
        Err(wrong) => {
            let (status, text) = (answer.status(), wrong.to_owned());
            Err(GrantError::Unexpected { status, text, answer: Some(Box::new(answer)) })
        }
    }
}

/// The token of an answer and its life, or what is wrong with it.
fn read_token(body: &[u8]) -> Result<(HeaderValue, Option<Duration>), &'static str> {
    let token: TokenAnswer = serde_json::from_slice(body).map_err(|_| "its body is not a token answer")?;
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.access_token))
        .map_err(|_| "the token is not a valid header value")?;
    bearer.set_sensitive(true);
    Ok((bearer, token.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())))
}

/// `application/x-www-form-urlencoded`, as RFC 6749 appendix B asks.
fn form_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            _ => {
                encoded.push('%');
                encoded
                    .push(char::from_digit(u32::from(byte >> 4), 16).expect("a nibble").to_ascii_uppercase());
                encoded
                    .push(char::from_digit(u32::from(byte & 15), 16).expect("a nibble").to_ascii_uppercase());
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_form_encoded_before_they_are_joined() {
        assert_eq!(form_encode("a b:c%ü"), "a+b%3Ac%25%C3%BC");
    }

    #[test]
    fn secrets_never_show_in_debug_output() {
        let credentials = ClientCredentials::new("id", &SecretString::from("hunter2"))
            .with_fields([("assertion", "hunter3")]);
        let shown = format!("{credentials:?}");
        assert!(
            !shown.contains("hunter") && !shown.contains(&BASE64_STANDARD.encode("id:hunter2")),
            "{shown}"
        );
    }

    #[test]
    fn a_login_by_basic_is_kept_as_it_came() {
        let header = format!("Basic {}", BASE64_STANDARD.encode("a+b:100%x"));
        let kept = ClientCredentials::from_basic(&header).expect("basic");
        assert_eq!(kept.client_id(), "a+b");
        assert_eq!(kept.basic.expose_secret(), header);
        for broken in
            ["Bearer x", "Basic", "Basic !!!", &format!("Basic {}", BASE64_STANDARD.encode("no-colon"))]
        {
            assert!(ClientCredentials::from_basic(broken).is_none(), "{broken}");
        }
    }

    #[test]
    fn fields_of_a_login_are_form_encoded_behind_its_grant() {
        let credentials = ClientCredentials::new("id", &SecretString::from("s"))
            .with_fields([("scope", "users:readonly a&b"), ("audience", "")]);
        let form = "grant_type=client_credentials&scope=users%3Areadonly+a%26b&audience=";
        assert_eq!(credentials.form.expose_secret(), form);
    }

    #[test]
    fn an_answer_without_a_life_is_a_token_all_the_same() {
        let answer = Response::new(Bytes::from_static(br#"{"access_token":"t"}"#));
        let grant = read_grant(answer).expect("token");
        assert_eq!(grant.expires_in, None);
        assert!(grant.bearer.is_sensitive());
    }
}
