//! `POST /oauth/token`: logins that pass through, and are remembered.
//!
//! A client-credentials login is made by us on the caller's behalf: if the upstream grants it, the caller gets the
//! upstream's answer and the login is remembered, so that its token can be renewed later. If the token endpoint is
//! throttling (Genesys says so with a 400), the caller waits here instead of failing. Every other grant type passes
//! through unchanged and is not remembered: its secrets are not ours to keep.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Response};
use secrecy::SecretString;
use tidegate::ResponseBody;
use tidegate::token::{ClientCredentials, GrantError};

use crate::respond;
use crate::tenant::Tenant;

/// A login form larger than this is not one.
pub(crate) const MAX_FORM: usize = 16 * 1024;

/// The wait before another login where a throttling token endpoint names none.
const LOGIN_BACKOFF: Duration = Duration::from_secs(1);

/// Logs a caller in.
pub(crate) async fn client_credentials_login(
    tenant: &Tenant,
    credentials: ClientCredentials,
    max_wait: Duration,
) -> Response<ResponseBody> {
    let clock = *tenant.upstream.clock();
    let shape = tenant.shape();
    let endpoint = tenant.upstream.token_endpoint();
    let give_up_at = clock.now() + max_wait;
    let mut backoff = LOGIN_BACKOFF;
    loop {
        let requested_at = clock.now();
        match endpoint.fetch(&credentials).await {
            Ok(grant) => {
                let manager = tenant.upstream.manager(tenant.identity(credentials.client_id()), credentials);
                manager.adopt(&grant, requested_at);
                tenant.learnt.remember(grant.bearer.as_bytes(), manager, clock.now());
                return respond::of_upstream(&tenant.upstream, grant.answer.map(ResponseBody::from));
            }
            Err(GrantError::Throttled { hint, .. }) => {
                // Spread, so that many programs that start together do not come back together.
                let wait = hint.unwrap_or(backoff) + Duration::from_millis(fastrand::u64(0..500));
                if clock.now() + wait >= give_up_at {
                    return respond::too_many_requests(shape, wait, "login-throttled");
                }
                tokio::time::sleep(wait).await;
                backoff *= 2;
            }
            Err(GrantError::Refused { answer, .. } | GrantError::Unexpected { answer: Some(answer), .. }) => {
                return respond::of_upstream(&tenant.upstream, answer.map(ResponseBody::from));
            }
            Err(GrantError::Unreachable(error)) => return respond::login_failed(shape, &error, true),
            Err(error) => return respond::login_unreadable(shape, &error),
        }
    }
}

/// Whether a form asks for the client-credentials grant, of which a second one does no harm.
pub(crate) fn is_client_credentials(form: &[u8]) -> bool {
    Form::parse(form).get("grant_type") == Some("client_credentials")
}

/// The client id and secret of a client-credentials login, from Basic or from the form (RFC 6749 §2.3.1), and all
/// other fields of the form: a scope that got lost would give the caller more rights than it asked for.
pub(crate) fn read_credentials(headers: &HeaderMap, form: &[u8]) -> Option<ClientCredentials> {
    let fields = Form::parse(form);
    if fields.get("grant_type") != Some("client_credentials") {
        return None;
    }
    if let Some(basic) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        return Some(ClientCredentials::from_basic(basic)?.with_fields(fields.without(&["grant_type"])));
    }
    let secret = SecretString::from(fields.get("client_secret")?);
    let credentials = ClientCredentials::new(fields.get("client_id")?, &secret);
    Some(credentials.with_fields(fields.without(&["grant_type", "client_id", "client_secret"])))
}

/// The fields of a form, decoded.
struct Form(Vec<(String, String)>);

impl Form {
    fn parse(form: &[u8]) -> Self {
        let text = String::from_utf8_lossy(form);
        let field = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (form_decode(name), form_decode(value))
        };
        Self(text.split('&').filter(|pair| !pair.is_empty()).map(field).collect())
    }

    fn without<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let fields = self.0.iter().map(|(field, value)| (field.as_str(), value.as_str()));
        fields.filter(|(field, _)| !names.contains(field))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// The names and values of a query, decoded.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decode(name), form_decode(value))
    })
}

fn form_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut ahead = rest.clone();
                let hex: Option<(u32, u32)> = ahead
                    .next()
                    .zip(ahead.next())
                    .and_then(|(high, low)| char::from(high).to_digit(16).zip(char::from(low).to_digit(16)));
                match hex {
                    Some((high, low)) => {
                        bytes.push(u8::try_from(high * 16 + low).expect("two hex digits"));
                        rest = ahead;
                    }
                    None => bytes.push(b'%'),
                }
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(basic: Option<&'static str>, form: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(basic) = basic {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(basic));
        }
        read_credentials(&headers, form.as_bytes()).map(|read| read.client_id().to_owned())
    }

    /// `me:s3cret`
    const BASIC: &str = "Basic bWU6czNjcmV0";

    #[test]
    fn both_ways_of_naming_the_client_are_read() {
        assert_eq!(read(Some(BASIC), "grant_type=client_credentials").as_deref(), Some("me"));
        let form = "grant_type=client_credentials&client_id=m%65+%C3%BC&client_secret=s3cret";
        assert_eq!(read(None, form).as_deref(), Some("me ü"));
    }

    #[test]
    fn other_grants_and_half_logins_are_not_read() {
        assert_eq!(read(Some(BASIC), "grant_type=refresh_token&refresh_token=x"), None);
        assert_eq!(read(None, "grant_type=client_credentials&client_id=me"), None);
        assert_eq!(read(Some("Bearer x"), "grant_type=client_credentials"), None);
    }

    #[test]
    fn stray_percent_signs_are_kept() {
        assert_eq!(form_decode("100%+x%zz%4"), "100% x%zz%4");
    }
}
