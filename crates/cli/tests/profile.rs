//! `tidegate profile` as a user meets it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::process::Command;

use serde_json::Value;

/// What a command that succeeds prints as data.
fn shown(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.args(["profile", "show"]).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_list_is_the_same_for_people_and_for_programs() {
    let listed: Value = serde_json::from_str(&shown(&["--format", "json"])).unwrap();
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, shown(&[]).lines().collect::<Vec<_>>());
    assert_eq!(listed[0]["title"], "Genesys Cloud Platform API v2");
}

#[test]
fn a_profile_is_shown_as_its_file_or_as_the_keys_of_it() {
    let file = include_str!("../../../profiles/genesys.toml");
    assert_eq!(shown(&["genesys"]), file);
    let keys: Value = serde_json::from_str(&shown(&["genesys", "--format", "json"])).unwrap();
    let of_file: toml::Table = file.parse().unwrap();
    assert_eq!(keys.as_object().unwrap().keys().collect::<Vec<_>>(), {
        let mut keys: Vec<_> = of_file.keys().collect();
        keys.sort();
        keys
    });
    assert_eq!(keys["hosts"]["api"], "api.{region}");
}
