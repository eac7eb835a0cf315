//! Ending a run for good, whether or not a process is at it.
//!
//! What was not sent is cancelled; what was sent keeps its outcome, or is awaited by the process that sent it. A running
//! process is asked through a file beside the journal, at which it looks while it runs: it stops as at Ctrl-C, then cancels.
//! If it dies over that, the journal is free and this process cancels. Both may do it; the second time changes nothing.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate::clock::Clock;
use tidegate_store::{ErrorKind, Journal, Reader};
use tokio::task::block_in_place;

use super::look;
use crate::args::BulkCancelArgs;
use crate::failure::Failure;
use crate::output;

/// How often it is looked whether the running process has ended.
const LOOK: Duration = Duration::from_millis(100);

/// The file whose presence asks the process that holds `journal` to cancel its run.
pub(super) fn request(journal: &Path) -> PathBuf {
    journal.with_added_extension("cancel")
}

/// Cancels a run.
pub(super) async fn cancel(args: &BulkCancelArgs) -> Result<(), Failure> {
    let reader = Reader::open(&args.journal).map_err(|error| Failure::journal(&error))?;
    let counts = reader.counts().map_err(Failure::internal)?;
    if reader.run().map_err(Failure::internal)?.cancelled.is_some() {
        output::talk(&format!("{} was cancelled before", args.journal.display()));
        return look::exit_as(&counts);
    }
    let marker = request(reader.path());
    drop(reader);
    if !args.yes {
        ask(&format!(
            "{} of {} items were not sent and never will be; {} were sent and have no outcome yet. Cancel? [y/N] ",
            counts.planned,
            counts.total(),
            counts.sent
        ))?;
    }
    let mut told = false;
    let journal = loop {
        match block_in_place(|| Journal::open(&args.journal)) {
            Ok(journal) => break journal,
            Err(error) => match error.kind() {
                ErrorKind::Locked { pid } => {
                    if !told {
                        let who =
                            pid.map_or_else(|| "the process".to_owned(), |pid| format!("process {pid}"));
                        output::talk(&format!("asking {who} to stop: what has left is awaited"));
                        told = true;
                    }
                    // Again and again: a process that begins just now takes away what it finds.
                    std::fs::write(&marker, b"").map_err(|error| {
                        Failure::internal(format!("cannot write {}: {error}", marker.display()))
                    })?;
                    tokio::time::sleep(LOOK).await;
                }
                _ => return Err(Failure::journal(&error)),
            },
        }
    };
    journal.planned().map_err(|error| {
        take_away(&marker);
        Failure::usage(error)
    })?;
    let cancelled = block_in_place(|| journal.cancel_blocking(Clock::start().wall()));
    take_away(&marker);
    cancelled.map_err(Failure::internal)?;
    let counts = block_in_place(|| journal.reader()?.counts()).map_err(Failure::internal)?;
    output::talk(&look::summary_of(&counts));
    look::exit_as(&counts)
}

/// Removes a request that was served or that nobody stands behind any more.
pub(super) fn take_away(marker: &Path) {
    // If it cannot be removed, the next process that runs this journal does nothing but cancel again.
    drop(std::fs::remove_file(marker));
}

fn ask(question: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question}(say --yes: there is nobody to ask)")));
    }
    output::talk(question);
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(Failure::internal)?;
    if answer.trim().eq_ignore_ascii_case("y") || answer.trim().eq_ignore_ascii_case("yes") {
        return Ok(());
    }
    Err(Failure::usage("nothing was changed"))
}
