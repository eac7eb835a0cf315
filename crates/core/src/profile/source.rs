//! Where an upstream says which limits an organisation has.
//!
//! Some platforms can be asked for the numbers they enforce. The profile names the paths and where in the JSON the keys
//! and values stand, so that asking is a matter of rules ([`crate::listing`] carries them out).

use std::time::Duration;

use super::limit::nonempty;
use super::reader::Section;

/// How an upstream's own listing of its limits is asked for and read: `[limits_source]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsSource {
    /// The paths that are asked, in order; where two name the same key, the first decides.
    pub paths: Vec<String>,
    /// JSON pointer (RFC 6901) to the entries: an array, or an object whose member names are the keys. Empty: the body
    /// itself.
    pub entries: String,
    /// JSON pointer from an entry to its key; absent if the entries are an object.
    pub key: Option<String>,
    /// JSON pointer from an entry to its value.
    pub value: String,
    /// JSON pointer from an entry to its namespace, for people.
    pub namespace: Option<String>,
    /// JSON pointer to what a refusal says for people, such as the permission that is missing.
    pub why: Option<String>,
    /// How long what was read is taken as it is.
    pub refresh: Duration,
}

/// More paths than this are more calls than a listing is worth.
const MAX_PATHS: usize = 16;

/// Asking more often than this would cost more quota than the news is worth.
const LEAST_REFRESH: Duration = Duration::from_mins(1);

/// Reads `[limits_source]`.
pub(super) fn read(section: &Section<'_>) -> Option<LimitsSource> {
    let paths = section.required("paths", "paths = \"/limits\"", section.each("paths", path));
    if paths.as_ref().is_some_and(|paths| paths.is_empty() || paths.len() > MAX_PATHS) {
        section.problem("paths", format_args!("has to be 1 to {MAX_PATHS} paths"));
    }
    let value = section.required("value", "value = \"/value\"", section.parsed("value", pointer));
    let refresh = section.duration_above_zero("refresh").unwrap_or(Duration::from_hours(24));
    if refresh < LEAST_REFRESH {
        section.problem("refresh", "is below a minute (each refresh costs quota: write \"24h\")");
    }
    Some(LimitsSource {
        entries: section.parsed("entries", pointer).unwrap_or_default(),
        key: section.parsed("key", pointer),
        namespace: section.parsed("namespace", pointer),
        why: section.parsed("why", pointer),
        paths: paths?,
        value: value?,
        refresh,
    })
}

fn path(text: &str) -> Result<String, String> {
    let plain =
        text.starts_with('/') && !text.contains(['#', '{', '*']) && !text.contains(char::is_whitespace);
    if plain {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no path (write it out, such as \"/api/v2/limits\")"))
    }
}

fn pointer(text: &str) -> Result<String, String> {
    nonempty(text).map_err(str::to_owned)?;
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no JSON pointer (begin with a slash, such as \"/value\")"))
    }
}
