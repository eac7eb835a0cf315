//! `tidegate outbox`: what a gateway is to send later, and what it could not.
//!
//! Looking reads the file, also while a gateway writes to it. What changes something has one writer: the gateway that has the file
//! open, which is asked through its admin port, or else this command, which opens the file itself and keeps gateways out as long.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Method, Request};
use serde_json::{Value, json};
use tidegate::RequestBody;
use tidegate::clock::Clock;
use tidegate::transport::{SendOptions, Transport, Wire as _};
use tidegate_gateway::latch_of;
use tidegate_store::outbox::{Course, Head, Letter, OutboxError, OutboxFile};

use crate::args::{OutboxActArgs, OutboxCommand, OutboxCommon, OutboxListArgs, OutboxShowArgs, OutputFormat};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output;
use crate::settings::Settings;

/// How long the gateway is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn run(command: OutboxCommand) -> Result<(), Failure> {
    match command {
        OutboxCommand::List(args) => list(&args),
        OutboxCommand::Show(args) => show(&args),
        OutboxCommand::Replay(args) => act(&args, Action::Replay).await,
        OutboxCommand::Drop(args) => act(&args, Action::Drop).await,
    }
}

/// The outbox that is meant: the flag's, or that of the configuration.
fn path_of(OutboxCommon { connection, file }: &OutboxCommon) -> Result<PathBuf, Failure> {
    if let Some(file) = file {
        return Ok(file.clone());
    }
    let settings = Settings::load_all(connection, &Environment::of_process())?;
    let outbox = settings.outbox().map(|outbox| outbox.path);
    outbox.ok_or_else(|| {
        Failure::usage("which outbox? (name its file with --file, or outbox.path in the configuration)")
    })
}

fn missing(path: &Path) -> Failure {
    Failure::usage(format!("there is no outbox at {} (check the path)", path.display()))
}

fn failed(error: &OutboxError) -> Failure {
    Failure::usage(error)
}

fn list(args: &OutboxListArgs) -> Result<(), Failure> {
    let path = path_of(&args.common)?;
    let heads = OutboxFile::look(&path).map_err(|error| failed(&error))?.ok_or_else(|| missing(&path))?;
    let is_asked = |head: &&Head| match &args.state {
        Some(state) => state.name() == head.course.state,
        None => head.course.state != "done",
    };
    let shown: Vec<&Head> = heads.iter().filter(is_asked).take(args.limit).collect();
    match args.format {
        OutputFormat::Json => {
            let shown: Vec<Value> = shown.iter().map(|head| head_body(head)).collect();
            output::data(&format!("{}\n", Value::from(shown)));
        }
        OutputFormat::Text => output::data(&table(&shown)),
    }
    let of = |state: &str| heads.iter().filter(|head| head.course.state == state).count();
    output::talk(&format!(
        "{} waiting, {} being sent, {} delivered, {} dead letters",
        of("waiting"),
        of("sending"),
        of("done"),
        of("dead")
    ));
    Ok(())
}

fn head_body(head: &Head) -> Value {
    json!({
        "id": head.id,
        "kind": head.kind.name(),
        "tenant": head.tenant,
        "state": head.course.state,
        "why": head.course.why,
        "attempts": head.course.attempts,
        "since": head.since.rfc3339(),
        "method": head.method,
        "target": head.target,
        "status": head.course.answer.as_ref().map(|answer| answer.status),
    })
}

/// Columns as wide as what is in them.
fn table(heads: &[&Head]) -> String {
    let header = ["id", "kind", "tenant", "state", "attempts", "since", "what"].map(str::to_owned);
    let rows: Vec<[String; 7]> = heads
        .iter()
        .map(|head| {
            let status = head.course.answer.as_ref().map(|answer| format!(" {}", answer.status));
            let why = head.course.why.as_ref().map(|why| format!(" {why}"));
            [
                head.id.clone(),
                head.kind.name().to_owned(),
                head.tenant.clone(),
                format!("{}{}{}", head.course.state, why.unwrap_or_default(), status.unwrap_or_default()),
                head.course.attempts.to_string(),
                head.since.rfc3339(),
                format!("{} {}", head.method, head.target),
            ]
        })
        .collect();
    let mut widths = [0; 7];
    for row in std::iter::once(&header).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&header).chain(&rows) {
        let line: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(text, "{}", line.join("  ").trim_end()).expect("a string takes everything");
    }
    text
}

fn show(args: &OutboxShowArgs) -> Result<(), Failure> {
    let path = path_of(&args.common)?;
    let found = OutboxFile::look_at(&path, &args.id).map_err(|error| failed(&error))?;
    let (letter, course) = found
        .ok_or_else(|| Failure::usage(format!("there is no entry {} in {}", args.id, path.display())))?;
    let body = whole(&letter, &course);
    let text = match args.format {
        OutputFormat::Json => body.to_string(),
        OutputFormat::Text => serde_json::to_string_pretty(&body).unwrap_or_default(),
    };
    output::data(&format!("{text}\n"));
    Ok(())
}

fn whole(letter: &Letter, course: &Course) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    json!({
        "id": letter.id,
        "kind": letter.kind.name(),
        "tenant": letter.tenant,
        "caller": letter.owner.trim_start_matches('\n'),
        "credential": letter.credential,
        "class": letter.class,
        "state": course.state,
        "why": course.why,
        "attempts": course.attempts,
        "failed": course.failed,
        "doubtful": course.doubtful,
        "since": letter.since.rfc3339(),
        "not_before": course.not_before.rfc3339(),
        "first_sent": course.first_sent.map(tidegate_core::time::Wall::rfc3339),
        "deadline": letter.deadline.map(tidegate_core::time::Wall::rfc3339),
        "key": letter.keyed.as_ref().map(|keyed| keyed.key.clone()),
        "method": letter.method,
        "target": letter.target,
        "headers": text(&letter.headers),
        "body": text(&letter.body),
        "answer": course.answer.as_ref().map(|answer| json!({
            "status": answer.status, "headers": text(&answer.headers), "body": text(&answer.body)
        })),
    })
}

/// What is done to an entry.
#[derive(Clone, Copy, Debug)]
enum Action {
    Replay,
    Drop,
}

async fn act(args: &OutboxActArgs, action: Action) -> Result<(), Failure> {
    let path = path_of(&args.common)?;
    let entry = match (&args.id, args.all) {
        (Some(id), false) => id.as_str(),
        (None, true) => "all",
        _ => return Err(Failure::usage("which entry? (name one, or write --all for all dead letters)")),
    };
    let held = OutboxFile::held(&path).map_err(|error| failed(&error))?;
    let count = if held.is_held() {
        by_gateway(&path, entry, action).await?
    } else {
        by_hand(&path, entry, action).await?
    };
    let done = match action {
        Action::Replay => "to be sent again",
        Action::Drop => "dropped",
    };
    output::talk(&format!("{count} {done}"));
    if count == 0 && entry != "all" {
        let wanted = match action {
            Action::Replay => "no dead letter",
            Action::Drop => "under way, may have been sent, or not there",
        };
        return Err(Failure::usage(format!("{entry} is {wanted}")));
    }
    Ok(())
}

/// Asks the gateway that has the outbox open.
async fn by_gateway(path: &Path, entry: &str, action: Action) -> Result<u64, Failure> {
    let latch = latch_of(path);
    let unreadable = |why: &dyn std::fmt::Display| {
        Failure::usage(format!(
            "a gateway has {} open, and {} does not tell where to ask it ({why}): run this as the user of the gateway",
            path.display(),
            latch.display()
        ))
    };
    let text = std::fs::read_to_string(&latch).map_err(|error| unreadable(&error))?;
    let (admin, key) = text.trim().split_once(' ').ok_or_else(|| unreadable(&"it is not whole"))?;
    let action = match action {
        Action::Replay => "replay",
        Action::Drop => "drop",
    };
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{admin}/api/outbox/{entry}/{action}"))
        .header("tidegate-admin-key", key)
        .body(RequestBody::empty())
        .map_err(Failure::usage)?;
    let transport = Transport::new(Clock::start(), PATIENCE);
    let options = SendOptions { timeout: PATIENCE, careful: true };
    let answer = transport
        .send(request, options)
        .await
        .map_err(|error| Failure::internal(format!("the gateway at {admin} does not answer: {error}")))?;
    let status = answer.status();
    let body = answer.into_body().bytes(1 << 16).await.map_err(Failure::internal)?;
    match serde_json::from_slice::<Value>(&body).ok().and_then(|body| body["entries"].as_u64()) {
        Some(count) if status.is_success() => Ok(count),
        _ if status == http::StatusCode::NOT_FOUND => Ok(0),
        _ => Err(Failure::internal(format!("the gateway at {admin} answers {status}"))),
    }
}

/// Changes the file, which nobody has open.
async fn by_hand(path: &Path, entry: &str, action: Action) -> Result<u64, Failure> {
    let heads = OutboxFile::look(path).map_err(|error| failed(&error))?.ok_or_else(|| missing(path))?;
    // What was under way when its gateway ended may have been executed: only a gateway finds that out.
    let may = |head: &&Head| match (action, head.course.state.as_str()) {
        (Action::Replay, state) => state == "dead",
        (Action::Drop, "waiting") => entry != "all" && !head.course.doubtful,
        (Action::Drop, state) => state == "dead" || (entry != "all" && state == "done"),
    };
    let chosen = heads.iter().filter(|head| entry == "all" || head.id == entry).filter(may);
    let chosen: Vec<u64> = chosen.map(|head| head.seq).collect();
    let file = tokio::task::spawn_blocking({
        let path = path.to_owned();
        move || OutboxFile::open(&path)
    });
    let file = file.await.map_err(Failure::internal)?.map_err(|error| failed(&error))?;
    let count = chosen.len() as u64;
    match action {
        Action::Drop => file.remove(chosen).await.map_err(|error| failed(&error))?,
        Action::Replay => {
            let now = Clock::start().wall();
            for seq in chosen {
                file.replay(seq, now).await.map_err(|error| failed(&error))?;
            }
        }
    }
    tokio::task::spawn_blocking(move || drop(file)).await.map_err(Failure::internal)?;
    Ok(count)
}
