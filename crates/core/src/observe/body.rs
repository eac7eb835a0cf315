//! What the body of a refusal says about limits.
//!
//! Genesys names the limit that was hit, `{"limit": {"key", "namespace", "value"}}`, and writes the wait into its
//! message: "Retry the request in [42] seconds". Discord gives `retry_after` in seconds with decimals. A wait in the
//! body counts only where the headers gave none, because headers are what servers keep right.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::meters::GLOBAL;
use super::number::decimal;
use super::reader::{bounded, note};
use super::rules::HeaderRules;
use super::{HitLimit, MAX_DURATION, Observation};

/// Longest body that is read, in bytes. Refusals are small; a large body is content.
pub const MAX_BODY: usize = 64 * 1024;

const SECOND: Duration = Duration::from_secs(1);

/// Adds to `into` what the body of an error answer says. Answers of other statuses, and bodies that are not JSON, say
/// nothing; a body longer than [`MAX_BODY`] is listed as ignored.
///
/// ```
/// use std::time::Duration;
/// use http::StatusCode;
/// use tidegate_core::observe::{HeaderRules, Observation, observe_body};
///
/// let body = br#"{"message":"Rate limit exceeded the maximum. Retry the request in [42] seconds","status":429,
///     "limit":{"key":"token.rate.per.minute","namespace":"platform.api","value":300}}"#;
/// let mut seen = Observation::default();
/// observe_body(&HeaderRules::default(), StatusCode::TOO_MANY_REQUESTS, body, &mut seen);
/// assert_eq!(seen.retry_after, Some(Duration::from_secs(42)));
/// assert_eq!(seen.hit.unwrap().key.as_deref(), Some("token.rate.per.minute"));
/// ```
pub fn observe_body(rules: &HeaderRules, status: StatusCode, body: &[u8], into: &mut Observation) {
    if !(status.is_client_error() || status.is_server_error()) || body.is_empty() {
        return;
    }
    if body.len() > MAX_BODY {
        return note(into, "body", "longer than 64 KiB");
    }
    let Ok(whole) = serde_json::from_slice::<Value>(body) else { return };
    let pointed = rules.body_wait.as_ref().and_then(|pointer| seconds(whole.pointer(pointer)?));
    let Value::Object(answer) = whole else { return };
    if let Some(hit) = hit(&answer) {
        into.hit = Some(hit);
    }
    if into.hit.is_none() && answer.get("global") == Some(&Value::Bool(true)) {
        let global = || Some(GLOBAL.to_owned());
        into.hit = Some(HitLimit { key: global(), namespace: global(), value: None });
    }
    if into.retry_after.is_none() {
        match pointed.or_else(|| wait(&answer)) {
            Some(wait) if wait <= MAX_DURATION => into.retry_after = Some(wait),
            Some(_) => note(into, "body", "more than a year ahead"),
            None => {}
        }
    }
}

type Object = serde_json::Map<String, Value>;

/// The `limit` object of an error, or of the first of its inner errors that has one.
fn hit(answer: &Object) -> Option<HitLimit> {
    let inner = answer.get("errors").and_then(Value::as_array).into_iter().flatten();
    let mut limits =
        std::iter::once(answer.get("limit")).chain(inner.map(|error| error.get("limit"))).flatten();
    limits.find_map(|limit| {
        let text = |key| limit.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(bounded);
        let hit = HitLimit {
            key: text("key"),
            namespace: text("namespace"),
            value: limit.get("value").and_then(number),
        };
        (hit.key.is_some() || hit.namespace.is_some()).then_some(hit)
    })
}

fn number(value: &Value) -> Option<u64> {
    let whole = match value {
        Value::Number(number) => decimal(&number.to_string())?.whole(),
        Value::String(text) => decimal(text.trim())?.whole(),
        _ => return None,
    };
    u64::try_from(whole).ok()
}

fn wait(answer: &Object) -> Option<Duration> {
    if let Some(wait) = answer.get("retry_after").and_then(seconds) {
        return Some(wait);
    }
    let message = answer.get("message").and_then(Value::as_str)?;
    let (_, rest) = message.split_once("Retry the request in [")?;
    let (number, unit) = rest.split_once(']')?;
    let unit = unit.trim_start().starts_with("second").then_some(SECOND)?;
    Some(decimal(number.trim())?.times(unit))
}

fn seconds(value: &Value) -> Option<Duration> {
    let number = match value {
        Value::Number(number) => decimal(&number.to_string()),
        Value::String(text) => decimal(text.trim()),
        _ => None,
    };
    Some(number?.times(SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Observation {
        let mut seen = Observation::default();
        observe_body(&HeaderRules::default(), StatusCode::TOO_MANY_REQUESTS, body.as_bytes(), &mut seen);
        seen
    }

    #[test]
    fn the_normalised_genesys_refusal_gives_its_wait() {
        let seen = read(
            r#"{"message":"Rate limit exceeded the maximum. Retry the request in [42] seconds",
                "code":"too.many.requests.retry.after","status":429,"contextId":"x","details":[],"errors":[]}"#,
        );
        assert_eq!((seen.retry_after, seen.hit), (Some(Duration::from_secs(42)), None));
    }

    #[test]
    fn the_limit_object_is_found_also_in_inner_errors_and_with_text_values() {
        let seen = read(r#"{"errors":[{},{"limit":{"key":"k","namespace":"n","value":"300"}}]}"#);
        let hit = HitLimit { key: Some("k".into()), namespace: Some("n".into()), value: Some(300) };
        assert_eq!(seen.hit, Some(hit));
    }

    #[test]
    fn a_wait_of_discord_keeps_its_decimals_and_never_overrules_a_header() {
        let body = r#"{"message":"You are being rate limited.","retry_after":64.57,"global":true}"#;
        let seen = read(body);
        assert_eq!(seen.retry_after, Some(Duration::from_millis(64_570)));
        assert_eq!(seen.hit.unwrap().namespace.as_deref(), Some("global"));

        let mut told = Observation { retry_after: Some(Duration::from_secs(65)), ..Observation::default() };
        observe_body(&HeaderRules::default(), StatusCode::TOO_MANY_REQUESTS, body.as_bytes(), &mut told);
        assert_eq!(told.retry_after, Some(Duration::from_secs(65)));
    }

    #[test]
    fn a_pointer_of_the_profile_finds_a_wait_elsewhere() {
        let rules = HeaderRules { body_wait: Some("/error/retry_in".into()), ..HeaderRules::default() };
        let mut seen = Observation::default();
        observe_body(&rules, StatusCode::SERVICE_UNAVAILABLE, br#"{"error":{"retry_in":"1.5"}}"#, &mut seen);
        assert_eq!(seen.retry_after, Some(Duration::from_millis(1_500)));
    }

    #[test]
    fn nonsense_says_nothing_and_large_bodies_are_listed() {
        for body in ["", "no json", "[]", "{\"limit\":7}", "{\"retry_after\":-1}", "{\"retry_after\":1e300}"]
        {
            assert_eq!(read(body).retry_after, None, "{body}");
        }
        assert_eq!(read(&" ".repeat(MAX_BODY + 1)).ignored[0].field, "body");
        let mut fine = Observation::default();
        observe_body(&HeaderRules::default(), StatusCode::OK, br#"{"retry_after":1}"#, &mut fine);
        assert_eq!(fine, Observation::default(), "only refusals speak about limits");
    }
}
