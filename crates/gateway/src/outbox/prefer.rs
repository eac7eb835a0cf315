//! `Prefer` (RFC 7240): whether a caller wants its write to be answered later, and how long it waits for it.

use std::time::Duration;

use http::header::HeaderMap;
use http::{HeaderName, HeaderValue};

const PREFER: HeaderName = HeaderName::from_static("prefer");
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What a caller prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefers {
    /// It waits so long for the answer itself (`wait=N`).
    pub(crate) wait: Option<Duration>,
}

/// Reads the preference `respond-async`; `None` if there is none. Of several of one name the first counts (RFC 7240, section 2).
pub(crate) fn read(headers: &HeaderMap) -> Option<Prefers> {
    let mut all = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok()).flat_map(split);
    let (mut respond_async, mut wait) = (false, None);
    for preference in all.by_ref() {
        let (name, value) = parts(preference);
        match name.as_str() {
            "respond-async" => respond_async = true,
            // A delta-seconds; what is none is ignored, as a preference that is not understood is.
            "wait" if wait.is_none() => wait = value.parse().ok().map(Duration::from_secs),
            _ => {}
        }
    }
    respond_async.then_some(Prefers { wait })
}

/// Takes out what the gateway has applied: the upstream is not to answer later once more. Other preferences stay.
pub(crate) fn applied(headers: &mut HeaderMap) {
    let mut left: Vec<HeaderValue> = Vec::new();
    for value in headers.get_all(PREFER) {
        let Ok(text) = value.to_str() else { continue };
        let kept: Vec<&str> = split(text)
            .filter(|preference| !matches!(parts(preference).0.as_str(), "respond-async" | "wait" | ""))
            .collect();
        left.extend((!kept.is_empty()).then(|| HeaderValue::try_from(kept.join(", "))).and_then(Result::ok));
    }
    headers.remove(PREFER);
    for value in left {
        headers.append(PREFER, value);
    }
}

/// The preferences of a field. Commas in quotes separate nothing.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |letter: char| {
        if escaped {
            escaped = false;
            return false;
        }
        match letter {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' => return !quoted,
            _ => {}
        }
        false
    })
    .map(str::trim)
}

/// Name, in small letters, and value of a preference, without its parameters.
fn parts(preference: &str) -> (String, String) {
    let word = preference.split(';').next().unwrap_or_default();
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn respond_async_is_found_wherever_it_stands() {
        let wait = |seconds| Some(Prefers { wait: Some(Duration::from_secs(seconds)) });
        for (values, expected) in [
            (&["respond-async"][..], Some(Prefers { wait: None })),
            (&["Respond-Async, WAIT=10"], wait(10)),
            (&["return=minimal", "wait = \"5\" ; a=b, respond-async; x"], wait(5)),
            (&["wait=1, wait=2, respond-async"], wait(1)),
            (&["respond-async, wait=soon"], Some(Prefers { wait: None })),
            (&["wait=10"], None),
            (&["foo=\"a, respond-async\""], None),
            (&["foo=\"a\\\", respond-async\""], None),
            (&[], None),
        ] {
            assert_eq!(read(&headers(values)), expected, "{values:?}");
        }
    }

    #[test]
    fn what_is_applied_goes_and_the_rest_stays() {
        let mut headers = headers(&["respond-async, return=minimal, wait=3", "wait=1", "foo=\"a, b\""]);
        applied(&mut headers);
        let left: Vec<_> = headers.get_all(PREFER).iter().collect();
        assert_eq!(left, ["return=minimal", "foo=\"a, b\""]);
    }
}
