//! Asks the upstream what the names of an input stand for.
//!
//! Names are resolved before anything is planned, so that one misspelt skill stops the run before the first write.
//! Pages are read through the same client as everything else: at quota speed, with its token.

use http::StatusCode;
use serde_json::Value;
use tidegate::{Class, Client};

use crate::plan::{Lookups, Survey};
use crate::problem::Problems;
use crate::recipe::{Lookup, Recipe};

/// Pages read for one lookup. An upstream that keeps naming a next page must not hold a run for ever.
const MAX_PAGES: usize = 1_000;

/// The largest page.
const MAX_PAGE: usize = 16 * 1024 * 1024;

/// Why names could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Names of the input that the upstream does not list.
    #[error(transparent)]
    Unknown(#[from] Problems),
    /// The upstream could not be asked.
    #[error("cannot look up {what} at {path}: {why}")]
    Upstream {
        /// What was looked up.
        what: String,
        /// Where.
        path: String,
        /// What happened.
        why: String,
    },
}

/// Resolves all names that `survey` found in the input called `file`.
///
/// # Errors
/// Every name that is not listed, or that the upstream could not be asked.
pub async fn resolve(
    client: &Client,
    recipe: &Recipe,
    survey: &Survey,
    file: &str,
) -> Result<Lookups, ResolveError> {
    let mut lookups = Lookups::default();
    for lookup in recipe.lookups() {
        let Some(names) = survey.names(&lookup.column).filter(|names| !names.is_empty()) else { continue };
        let listed = list(client, lookup).await.map_err(|why| ResolveError::Upstream {
            what: lookup.from.clone(),
            path: lookup.path.clone(),
            why,
        })?;
        lookups.resolve(file, lookup, names, listed)?;
    }
    Ok(lookups)
}

/// All entries of a lookup, as (name, value).
async fn list(client: &Client, lookup: &Lookup) -> Result<Vec<(String, String)>, String> {
    let mut entries = Vec::new();
    let mut next = Some(lookup.path.clone());
    for _ in 0..MAX_PAGES {
        let Some(path) = next.take() else { return Ok(entries) };
        let page = read_page(client, &path).await?;
        let items = page.pointer(&lookup.items).and_then(Value::as_array);
        let items = items.ok_or_else(|| format!("the answer has no list at {}", lookup.items))?;
        entries.extend(items.iter().filter_map(|entry| {
            Some((
                entry.get(&lookup.name)?.as_str()?.to_owned(),
                entry.get(&lookup.value)?.as_str()?.to_owned(),
            ))
        }));
        next = page.get("nextUri").and_then(Value::as_str).map(str::to_owned);
    }
    Err(format!("it has more than {MAX_PAGES} pages"))
}

async fn read_page(client: &Client, path: &str) -> Result<Value, String> {
    let response = client.get(path).class(Class::Bulk).send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.into_body().bytes(MAX_PAGE).await.map_err(|error| error.to_string())?;
    if status != StatusCode::OK {
        let text = String::from_utf8_lossy(&body);
        return Err(format!(
            "the upstream answered {status}: {}",
            text.chars().take(300).collect::<String>()
        ));
    }
    serde_json::from_slice(&body).map_err(|error| format!("the answer is not JSON: {error}"))
}
