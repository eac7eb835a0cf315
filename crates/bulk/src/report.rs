//! The result of a run, from its journal alone: a row per item, and counts.
//!
//! An item whose upstream tells each row's outcome (see [`recipe::job`](crate::recipe::job)) has a row for each of those
//! instead of one for itself; a row that was sent again stands where it was sent last.
//!
//! An item made of several rows of which nobody knows what became has a line for each of them, too: they are what a person
//! has to look at.
//!
//! The columns are `id,status,http_status,attempts,key,error,lines`, the last of them lines of the input. The status is what a person acts on: `ok`; `failed`, not
//! applied, can be run again; `unknown`, must be looked at; `pending`, a resume will deal with it. Rows come in the order
//! of the input.

use std::borrow::Cow;
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
    csv.write_record(["id", "status", "http_status", "attempts", "key", "error", "lines"])?;
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
    let of_item = part.state.is_none() || part.state == Some(PartState::Unknown);
    let error = match &part.error {
        Some(error) => error.into(),
        None if of_item => reason(item),
        None => Cow::default(),
    };
    csv.write_record([
        part.id.as_str(),
        status.name(),
        &http_status,
        &item.attempts.to_string(),
        &item.key.hyphenated().to_string(),
        &error,
        &part.line.map_or_else(String::new, |line| line.to_string()),
    ])?;
    Ok(())
}

fn write_item(csv: &mut csv::Writer<impl Write>, item: &ItemResult) -> Result<(), ReportError> {
    if item.state == State::Unknown && item.lines.len() > 1 {
        return item.lines.chunks(1).try_for_each(|line| write_rows(csv, item, line));
    }
    write_rows(csv, item, &item.lines)
}

/// Writes a line of the report about some lines of the input.
fn write_rows(
    csv: &mut csv::Writer<impl Write>,
    item: &ItemResult,
    lines: &[u64],
) -> Result<(), ReportError> {
    let status = item.http_status.map_or_else(String::new, |it| it.to_string());
    let lines: Vec<String> = lines.iter().map(u64::to_string).collect();
    csv.write_record([
        item.id.as_str(),
        Status::from(item.state).name(),
        &status,
        &item.attempts.to_string(),
        &item.key.hyphenated().to_string(),
        &reason(item),
        &lines.join(" "),
    ])?;
    Ok(())
}

/// Why an item did not succeed. One that was refused for now and then cancelled has not failed for that refusal.
fn reason(item: &ItemResult) -> Cow<'_, str> {
    match (item.state, &item.error) {
        (State::Cancelled, None) => "cancelled before it was sent".into(),
        (State::Cancelled, Some(error)) => {
            format!("cancelled before it was sent again, after: {error}").into()
        }
        (_, Some(error)) => error.into(),
        (_, None) => Cow::default(),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::time::Wall;
    use tidegate_store::{Change, Event, Journal, NewItem, Outcome, RunHeader};

    use super::*;

    #[test]
    fn what_was_cancelled_is_told_so_whatever_it_was_refused_with_before() {
        let (folder, now) = (tempfile::tempdir().unwrap(), Wall::from_unix_millis(1));
        let journal = Journal::create(&folder.path().join("run.journal"), &RunHeader::default()).unwrap();
        let item = |seq: u64| NewItem { seq, id: format!("u{seq}"), ..NewItem::default() };
        journal.append_blocking(vec![item(1), item(2)]).unwrap();
        journal.finish_planning_blocking(now).unwrap();
        journal.intend_blocking(vec![1], now).unwrap();
        let outcome = Outcome { attempts: 1, http_status: Some(503), error: Some("overloaded".to_owned()) };
        journal.record_blocking(vec![Change { seq: 1, event: Event::Unsent, outcome }], now).unwrap();
        journal.cancel_blocking(now).unwrap();
        let mut csv = Vec::new();
        write_csv(&journal.reader().unwrap(), &mut csv).unwrap();
        let csv = String::from_utf8(csv).unwrap();
        let reasons: Vec<_> = csv.lines().skip(1).filter_map(|line| line.splitn(6, ',').nth(5)).collect();
        let expected =
            ["\"cancelled before it was sent again, after: overloaded\",", "cancelled before it was sent,"];
        assert_eq!(reasons, expected);
    }
}
