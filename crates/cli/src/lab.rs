//! `tidegate lab`: what would so many programs do to this quota? Answered in virtual time, or on sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_bulk::Exit;
use tidegate_lab::{LabError, Options, Report, Scenario, builtin, run as play, sockets};
use tokio::time::Instant;

use crate::args::{LabCommand, LabRunArgs, OutputFormat};
use crate::failure::Failure;
use crate::output;
use crate::progress::{Line, Sample, spell};

/// Where scenario files lie by convention, beside the built-in ones.
const FOLDER: &str = "scenarios";

/// Runs scenarios, or lists them.
pub(crate) async fn run(command: &LabCommand) -> Result<(), Failure> {
    match command {
        LabCommand::Run(args) => run_all(args).await,
        LabCommand::List { format } => list(*format),
    }
}

async fn run_all(args: &LabRunArgs) -> Result<(), Failure> {
    let scenarios = args.scenarios.iter().map(|name| read(name)).collect::<Result<Vec<_>, _>>()?;
    let options = Options { strategies: args.strategy.clone(), seed: args.seed };
    let several = scenarios.len() > 1;
    let (mut reports, mut met) = (Vec::new(), true);
    for scenario in &scenarios {
        let report = if args.sockets {
            on_sockets(scenario, &options, args).await?
        } else {
            play(scenario, &options).map_err(Failure::internal)?
        };
        met &= report.violations().is_empty();
        if !args.json_to_stdout() {
            output::data(&format!("{}\n", report.table()));
        }
        if let Some(to) = &args.svg {
            write(&picture_path(to, &report, several)?, &report.svg())?;
        }
        reports.push(report.json());
    }
    if let Some(to) = &args.json {
        let text = format!("{:#}\n", Value::from(reports));
        if args.json_to_stdout() {
            output::data(&text);
        } else {
            write(to, &text)?;
        }
    }
    if met { Ok(()) } else { Err(Failure::told(Exit::ItemsFailed)) }
}

/// In real time: tells how long it will take, and shows how far it is.
async fn on_sockets(scenario: &Scenario, options: &Options, args: &LabRunArgs) -> Result<Report, Failure> {
    let failed = |error: LabError| match error {
        LabError::TooMuch(_) => Failure::usage(format!("{}: {error}", scenario.name)),
        other => Failure::internal(other),
    };
    let forecast = sockets::forecast(scenario, options, args.max_wall).map_err(failed)?;
    if !args.quiet {
        output::talk(&format!("{}: about {} on sockets", scenario.name, spell(forecast.wall)));
    }
    let (progress, begun) = (Arc::new(sockets::Progress::default()), Instant::now());
    let look = {
        let progress = Arc::clone(&progress);
        move || Sample { ended: progress.ended(), notes: vec![(begun.elapsed().as_secs(), "s passed")] }
    };
    let line = Line::start("calls", forecast.calls, args.quiet, look);
    let report = sockets::run(scenario, options, &forecast, &progress).await;
    line.finish();
    report.map_err(failed)
}

/// One picture goes to the file that was named, several into a folder of that name.
fn picture_path(to: &Path, report: &Report, several: bool) -> Result<PathBuf, Failure> {
    if !several && !to.is_dir() {
        return Ok(to.to_owned());
    }
    std::fs::create_dir_all(to)
        .map_err(|error| Failure::usage(format!("cannot make the folder {}: {error}", to.display())))?;
    Ok(to.join(format!("{}.svg", report.name())))
}

fn write(to: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(to, text)
        .map_err(|error| Failure::usage(format!("cannot write {}: {error}", to.display())))
}

/// A built-in scenario, or a file. A file of the same name as a built-in one is reached as `./NAME`.
fn read(name: &str) -> Result<Scenario, Failure> {
    let wrong = |error: LabError| Failure::usage(format!("{name}: {error}"));
    if let Some(text) = builtin::text(name) {
        return Scenario::from_toml(text).map_err(wrong);
    }
    let text = std::fs::read_to_string(name).map_err(|error| {
        let known = builtin::names().collect::<Vec<_>>().join(", ");
        Failure::usage(format!("cannot read {name}: {error} (built-in scenarios are {known})"))
    })?;
    Scenario::from_toml(&text).map_err(wrong)
}

fn list(format: OutputFormat) -> Result<(), Failure> {
    let mut names: Vec<String> = builtin::names().map(str::to_owned).collect();
    names.extend(files()?);
    let scenarios = names.iter().map(|name| Ok((name, read(name)?))).collect::<Result<Vec<_>, Failure>>()?;
    match format {
        OutputFormat::Json => {
            let entry =
                |(name, scenario): &(&String, Scenario)| json!({ "name": name, "about": scenario.about });
            let all: Vec<Value> = scenarios.iter().map(entry).collect();
            output::data(&format!("{:#}\n", Value::from(all)));
        }
        OutputFormat::Text => {
            let width = names.iter().map(String::len).max().unwrap_or(0);
            for (name, scenario) in &scenarios {
                output::data(&format!("{name:<width$}  {}\n", scenario.about));
            }
        }
    }
    Ok(())
}

/// The scenario files of the working folder that are not built in, in alphabetical order.
fn files() -> Result<Vec<String>, Failure> {
    let Ok(folder) = std::fs::read_dir(FOLDER) else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in folder {
        let path = entry.map_err(|error| Failure::usage(format!("cannot list {FOLDER}: {error}")))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|ending| ending == "toml") && builtin::text(stem).is_none() {
            files.push(path.display().to_string());
        }
    }
    files.sort();
    Ok(files)
}
