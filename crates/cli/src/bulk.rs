//! `tidegate bulk`: plan a file, apply it, go on after an interruption, say how it went.

pub(crate) mod input;
pub(crate) mod link;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate::{Client, Profile};
use tidegate_bulk::PlannedRequest;
use tidegate_bulk::execute::{Options, Progress, Stopped, execute};
use tidegate_bulk::exit::exit;
use tidegate_bulk::{Ending, Exit, Format, Lookups, Recipe, report};
use tidegate_core::pace::LimitKind;
use tidegate_store::{Counts, Journal, Reader};
use tokio::sync::watch;

use self::input::Input;
use self::link::Link;
use crate::args::{
    BulkCommand, BulkCommon, BulkReportArgs, BulkResumeArgs, BulkRunArgs, BulkStatusArgs, InputFormat,
    OutputFormat,
};
use crate::failure::Failure;
use crate::output;
use crate::progress::{self, Line, Watch};
use crate::signals::interrupted;

/// Requests shown by a dry run.
const SHOWN: usize = 5;

pub(crate) async fn run(command: BulkCommand) -> Result<(), Failure> {
    match command {
        BulkCommand::Run(args) => start(args).await,
        BulkCommand::Resume(args) => resume(args).await,
        BulkCommand::Status(args) => status(&args),
        BulkCommand::Report(args) => write_report(&args),
    }
}

async fn start(args: BulkRunArgs) -> Result<(), Failure> {
    let (input, checked) = tokio::task::block_in_place(|| {
        let recipe = Recipe::load(&args.recipe).map_err(Failure::usage)?;
        let format = match args.input_format {
            Some(InputFormat::Csv) => Format::Csv,
            Some(InputFormat::Ndjson) => Format::Ndjson,
            None => Format::of(&args.input),
        };
        Input::check(&args.input, format, recipe)
    })?;
    let link = Link::new(&args.common)?;
    let lookups = input.resolve(&Client::over(Arc::clone(&link.upstream))).await?;
    if args.dry_run {
        return tokio::task::block_in_place(|| dry_run(&input, &lookups, link.upstream.profile()));
    }
    for note in &checked.notes {
        output::talk(note);
    }
    let path = args.journal.clone().unwrap_or_else(|| default_journal(&args.input));
    let journal = tokio::task::block_in_place(|| input.plan(&lookups, &link.upstream, &path))?;
    output::talk(&format!(
        "{}: {} rows become {} requests; journal {}",
        input.name,
        checked.rows,
        journal.reader().map_err(Failure::internal)?.counts().map_err(Failure::internal)?.total(),
        path.display()
    ));
    carry_out(journal, link, &args.common).await
}

fn default_journal(input: &Path) -> PathBuf {
    let mut name = input.file_name().unwrap_or_default().to_owned();
    name.push(".journal");
    PathBuf::from(name)
}

/// Shows what would be sent, and how long it would take.
fn dry_run(input: &Input, lookups: &Lookups, profile: &Profile) -> Result<(), Failure> {
    let mut shown = Vec::new();
    let summary = input
        .planner()
        .plan(input.open()?, &input.survey, lookups, |request| {
            if shown.len() < SHOWN {
                shown.push(request);
            }
            Ok::<_, std::convert::Infallible>(())
        })
        .map_err(Failure::usage)?;
    output::data(&format!("{} rows become {} requests; nothing was sent.\n", summary.rows, summary.requests));
    for note in &summary.notes {
        output::data(&format!("{note}\n"));
    }
    for request in &shown {
        let body = request.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        output::data(&format!("\n{} {}\n{body}\n", request.method, request.target));
    }
    if summary.requests > shown.len() as u64 {
        output::data(&format!("\n… and {} more.\n", summary.requests - shown.len() as u64));
    }
    output::data(&format!("\nForecast: {}\n", forecast(profile, shown.first(), summary.requests)));
    Ok(())
}

/// How long `requests` take at the declared limits that apply to the first of them.
fn forecast(profile: &Profile, first: Option<&PlannedRequest>, requests: u64) -> String {
    let Some(first) = first else { return "there is nothing to do.".to_owned() };
    let slowest = profile
        .limits
        .iter()
        .filter(|limit| limit.matches(&first.method, &first.target))
        .filter_map(|limit| match limit.kind {
            LimitKind::Rate { quota, window } => {
                let windows = requests.saturating_sub(1) / quota;
                Some((window.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX)), limit))
            }
            LimitKind::Concurrent { .. } => None,
        })
        .max_by_key(|(time, _)| *time);
    match slowest {
        None => format!(
            "profile `{}` declares no limit for this; it goes as fast as the upstream's answers allow.",
            profile.name
        ),
        Some((time, limit)) => format!(
            "about {} at limit {} if nobody else draws from it, less where the upstream's answers allow more.",
            spell(time.max(Duration::from_secs(1))),
            limit.key
        ),
    }
}

fn spell(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

async fn resume(args: BulkResumeArgs) -> Result<(), Failure> {
    let journal = Journal::open(&args.journal).map_err(Failure::usage)?;
    let link = Link::new(&args.common)?;
    let header = &journal.run().header;
    if link.upstream.tenant().as_str() != header.tenant {
        return Err(Failure::usage(format!(
            "{} is a run for tenant `{}`, not `{}` (set tenant in tidegate.toml or TIDEGATE_TENANT)",
            args.journal.display(),
            header.tenant,
            link.upstream.tenant()
        )));
    }
    carry_out(journal, link, &args.common).await
}

/// Sends what is pending and reports.
async fn carry_out(journal: Journal, link: Link, common: &BulkCommon) -> Result<(), Failure> {
    let journal = Arc::new(journal);
    let reader = journal.reader().map_err(Failure::internal)?;
    let before = reader.counts().map_err(Failure::internal)?;
    let progress = Arc::new(Progress::default());
    let already = before.total() - before.pending();
    let look = progress::of_run(already, Arc::clone(&progress), Arc::clone(&link.watch));
    let shown = Line::start("items", before.total(), common.quiet, look);
    let (stop, stopping) = watch::channel(false);
    let listen = tokio::spawn(async move {
        interrupted().await;
        output::talk(
            "stopping: calls in flight are awaited; Ctrl-C again ends at once, and can be resumed as well",
        );
        stop.send_replace(true);
        interrupted().await;
        std::process::exit(i32::from(Exit::Interrupted.code()));
    });
    let options = Options { concurrency: usize::from(common.concurrency), header: link.header };
    let began = link.upstream.clock().now();
    let ended = execute(Arc::clone(&journal), Arc::clone(&link.upstream), options, &progress, stopping).await;
    let took = link.upstream.clock().now() - began;
    shown.finish();
    listen.abort();
    let counts = reader.counts().map_err(Failure::internal)?;
    if let Some(path) = &common.output {
        report_to_file(&reader, path)?;
    }
    output::talk(&summary(&counts, &link.watch, took));
    conclude(ended, &counts, journal.path())
}

fn conclude(ended: Result<(), Stopped>, counts: &Counts, journal: &Path) -> Result<(), Failure> {
    let (ending, why) = match ended {
        Ok(()) => (Ending::Finished, None),
        Err(why @ Stopped::Interrupted) => (Ending::Interrupted, Some(why)),
        Err(why @ Stopped::Upstream(_)) => (Ending::UpstreamRefused, Some(why)),
        Err(why @ Stopped::Journal(_)) => (Ending::Internal, Some(why)),
    };
    if let Some(why) = why {
        output::talk(&format!("tidegate: {why}"));
    }
    if counts.pending() > 0 {
        output::talk(&format!("go on with: tidegate bulk resume --journal {}", journal.display()));
    }
    match exit(ending, counts) {
        Exit::Done => Ok(()),
        code => Err(Failure::told(code)),
    }
}

fn summary(counts: &Counts, watch: &Watch, took: Duration) -> String {
    format!(
        "{} ok, {} failed, {} unknown, {} pending; {} attempts, {} throttles, {:.1} s",
        counts.ok,
        counts.failed + counts.cancelled,
        counts.unknown,
        counts.pending(),
        watch.attempts(),
        watch.throttles(),
        took.as_secs_f64()
    )
}

fn report_to_file(reader: &Reader, path: &Path) -> Result<(), Failure> {
    let file = File::create(path)
        .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))?;
    report::write_csv(reader, file).map_err(Failure::internal)?;
    Ok(())
}

fn write_report(args: &BulkReportArgs) -> Result<(), Failure> {
    let reader = Reader::open(&args.journal).map_err(Failure::usage)?;
    let counts = match &args.output {
        Some(path) => {
            report_to_file(&reader, path)?;
            reader.counts().map_err(Failure::internal)?
        }
        None => match report::write_csv(&reader, std::io::stdout().lock()) {
            Ok(counts) => counts,
            Err(error) if error.is_broken_pipe() => return Ok(()),
            Err(error) => return Err(Failure::internal(error)),
        },
    };
    match exit(Ending::Finished, &counts) {
        Exit::Done => Ok(()),
        code => Err(Failure::told(code)),
    }
}

fn status(args: &BulkStatusArgs) -> Result<(), Failure> {
    let reader = Reader::open(&args.journal).map_err(Failure::usage)?;
    let run = reader.run().map_err(Failure::internal)?;
    let counts = reader.counts().map_err(Failure::internal)?;
    let text = match args.format {
        OutputFormat::Json => serde_json::json!({
            "recipe": run.header.recipe,
            "input": run.header.input_name,
            "tenant": run.header.tenant,
            "profile": run.header.profile,
            "planned": run.planned.is_some(),
            "items": counts.total(),
            "ok": counts.ok,
            "failed": counts.failed,
            "unknown": counts.unknown,
            "cancelled": counts.cancelled,
            "pending": counts.pending(),
        })
        .to_string(),
        OutputFormat::Text => format!(
            "{} by recipe {} for tenant {}: {} items, {} ok, {} failed, {} unknown, {} pending",
            run.header.input_name,
            run.header.recipe,
            run.header.tenant,
            counts.total(),
            counts.ok,
            counts.failed + counts.cancelled,
            counts.unknown,
            counts.pending()
        ),
    };
    let mut out = std::io::stdout().lock();
    // A closed pipe means that the reader has what it wanted.
    drop(writeln!(out, "{text}"));
    Ok(())
}
