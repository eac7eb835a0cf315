//! What was created a moment ago, so that a 404 about it is not taken for the last word.
//!
//! Upstreams answer reads from replicas that learn of a new entity later than whoever created it. The register of an
//! upstream remembers the paths of what its calls created for as long as the profile says, and a call about one of them,
//! or about something below it, knows for how long a 404 may mean "not yet"
//! ([`not_yet_there`](tidegate_core::classify::not_yet_there)). What was deleted is forgotten at once.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use http::{Method, Response, StatusCode, Uri};
use parking_lot::Mutex;
use serde_json::Value;
use tidegate_core::key::normalise;
use tidegate_core::time::Mono;

use crate::body::ResponseBody;

/// Entities remembered at most; beyond it the oldest is forgotten. At 300 creations a minute that is a quarter of an hour.
const MOST: usize = 4_096;

/// How much of the answer to a creation is looked into for the entity's id.
const PEEK: usize = 64 * 1024;

/// How long that part of the answer is waited for.
const PEEK_WITHIN: Duration = Duration::from_secs(1);

/// What an upstream's calls have created lately.
#[derive(Debug)]
pub(crate) struct Fresh {
    window: Duration,
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    at: HashMap<String, Mono>,
    /// In order of creation; what was created anew or deleted since is here in vain.
    order: VecDeque<(Mono, String)>,
}

impl Fresh {
    /// Remembers each creation for `window`.
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, made: Mutex::default() }
    }

    /// For how long from `now` what lies at `path` may not be found yet; `None` if nothing at or above it is new.
    pub(crate) fn left(&self, path: &str, now: Mono) -> Option<Duration> {
        let made = self.made.lock();
        if made.at.is_empty() {
            return None;
        }
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain([path.len()]);
        let newest = ends.filter_map(|end| made.at.get(&path[..end])).max()?;
        self.window.checked_sub(now - *newest).filter(|left| !left.is_zero())
    }

    fn created(&self, path: String, now: Mono) {
        let mut made = self.made.lock();
        made.order.push_back((now, path.clone()));
        made.at.insert(path, now);
        while made.order.front().is_some_and(|(at, _)| now - *at >= self.window) || made.order.len() > MOST {
            let Some((at, path)) = made.order.pop_front() else { break };
            if made.at.get(&path) == Some(&at) {
                made.at.remove(&path);
            }
        }
    }

    fn gone(&self, path: &str) {
        self.made.lock().at.remove(path);
    }

    /// Learns from the answer to a call. The body of a creation's answer is looked into and handed on whole.
    pub(crate) async fn learn(
        &self,
        method: &Method,
        path: &str,
        response: Response<ResponseBody>,
        now: Mono,
    ) -> Response<ResponseBody> {
        let status = response.status();
        if *method == Method::DELETE && (status.is_success() || status == StatusCode::GONE) {
            self.gone(path);
        }
        if *method != Method::POST || !status.is_success() {
            return response;
        }
        let (parts, body) = response.into_parts();
        let (read, body) = if is_json(&parts.headers) {
            body.peek(PEEK, PEEK_WITHIN).await
        } else {
            (bytes::Bytes::new(), body)
        };
        if let Some(created) = place(path, &parts.headers, &read) {
            self.created(created, now);
        }
        Response::from_parts(parts, body)
    }
}

/// Whether an answer says that its body is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}

/// Where the created entity lies: as `Location` says (RFC 9110 §10.2.2), or the body's `selfUri`, or below the path of the
/// creation by the body's `id`.
fn place(path: &str, headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    if let Some(place) = location.and_then(path_of) {
        return Some(place);
    }
    let entity: Value = serde_json::from_slice(body).ok()?;
    if let Some(place) = entity.get("selfUri").and_then(Value::as_str).and_then(path_of) {
        return Some(place);
    }
    let id = match entity.get("id")? {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    let plain =
        !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    plain.then(|| format!("{}/{id}", path.trim_end_matches('/')))
}

fn path_of(uri: &str) -> Option<String> {
    let uri: Uri = uri.parse().ok()?;
    normalise(uri.path()).ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn what_lies_at_or_below_a_new_path_is_new_for_the_window() {
        let fresh = Fresh::new(60 * S);
        fresh.created("/users/7".to_owned(), at(10));
        for (path, left) in [
            ("/users/7", Some(50 * S)),
            ("/users/7/skills/1", Some(50 * S)),
            ("/users/70", None),
            ("/users", None),
        ] {
            assert_eq!(fresh.left(path, at(20)), left, "{path}");
        }
        assert_eq!(fresh.left("/users/7", at(70)), None);
        fresh.gone("/users/7");
        assert_eq!(fresh.left("/users/7", at(20)), None);
    }

    #[test]
    fn only_so_many_creations_are_remembered() {
        let fresh = Fresh::new(60 * S);
        for number in 0..=MOST {
            fresh.created(format!("/users/{number}"), at(0));
        }
        assert_eq!((fresh.left("/users/0", at(1)), fresh.left("/users/1", at(1))), (None, Some(59 * S)));
        fresh.created("/users/new".to_owned(), at(60));
        assert_eq!(fresh.made.lock().at.len(), 1, "the old ones have had their time");
    }

    #[test]
    fn the_place_of_what_was_created_is_read_from_the_answer() {
        let mut headers = HeaderMap::new();
        let told = |headers: &HeaderMap, body: &str| place("/api/v2/users", headers, body.as_bytes());
        for (body, expected) in [
            (r#"{"id":"x","selfUri":"/api/v2/users/7"}"#, Some("/api/v2/users/7")),
            (r#"{"selfUri":"https://api.example.com/api/v2/users/7?x=1"}"#, Some("/api/v2/users/7")),
            (r#"{"id":"7-a"}"#, Some("/api/v2/users/7-a")),
            (r#"{"id":7}"#, Some("/api/v2/users/7")),
            (r#"{"id":"../x"}"#, None),
            (r#"{"id":null}"#, None),
            ("{", None),
        ] {
            assert_eq!(told(&headers, body).as_deref(), expected, "{body}");
        }
        headers.insert(LOCATION, http::HeaderValue::from_static("/api/v2/users/8"));
        assert_eq!(told(&headers, "").as_deref(), Some("/api/v2/users/8"));
    }
}
