//! The one error type of the crate.

use std::fmt::Write as _;
use std::time::Duration;

/// Why a scenario cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabError {
    /// The text is not TOML at all; the message holds the line.
    #[error("{0}")]
    Syntax(String),
    /// Everything that is wrong with the scenario, one line each.
    #[error("{} in the scenario:{}", count(.0), list(.0))]
    Invalid(Vec<String>),
    /// On sockets the scenario would take longer than is allowed, or need more connections than are at hand.
    #[error("not played on sockets: {0}")]
    TooMuch(String),
    /// On sockets something failed that is no part of the scenario.
    #[error("on sockets: {0}")]
    Sockets(String),
    /// A strategy asked to be woken again and again without letting time pass: a bug of that strategy.
    #[error("{strategy} made no progress at {at:?} of virtual time (it asks to be woken without end)")]
    Stuck {
        /// Which.
        strategy: &'static str,
        /// When.
        at: Duration,
    },
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
