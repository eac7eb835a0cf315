//! A request and a response without sockets.

use http::{HeaderMap, Method};
use serde_json::Value;

use crate::wire::form;

/// The search of users: a POST that reads.
pub const USER_SEARCH: &str = "/api/v2/users/search";

/// What arrived.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    /// The method.
    pub method: Method,
    /// The path, without query, as sent.
    pub path: String,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; empty if it was too large.
    pub body: Vec<u8>,
    /// Whether the body exceeded the bound and was thrown away.
    pub too_large: bool,
}

impl ApiRequest {
    /// A request without headers or body; `target` is path and query.
    pub fn new(method: Method, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method,
            path: path.to_owned(),
            query: form::parse(query),
            headers: HeaderMap::new(),
            body: Vec::new(),
            too_large: false,
        }
    }

    /// A header as text; absent if it is not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A query parameter; the first if repeated.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A positive number from the query, or `default`.
    pub fn number(&self, name: &str, default: usize) -> usize {
        self.query(name).and_then(|text| text.parse().ok()).filter(|value| *value > 0).unwrap_or(default)
    }

    /// The body as JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether it may change something: by its method, except that a search is a POST.
    pub fn is_write(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS) && self.path != USER_SEARCH
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiResponse {
    /// The status.
    pub status: u16,
    /// Names (any case; title-cased on the wire) and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl ApiResponse {
    /// A JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", body.to_string().into_bytes())
    }

    /// Any body.
    pub fn text(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("Content-Type".to_owned(), content_type.to_owned())], body }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}
