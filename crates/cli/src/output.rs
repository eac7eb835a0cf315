//! Where words go: data to standard output, talk to standard error. A reader that has gone away is no error.

use std::io::Write;

/// Writes data.
pub(crate) fn data(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe means that the reader has what it wanted.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Writes a line for the person in front of it.
pub(crate) fn talk(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Columns of the terminal that data is written to, if it is one.
pub(crate) fn width() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}
