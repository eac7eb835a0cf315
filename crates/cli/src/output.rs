//! Where words go: data to standard output, talk to standard error. A reader that has gone away is no error.
//!
//! While a progress line is shown, everything said on a terminal is said above it: otherwise both would end up in one
//! line.

use std::io::{self, Write};

use console::Term;
use indicatif::ProgressBar;
use parking_lot::Mutex;

/// The progress line that is shown now, if there is one.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes data.
pub(crate) fn data(text: &str) {
    aside(|| {
        let mut out = io::stdout().lock();
        // A closed pipe means that the reader has what it wanted.
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    });
}

/// Writes a line for the person in front of it.
pub(crate) fn talk(text: &str) {
    aside(|| drop(writeln!(io::stderr().lock(), "{text}")));
}

/// Columns of the terminal that data is written to, if it is one.
pub(crate) fn width() -> Option<usize> {
    columns(&Term::stdout())
}

/// Columns of the terminal that talk is written to, if it is one.
pub(crate) fn talk_width() -> Option<usize> {
    columns(&Term::stderr())
}

fn columns(term: &Term) -> Option<usize> {
    term.size_checked().map(|(_, columns)| usize::from(columns))
}

/// Names the progress line that is shown from now on; none when it has been taken away.
pub(crate) fn show(bar: Option<ProgressBar>) {
    *SHOWN.lock() = bar;
}

/// Runs `write` with the progress line out of the way.
fn aside<T>(write: impl FnOnce() -> T) -> T {
    // Cloned first: a bar that is drawn takes locks of its own.
    let bar = SHOWN.lock().clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Standard error for the log, a whole record per write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        aside(|| io::stderr().lock().write_all(record)).map(|()| record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
