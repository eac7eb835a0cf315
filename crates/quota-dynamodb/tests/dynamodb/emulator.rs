//! An emulator of one test's own, on a free port of the loopback, ended by its process number.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running emulator. It ends with this value.
pub(crate) struct Emulator {
    child: Child,
    pub(crate) port: u16,
}

impl Emulator {
    /// An emulator without any table.
    pub(crate) fn start() -> Self {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../quota-dynamodb/tests/dynamodb/emulator.py");
        let mut child = Command::new(python())
            .arg(script)
            // It is no business of moto's which account the machine belongs to.
            .env_remove("AWS_PROFILE")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", python().display()));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("it prints its port");
        let port = line.trim().parse().expect("it prints its port; is moto there?");
        Self { child, port }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What `quota.store` is.
    pub(crate) fn url(&self, table: &str) -> String {
        format!("dynamodb://{table}?region=eu-west-1&endpoint={}", self.endpoint())
    }

    /// How many requests of a kind there were.
    pub(crate) fn count(&self, kind: &str) -> u32 {
        let counts = self.control("counts");
        let place = counts.find(&format!("\"{kind}\": "));
        place.map_or(0, |place| {
            let digits =
                counts[place + kind.len() + 4..].split(|letter: char| !letter.is_ascii_digit()).next();
            digits.and_then(|digits| digits.parse().ok()).expect("a number")
        })
    }

    /// The next write happens, and its answer is late.
    pub(crate) fn lose_an_answer(&self) {
        self.control("lose");
    }

    fn control(&self, what: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("it is there");
        write!(stream, "GET /test/{what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    /// Stops it without ending it, or lets it go on.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill(1)").success());
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // One that has ended already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The Python that has moto. Tests that need it fail where there is none: that they did not run must not look like success.
fn python() -> PathBuf {
    let named = std::env::var_os("TIDEGATE_TEST_DYNAMODB");
    named.map(PathBuf::from).expect(
        "these tests need an emulator of DynamoDB: `cargo xtask dynamodb` gets one, or name a Python that has moto in \
         TIDEGATE_TEST_DYNAMODB",
    )
}
