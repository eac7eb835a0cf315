//! Why a command ended badly, and with which exit code.

use std::fmt;

use tidegate_bulk::Exit;

/// A command that ended badly.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// The user can mend it: an argument, a file, a setting.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The upstream refused, or cannot be reached.
    pub(crate) fn upstream(message: impl fmt::Display) -> Self {
        Self::new(Exit::UpstreamRefused, message)
    }

    /// The user stopped it; it can be resumed.
    pub(crate) fn interrupted(message: impl fmt::Display) -> Self {
        Self::new(Exit::Interrupted, message)
    }

    /// Both, in their order; the exit code is the first one's.
    fn and(self, other: &Self) -> Self {
        Self { exit: self.exit, message: format!("{}\n{}", self.message, other.message) }
    }

    /// The same, with whose it is before each line.
    pub(crate) fn of(self, whose: &str) -> Self {
        let lines: Vec<String> = self.message.lines().map(|line| format!("{whose}: {line}")).collect();
        Self { message: lines.join("\n"), ..self }
    }

    /// It has been told already; only the exit code is left.
    pub(crate) fn told(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// What a journal says: the disk's failures are its own (exit code 5), the rest the user can mend.
    pub(crate) fn journal(error: &tidegate_store::Error) -> Self {
        use tidegate_store::ErrorKind as Kind;
        match error.kind() {
            Kind::DiskFull | Kind::ReadOnly(_) | Kind::Corrupt(_) | Kind::Io(_) | Kind::Closed => {
                Self::internal(error)
            }
            _ => Self::usage(error),
        }
    }

    /// Should not happen.
    pub(crate) fn internal(message: impl fmt::Display) -> Self {
        Self::new(Exit::Internal, message)
    }
}

/// All values, or all failures at once.
pub(crate) fn all<T>(results: impl IntoIterator<Item = Result<T, Failure>>) -> Result<Vec<T>, Failure> {
    let (mut values, mut failed) = (Vec::new(), None);
    for result in results {
        match (result, failed.take()) {
            (Ok(value), before) => {
                values.push(value);
                failed = before;
            }
            (Err(failure), None) => failed = Some(failure),
            (Err(failure), Some(before)) => failed = Some(before.and(&failure)),
        }
    }
    failed.map_or(Ok(values), Err)
}

/// Both values, or all failures at once.
pub(crate) fn together<A, B>(both: (Result<A, Failure>, Result<B, Failure>)) -> Result<(A, B), Failure> {
    match both {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => Err(failure),
        (Err(one), Err(other)) => Err(one.and(&other)),
    }
}
