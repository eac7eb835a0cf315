//! The result of a run, from its journal alone: a row per item, and counts.
//!
//! An item whose upstream tells each row's outcome (see [`recipe::job`](crate::recipe::job)) has a row for each of those
//! instead of one for itself; a row that was sent again stands where it was sent last.
//!
//! The columns are `id,status,http_status,attempts,key,error`. The status is what a person acts on: `ok`; `failed`, not
//! applied, can be run again; `unknown`, must be looked at; `pending`, a resume will deal with it. Rows come in the order
//! of the input.

use std::io::Write;

use tidegate_store::{Counts, ItemResult, Part, PartState, Reader, State};

/// What an item came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Applied.
    Ok,
    /// Not applied.
    Failed,
    /// May have been applied.
    Unknown,
    /// Not dealt with yet.
    Pending,
}

impl Status {
    /// The word in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Pending => "pending",
        }
    }
}

impl From<State> for Status {
    fn from(state: State) -> Self {
        match state {
            State::Planned | State::Sent | State::Resent => Self::Pending,
            State::Ok => Self::Ok,
            // A cancelled item was never sent and never will be.
            State::Failed | State::Cancelled => Self::Failed,
            State::Unknown => Self::Unknown,
        }
    }
}

/// Why a report was not written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] tidegate_store::Error),
    /// The report cannot be written.
    #[error("cannot write the report: {0}")]
    Write(#[from] csv::Error),
}

impl ReportError {
    /// Whether the reader of the report hung up, which is no failure of ours.
    pub fn is_broken_pipe(&self) -> bool {
        let Self::Write(error) = self else { return false };
        matches!(error.kind(), csv::ErrorKind::Io(io) if io.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Writes the result of every item as CSV, in bounded memory, and returns how the items stand.
///
/// # Errors
/// [`ReportError`].
pub fn write_csv(journal: &Reader, out: impl Write) -> Result<Counts, ReportError> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(["id", "status", "http_status", "attempts", "key", "error"])?;
    journal.results(|item| {
        if item.parts == 0 {
            return write_item(&mut csv, &item);
        }
        journal.parts(item.seq)?.iter().try_for_each(|part| write_part(&mut csv, &item, part))
    })?;
    csv.flush().map_err(csv::Error::from)?;
    Ok(journal.counts()?)
}

fn write_part(csv: &mut csv::Writer<impl Write>, item: &ItemResult, part: &Part) -> Result<(), ReportError> {
    let status = match part.state {
        Some(PartState::Followed) => return Ok(()),
        Some(PartState::Ok) => Status::Ok,
        Some(PartState::Failed) => Status::Failed,
        Some(PartState::Unknown) => Status::Unknown,
        // Of a submission that was refused as a whole, or cancelled.
        None if !item.state.is_pending() => Status::from(item.state),
        Some(PartState::Retry) | None => Status::Pending,
    };
    let http_status = part.http_status.or(item.http_status).map_or_else(String::new, |it| it.to_string());
    let of_item = (part.state.is_none() || part.state == Some(PartState::Unknown)).then_some(&item.error);
    let error = part.error.as_ref().or(of_item.and_then(Option::as_ref));
    csv.write_record([
        part.id.as_str(),
        status.name(),
        &http_status,
        &item.attempts.to_string(),
        &item.key.hyphenated().to_string(),
        error.map_or("", String::as_str),
    ])?;
    Ok(())
}

fn write_item(csv: &mut csv::Writer<impl Write>, item: &ItemResult) -> Result<(), ReportError> {
    let status = item.http_status.map_or_else(String::new, |it| it.to_string());
    let error = match (item.state, &item.error) {
        (State::Cancelled, None) => "cancelled before it was sent",
        (_, error) => error.as_deref().unwrap_or_default(),
    };
    csv.write_record([
        item.id.as_str(),
        Status::from(item.state).name(),
        &status,
        &item.attempts.to_string(),
        &item.key.hyphenated().to_string(),
        error,
    ])?;
    Ok(())
}
