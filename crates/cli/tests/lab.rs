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
