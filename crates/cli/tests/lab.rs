//! `tidegate lab` as a user meets it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::process::{Command, Output};

fn lab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("lab").args(arguments).output().unwrap()
}

#[test]
fn what_takes_too_long_on_sockets_is_a_usage_error_that_says_how_long() {
    let output = lab(&["run", "--sockets", "--max-wall", "10s", "thundering-herd", "--strategy", "tidegate"]);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{talk}");
    assert!(talk.contains("thundering-herd: not played on sockets: it would take"), "{talk}");
    assert!(talk.contains("10 s are allowed"), "{talk}");
    assert!(output.stdout.is_empty(), "a refusal is talk");
}

#[test]
fn a_bound_on_real_time_is_refused_in_virtual_time() {
    let output = lab(&["run", "--max-wall", "10s", "thundering-herd"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--sockets"));
}

/// In real time, and therefore alone; see `.config/nextest.toml`.
mod real_time {
    use super::*;

    #[test]
    fn the_same_file_runs_on_sockets_and_meets_its_expectations() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("short.toml");
        let text = "name = \"short\"\n[server]\nlimit = 30\nwindow = \"1s\"\nheaders = \"ietf\"\n[fleet]\nrtt = \"4ms..8ms\"\nprofile = \"ietf\"\nstrategies = [\"tidegate\", \"fixed-rate\"]\n[[fleet.load]]\ncallers = 8\nrequests = 90\n[expect.tidegate]\nsucceeded = 90\nfailed = 0\n[expect.fixed-rate]\nefficiency = \">= 2\"\n";
        std::fs::write(&file, text).unwrap();
        let output = lab(&["run", "--sockets", "--quiet", file.to_str().unwrap(), "--json", "-"]);
        let table = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "fixed-rate cannot be twice as fast as the ideal\n{table}");
        let reports: serde_json::Value = serde_json::from_str(&table).unwrap();
        let report = &reports[0];
        assert_eq!(report["played_in"], "sockets");
        assert_eq!(report["strategies"][0]["succeeded"], 90);
        let violations = report["violations"].as_array().unwrap();
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!(violations[0]["strategy"], "fixed-rate");
        assert!(output.stderr.is_empty(), "--quiet");
    }
}

fn usage_error(folder: &std::path::Path, arguments: &[&str], parts: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.arg("lab").args(arguments).current_dir(folder).output().unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{talk}");
    assert!(output.stdout.is_empty(), "nothing was played");
    for part in parts {
        assert!(talk.contains(part), "{part} is missing in:\n{talk}");
    }
    assert!(!talk.contains("token-expiry"), "not every built-in name is listed: {talk}");
}

#[test]
fn what_would_spoil_a_run_is_told_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let text = "name = \"same\"\n[server]\nlimit = 30\nwindow = \"1s\"\n[[fleet.load]]\nrequests = 9\n";
    std::fs::write(here.join("a.toml"), text).unwrap();
    std::fs::write(here.join("b.toml"), text).unwrap();
    std::fs::write(here.join("c.toml"), text.replace("same", "../c")).unwrap();
    let file = ["cannot write none/x: No such file or directory"];
    usage_error(here, &["run", "a.toml", "--json", "none/x"], &file);
    usage_error(here, &["run", "a.toml", "--svg", "none/x"], &file);
    usage_error(here, &["run", "a.toml", "b.toml", "--svg", "p"], &["two scenarios are named `same`"]);
    usage_error(
        here,
        &["run", "a.toml", "c.toml", "--svg", "p"],
        &["scenario `../c` has no name that a picture"],
    );
    usage_error(here, &["run", "a.toml", "b.toml", "--svg", "-"], &["--svg - prints one picture, not 2"]);
    usage_error(here, &["run", "a.toml", "--svg", "-", "--json", "-"], &["both want standard output"]);
    assert!(!here.join("p").exists() && !here.join("none").exists());
}

#[test]
fn mistakes_of_several_scenarios_and_of_strategies_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    std::fs::write(here.join("a.toml"), "[fleet]\nload = 3\n").unwrap();
    std::fs::write(here.join("b.toml"), "[server]\nlimt = 3\n").unwrap();
    usage_error(
        here,
        &[
            "run",
            "a.toml",
            "b.toml",
            ".",
            "none.toml",
            "thundering-heard",
            "--strategy",
            "guide",
            "--strategy",
            "guide",
        ],
        &[
            "a.toml: 1 problem in the scenario:\n  line 2: fleet.load: invalid type",
            "line 2: server.limt: unknown field `limt` (did you mean `limit`?)",
            ". is a folder (name the files in it",
            "cannot read none.toml: No such file or directory",
            "scenario `thundering-heard`: no built-in one and no file (did you mean `thundering-herd`?)",
            "--strategy guide is given twice (remove one)",
        ],
    );
}

#[test]
fn a_picture_goes_to_standard_output_instead_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    std::fs::write(
        &file,
        "name = \"a\"\n[server]\nlimit = 30\nwindow = \"1s\"\n[[fleet.load]]\nrequests = 9\n",
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["lab", "run", "a.toml", "--strategy", "tidegate", "--svg", "-"]).current_dir(folder.path());
    let output = command.output().unwrap();
    let picture = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{picture}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no file is named `-`");
}
