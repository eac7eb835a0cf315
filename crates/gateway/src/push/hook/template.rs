//! Topics and paths made of what a delivery brings: `github.{X-GitHub-Event}`, `/repos/{/repository/name}`.
//!
//! The grammar is that of all [templates](tidegate_core::template). A hole that begins with a slash is a JSON pointer into the body, any other
//! is the name of a header. What fills a hole is data: in a path it is encoded, in a topic it may not hold what a topic
//! cannot.

use std::fmt;

use http::{HeaderMap, HeaderName};
use serde_json::Value;
use tidegate_core::template::{Piece, encode, pieces};

/// A text made of what a delivery brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookTemplate {
    text: String,
    pieces: Vec<Piece<Hole>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hole {
    Header(HeaderName),
    Pointer(String),
}

impl HookTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    ///
    /// ```
    /// use tidegate_gateway::HookTemplate;
    ///
    /// assert!(HookTemplate::parse("github.{X-GitHub-Event}").is_ok());
    /// assert!(HookTemplate::parse("github.{}").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, String> {
        let hole = |inside: &str| {
            if inside.starts_with('/') {
                return Ok(Hole::Pointer(inside.to_owned()));
            }
            let name = inside.to_ascii_lowercase().parse::<HeaderName>();
            name.map(Hole::Header).map_err(|_| {
                format!(
                    "`{{{inside}}}` is neither a header nor a JSON pointer (write {{X-Name}} or {{/member}})"
                )
            })
        };
        Ok(Self { text: text.to_owned(), pieces: pieces(text, hole)? })
    }

    /// The topic of a delivery; `None` if something is missing, or cannot stand in a topic.
    pub(super) fn topic(&self, headers: &HeaderMap, body: &Value) -> Option<String> {
        let topic = self.fill(headers, body, |value, topic| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
            topic.push_str(value);
            !value.is_empty() && value.bytes().all(fits)
        })?;
        tidegate_core::push::topic(&topic).is_ok().then_some(topic)
    }

    /// The path of what a delivery is about; `None` if something is missing.
    pub(super) fn path(&self, headers: &HeaderMap, body: &Value) -> Option<String> {
        self.fill(headers, body, |value, path| {
            encode(value, path);
            !matches!(value, "" | "." | "..")
        })
    }

    fn fill(
        &self,
        headers: &HeaderMap,
        body: &Value,
        mut put: impl FnMut(&str, &mut String) -> bool,
    ) -> Option<String> {
        let mut text = String::new();
        for piece in &self.pieces {
            let fits = match piece {
                Piece::Text(plain) => {
                    text.push_str(plain);
                    true
                }
                Piece::Hole(Hole::Header(name)) => put(headers.get(name)?.to_str().ok()?, &mut text),
                Piece::Hole(Hole::Pointer(pointer)) => match body.pointer(pointer)? {
                    Value::String(value) => put(value, &mut text),
                    Value::Number(value) => put(&value.to_string(), &mut text),
                    _ => false,
                },
            };
            if !fits {
                return None;
            }
        }
        Some(text)
    }
}

impl fmt::Display for HookTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_fills_a_hole_is_data() {
        let headers: HeaderMap =
            [(HeaderName::from_static("x-github-event"), HeaderValue::from_static("push"))]
                .into_iter()
                .collect();
        let body = json!({ "repository": { "name": "a/b", "id": 7, "private": false } });
        let topic = |text: &str| HookTemplate::parse(text).unwrap().topic(&headers, &body);
        assert_eq!(topic("github.{X-GitHub-Event}.{/repository/id}").as_deref(), Some("github.push.7"));
        assert_eq!(topic("github.{/repository/name}"), None, "a slash cannot stand in a topic");
        assert_eq!(topic("github.{/repository/private}"), None);
        assert_eq!(topic("github.{X-Other}"), None);
        let path = HookTemplate::parse("/repos/{/repository/name}").unwrap();
        assert_eq!(path.path(&headers, &body).as_deref(), Some("/repos/a%2Fb"));
    }
}
