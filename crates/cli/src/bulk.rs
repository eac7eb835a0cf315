//! `tidegate bulk`: plan a file, apply it, go on after an interruption, say how it went.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tidegate::observe::{Observer, Observers, Traced};
use tidegate::{Client, Profile, Upstream, UpstreamConfig};
use tidegate_bulk::execute::{Options, Progress, Stopped, execute};
use tidegate_bulk::exit::exit;
use tidegate_bulk::resolve::{ResolveError, resolve};
use tidegate_bulk::{
    Ending, Exit, Format, Lookups, PlannedRequest, Planner, Recipe, Summary, Survey, load, report,
};
use tidegate_core::idempotency::{BodyDigest, Transaction, Write as KeyedWrite};
use tidegate_core::key::Tenant;
use tidegate_core::pace::LimitKind;
use tidegate_store::{Counts, Journal, Reader, RunHeader};
use tokio::sync::watch;

use crate::args::{
    BulkCommand, BulkCommon, BulkReportArgs, BulkResumeArgs, BulkRunArgs, BulkStatusArgs, InputFormat,
    OutputFormat,
};
use crate::failure::Failure;
use crate::output;
use crate::progress::{Line, Watch};
use crate::settings::Settings;
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

/// An input that was read and checked.
struct Input {
    path: PathBuf,
    name: String,
    format: Format,
    recipe: Recipe,
    survey: Survey,
}

impl Input {
    /// Reads the whole input once, and tells all its problems.
    fn check(args: &BulkRunArgs) -> Result<(Self, Summary), Failure> {
        let recipe = Recipe::load(&args.recipe).map_err(Failure::usage)?;
        let name = args.input.display().to_string();
        let format = match args.input_format {
            Some(InputFormat::Csv) => Format::Csv,
            Some(InputFormat::Ndjson) => Format::Ndjson,
            None => Format::of(&args.input),
        };
        let planner = Planner::new(&recipe, format, &name);
        let survey = planner.survey(open(&args.input)?).map_err(Failure::usage)?;
        let summary = planner.check(open(&args.input)?, &survey).map_err(Failure::usage)?;
        Ok((Self { path: args.input.clone(), name, format, recipe, survey }, summary))
    }

    fn planner(&self) -> Planner<'_> {
        Planner::new(&self.recipe, self.format, &self.name)
    }
}

fn open(path: &Path) -> Result<BufReader<File>, Failure> {
    let file = File::open(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    Ok(BufReader::new(file))
}

async fn start(args: BulkRunArgs) -> Result<(), Failure> {
    let (input, checked) = tokio::task::block_in_place(|| Input::check(&args))?;
    let link = Link::new(&args.common)?;
    let client = Client::over(Arc::clone(&link.upstream));
    let lookups =
        resolve(&client, &input.recipe, &input.survey, &input.name).await.map_err(|error| match error {
            ResolveError::Unknown(problems) => Failure::usage(problems),
            error @ ResolveError::Upstream { .. } => Failure::upstream(error),
        })?;
    if args.dry_run {
        return tokio::task::block_in_place(|| dry_run(&input, &lookups, link.upstream.profile()));
    }
    for note in &checked.notes {
        output::talk(note);
    }
    let path = args.journal.clone().unwrap_or_else(|| default_journal(&args.input));
    let journal = tokio::task::block_in_place(|| plan(&input, &lookups, &link, &path))?;
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

/// Plans the input into a new journal.
fn plan(input: &Input, lookups: &Lookups, link: &Link, path: &Path) -> Result<Journal, Failure> {
    let profile = link.upstream.profile();
    let tenant = link.upstream.tenant();
    let now = link.upstream.clock().wall();
    // With real ids in place of names, rows can contradict each other that did not before: find out before there is
    // a journal.
    let planner = input.planner();
    planner
        .plan(open(&input.path)?, &input.survey, lookups, |_| Ok::<_, std::convert::Infallible>(()))
        .map_err(Failure::usage)?;
    let header = RunHeader {
        recipe: input.recipe.name().to_owned(),
        recipe_digest: input.recipe.digest(),
        input_name: input.name.clone(),
        input_digest: input.survey.digest(),
        tenant: tenant.to_string(),
        profile: profile.name.clone(),
        options: String::new(),
        created: now,
    };
    let journal = Journal::create(path, &header).map_err(Failure::usage)?;
    let key_for = |request: &PlannedRequest| key(request, tenant, profile);
    load(&planner, open(&input.path)?, &input.survey, lookups, &journal, now, key_for)
        .map_err(Failure::internal)?;
    Ok(journal)
}

fn key(request: &PlannedRequest, tenant: &Tenant, profile: &Profile) -> uuid::Uuid {
    let transaction = request.transaction.to_string();
    let write = KeyedWrite {
        tenant,
        transaction: Transaction::Given(&transaction),
        method: &request.method,
        target: &request.target,
        body: &BodyDigest::json(request.body.as_deref().unwrap_or_default()),
    };
    write.key(profile.idempotency.stamp)
}

/// Shows what would be sent, and how long it would take.
fn dry_run(input: &Input, lookups: &Lookups, profile: &Profile) -> Result<(), Failure> {
    let mut shown = Vec::new();
    let summary = input
        .planner()
        .plan(open(&input.path)?, &input.survey, lookups, |request| {
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

/// The way to the upstream.
struct Link {
    upstream: Arc<Upstream>,
    watch: Arc<Watch>,
    /// What every request carries for a gateway in between.
    header: Option<(HeaderName, HeaderValue)>,
}

impl Link {
    fn new(common: &BulkCommon) -> Result<Self, Failure> {
        let settings = Settings::load(&common.connection, |name| std::env::var(name).ok())?;
        let mut config = match &common.via {
            None => settings.upstream()?,
            Some(gateway) => {
                // The gateway knows the limits and holds the credential.
                let mut profile = settings.profile()?;
                profile.limits.clear();
                UpstreamConfig::new(Arc::new(profile), gateway, gateway)
            }
        };
        let watch = Arc::new(Watch::default());
        let observers: [Arc<dyn Observer>; 2] = [Arc::new(Traced), Arc::clone(&watch) as Arc<dyn Observer>];
        config.observers = Observers::new(observers);
        let upstream = Upstream::new(config).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure::usage(lines.join("\n"))
        })?;
        let header = common
            .via
            .as_ref()
            .map(|_| (HeaderName::from_static("tidegate-class"), HeaderValue::from_static("bulk")));
        Ok(Self { upstream, watch, header })
    }
}

/// Sends what is pending and reports.
async fn carry_out(journal: Journal, link: Link, common: &BulkCommon) -> Result<(), Failure> {
    let journal = Arc::new(journal);
    let reader = journal.reader().map_err(Failure::internal)?;
    let before = reader.counts().map_err(Failure::internal)?;
    let progress = Arc::new(Progress::default());
    let already = before.total() - before.pending();
    let line =
        Line::start(before.total(), already, Arc::clone(&progress), Arc::clone(&link.watch), common.quiet);
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
    line.finish();
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
