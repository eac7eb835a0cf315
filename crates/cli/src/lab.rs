//! `tidegate lab`: what would so many programs do to this quota? Answered in virtual time, or on sockets.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_bulk::Exit;
use tidegate_core::profile::nearest;
use tidegate_lab::{LabError, Options, Report, Scenario, StrategyName, builtin, run as play, sockets};
use tokio::time::Instant;

use crate::args::{LabCommand, LabRunArgs, OutputFormat};
use crate::failure::{Failure, all, together};
use crate::lab_output::places;
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
    let scenarios = all(args.scenarios.iter().map(|name| read(name)));
    let (scenarios, ()) = together((scenarios, each_once(&args.strategy)))?;
    let pictures = places(args, &scenarios)?;
    let options = Options { strategies: args.strategy.clone(), seed: args.seed };
    let (mut reports, mut met) = (Vec::new(), true);
    for (at, scenario) in scenarios.iter().enumerate() {
        let report = if args.sockets {
            on_sockets(scenario, &options, args).await?
        } else {
            play(scenario, &options).map_err(Failure::internal)?
        };
        met &= report.violations().is_empty();
        if args.svg_to_stdout() {
            output::data(&report.svg());
        } else if !args.json_to_stdout() {
            output::data(&format!("{}\n", report.table()));
        }
        if let Some(to) = pictures.get(at) {
            write(to, &report.svg())?;
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
        move || {
            let notes = vec![(begun.elapsed().as_secs(), "s passed")];
            Sample { ended: progress.ended(), notes, ..Sample::default() }
        }
    };
    let line = Line::start("calls", forecast.calls, args.quiet, look);
    let report = sockets::run(scenario, options, &forecast, &progress).await;
    line.finish();
    report.map_err(failed)
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
    let text = std::fs::read_to_string(name).map_err(|error| unreadable(name, &error))?;
    Scenario::from_toml(&text).map_err(wrong)
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    let path = Path::new(name);
    if path.is_dir() {
        return Failure::usage(format!("{name} is a folder (name the files in it, such as {name}/*.toml)"));
    }
    let is_path = path.components().count() > 1 || path.extension().is_some();
    if is_path || error.kind() != std::io::ErrorKind::NotFound {
        return Failure::usage(format!("cannot read {name}: {error}"));
    }
    let hint = nearest(name, builtin::names()).map_or_else(
        || "`tidegate lab list` lists them".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    Failure::usage(format!("scenario `{name}`: no built-in one and no file ({hint})"))
}

/// A strategy that was named twice would be played twice, to the same numbers.
fn each_once(strategies: &[StrategyName]) -> Result<(), Failure> {
    let again = strategies.iter().enumerate().find(|(at, name)| strategies[..*at].contains(name));
    again.map_or(Ok(()), |(_, name)| {
        Err(Failure::usage(format!("--strategy {name} is given twice (remove one)")))
    })
}

fn list(format: OutputFormat) -> Result<(), Failure> {
    let mut names: Vec<String> = builtin::names().map(str::to_owned).collect();
    names.extend(files()?);
    let scenarios = names.iter().map(|name| Ok((name, read(name)?))).collect::<Result<Vec<_>, Failure>>()?;
    match format {
        OutputFormat::Json => {
            let entry = |(name, scenario): &(&String, Scenario)| {
                let fleet = &scenario.fleet;
                json!({
                    "name": name,
                    "about": scenario.about,
                    "instances": fleet.instances,
                    "shares_quota": fleet.quota.is_shared(),
                })
            };
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
