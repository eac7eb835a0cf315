//! The steps of the commands, cheapest first, so that a slip shows within seconds.

use crate::{
    command::{self, Program},
    dynamodb,
    failure::Failure,
    layering, licences,
    metadata::Metadata,
    purity, redis, sdk,
    step::Step,
};

/// Formatting of every package.
pub(crate) const FMT: Step = Step { name: "fmt", run: fmt };
/// Direction of dependencies and purity of the core.
pub(crate) const LAYERING: Step = Step { name: "layering", run: check_layering };
/// Licences, sources and bans of dependencies.
pub(crate) const LICENCES: Step = Step { name: "licences", run: check_licences };
/// Lints of every target.
pub(crate) const CLIPPY: Step = Step { name: "clippy", run: clippy };
/// API documentation.
pub(crate) const DOC: Step = Step { name: "doc", run: doc };
/// The Redis server that tests start, installed where there is none.
pub(crate) const REDIS: Step = Step { name: "redis", run: redis_server };
/// The stores' tests: against every Redis server that can be had, and against DynamoDB's emulator.
pub(crate) const STORES: Step = Step { name: "stores", run: stores };
/// The emulator of DynamoDB that tests start.
pub(crate) const EMULATOR: Step = Step { name: "emulator", run: emulator };
/// The program that is built with DynamoDB.
pub(crate) const DYNAMODB: Step = Step { name: "dynamodb", run: dynamodb::program };
/// Unit and integration tests.
pub(crate) const NEXTEST: Step = Step { name: "nextest", run: nextest };
/// Examples in documentation.
pub(crate) const DOCTEST: Step = Step { name: "doctest", run: doctest };
/// The Python environment of the SDK proofs.
pub(crate) const SDK_PYTHON: Step = Step { name: "sdk-python", run: sdk::install::python };
/// The Node environment of the SDK proofs.
pub(crate) const SDK_NODE: Step = Step { name: "sdk-node", run: sdk::install::node };
/// The `tidegate` program that the SDK proofs drive.
pub(crate) const BINARY: Step = Step { name: "binary", run: sdk::binary::build };
/// The SDK proofs and the example programs.
pub(crate) const SDK: Step = Step { name: "sdk", run: sdk::run };

/// The release that is installed where the machine has none; any newer one works as well.
const NEXTEST_VERSION: &str = "0.9.143";

fn fmt() -> Result<(), Failure> {
    Program::cargo().args(["fmt", "--all", "--check"]).run()
}

fn check_layering() -> Result<(), Failure> {
    eprintln!("$ cargo metadata --format-version 1 --locked  (read for the dependency graph)");
    let metadata = Metadata::load()?;
    let mut problems = layering::violations(&metadata);
    problems.extend(purity::violations(&command::root().join("crates/core/src"))?);
    Failure::from_problems("violations of the layering", &problems)
}

fn check_licences() -> Result<(), Failure> {
    eprintln!("$ cargo metadata --format-version 1 --locked  (read for licences, sources and bans)");
    let metadata = Metadata::load()?;
    eprintln!("checking {} packages", metadata.packages.len());
    Failure::from_problems("dependencies that may not be used", &licences::violations(&metadata))
}

fn clippy() -> Result<(), Failure> {
    // With DynamoDB only the program is another one.
    for features in [&[][..], &["--features", "tidegate-cli/dynamodb"]] {
        Program::cargo()
            .args(["clippy", "--workspace", "--all-targets", "--locked"])
            .args(features)
            .args(["--", "-D", "warnings"])
            .run()?;
    }
    Ok(())
}

/// Only libraries: the program `tidegate` and the library `tidegate` would write the same pages.
fn doc() -> Result<(), Failure> {
    Program::cargo()
        .args(["doc", "--workspace", "--lib", "--no-deps", "--locked"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

fn redis_server() -> Result<(), Failure> {
    Program::new(redis::server()?).args(["--version"]).run()
}

fn emulator() -> Result<(), Failure> {
    let script = "import moto; print('moto', moto.__version__)";
    Program::new(dynamodb::python()?).args(["-c", script]).run()
}

fn stores() -> Result<(), Failure> {
    redis::every()?;
    dynamodb::store()
}

fn nextest() -> Result<(), Failure> {
    if !command::starts("cargo-nextest", &["nextest", "--version"]) {
        eprintln!("cargo-nextest is not installed; building it once takes several minutes");
        // `--no-default-features` leaves out the self-updater, which would pull in a second TLS stack.
        Program::cargo()
            .args(["install", "cargo-nextest", "--locked", "--version", NEXTEST_VERSION])
            .args(["--no-default-features", "--features", "default-no-update"])
            .run()?;
    }
    let (server, python) = (redis::server()?, dynamodb::python()?);
    Program::cargo()
        .args(["nextest", "run", "--workspace", "--locked"])
        .env(dynamodb::VARIABLE, &python.to_string_lossy())
        .env(redis::VARIABLE, &server.to_string_lossy())
        .run()
}

fn doctest() -> Result<(), Failure> {
    Program::cargo().args(["test", "--doc", "--workspace", "--locked"]).run()
}
