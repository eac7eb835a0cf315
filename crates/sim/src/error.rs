//! The one error type of the crate.

use std::fmt::Write as _;

/// Why the simulator could not start, or refused a setting.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The text is not TOML or JSON at all; the message holds the line.
    #[error("cannot read the {what}: {reason}")]
    Syntax {
        /// What was read ("configuration", "scenario", "faults").
        what: &'static str,
        /// The parser's message, with line and column where known.
        reason: String,
    },
    /// One or more settings are unknown or out of bounds; all of them are listed.
    #[error("{} in the {what}:{}", count(problems), list(problems))]
    Invalid {
        /// What was read ("configuration", "scenario", "faults").
        what: &'static str,
        /// One line per problem, each naming the key, the value and the bound.
        problems: Vec<String>,
    },
    /// The listening socket cannot be used.
    #[error("cannot use the listening socket: {0}")]
    Listen(#[from] std::io::Error),
}

fn count(problems: &[String]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    }
}

fn list(problems: &[String]) -> String {
    problems.iter().fold(String::new(), |mut text, problem| {
        write!(text, "\n  {problem}").expect("writing to a String cannot fail");
        text
    })
}
