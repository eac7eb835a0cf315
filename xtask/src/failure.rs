//! What ends a run: one sentence that says what failed, and a hint that says what to do.

use std::fmt;

/// The reason a step failed.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure: a lowercase fragment naming what failed and where.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    /// Adds what the reader can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// One failure out of a whole list of problems, or none of an empty list.
    ///
    /// # Errors
    /// A failure that shows every problem on a line of its own, when there is one.
    pub(crate) fn from_problems(what: &str, problems: &[String]) -> Result<(), Self> {
        if problems.is_empty() {
            return Ok(());
        }
        let mut text = format!("{what}: {} found", problems.len());
        for problem in problems {
            text.push_str("\n  - ");
            text.push_str(problem);
        }
        Err(Self::new(text))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.what)?;
        if let Some(hint) = &self.hint {
            write!(out, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_shown_at_once() {
        assert!(Failure::from_problems("layering", &[]).is_ok());
        let failure = Failure::from_problems("layering", &["a".to_owned(), "b".to_owned()]).unwrap_err();
        assert_eq!(failure.to_string(), "layering: 2 found\n  - a\n  - b");
    }
}
