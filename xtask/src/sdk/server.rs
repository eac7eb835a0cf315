//! A running `tidegate sim` or `tidegate serve`.
//!
//! Both are told to take any free port and print where they listen: `listening on http://127.0.0.1:PORT`, one line on
//! stdout. Waiting for that line is also waiting for the server to be ready.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::ChildStdout,
    sync::mpsc,
    thread,
    time::Duration,
};

use super::program::{Killed, clean, spawn, tail};
use crate::failure::Failure;

/// How the line begins that names a server's data port.
const ANNOUNCEMENT: &str = "listening on ";

/// How long a server may take to listen. A debug build on a busy machine needs well under a second.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A server; dropping it ends it.
pub(super) struct Server {
    base: String,
    // Held for its drop.
    _child: Killed,
}

impl Server {
    /// Starts `binary` with `arguments` and waits until it listens. Its stderr goes to `work/NAME.log`.
    pub(super) fn start(binary: &Path, name: &str, arguments: &[&str], work: &Path) -> Result<Self, Failure> {
        let log = work.join(format!("{name}.log"));
        let mut command = clean(binary.as_os_str(), work);
        command.args(arguments);
        let mut child = Killed(spawn(&mut command, &log)?);
        let lines = lines_of(child.0.stdout.take().expect("spawn pipes stdout"));
        let base = announced(&lines)
            .map_err(|why| Failure::new(format!("`tidegate {}` {why}{}", arguments.join(" "), tail(&log))))?;
        Ok(Self { base, _child: child })
    }

    /// Its origin, such as `http://127.0.0.1:40123`.
    pub(super) fn base(&self) -> &str {
        &self.base
    }
}

/// Reads lines for as long as the server lives, so that it never blocks on a full pipe.
fn lines_of(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Once the address is known nobody listens; the lines are still read.
            drop(sender.send(line));
        }
    });
    receiver
}

fn announced(lines: &mpsc::Receiver<String>) -> Result<String, String> {
    loop {
        match lines.recv_timeout(START_LIMIT) {
            Ok(line) => {
                if let Some(base) = line.strip_prefix(ANNOUNCEMENT) {
                    return Ok(base.trim().trim_end_matches('/').to_owned());
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err("ended before it listened".to_owned()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(format!("did not say where it listens within {} s", START_LIMIT.as_secs()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> Result<Server, Failure> {
        let work = tempfile::tempdir().unwrap();
        Server::start(Path::new("/bin/sh"), "server", &["-c", script], work.path())
    }

    #[test]
    fn the_announced_address_is_found_among_other_lines() {
        let server = start("echo hello; echo listening on http://127.0.0.1:4711/; exec sleep 600").unwrap();
        assert_eq!(server.base(), "http://127.0.0.1:4711");
    }

    #[test]
    fn a_server_that_ends_is_reported_with_its_last_words() {
        let failure = start("echo the port is taken >&2").err().unwrap().to_string();
        assert!(failure.contains("ended before") && failure.contains("the port is taken"), "{failure}");
    }
}
