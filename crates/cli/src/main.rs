//! The command `tidegate`: arguments, output, exit codes. What it does lives in the other crates.

mod args;
mod bulk;
mod demo;
mod failure;
mod lab;
mod output;
mod profile;
mod progress;
mod serve;
mod settings;
mod signals;
mod sim;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.verbose);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return end(Err(Failure::internal(format!("cannot start: {error}")))),
    };
    let ended = runtime.block_on(run(cli.command));
    end(ended)
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Bulk(command) => bulk::run(command).await,
        Command::Sim(args) => sim::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Lab(command) => lab::run(&command),
        Command::Profile(command) => profile::run(command),
    }
}

fn end(ended: Result<(), Failure>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::talk(&format!("tidegate: {}", failure.message));
            }
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Warnings unless more is asked for; `TIDEGATE_LOG` takes the filters of `tracing`.
fn start_logging(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "info,tidegate=debug",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
