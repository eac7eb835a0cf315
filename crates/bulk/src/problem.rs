//! Problems of an input or a recipe, collected so that all can be reported at once.
//!
//! A person who fixes a file wants to see everything that is wrong with it, and not a thousand copies of the same
//! mistake: the first [`Problems::SHOWN`] are kept with their place, the rest are counted.

use std::fmt;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the file, from 1; `None` if it is about the file as a whole.
    pub line: Option<u64>,
    /// Column of the input, if it is about one.
    pub column: Option<String>,
    /// What is wrong and what to do about it: a lowercase fragment.
    pub message: String,
}

impl Problem {
    /// A problem of the file as a whole.
    pub(crate) fn file(message: impl Into<String>) -> Self {
        Self { line: None, column: None, message: message.into() }
    }

    /// A problem of a line.
    pub(crate) fn line(line: u64, message: impl Into<String>) -> Self {
        Self { line: Some(line), column: None, message: message.into() }
    }

    /// A problem of one cell.
    pub(crate) fn cell(line: u64, column: &str, message: impl Into<String>) -> Self {
        Self { line: Some(line), column: Some(column.to_owned()), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, &self.column) {
            (Some(line), Some(column)) => write!(f, "line {line}, column `{column}`: {}", self.message),
            (Some(line), None) => write!(f, "line {line}: {}", self.message),
            (None, _) => f.write_str(&self.message),
        }
    }
}

/// Line ends in `text`, for turning offsets into lines.
pub(crate) fn line_breaks(text: &[u8]) -> u64 {
    text.split(|byte| *byte == b'\n').count() as u64 - 1
}

/// Everything that is wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    file: String,
    first: Vec<Problem>,
    total: u64,
}

impl Problems {
    /// Problems kept with their place.
    pub const SHOWN: usize = 20;

    /// No problems yet in `file`.
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), first: Vec::new(), total: 0 }
    }

    /// The first problems found, at most [`Problems::SHOWN`].
    pub fn first(&self) -> &[Problem] {
        &self.first
    }

    /// How many were found.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether none was found.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        self.total += 1;
        if self.first.len() < Self::SHOWN {
            self.first.push(problem);
        }
    }

    /// `value` if there are no problems, else all of them.
    pub(crate) fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.total == 1 { "" } else { "s" };
        write!(f, "{} has {} problem{plural}:", self.file, self.total)?;
        self.first.iter().try_for_each(|problem| write!(f, "\n  {problem}"))?;
        match self.total - self.first.len() as u64 {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_twenty_are_shown_and_the_rest_counted() {
        let mut problems = Problems::new("agents.csv");
        (2..25).for_each(|line| problems.push(Problem::cell(line, "user_id", "is empty")));
        let text = problems.to_string();
        assert!(
            text.starts_with("agents.csv has 23 problems:\n  line 2, column `user_id`: is empty\n"),
            "{text}"
        );
        assert!(text.ends_with("\n  line 21, column `user_id`: is empty\n  and 3 more"), "{text}");
        assert_eq!((problems.total(), problems.first().len()), (23, 20));
    }
}
