//! A server of one test's own, on a free port of the loopback, ended by its process number.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

/// A running server. It ends with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    args: Vec<String>,
    folder: TempDir,
}

impl Server {
    /// A server that keeps nothing on disk.
    pub(crate) fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Somebody else may take the port between finding and using it.
        for _ in 0..5 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let port = free.local_addr().expect("it is bound").port();
            drop(free);
            let args: Vec<String> = args.iter().map(|arg| arg.replace("PORT", &port.to_string())).collect();
            if let Some(child) = launch(port, &args, &folder) {
                return Self { child, port, args, folder };
            }
        }
        panic!("{} does not start; its words are in {}", program().display(), folder.keep().display());
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// Begins it again on its port, empty.
    pub(crate) fn restart(&mut self) {
        self.child = launch(self.port, &self.args, &self.folder).expect("it started before");
    }

    /// Stops it without ending it, or lets it go on.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill(1)").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that has ended already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The server's program. Tests that need one fail where there is none: that they did not run must not look like success.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("TIDEGATE_TEST_REDIS") {
        return named.into();
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths)
        .flat_map(|folder| ["redis-server", "valkey-server"].map(|name| folder.join(name)))
        .find(|file| file.is_file());
    found.expect(
        "these tests need a Redis server: `cargo xtask test` gets one, or install redis-server, or name one in \
         TIDEGATE_TEST_REDIS",
    )
}

/// Starts it and waits until it accepts connections. None: it ended, because something else has the port.
fn launch(port: u16, args: &[String], folder: &TempDir) -> Option<Child> {
    let words = std::fs::File::create(folder.path().join("log")).expect("the folder is ours");
    let mut command = Command::new(program());
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]).arg(folder.path());
    if !args.iter().any(|arg| arg == "--port") {
        command.args(["--port", &port.to_string()]);
    }
    let mut child = command
        .args(args)
        .stdin(Stdio::null())
        .stdout(words.try_clone().expect("a file"))
        .stderr(words)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program().display()));
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Some(child);
        }
        if child.try_wait().expect("it is ours").is_some() {
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    drop(child.kill());
    drop(child.wait());
    panic!("{} does not accept connections", program().display());
}
