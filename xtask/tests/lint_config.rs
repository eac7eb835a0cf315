//! Clippy reads only the configuration file nearest to a crate, so the core's must repeat the bans of the root's.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{collections::BTreeMap, fs, path::Path};

/// Path and reason of every ban of one kind.
fn bans(file: &str, kind: &str) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    let entry = |entry: &toml::Value| {
        let text = |key: &str| entry[key].as_str().unwrap().to_owned();
        (text("path"), text("reason"))
    };
    config[kind].as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn the_core_repeats_every_ban_of_the_root() {
    for kind in ["disallowed-methods", "disallowed-types"] {
        let core = bans("crates/core/clippy.toml", kind);
        for (path, reason) in bans("clippy.toml", kind) {
            assert_eq!(core.get(&path), Some(&reason), "crates/core/clippy.toml does not repeat `{path}`");
        }
    }
}

#[test]
fn the_core_bans_more_than_the_root() {
    for kind in ["disallowed-methods", "disallowed-types"] {
        assert!(bans("crates/core/clippy.toml", kind).len() > bans("clippy.toml", kind).len());
    }
}
