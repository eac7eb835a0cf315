//! Merging writes: what it saves, and that nothing is lost by it, on sockets.
//!
//! 8,000 skills of 2,000 agents, four each, are set by single PATCH calls through a gateway whose
//! upstream takes 500 or 100 calls per 5 s. So many workers send them, one call at a time each, in the order of agents or shuffled. What the simulator holds at the end is compared
//! with the rows, and its own count of writes is what the saving is counted by.
//!
//! `cargo xtask bench merging`; `--agents N` for other than 2,000, `--only N` for one line of the table,
//! `--write` to put the whole of it into `docs/bench/merging.md`.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use secrecy::SecretString;
use tidegate::token::ClientCredentials;
use tidegate::{Profile, UpstreamConfig};
use tidegate_core::key::CredentialId;
use tidegate_gateway::{Gateway, GatewayConfig, MergeConfig};
use tidegate_sim::{Sim, SimConfig};
use tokio::net::TcpListener;
use tokio::time::Instant;

const SKILLS: usize = 20;
const SKILLS_EACH: usize = 4;
const SEED: u64 = 7;

/// What the table goes between, in the page.
const MARKS: (&str, &str) = ("<!-- table -->\n", "<!-- end of table -->\n");

type Failure = Box<dyn Error + Send + Sync>;
type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// One line of the input.
#[derive(Clone, Debug)]
struct Row {
    user: String,
    skill: String,
    proficiency: u8,
}

#[derive(Clone, Copy)]
struct Play {
    order: &'static str,
    shuffled: bool,
    workers: usize,
    /// Calls that the upstream takes per 5 s.
    quota: u32,
    merging: bool,
}

/// What it came to.
struct Outcome {
    calls: u64,
    /// Answers of the gateway that asked to come again.
    refused: u64,
    writes: u64,
    throttles: u64,
    wrong: usize,
    took: Duration,
    p50: Duration,
    p99: Duration,
}

const PLAYS: [Play; 6] = [
    Play { order: "by agent", shuffled: false, workers: 64, quota: 500, merging: false },
    Play { order: "by agent", shuffled: false, workers: 64, quota: 500, merging: true },
    Play { order: "by agent", shuffled: false, workers: 64, quota: 100, merging: true },
    Play { order: "shuffled", shuffled: true, workers: 64, quota: 500, merging: true },
    Play { order: "shuffled", shuffled: true, workers: 512, quota: 500, merging: true },
    Play { order: "shuffled", shuffled: true, workers: 1024, quota: 500, merging: true },
];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let agents = match arguments.iter().position(|argument| argument == "--agents") {
        Some(at) => arguments.get(at + 1).ok_or("--agents: how many?")?.parse()?,
        None => 2_000,
    };
    let mut table = String::from(
        "| order | workers | quota per 5 s | merging | calls | upstream writes | saved | throttles | refused, asked again | wrong at the end | time | answer, median | 99 of 100 |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let only = arguments.iter().position(|argument| argument == "--only");
    let only: Option<usize> =
        only.and_then(|at| arguments.get(at + 1)).map(|number| number.parse()).transpose()?;
    for (_, play) in PLAYS.into_iter().enumerate().filter(|(at, _)| only.is_none_or(|only| only == at + 1)) {
        let outcome = run(play, agents).await?;
        let Outcome { calls, refused, writes, throttles, wrong, took, p50, p99 } = outcome;
        let saved = 100.0 * (1.0 - f64::from(u32::try_from(writes)?) / f64::from(u32::try_from(calls)?));
        let merging = if play.merging { "on" } else { "off" };
        writeln!(
            table,
            "| {} | {} | {} | {merging} | {calls} | {writes} | {saved:.2} % | {throttles} | {refused} | {wrong} | {:.1} s | {:.0} ms | {:.0} ms |",
            play.order,
            play.workers,
            play.quota,
            took.as_secs_f64(),
            p50.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
        )?;
        println!("{}", table.lines().last().unwrap_or_default());
    }
    println!("\n{table}");
    if only.is_none() && arguments.iter().any(|argument| argument == "--write") {
        write(&table)?;
    }
    Ok(())
}

fn write(table: &str) -> Result<(), Failure> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bench/merging.md");
    let text = std::fs::read_to_string(&page)?;
    let (head, rest) = text.split_once(MARKS.0).ok_or("the page has no place for the table")?;
    let (_, tail) = rest.split_once(MARKS.1).ok_or("the page has no end of the table")?;
    std::fs::write(page, format!("{head}{}{table}{}{tail}", MARKS.0, MARKS.1))?;
    Ok(())
}

fn rows(agents: usize) -> Vec<Row> {
    let mut rng = fastrand::Rng::with_seed(SEED);
    let mut rows = Vec::with_capacity(agents * SKILLS_EACH);
    for agent in 1..=agents {
        let mut skills: Vec<usize> = (1..=SKILLS).collect();
        rng.shuffle(&mut skills);
        rows.extend(skills[..SKILLS_EACH].iter().map(|skill| Row {
            user: format!("00000000-0000-4000-8000-{agent:012x}"),
            skill: format!("10000000-0000-4000-8000-{skill:012x}"),
            proficiency: rng.u8(0..=5),
        }));
    }
    rows
}

async fn run(play: Play, agents: usize) -> Result<Outcome, Failure> {
    let config = format!("limit = {}\nwindow = \"5s\"\nlatency = \"20ms\"\nusers = {agents}", play.quota);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let sim = tidegate_sim::serve(listener, SimConfig::from_toml(&config)?).await?;
    let gateway = gateway(&sim, play).await?;
    let mut rows = rows(agents);
    let mut expected = sim.stats_with_users().users.ok_or("no users")?;
    for row in &rows {
        let skills: &mut BTreeMap<String, f64> = expected.entry(row.user.clone()).or_default();
        skills.insert(row.skill.clone(), f64::from(row.proficiency));
    }
    if play.shuffled {
        fastrand::Rng::with_seed(SEED + 1).shuffle(&mut rows);
    }
    let calls = rows.len() as u64;
    let (next, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (rows, took) = (Arc::new(rows), Arc::new(Mutex::new(Vec::new())));
    let client: HttpClient =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(usize::MAX).build_http();
    let base = format!("http://{}", gateway.data_addr());
    let began = Instant::now();
    let workers: Vec<_> = (0..play.workers)
        .map(|_| {
            let (rows, next, refused) = (Arc::clone(&rows), Arc::clone(&next), Arc::clone(&refused));
            let (client, base, took) = (client.clone(), base.clone(), Arc::clone(&took));
            tokio::spawn(async move {
                while let Some(row) = rows.get(usize::try_from(next.fetch_add(1, Ordering::SeqCst))?) {
                    let asked = Instant::now();
                    set(&client, &base, row, &refused).await?;
                    took.lock().push(asked.elapsed());
                }
                Ok::<(), Failure>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    let elapsed = began.elapsed();
    let stats = sim.stats_with_users();
    let users = stats.users.ok_or("no users")?;
    let wrong = expected.iter().filter(|(user, skills)| users.get(*user) != Some(skills)).count();
    let mut took = std::mem::take(&mut *took.lock());
    took.sort_unstable();
    let outcome = Outcome {
        calls,
        refused: refused.load(Ordering::Relaxed),
        writes: stats.writes.values().sum(),
        throttles: stats.throttled,
        wrong,
        took: elapsed,
        p50: took[took.len() / 2],
        p99: took[took.len() * 99 / 100],
    };
    gateway.drain().await;
    sim.shutdown().await;
    Ok(outcome)
}

async fn gateway(sim: &Sim, play: Play) -> Result<Gateway, Failure> {
    // The rules of the platform, with the quota of this upstream.
    let text = Profile::builtin_text("genesys").ok_or("the profile is not built in")?;
    let text =
        text.replace("quota = 300\nwindow = \"60s\"", &format!("quota = {}\nwindow = \"5s\"", play.quota));
    let profile = Profile::parse(&text.replace("quota = 3000", "quota = 60000"), "genesys")?;
    let mut upstream = UpstreamConfig::new(Arc::new(profile), sim.url(), sim.url());
    upstream.fetch_limits = false;
    let credentials = ClientCredentials::new("demo-client", &SecretString::from("demo-secret"));
    upstream.credential = Some((CredentialId::new("demo"), credentials));
    let mut config = GatewayConfig::new(upstream);
    config.merging = play.merging.then(MergeConfig::default);
    let listener = || TcpListener::bind("127.0.0.1:0");
    Ok(tidegate_gateway::start(config, Vec::new(), listener().await?, listener().await?)?)
}

/// Sets one skill, again where the gateway says that nothing was sent.
async fn set(client: &HttpClient, base: &str, row: &Row, refused: &AtomicU64) -> Result<(), Failure> {
    let uri: Uri = format!("{base}/api/v2/users/{}/routingskills/bulk", row.user).parse()?;
    let body = serde_json::json!([{ "id": row.skill, "proficiency": row.proficiency }]).to_string();
    loop {
        let request = Request::builder().method(Method::PATCH).uri(uri.clone());
        let request = request.header("Content-Type", "application/json");
        let answer = client.request(request.body(Full::new(Bytes::from(body.clone())))?).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        if head.status == 200 {
            let shown: serde_json::Value = serde_json::from_slice(&body)?;
            let own = shown["entities"]
                .as_array()
                .and_then(|all| all.iter().find(|item| item["id"] == row.skill.as_str()));
            if own.is_some_and(|own| own["proficiency"] == f64::from(row.proficiency)) {
                return Ok(());
            }
            return Err(format!("another answer than the write's own: {shown}").into());
        }
        if head.status != 429 || !head.headers.contains_key("tidegate-refused") {
            return Err(format!("{}: {}", head.status, String::from_utf8_lossy(&body)).into());
        }
        refused.fetch_add(1, Ordering::Relaxed);
        let wait = head.headers.get("retry-after").and_then(|wait| wait.to_str().ok()?.parse().ok());
        tokio::time::sleep(Duration::from_secs(wait.unwrap_or(1))).await;
    }
}
