//! Whether an upstream recognises a repeated write by its key.
//!
//! No document of a vendor settles this: of Genesys' 3,355 operations one is said to take a key, and a profile that trusts a
//! key the upstream ignores makes duplicates. So it is tried: one object is created, then another one under the key of the
//! first. An upstream that knows the key answers with the first object again, or refuses the key; one that does not creates
//! a second. For how long a key is known cannot be found out this way.
//!
//! Whatever was created is deleted again, on every way out.

use http::{Method, StatusCode};
use serde_json::Value;

use crate::call::CallReport;
use crate::client::Client;
use crate::error::Error;

/// The largest answer that is looked at.
const MAX_ANSWER: usize = 1 << 20;

/// What became of a second write under the key of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// It was answered with the first one's object: the key decides, and the body is ignored.
    Replayed,
    /// It was refused with this status: the key decides, and another body under it is an error.
    Refused(StatusCode),
    /// It created another object.
    No,
}

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// What became of the second write, or why nobody knows.
    pub found: Result<Recognised, String>,
    /// Objects that could not be deleted, with the reason.
    pub left: Vec<String>,
}

/// Creates an object at `path` named after `name`, then another under the same key, and deletes what it created.
///
/// `path` takes a POST of `{"name": …}` whose answer has an `id`, and a DELETE of that id below it.
pub async fn probe_dedup(client: &Client, path: &str, name: &str) -> Probed {
    let mut created = Vec::new();
    let found = try_twice(client, path, name, &mut created).await;
    let mut left = Vec::new();
    for id in created {
        let target = format!("{path}/{id}");
        match client.request(Method::DELETE, &target).send().await {
            Ok(answer) if answer.status().is_success() || answer.status() == StatusCode::NOT_FOUND => {}
            Ok(answer) => left.push(format!("{target} ({})", answer.status())),
            Err(error) => left.push(format!("{target} ({error})")),
        }
    }
    Probed { found, left }
}

async fn try_twice(
    client: &Client,
    path: &str,
    name: &str,
    created: &mut Vec<String>,
) -> Result<Recognised, String> {
    let first = create(client, path, &format!("{name} a"), None).await?;
    let Some(id) = first.id else { return Err(first.refusal()) };
    created.push(id.clone());
    let Some(key) = first.key else {
        return Err("the profile gives a POST no key (see [idempotency] methods)".to_owned());
    };
    let second = create(client, path, &format!("{name} b"), Some(key)).await?;
    match second.id {
        Some(other) if other == id => Ok(Recognised::Replayed),
        Some(other) => {
            created.push(other);
            Ok(Recognised::No)
        }
        None if matches!(second.status.as_u16(), 400 | 409 | 422) => Ok(Recognised::Refused(second.status)),
        None => Err(second.refusal()),
    }
}

/// The answer to a creation.
struct Created {
    status: StatusCode,
    id: Option<String>,
    key: Option<String>,
    missing: Option<String>,
    text: String,
}

impl Created {
    fn refusal(&self) -> String {
        match &self.missing {
            Some(missing) => format!("the credential lacks {missing}"),
            None => format!("the upstream answered {}: {}", self.status, self.text),
        }
    }
}

async fn create(client: &Client, path: &str, name: &str, key: Option<String>) -> Result<Created, String> {
    // A write that is lost could have created something that nobody could delete: its name is told.
    let lost = |error: Error| format!("{error} (look for `{name}` at {path})");
    let mut call = client.request(Method::POST, path).json(serde_json::json!({ "name": name }).to_string());
    if let Some(key) = key {
        call = call.key(key);
    }
    let (parts, body) = call.send().await.map_err(lost)?.into_parts();
    let body =
        body.bytes(MAX_ANSWER).await.map_err(|error| format!("{error} (look for `{name}` at {path})"))?;
    let report = parts.extensions.get::<CallReport>().cloned().unwrap_or_default();
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = value["id"].as_str().filter(|_| parts.status.is_success()).map(str::to_owned);
    let text = String::from_utf8_lossy(&body).chars().take(200).collect();
    let missing = report.missing.map(|missing| missing.to_string());
    Ok(Created { status: parts.status, id, key: report.key, missing, text })
}
