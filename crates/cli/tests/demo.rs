//! The command `tidegate demo` itself. That it ends well takes a minute and more, so that belongs to the acceptance run;
//! here it is started and interrupted.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

#[test]
fn an_interrupted_demo_ends_at_once_with_130_and_no_control_codes_in_its_log() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("demo")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(demo.stderr.take().unwrap());
    let mut told = String::new();
    while !told.contains("1500 rows,") {
        assert_ne!(log.read_line(&mut told).unwrap(), 0, "it ended before its first milestone:\n{told}");
    }
    let killed = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(killed.success());
    log.read_to_string(&mut told).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(130), "{told}");
    assert!(!told.contains('\u{1b}') && !told.contains('\r'), "{told:?}");
    assert!(told.contains("the demo was interrupted"), "{told}");
}
