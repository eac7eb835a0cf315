//! Looking at a journal: `status` and `report`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tidegate_bulk::exit::exit;
use tidegate_bulk::{Ending, Exit, report};
use tidegate_store::{Counts, Held, Journal, Reader};

use super::meet;
use crate::args::{BulkReportArgs, BulkStatusArgs, OutputFormat};
use crate::failure::Failure;

/// Says how far a run is, also while it runs.
pub(super) fn status(args: &BulkStatusArgs) -> Result<(), Failure> {
    let reader = Reader::open(&args.journal).map_err(|error| Failure::journal(&error))?;
    let run = reader.run().map_err(Failure::internal)?;
    let counts = reader.counts().map_err(Failure::internal)?;
    let parts = reader.part_counts().map_err(Failure::internal)?;
    let jobs = reader.open_jobs().map_err(Failure::internal)?;
    let open = jobs.len() as u64;
    let running = Journal::holder(&args.journal).map_err(Failure::internal)?;
    let text = match args.format {
        OutputFormat::Json => serde_json::json!({
            "recipe": run.header.recipe,
            "input": run.header.input_name,
            "tenant": run.header.tenant,
            "profile": run.header.profile,
            "planned": run.planned.is_some(),
            "running": running.is_held(),
            "pid": running.pid(),
            "cancelled_at_ms": run.cancelled.map(tidegate_core::time::Wall::unix_millis),
            "items": counts.total(),
            "ok": counts.ok,
            "failed": counts.failed,
            "unknown": counts.unknown,
            "cancelled": counts.cancelled,
            "pending": counts.pending(),
            "in_doubt": counts.sent.saturating_sub(open),
            "jobs": jobs.iter().filter_map(|it| it.job.as_ref()).map(|job| serde_json::json!({
                "job": job.id, "state": job.state, "step": job.step.name(), "results": job.fetched,
            })).collect::<Vec<_>>(),
            "rows": { "ok": parts.ok, "failed": parts.failed, "unknown": parts.unknown, "open": parts.open },
        })
        .to_string(),
        OutputFormat::Text => {
            let mut text = format!(
                "{} by recipe {} for tenant {}: {} items, {}",
                run.header.input_name,
                run.header.recipe,
                run.header.tenant,
                counts.total(),
                summary_of(&counts)
            );
            let doubt = counts.sent.saturating_sub(open);
            if open > 0 {
                write!(text, "; open jobs: {open}").expect("a string takes everything");
            }
            if doubt > 0 && !running.is_held() {
                write!(text, "; {doubt} sent without a known outcome").expect("a string takes everything");
            }
            if let Some(parts) = parts_summary(&reader)? {
                write!(text, "; {parts}").expect("a string takes everything");
            }
            match (run.planned, running) {
                (Some(_), _) => {}
                (None, Held::By(_)) => text.push_str("; it is being planned"),
                (None, Held::No) => {
                    text.push_str("; its planning did not end; nothing was sent: delete it and run again");
                }
            }
            match (run.cancelled, running) {
                (Some(_), _) => text.push_str("; cancelled"),
                (None, Held::By(Some(pid))) => {
                    write!(text, "; process {pid} is at it").expect("a string takes everything");
                }
                (None, Held::By(None)) => text.push_str("; a process is at it"),
                (None, Held::No) => {}
            }
            text
        }
    };
    let mut out = std::io::stdout().lock();
    // A closed pipe means that the reader has what it wanted.
    drop(writeln!(out, "{text}"));
    Ok(())
}

/// "3 ok, 1 failed, 0 unknown, 0 pending"; cancelled items count as failed and are named.
pub(super) fn summary_of(counts: &Counts) -> String {
    let cancelled = match counts.cancelled {
        0 => String::new(),
        number => format!(" ({number} cancelled)"),
    };
    format!(
        "{} ok, {} failed{cancelled}, {} unknown, {} pending",
        counts.ok,
        counts.failed + counts.cancelled,
        counts.unknown,
        counts.pending()
    )
}

/// How the rows stand whose outcomes are told one by one; nothing where there are none.
pub(super) fn parts_summary(reader: &Reader) -> Result<Option<String>, Failure> {
    let parts = reader.part_counts().map_err(Failure::internal)?;
    let told = || {
        format!(
            "rows: {} ok, {} failed, {} unknown, {} open",
            parts.ok, parts.failed, parts.unknown, parts.open
        )
    };
    Ok((parts.total() > 0).then(told))
}

/// Ends with the exit code of a run whose items stand so.
pub(super) fn exit_as(counts: &Counts) -> Result<(), Failure> {
    match exit(Ending::Finished, counts) {
        Exit::Done => Ok(()),
        code => Err(Failure::told(code)),
    }
}

/// Writes the result of every item.
pub(super) fn write_report(args: &BulkReportArgs) -> Result<(), Failure> {
    let reader = Reader::open(&args.journal).map_err(|error| Failure::journal(&error))?;
    reader.planned().map_err(Failure::usage)?;
    meet::check(reader.path(), None, args.output.as_deref(), None)?;
    let counts = match &args.output {
        Some(path) => {
            ResultFile::open(path)?.write(&reader, &args.journal)?;
            reader.counts().map_err(Failure::internal)?
        }
        None => match report::write_csv(&reader, std::io::stdout().lock()) {
            Ok(counts) => counts,
            Err(error) if error.is_broken_pipe() => return Ok(()),
            Err(error) => return Err(Failure::internal(error)),
        },
    };
    exit_as(&counts)
}

/// A result file that appears under its name when it is complete, and replaces what was there only then. Opened
/// before the run, so that a folder that cannot be written is known before anything is sent.
pub(super) struct ResultFile {
    path: PathBuf,
    way: Way,
}

/// How a result gets into its place.
enum Way {
    /// At once: it is no regular file, such as a pipe.
    Special(File),
    /// By way of a draft of this process alone: what has another name like it is somebody else's. It is there only while
    /// it is written, so that a run that is killed leaves none.
    Draft(PathBuf),
}

impl ResultFile {
    /// Finds out whether `path` can be written.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::usage(format!("--output: cannot write {}: {error}", path.display()))
        };
        let special = match std::fs::metadata(path) {
            Ok(there) if there.is_dir() => {
                return Err(Failure::usage(format!(
                    "--output: {} is a folder (name a file)",
                    path.display()
                )));
            }
            Ok(there) => !there.is_file(),
            Err(_) => false,
        };
        let way = if special {
            Way::Special(File::options().write(true).open(path).map_err(cannot)?)
        } else {
            let draft = path.with_added_extension(format!("{}.new", std::process::id()));
            drop(File::create_new(&draft).map_err(cannot)?);
            std::fs::remove_file(&draft).map_err(cannot)?;
            Way::Draft(draft)
        };
        Ok(Self { path: path.to_owned(), way })
    }

    /// Writes it and puts it in place.
    pub(super) fn write(self, reader: &Reader, journal: &Path) -> Result<(), Failure> {
        let written = match &self.way {
            Way::Special(file) => fill(file, reader),
            Way::Draft(draft) => self.replace(draft, reader).inspect_err(|_| {
                // Nothing in it that anybody needs; what cannot be removed does no harm.
                drop(std::fs::remove_file(draft));
            }),
        };
        written.map_err(|why| {
            Failure::internal(format!(
                "cannot write {}: {why}; the journal has everything: tidegate bulk report --journal {} --output FILE",
                self.path.display(),
                journal.display()
            ))
        })
    }

    fn replace(&self, draft: &Path, reader: &Reader) -> Result<(), String> {
        let told = |error: std::io::Error| error.to_string();
        let file = File::create_new(draft).map_err(told)?;
        fill(&file, reader)?;
        file.sync_all().map_err(told)?;
        std::fs::rename(draft, &self.path).map_err(told)
    }
}

fn fill(file: &File, reader: &Reader) -> Result<(), String> {
    let mut out = BufWriter::new(file);
    report::write_csv(reader, &mut out).map_err(|error| error.to_string())?;
    out.flush().map_err(|error| error.to_string())
}
