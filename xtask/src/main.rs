//! The project's own commands: `cargo xtask ci` is what the CI runs, `cargo xtask test` is what a contributor runs.
//!
//! Why a program and not a folder of scripts: it needs nothing but the toolchain, it is tested like everything else,
//! and the same steps run on a laptop and on the CI machine. It generates and checks; it never publishes.
//!
//! Rules: every command line is printed before it runs; the first failure ends the run; the time of every step is
//! printed at the end, also of a run that failed.

#![expect(clippy::print_stdout, reason = "help and listings are data; they go to stdout")]
#![expect(clippy::print_stderr, reason = "progress and failures are talk; they go to stderr")]

mod bench;
mod chaos;
mod clock;
mod command;
mod dynamodb;
mod failure;
mod layering;
mod licences;
mod metadata;
mod purity;
mod redis;
mod sdk;
mod step;
mod steps;

use std::process::ExitCode;

use crate::{failure::Failure, step::Step};

/// One sub-command: its name, what it is for, and the steps it runs in order.
struct Command {
    name: &'static str,
    about: &'static str,
    steps: &'static [Step],
}

/// Every sub-command that is a list of steps. `bench`, `chaos` and `help` take another shape and stand apart.
const COMMANDS: &[Command] = &[
    Command {
        name: "ci",
        about: "everything the CI checks",
        steps: &[
            steps::FMT,
            steps::LAYERING,
            steps::LICENCES,
            steps::CLIPPY,
            steps::DOC,
            steps::REDIS,
            steps::EMULATOR,
            steps::NEXTEST,
            steps::DYNAMODB,
            steps::DOCTEST,
            steps::SDK_PYTHON,
            steps::SDK_NODE,
            steps::BINARY,
            steps::SDK,
        ],
    },
    Command {
        name: "test",
        about: "all tests; installs what they need",
        steps: &[
            steps::REDIS,
            steps::EMULATOR,
            steps::NEXTEST,
            steps::DYNAMODB,
            steps::DOCTEST,
            steps::SDK_PYTHON,
            steps::SDK_NODE,
            steps::BINARY,
            steps::SDK,
        ],
    },
    Command { name: "fmt", about: "check the formatting", steps: &[steps::FMT] },
    Command { name: "clippy", about: "lint; a warning is an error", steps: &[steps::CLIPPY] },
    Command {
        name: "doc",
        about: "build the API documentation; a warning is an error",
        steps: &[steps::DOC],
    },
    Command {
        name: "layering",
        about: "who may depend on whom, and that the core is pure",
        steps: &[steps::LAYERING],
    },
    Command {
        name: "licences",
        about: "licences, sources and bans of every dependency",
        steps: &[steps::LICENCES],
    },
    Command {
        name: "sdk",
        about: "the official SDKs and the examples, against simulator and gateway",
        steps: &[steps::SDK_PYTHON, steps::SDK_NODE, steps::BINARY, steps::SDK],
    },
    Command {
        name: "stores",
        about: "the shared quota against every Redis and Valkey that can be had, and against an emulator of DynamoDB",
        steps: &[steps::STORES],
    },
    Command {
        name: "dynamodb",
        about: "the program that is built with DynamoDB",
        steps: &[steps::EMULATOR, steps::DYNAMODB],
    },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nxtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[&str]) -> Result<(), Failure> {
    match words {
        [] | ["help" | "--help" | "-h"] => {
            help();
            Ok(())
        }
        ["bench"] => bench::list(),
        ["bench", name, rest @ ..] => bench::run(name, rest),
        ["chaos", rest @ ..] => chaos::run(rest),
        [name] => {
            let command = COMMANDS.iter().find(|command| command.name == *name).ok_or_else(|| {
                Failure::new(format!("there is no command `{name}`")).hint("`cargo xtask help` lists them")
            })?;
            step::run_all(command.name, command.steps)
        }
        [name, extra, ..] => Err(Failure::new(format!("`{name}` takes no argument, but got `{extra}`"))
            .hint("`cargo xtask help` lists the commands")),
    }
}

fn help() {
    println!("cargo xtask COMMAND\n");
    for command in COMMANDS {
        println!("  {:<10} {}", command.name, command.about);
        if command.steps.len() > 1 {
            let names: Vec<&str> = command.steps.iter().map(|step| step.name).collect();
            println!("  {:<10} = {}", "", names.join(", "));
        }
    }
    println!("  {:<10} run one benchmark of the workspace; without a name, list them", "bench");
    println!("  {:<10} {}", "chaos", chaos::about());
    println!(
        "\nenvironment:\n  TIDEGATE_TEST_BINARY  the tidegate program that `sdk` drives, instead of building one\n  \
         TIDEGATE_TEST_REDIS   the redis-server or valkey-server that tests start, instead of finding or installing one\n  \
         TIDEGATE_TEST_DYNAMODB  a Python that has moto, the emulator that tests start, instead of installing one"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_is_the_tail_of_ci() {
        let steps = |name: &str| -> Vec<&str> {
            let command = COMMANDS.iter().find(|command| command.name == name).unwrap();
            command.steps.iter().map(|step| step.name).collect()
        };
        assert!(steps("ci").ends_with(&steps("test")), "the CI must run exactly what a contributor runs");
    }

    #[test]
    fn unknown_commands_and_stray_arguments_are_refused() {
        assert!(dispatch(&["tset"]).unwrap_err().to_string().contains("tset"));
        assert!(dispatch(&["fmt", "--now"]).unwrap_err().to_string().contains("--now"));
    }
}
