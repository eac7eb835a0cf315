//! The command `tidegate`: arguments, output, exit codes. What it does lives in the other crates.

mod args;
mod bulk;
mod caller;
mod demo;
mod doctor;
mod environment;
mod export;
mod failure;
mod lab;
mod lab_output;
mod listen;
mod outbox;
mod output;
mod plan;
mod profile;
mod progress;
mod quota;
mod serve;
mod settings;
mod signals;
mod sim;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(failure) = start_logging(cli.verbose) {
        return end(Err(failure));
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return end(Err(Failure::internal(format!("cannot start: {error}")))),
    };
    let ended = runtime.block_on(run(cli.command));
    end(ended)
}

async fn run(command: Command) -> Result<(), Failure> {
    signals::outlive_file_limits();
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Bulk(command) => bulk::run(command).await,
        Command::Export(args) => export::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Sim(args) => sim::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Plan(args) => plan::run(&args),
        Command::Lab(command) => lab::run(&command).await,
        Command::Quota(command) => quota::run(command).await,
        Command::Outbox(command) => outbox::run(command).await,
        Command::Caller(command) => caller::run(&command),
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
fn start_logging(verbose: u8) -> Result<(), Failure> {
    let default = match verbose {
        0 => "warn",
        1 => "info,tidegate=debug",
        _ => "debug,tidegate=trace",
    };
    let given = std::env::var("TIDEGATE_LOG").ok().filter(|given| !given.is_empty());
    let filter = given.as_deref().unwrap_or(default).parse::<EnvFilter>().map_err(|error| {
        Failure::usage(format!("TIDEGATE_LOG: {error} (write a filter such as info or tidegate=debug)"))
    })?;
    // Control codes in a log file are noise; https://no-color.org says who does not want them on a terminal either.
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(|| output::Log).init();
    Ok(())
}
