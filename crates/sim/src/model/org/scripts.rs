//! Scripts with versions: what 500 polling agents want to know, and the validators that make asking cheap.
//!
//! Publishing a script raises its version. `GET /api/v2/agent-scripting/scripts` (and one of them) carries a version hash as `ETag`
//! and answers `If-None-Match` with 304; it still costs quota, as everywhere.

use http::Method;
use serde_json::{Value, json};

use super::{Done, paging};
use crate::wire::errors::ApiError;
use crate::wire::message::ApiRequest;

/// The id of the n-th script (from 0).
pub fn id(index: usize) -> String {
    format!("20000000-0000-4000-8000-{:012x}", index + 1)
}

/// Where scripts are read.
const BASE: &str = "/api/v2/scripts";

#[derive(Debug)]
struct Script {
    id: String,
    name: String,
    version: u64,
}

impl Script {
    /// Changes with every version and differs between scripts (FNV-1a).
    fn hash(&self) -> u64 {
        self.id
            .bytes()
            .chain(self.version.to_be_bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    fn entity(&self, base: &str) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "versionId": format!("{:016x}", self.hash()),
            "version": self.version,
            "versionHash": format!("{:016x}", self.hash()),
            "state": "published",
            "selfUri": format!("{base}/{}", self.id),
        })
    }
}

/// All scripts of the organisation.
#[derive(Debug)]
pub struct Scripts(Vec<Script>);

impl Scripts {
    /// The scripts an organisation starts with, all at version 1.
    pub fn seeded(count: u32) -> Self {
        let script = |index| Script { id: id(index), name: format!("Script {}", index + 1), version: 1 };
        Self((0..count as usize).map(script).collect())
    }

    fn find(&self, id: &str) -> Result<&Script, ApiError> {
        self.0.iter().find(|script| script.id == id).ok_or_else(|| ApiError::not_found(id))
    }

    /// Answers `/api/v2/scripts...`; `path` is what follows.
    pub(super) fn handle(&mut self, request: &ApiRequest, path: &[&str]) -> Option<Done> {
        let page = |scripts: &[Script]| paging::page(request, scripts, |script| script.entity(BASE));
        Some(match (&request.method, path) {
            (&Method::GET, []) => Done::ok("GET /api/v2/scripts", page(&self.0)),
            (&Method::GET, ["published"]) => Done::ok("GET /api/v2/scripts/published", page(&self.0)),
            (&Method::POST, ["published"]) => {
                let body = request.json().unwrap_or_default();
                let id =
                    body["scriptId"].as_str().ok_or_else(|| ApiError::bad_request("scriptId is required"));
                Done::of("POST /api/v2/scripts/published", id.and_then(|id| self.publish(id)))
            }
            (&Method::GET, ["published", id]) => Done::of(
                "GET /api/v2/scripts/published/{id}",
                self.find(id).map(|script| script.entity(BASE)),
            ),
            (&Method::GET, [id]) => {
                Done::of("GET /api/v2/scripts/{id}", self.find(id).map(|script| script.entity(BASE)))
            }
            _ => return None,
        })
    }

    /// Makes a new version of a script; what it is then.
    pub(super) fn publish(&mut self, id: &str) -> Result<Value, ApiError> {
        let script =
            self.0.iter_mut().find(|script| script.id == id).ok_or_else(|| ApiError::not_found(id))?;
        script.version += 1;
        Ok(script.entity(BASE))
    }

    /// Answers `/api/v2/agent-scripting/scripts...`.
    pub(super) fn handle_agent(&self, request: &ApiRequest, path: &[&str]) -> Option<Done> {
        const AGENT: &str = "/api/v2/agent-scripting/scripts";
        match (&request.method, path) {
            (&Method::GET, ["scripts"]) => {
                let all = self.0.iter().fold(0_u64, |all, script| all.rotate_left(7) ^ script.hash());
                let render = || paging::page(request, &self.0, |script| script.entity(AGENT));
                Some(conditional("GET /api/v2/agent-scripting/scripts", request, all, render))
            }
            (&Method::GET, ["scripts", id]) => {
                const ENDPOINT: &str = "GET /api/v2/agent-scripting/scripts/{id}";
                Some(match self.find(id) {
                    Ok(script) => conditional(ENDPOINT, request, script.hash(), || script.entity(AGENT)),
                    Err(error) => Done::error(ENDPOINT, error),
                })
            }
            _ => None,
        }
    }
}

/// 304 if the caller's validator is current, else the entity; both with the `ETag` (RFC 9110 §13.1.2).
fn conditional(
    endpoint: &'static str,
    request: &ApiRequest,
    hash: u64,
    render: impl FnOnce() -> Value,
) -> Done {
    let etag = format!("\"{hash:016x}\"");
    let known = request.header("if-none-match").is_some_and(|list| {
        list.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == etag)
    });
    let done = if known { Done::status(endpoint, 304, None) } else { Done::ok(endpoint, render()) };
    done.with("ETag", etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(scripts: &Scripts, etag: Option<&str>) -> (u16, String) {
        let mut request = ApiRequest::new(Method::GET, "/api/v2/agent-scripting/scripts");
        if let Some(etag) = etag {
            request.headers.insert("if-none-match", etag.parse().unwrap());
        }
        let success = scripts.handle_agent(&request, &["scripts"]).unwrap().result.unwrap();
        (success.status, success.headers[0].1.clone())
    }

    #[test]
    fn publishing_changes_the_validator() {
        let mut scripts = Scripts::seeded(3);
        let (status, etag) = poll(&scripts, None);
        assert_eq!(status, 200);
        assert_eq!(poll(&scripts, Some(&etag)).0, 304);
        let mut publish = ApiRequest::new(Method::POST, "/api/v2/scripts/published");
        publish.body = json!({"scriptId": id(1)}).to_string().into_bytes();
        let body = scripts.handle(&publish, &["published"]).unwrap().result.unwrap().body.unwrap();
        assert_eq!(body["version"], 2);
        assert_eq!(poll(&scripts, Some(&etag)).0, 200);
    }

    #[test]
    fn scripts_are_named_by_number() {
        assert_eq!(Scripts::seeded(3).0[2].entity("")["name"], "Script 3");
    }
}
