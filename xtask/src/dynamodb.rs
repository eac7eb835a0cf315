//! The emulator of DynamoDB that tests run their own copies of: moto, a Python package.
//!
//! A Python that has it is taken if `TIDEGATE_TEST_DYNAMODB` names one. Otherwise an environment with the pinned packages is
//! made below cargo's target folder, so that `cargo xtask test` needs no rights on the machine.
//!
//! Why not dynalite: it neither returns the item with a condition that fails nor knows times to live, and needs a newer Node
//! than Debian has.

use std::path::PathBuf;

use crate::{
    command::{Program, root},
    failure::Failure,
    metadata::Metadata,
    sdk::install,
};

/// Names the Python that has the emulator.
pub(crate) const VARIABLE: &str = "TIDEGATE_TEST_DYNAMODB";

/// The Python that has the emulator, which is installed if there is none.
pub(crate) fn python() -> Result<PathBuf, Failure> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Ok(named.into());
    }
    let folder = Metadata::load()?.target_directory.join("dynamodb-emulator");
    let pins = root().join("crates/quota-dynamodb/tests/dynamodb/requirements.txt");
    // The list is whole, so nothing is resolved.
    install::venv(&folder, &pins, &["--no-deps"])
}

/// The store's own tests.
pub(crate) fn store() -> Result<(), Failure> {
    let python = python()?;
    Program::cargo()
        .args(["test", "--package", "tidegate-quota-dynamodb", "--locked"])
        .env(VARIABLE, &python.to_string_lossy())
        .run()
}

/// The tests of the program that is built with DynamoDB. `--workspace`, so that its dependencies are those already built.
pub(crate) fn program() -> Result<(), Failure> {
    let python = python()?;
    Program::cargo()
        .args(["nextest", "run", "--workspace", "--locked", "--features", "tidegate-cli/dynamodb"])
        .args(["--test", "dynamodb", "-E", "package(tidegate-cli)"])
        .env(VARIABLE, &python.to_string_lossy())
        .run()
}
