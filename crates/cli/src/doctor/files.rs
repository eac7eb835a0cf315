//! The files that a gateway or a run here goes by: its pacing, its ledger of keys, journals.
//!
//! They are read and not changed, also while a process uses them. What is damaged is better known before a restart needs
//! it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate::state::{StateError, StateFile, StateLook};
use tidegate_core::idempotency::age;
use tidegate_core::key::Tenant;
use tidegate_core::time::Wall;
use tidegate_gateway::{KeepKeys, KeepState};
use tidegate_store::ledger::{Ledger, LedgerError, Look, Tally};
use tidegate_store::{Error, Held, Journal, Reader};

use super::{Finding, How, finding};

/// What is looked at.
pub(super) struct Files {
    /// Where a gateway would keep its pacing.
    pub(super) state: KeepState,
    /// Where it would keep what was written under keys.
    pub(super) keys: KeepKeys,
    /// Of which tenant on which upstream.
    pub(super) of: (Tenant, String),
    /// Journals of runs.
    pub(super) journals: Vec<PathBuf>,
}

impl Files {
    /// Looks at all of them.
    pub(super) fn look(&self, now: Wall) -> Vec<Finding> {
        let mut findings = Vec::new();
        match &self.state {
            KeepState::Nowhere => {}
            KeepState::In(dir) => findings.push(self.state_in(dir, How::Bad, now)),
            KeepState::InIfFree(dir) => findings.push(self.state_in(dir, How::Note, now)),
        }
        match &self.keys {
            KeepKeys::InMemory => {}
            // Nobody named it, so it is nothing to speak of before it is there.
            KeepKeys::InOnceNeeded(file) if !file.exists() => {}
            KeepKeys::In(file) | KeepKeys::InOnceNeeded(file) => findings.push(ledger(file, now)),
        }
        findings.extend(self.journals.iter().map(|path| journal(path, now)));
        findings
    }

    /// `unusable`: how bad it is if the folder cannot be written.
    fn state_in(&self, dir: &Path, unusable: How, now: Wall) -> Finding {
        if let Err(error) = StateFile::could_be_in(dir) {
            return finding("state", unusable, error.to_string());
        }
        let (tenant, api) = &self.of;
        state(dir, StateFile::look(dir, tenant, api), now)
    }
}

fn state(dir: &Path, looked: Result<Option<StateLook>, StateError>, now: Wall) -> Finding {
    match looked {
        Err(error) => {
            let remedy = "a gateway starts, and counts declared quotas as spent for a while; remove the file to begin anew";
            finding("state", How::Bad, format!("{error} ({remedy})"))
        }
        Ok(None) => finding("state", How::Ok, format!("{}: no pacing is stored yet", dir.display())),
        Ok(Some(StateLook { path, at, lost })) if lost.is_empty() => {
            finding("state", How::Ok, format!("{}: pacing, stored {}", path.display(), ago(at, now)))
        }
        Ok(Some(StateLook { path, lost, .. })) => finding(
            "state",
            How::Note,
            format!(
                "{}: parts of it are lost, their quota counts as spent for a while: {}",
                path.display(),
                lost.join("; ")
            ),
        ),
    }
}

fn ledger(path: &Path, now: Wall) -> Finding {
    match Ledger::look(path) {
        Err(error) => finding("ledger", How::Bad, LedgerError::to_string(&error)),
        Ok(None) => finding("ledger", How::Ok, format!("{}: is made with the first key", path.display())),
        Ok(Some(Look { version, tally: Tally { entries, unknown }, oldest })) => {
            let oldest =
                oldest.map_or_else(String::new, |oldest| format!(", the oldest sent {}", ago(oldest, now)));
            let told = format!(
                "{}: sound, format {version}; {entries} keys, {unknown} without a known outcome{oldest}",
                path.display()
            );
            finding("ledger", How::Ok, told)
        }
    }
}

fn journal(path: &Path, now: Wall) -> Finding {
    match read_journal(path, now) {
        Ok((how, told)) => finding("journal", how, format!("{}: {told}", path.display())),
        // It names the file itself.
        Err(error) => finding("journal", How::Bad, error.to_string()),
    }
}

fn read_journal(path: &Path, now: Wall) -> Result<(How, String), Error> {
    let reader = Reader::open(path)?;
    reader.verify()?;
    let (run, counts) = (reader.run()?, reader.counts()?);
    let doubt = counts.sent.saturating_sub(reader.open_jobs()?.len() as u64);
    let told = format!(
        "sound, format {}; made {}, {} of {} items pending",
        reader.version()?,
        ago(run.header.created, now),
        counts.pending(),
        counts.total()
    );
    Ok(match Journal::holder(path)? {
        Held::By(Some(pid)) => (How::Ok, format!("{told}; process {pid} is at it")),
        Held::By(None) => (How::Ok, format!("{told}; a process is at it")),
        Held::No if run.planned.is_none() => {
            (How::Note, format!("{told}; its planning was interrupted, so nothing was sent: run it again"))
        }
        Held::No if run.cancelled.is_some() => (How::Ok, format!("{told}; cancelled")),
        Held::No if doubt > 0 => {
            let remedy = "finish it with tidegate bulk resume, the sooner the better: keys are trusted for a day at most";
            (How::Note, format!("{told}, {doubt} of them sent without a known outcome ({remedy})"))
        }
        Held::No => (How::Ok, told),
    })
}

/// How long ago something was, in the largest unit that it fills.
fn ago(then: Wall, now: Wall) -> String {
    let age = age(then, now);
    if age == Duration::MAX {
        return "at a time that has not come yet: this clock was set back".to_owned();
    }
    let seconds = age.as_secs();
    let (number, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3_600 => (seconds / 60, "min"),
        3_600..86_400 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{number} {unit} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_the_largest_unit_they_fill() {
        let then = Wall::from_unix_millis(0);
        for (millis, told) in [
            (999, "0 s ago"),
            (59_999, "59 s ago"),
            (60_000, "1 min ago"),
            (7_199_000, "1 h ago"),
            (172_800_000, "2 d ago"),
        ] {
            assert_eq!(ago(then, Wall::from_unix_millis(millis)), told);
        }
        assert!(ago(Wall::from_unix_millis(3_600_000), then).contains("set back"));
    }
}
