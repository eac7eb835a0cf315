//! Reading settings so that every problem is reported at once.
//!
//! serde stops at the first unknown key or wrong type. A person who fixes a file one error per run loses patience; so this
//! module notes the problem with its path, takes the offending value out of the tree and reads again until nothing is left to
//! complain about. It needs types whose every field has a default, which the configuration types here all have.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use crate::error::SimError;

/// How many problems are listed before giving up; a file with more is probably another file.
const MAX_PROBLEMS: usize = 50;

/// Reads `T` from a tree, or lists everything that is wrong with it.
pub fn read<T: DeserializeOwned>(what: &'static str, tree: Value) -> Result<T, SimError> {
    match salvage(tree) {
        (Some(value), problems) if problems.is_empty() => Ok(value),
        (_, problems) => Err(SimError::Invalid { what, problems }),
    }
}

/// Reads `T` from a tree, with what is wrong left out of it and listed: so that bounds can be checked in the same go. None if
/// nothing sound is left.
pub fn salvage<T: DeserializeOwned>(mut tree: Value) -> (Option<T>, Vec<String>) {
    let mut problems = Vec::new();
    loop {
        match serde_path_to_error::deserialize::<_, T>(&tree) {
            Ok(value) => return (Some(value), problems),
            Err(error) => {
                problems.push(format!("{}: {}", error.path(), error.inner()));
                if problems.len() >= MAX_PROBLEMS || !remove(&mut tree, error.path()) {
                    return (None, problems);
                }
            }
        }
    }
}

/// Reads `T` from TOML text.
pub fn read_toml<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, SimError> {
    let tree: toml::Table = toml::from_str(text)
        .map_err(|error| SimError::Syntax { what, reason: error.to_string().trim().to_owned() })?;
    let tree =
        serde_json::to_value(tree).map_err(|error| SimError::Syntax { what, reason: error.to_string() })?;
    read(what, tree)
}

/// Reads `T` from JSON bytes; empty bytes mean `{}`.
pub fn read_json<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, SimError> {
    read(what, json_tree(what, bytes)?)
}

/// Parses JSON bytes without interpreting them; empty bytes mean `{}`.
pub fn json_tree(what: &'static str, bytes: &[u8]) -> Result<Value, SimError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    serde_json::from_slice(bytes).map_err(|error| SimError::Syntax { what, reason: error.to_string() })
}

/// Overlays `patch` on `base`: objects are merged key by key, everything else replaces (RFC 7386 without deletion).
pub fn overlay(base: &mut Value, patch: Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, patch) => *base = patch,
    }
}

/// Takes the value at `path` (or, if the path leads nowhere, nothing) out of the tree; false if nothing was there.
fn remove(tree: &mut Value, path: &Path) -> bool {
    let segments: Vec<&Segment> = path.iter().collect();
    let Some((last, parents)) = segments.split_last() else { return false };
    let mut place = tree;
    for segment in parents {
        let next = match segment {
            Segment::Map { key } => place.get_mut(key.as_str()),
            Segment::Seq { index } => place.get_mut(*index),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        match next {
            Some(next) => place = next,
            None => return false,
        }
    }
    match (last, place) {
        (Segment::Map { key }, Value::Object(map)) => map.remove(key.as_str()).is_some(),
        (Segment::Seq { index }, Value::Array(items)) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        rate: u32,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Outer {
        name: String,
        list: Vec<Inner>,
    }

    #[test]
    fn every_problem_is_listed_with_its_path() {
        let error = read_toml::<Outer>(
            "configuration",
            "nmae = \"x\"\nname = 3\n[[list]]\nrate = \"fast\"\nrat = 1\n",
        )
        .unwrap_err()
        .to_string();
        for part in [
            "4 problems",
            "nmae: unknown field",
            "name: invalid type",
            "list[0].rate:",
            "list[0].rat: unknown",
        ] {
            assert!(error.contains(part), "{part} is missing in:\n{error}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = read_toml::<Outer>("configuration", "name = \"x\"\nlist = [").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn an_overlay_keeps_what_it_does_not_name() {
        let mut base = serde_json::json!({"a": {"b": 1, "c": 2}, "d": [1, 2]});
        overlay(&mut base, serde_json::json!({"a": {"b": 5}, "d": [3]}));
        assert_eq!(base, serde_json::json!({"a": {"b": 5, "c": 2}, "d": [3]}));
    }
}
