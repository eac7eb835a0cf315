//! From the body of a listing to keys and values.
//!
//! Entries that do not read (a value that is no number, a key of the wrong type) are left out: a listing holds limits
//! of many kinds, and one that is not a count is none of ours.

use serde_json::Value;

use crate::observe::number::decimal;
use crate::profile::LimitsSource;

/// Greatest body of a listing, in bytes.
pub const MAX_LISTING: usize = 1024 * 1024;

/// Entries that are read; a platform has hundreds.
const MAX_ENTRIES: usize = 4096;

/// Greatest length of a name, in bytes.
const MAX_NAME: usize = 128;

/// Greatest length of what a refusal says, in characters.
const MAX_WHY: usize = 300;

/// One limit as the upstream lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedLimit {
    /// Its key, such as `token.rate.per.minute`.
    pub key: String,
    /// Its namespace, such as `platform.api`.
    pub namespace: Option<String>,
    /// Its value, in the unit the key implies.
    pub value: u64,
}

/// A body that is no listing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON.
    #[error("the answer is not JSON")]
    NotJson,
    /// Nothing, or something else than a list, stands where the entries should.
    #[error("there are no entries at `{0}` (check `entries` of [limits_source])")]
    NoEntries(String),
}

/// Reads a listing.
///
/// ```
/// use tidegate_core::listing::read_listing;
/// use tidegate_core::profile::Profile;
///
/// let rules = Profile::builtin("genesys").unwrap().limits_source.unwrap();
/// let body = br#"{"entities":[{"key":"token.rate.per.minute","namespace":"platform.api","value":600}]}"#;
/// let listed = read_listing(&rules, body).unwrap();
/// assert_eq!((listed[0].key.as_str(), listed[0].value), ("token.rate.per.minute", 600));
/// ```
///
/// # Errors
/// A body that is no listing at all.
pub fn read_listing(rules: &LimitsSource, body: &[u8]) -> Result<Vec<ListedLimit>, Unreadable> {
    let body: Value = serde_json::from_slice(body).map_err(|_| Unreadable::NotJson)?;
    let no_entries = || Unreadable::NoEntries(rules.entries.clone());
    let listed = match (body.pointer(&rules.entries).ok_or_else(no_entries)?, &rules.key) {
        (Value::Array(entries), Some(key)) => {
            let read = |entry: &Value| read_entry(rules, entry.pointer(key)?.as_str()?, entry);
            entries.iter().take(MAX_ENTRIES).filter_map(read).collect()
        }
        (Value::Object(entries), None) => {
            let read = |(key, entry): (&String, &Value)| read_entry(rules, key, entry);
            entries.iter().take(MAX_ENTRIES).filter_map(read).collect()
        }
        _ => return Err(no_entries()),
    };
    Ok(listed)
}

fn read_entry(rules: &LimitsSource, key: &str, entry: &Value) -> Option<ListedLimit> {
    let name = |text: &str| (!text.is_empty() && text.len() <= MAX_NAME).then(|| text.to_owned());
    let namespace = rules.namespace.as_ref().and_then(|pointer| entry.pointer(pointer)?.as_str());
    Some(ListedLimit {
        key: name(key)?,
        namespace: namespace.and_then(name),
        value: whole(entry.pointer(&rules.value)?)?,
    })
}

fn whole(value: &Value) -> Option<u64> {
    let read = match value {
        Value::Number(number) => decimal(&number.to_string())?,
        Value::String(text) => decimal(text.trim())?,
        _ => return None,
    };
    u64::try_from(read.whole()).ok()
}

/// What a refusal says for people: one line, without control characters, of bounded length.
pub fn read_why(rules: &LimitsSource, body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = body.pointer(rules.why.as_ref()?)?.as_str()?;
    let line: String = text.chars().filter(|c| !c.is_control()).take(MAX_WHY).collect();
    (!line.trim().is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn genesys() -> LimitsSource {
        Profile::builtin("genesys").unwrap().limits_source.unwrap()
    }

    #[test]
    fn entries_that_are_no_counts_are_left_out() {
        let body = r#"{"entities":[{"key":"a","value":1.5e3},{"key":"b","value":"300"},{"key":7,"value":1},{"key":"","value":1},
            {"value":1},{"key":"c"},{"key":"d","value":-1},{"key":"e","value":300.0,"namespace":"n"},{"key":"f","value":null},17]}"#;
        let listed = read_listing(&genesys(), body.as_bytes()).unwrap();
        let read: Vec<_> = listed.iter().map(|limit| (limit.key.as_str(), limit.value)).collect();
        assert_eq!(read, [("a", 1500), ("b", 300), ("e", 300)]);
        assert_eq!(listed[2].namespace.as_deref(), Some("n"));
    }

    #[test]
    fn an_object_lists_by_its_member_names() {
        let rules = LimitsSource {
            entries: "/resources".to_owned(),
            key: None,
            value: "/limit".to_owned(),
            namespace: None,
            ..genesys()
        };
        let body = br#"{"resources":{"core":{"limit":5000,"used":1},"search":{"limit":30}}}"#;
        let listed = read_listing(&rules, body).unwrap();
        let read: Vec<_> = listed.iter().map(|limit| (limit.key.as_str(), limit.value)).collect();
        assert_eq!(read, [("core", 5000), ("search", 30)]);
    }

    #[test]
    fn what_is_no_listing_is_said_to_be_none() {
        assert_eq!(read_listing(&genesys(), b"<html>"), Err(Unreadable::NotJson));
        for body in ["{}", "[]", "{\"entities\":7}", "{\"entities\":{\"a\":{\"value\":1}}}"] {
            let wrong = read_listing(&genesys(), body.as_bytes());
            assert_eq!(wrong, Err(Unreadable::NoEntries("/entities".to_owned())), "{body}");
        }
        assert_eq!(read_listing(&genesys(), b"{\"entities\":[]}"), Ok(Vec::new()));
    }

    #[test]
    fn a_refusal_is_told_in_one_bounded_line() {
        let body = serde_json::json!({ "message": format!("missing:\n{}", "x".repeat(1000)) }).to_string();
        let why = read_why(&genesys(), body.as_bytes()).unwrap();
        assert!(why.starts_with("missing:xxx") && why.len() == MAX_WHY, "{why}");
        for body in ["{}", "{\"message\":\" \"}", "no json"] {
            assert_eq!(read_why(&genesys(), body.as_bytes()), None, "{body}");
        }
    }
}
