//! Which permission a 403 says is missing.
//!
//! A 403 that names a permission is not about the request: every other call of its kind will be answered the same until
//! somebody gives the credential's role that permission. So it is worth a sentence that names the permission, and a bulk
//! run stops at it instead of failing its items one by one; unless the permission is missing in one division, which may hold
//! this object and not the next. Read are:
//!
//! * the Genesys Cloud error body: `code` is one of `CODES`, and the names stand in `messageParams`, else behind the
//!   last colon of `message`, in brackets or not (the Platform API's `ErrorBody`, <https://developer.genesys.cloud>);
//! * `WWW-Authenticate: Bearer error="insufficient_scope", scope="…"` (RFC 6750 §3.1).
//!
//! A 403 that says neither is none of these: GitHub's 403 is a throttle, and most others are about the object.

use std::fmt;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;

/// Codes of a Genesys error body that mean a missing permission, and whether it is missing everywhere.
const CODES: [(&str, bool); 4] = [
    ("missing.any.permissions", true),
    ("missing.permissions", true),
    ("missing.any.division.permissions", false),
    ("not.authorized", false),
];

/// Names that are kept.
const MAX_NAMES: usize = 8;

/// Greatest length of a name, in characters.
const MAX_NAME: usize = 100;

/// Greatest body that is read, in bytes: an error body has a few hundred.
pub const MAX_BODY: usize = 16 * 1024;

/// What a credential may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The permissions or scopes, as the upstream names them; at most 8. Empty where it does not say which.
    pub names: Vec<String>,
    /// Whether other calls of its kind fare no better: it is not missing for one object, or in one division, alone.
    pub everywhere: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty() {
            return f.write_str("a permission that the answer does not name");
        }
        f.write_str(&self.names.join(", "))
    }
}

/// Reads which permission an answer says is missing; `None` for any other answer.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tidegate_core::permission::missing;
///
/// let body = br#"{"code":"missing.any.permissions","status":403,
///     "message":"You are missing the following permission(s): routing:skill:manage"}"#;
/// let found = missing(StatusCode::FORBIDDEN, &HeaderMap::new(), body).unwrap();
/// assert_eq!(found.to_string(), "routing:skill:manage");
/// assert_eq!(missing(StatusCode::FORBIDDEN, &HeaderMap::new(), b"{}"), None);
/// ```
pub fn missing(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Missing> {
    if status != StatusCode::FORBIDDEN {
        return None;
    }
    of_header(headers).or_else(|| of_body(body))
}

/// RFC 6750 §3.1: `scope` may be there, and lists what would be enough, separated by spaces.
fn of_header(headers: &HeaderMap) -> Option<Missing> {
    let told = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let told = told.filter(|text| text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")));
    let mut refused = told.filter(|text| text.contains("insufficient_scope"));
    let text = refused.next()?;
    let scope = text.split_once("scope=\"").and_then(|(_, rest)| rest.split_once('"'));
    let names = scope.map_or_else(Vec::new, |(scopes, _)| named(scopes.split(' ')));
    Some(Missing { names, everywhere: true })
}

#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    message: Option<String>,
    #[serde(rename = "messageParams", default)]
    params: Value,
}

fn of_body(body: &[u8]) -> Option<Missing> {
    if body.len() > MAX_BODY {
        return None;
    }
    let body: ErrorBody = serde_json::from_slice(body).ok()?;
    let (_, everywhere) = CODES.into_iter().find(|(code, _)| *code == body.code)?;
    let params = ["permissions", "permission"].iter().find_map(|key| body.params.get(key));
    let mut names = match params {
        Some(Value::Array(each)) => named(each.iter().filter_map(Value::as_str)),
        Some(Value::String(text)) => listed(text),
        _ => Vec::new(),
    };
    if names.is_empty()
        && let Some((_, behind)) = body.message.as_deref().and_then(|message| message.rsplit_once(": "))
    {
        names = listed(behind);
    }
    Some(Missing { names, everywhere })
}

/// The names of a text such as `[a:b:c, d:e:f]`.
fn listed(text: &str) -> Vec<String> {
    named(text.trim().trim_matches(['[', ']', '.']).split([',', ';']))
}

/// What can be a permission's name. A message is free text: words of it must not be taken for one.
fn named<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let words = words.map(|word| word.trim().trim_matches(['[', ']', '"', '.']));
    let name = |word: &&str| {
        let length = word.chars().count();
        (1..=MAX_NAME).contains(&length) && word.chars().all(|c| c.is_ascii_graphic())
    };
    words.filter(name).take(MAX_NAMES).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(body: &str) -> Option<String> {
        missing(StatusCode::FORBIDDEN, &HeaderMap::new(), body.as_bytes()).map(|found| found.to_string())
    }

    #[test]
    fn names_come_from_the_parameters_before_the_message() {
        let text = r#"{"code":"missing.permissions","message":"You need: x:y","messageParams":{"permissions":["a:b:c","d:e:f"]}}"#;
        assert_eq!(of(text).as_deref(), Some("a:b:c, d:e:f"));
        let text = r#"{"code":"missing.permissions","messageParams":{"permission":"[a:b:c, d:e:f]"}}"#;
        assert_eq!(of(text).as_deref(), Some("a:b:c, d:e:f"));
        let text = r#"{"code":"not.authorized","message":"Not authorized. Missing the following permission(s): [a:b:c, d:e:f]."}"#;
        assert_eq!(of(text).as_deref(), Some("a:b:c, d:e:f"));
    }

    #[test]
    fn a_permission_without_a_name_is_missing_all_the_same() {
        let told = Some("a permission that the answer does not name");
        assert_eq!(of(r#"{"code":"not.authorized"}"#).as_deref(), told);
        let words = r#"{"code":"not.authorized","message":"Sorry: you may not do this"}"#;
        assert_eq!(of(words).as_deref(), told, "words are no name");
    }

    #[test]
    fn a_permission_that_one_division_lacks_is_not_missing_everywhere() {
        let everywhere = |code: &str| {
            let body = format!(r#"{{"code":"{code}"}}"#);
            missing(StatusCode::FORBIDDEN, &HeaderMap::new(), body.as_bytes()).map(|found| found.everywhere)
        };
        assert_eq!(everywhere("missing.permissions"), Some(true));
        assert_eq!(everywhere("missing.any.permissions"), Some(true));
        assert_eq!(everywhere("missing.any.division.permissions"), Some(false));
        assert_eq!(everywhere("not.authorized"), Some(false), "it may be the object's");
    }

    #[test]
    fn other_answers_say_nothing_about_permissions() {
        for body in
            [r#"{"code":"forbidden","message":"nope: a:b"}"#, "<html>", "", "[]", r#"{"message":"x: a:b"}"#]
        {
            assert_eq!(of(body), None, "{body}");
        }
        let body = br#"{"code":"missing.permissions","message":"x: a:b"}"#;
        assert_eq!(missing(StatusCode::NOT_FOUND, &HeaderMap::new(), body), None);
    }

    #[test]
    fn an_insufficient_scope_is_read_from_the_challenge() {
        let with = |value: &'static str| {
            let headers = [(WWW_AUTHENTICATE, HeaderValue::from_static(value))].into_iter().collect();
            missing(StatusCode::FORBIDDEN, &headers, b"").map(|found| found.names)
        };
        let told = with(r#"Bearer realm="x", error="insufficient_scope", scope="users users:readonly""#);
        assert_eq!(told, Some(vec!["users".to_owned(), "users:readonly".to_owned()]));
        assert_eq!(with(r#"Bearer error="insufficient_scope""#), Some(Vec::new()));
        assert_eq!(with(r#"Bearer error="invalid_token""#), None);
        assert_eq!(with(r#"Basic realm="insufficient_scope""#), None);
    }

    #[test]
    fn names_are_bounded() {
        let many: Vec<String> = (0..100).map(|n| format!("\"p{n}\"")).collect();
        let body = format!(
            r#"{{"code":"missing.permissions","messageParams":{{"permissions":[{}]}}}}"#,
            many.join(",")
        );
        assert_eq!(
            missing(StatusCode::FORBIDDEN, &HeaderMap::new(), body.as_bytes()).unwrap().names.len(),
            8
        );
        let long = format!(r#"{{"code":"missing.permissions","message":"x: {}"}}"#, "p".repeat(101));
        assert_eq!(of(&long).as_deref(), Some("a permission that the answer does not name"));
    }
}
