//! Files of one run that must not be the same file.
//!
//! A result that is written over the journal, or over the input, destroys the only record of what was done. So whatever a
//! command writes is compared with what it reads and keeps, before anything is touched.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// What lies beside a journal, by what is appended to its name.
const BESIDE: [&str; 8] =
    ["-wal", "-shm", ".lock", ".mark", ".new", ".cancel", ".pacing.json", ".pacing.json.lock"];

/// Where results of jobs go if nothing else is said.
const RESULTS: &str = ".results.ndjson";

/// Refuses names that lead to the same file.
pub(super) fn check(
    journal: &Path,
    input: Option<&Path>,
    output: Option<&Path>,
    results: Option<&Path>,
) -> Result<(), Failure> {
    let mut taken: Vec<(PathBuf, &str)> = Vec::new();
    taken.extend(input.map(|input| (place(input), "the input")));
    claim(&mut taken, "--journal", "the journal", journal)?;
    let journal = place(journal);
    let beside = |suffix: &str| {
        let mut name = journal.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    };
    taken.extend(BESIDE.map(|suffix| (beside(suffix), "a file of the journal")));
    match results {
        Some(results) => claim(&mut taken, "--results", "where the results go", results)?,
        None => taken.push((beside(RESULTS), "a file of the journal")),
    }
    match output {
        Some(output) => claim(&mut taken, "--output", "where the outcomes go", output),
        None => Ok(()),
    }
}

/// Takes a file for one purpose, unless it is taken.
fn claim<'w>(
    taken: &mut Vec<(PathBuf, &'w str)>,
    flag: &str,
    what: &'w str,
    path: &Path,
) -> Result<(), Failure> {
    let here = place(path);
    if let Some((_, other)) = taken.iter().find(|(there, _)| *there == here) {
        return Err(Failure::usage(format!("{flag}: {} is {other} (name another file)", path.display())));
    }
    taken.push((here, what));
    Ok(())
}

/// Where a name leads, whether or not there is a file yet.
fn place(path: &Path) -> PathBuf {
    let there = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(std::fs::canonicalize(folder).ok()?.join(path.file_name()?))
    };
    std::fs::canonicalize(path).ok().or_else(there).unwrap_or_else(|| path.to_owned())
}
