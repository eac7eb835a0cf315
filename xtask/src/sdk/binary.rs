//! The `tidegate` program that the proofs drive.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::{command::Program, failure::Failure};

/// Names a ready-made program instead of the one built here.
const OVERRIDE: &str = "TIDEGATE_TEST_BINARY";

/// Builds it, unless the environment names one.
///
/// The whole workspace is named although one program is wanted, and a test beside it: cargo then unifies features as it
/// did for the tests, those of dev-dependencies included, and nothing is compiled a second time.
pub(crate) fn build() -> Result<(), Failure> {
    if let Some(path) = env::var_os(OVERRIDE) {
        eprintln!("using {} (from {OVERRIDE})", PathBuf::from(path).display());
        return Ok(());
    }
    Program::cargo()
        .args(["build", "--workspace", "--bin", "tidegate", "--test", "documentation", "--locked"])
        .run()
}

/// Where it is.
pub(crate) fn path(target_directory: &Path) -> PathBuf {
    env::var_os(OVERRIDE).map_or_else(|| target_directory.join("debug/tidegate"), PathBuf::from)
}
