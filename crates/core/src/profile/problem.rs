//! Problems of a configuration file, all of them at once, each with its line.

use std::fmt;

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line it is on, counted from 1.
    pub line: usize,
    /// The full key, such as `limit[1].window`; empty where the text is no TOML at all.
    pub key: String,
    /// What is wrong, and in parentheses what to do.
    pub what: String,
}

/// Every problem of one file, in the order of its lines. Written as one `file:line: key: problem (what to do)` per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file's name, as it was given.
    pub file: String,
    /// The problems. Never empty.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Problem { line, key, what }) in self.list.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            let colon = if key.is_empty() { "" } else { ": " };
            write!(f, "{separator}{}:{line}: {key}{colon}{what}", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
