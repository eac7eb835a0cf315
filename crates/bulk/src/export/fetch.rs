//! One page of a listing, asked for until it is served.
//!
//! The client repeats a call by its own rules. What it comes back without says nothing of the page: the upstream was not
//! reached, or did not serve it, or its answer was cut. All of these are asked for again here; for how long the first two, is
//! decided by the export's patience, outside.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tidegate::{CallReport, Class, ErrorKind};

use super::{ExportError, Run};
use crate::health::is_unserved;

/// The largest page.
const MAX_PAGE: usize = 64 * 1024 * 1024;

/// How often a page is asked for whose body does not come to its end. The call itself is repeated by the client.
const TRIES: u32 = 4;

/// The first wait before a page is asked for again; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How much of a refusal is told.
const MAX_TOLD: usize = 300;

/// What one try to read a page came to.
enum Tried {
    Page(Fetched),
    /// The body did not come to its end.
    Cut(String),
    /// The upstream was not reached, or did not serve it.
    Unserved(String),
}

/// A page as it came.
pub(super) struct Fetched {
    pub(super) body: Bytes,
    /// The upstream's id of the request.
    pub(super) correlation: Option<String>,
    /// Its header says that another page follows (RFC 8288, `rel="next"`).
    pub(super) linked: bool,
}

impl Run<'_> {
    /// Reads a page, for as long as it takes.
    pub(super) async fn fetch(&self, target: &str, first: bool) -> Result<Fetched, ExportError> {
        let mut pause = PAUSE;
        let mut cuts = 0;
        loop {
            match self.try_page(target, first).await? {
                Tried::Page(page) => {
                    self.health.served();
                    return Ok(page);
                }
                Tried::Cut(why) => {
                    cuts += 1;
                    if cuts == TRIES {
                        let why = format!("GET {target}: the answer was cut {TRIES} times: {why}");
                        return Err(ExportError::Unserved(why));
                    }
                }
                Tried::Unserved(why) => {
                    self.health.away(self.client.upstream().clock().now(), why);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_page(&self, target: &str, first: bool) -> Result<Tried, ExportError> {
        let mut call = self.client.get(target).class(Class::Bulk);
        for (name, value) in &self.request.headers {
            call = call.header(name.clone(), value.clone());
        }
        let response = match call.send().await {
            Ok(response) => response,
            Err(error) => {
                return match error.kind() {
                    // No other try would fare better.
                    ErrorKind::Token | ErrorKind::Invalid => Err(ExportError::Unserved(error.to_string())),
                    _ => Ok(Tried::Unserved(error.to_string())),
                };
            }
        };
        let (parts, body) = response.into_parts();
        let within = self.client.upstream().profile().timeouts.bulk;
        let body = match tokio::time::timeout(within, body.bytes(MAX_PAGE)).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return Ok(Tried::Cut(error.to_string())),
            Err(_elapsed) => return Ok(Tried::Cut(format!("its body did not end within {within:?}"))),
        };
        if is_unserved(parts.status) {
            let why = format!("the upstream answered {} to {target}: {}", parts.status, text_of(&body));
            return Ok(Tried::Unserved(why));
        }
        if parts.status != StatusCode::OK {
            let missing = parts.extensions.get::<CallReport>().and_then(|report| report.missing.clone());
            let mut why =
                missing.map_or_else(|| text_of(&body), |missing| format!("the credential lacks {missing}"));
            if !first && parts.status.is_client_error() && target.contains("cursor=") {
                why.push_str(" (a cursor may have expired: start again with --force)");
            }
            return Err(ExportError::Refused { target: target.to_owned(), status: parts.status, why, first });
        }
        let id = parts.headers.get("inin-correlation-id").and_then(|id| id.to_str().ok());
        let links = parts.headers.get_all(http::header::LINK).iter().filter_map(|link| link.to_str().ok());
        let linked = links.flat_map(|link| link.split([';', ','])).any(|part| {
            matches!(part.trim().split_once('='), Some(("rel", rel)) if rel.trim_matches('"').split(' ').any(|rel| rel == "next"))
        });
        Ok(Tried::Page(Fetched { body, correlation: id.map(str::to_owned), linked }))
    }
}

/// The beginning of a refusal, in one line.
fn text_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(MAX_TOLD).collect()
}
