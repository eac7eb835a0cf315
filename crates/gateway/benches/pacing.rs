//! How close the gateway comes to the full quota, and how often it exceeds it.
//!
//! 40 callers make 1500 GETs through a gateway whose upstream, the simulator, admits 300 per 5 s. Each row is one rule
//! by which a server can count and one dialect in which it can tell; each is run at four phases of the wall second,
//! because some dialects name resets in whole seconds of the wall clock. The simulator's books are the judge. *Ideal*
//! is the makespan of somebody who knows the rule and the server's state: each call is admitted at the first instant
//! at which the rule allows it, and one latency later it is answered.
//!
//! `cargo xtask bench pacing` runs a choice in about three minutes, `-- --all` every rule with every dialect.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark's result is what it prints")]

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::SecretString;
use tidegate::token::ClientCredentials;
use tidegate::{Profile, UpstreamConfig};
use tidegate_core::key::CredentialId;
use tidegate_gateway::{Gateway, GatewayConfig};
use tidegate_sim::model::quota::{QuotaModel, QuotaRule, Rule};
use tidegate_sim::{Sim, SimConfig};
use tokio::net::TcpListener;
use tokio::time::Instant;

const CALLS: u32 = 1500;
const CALLERS: u32 = 40;
const LIMIT: u32 = 300;
const WINDOW: Duration = Duration::from_secs(5);
const LATENCY: Duration = Duration::from_millis(20);

/// The phases of the wall second at which runs begin. They run side by side: together they are a few hundred calls
/// per second, far below what would make them wait for each other.
const PHASES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(750)];

const RULES: [&str; 5] = ["fixed", "fixed-aligned", "sliding-log", "sliding-counter", "token-bucket"];
const DIALECTS: [&str; 4] = ["guide", "xratelimit", "inin", "ietf"];

/// What is run unless everything is asked for.
const CHOICE: [(&str, &str); 7] = [
    ("fixed", "guide"),
    ("fixed-aligned", "guide"),
    ("sliding-log", "guide"),
    ("sliding-counter", "guide"),
    ("token-bucket", "guide"),
    ("fixed", "inin"),
    ("fixed", "ietf"),
];

type Failure = Box<dyn Error + Send + Sync>;

/// What one run came to.
struct Run {
    /// Throttles that reached a caller.
    told: u32,
    /// Answers other than 200 and 429.
    other: u32,
    /// Throttles at the upstream per 100 accepted calls.
    throttles: f64,
    makespan: Duration,
    ideal: Duration,
}

impl Run {
    fn ratio(&self) -> f64 {
        self.makespan.as_secs_f64() / self.ideal.as_secs_f64()
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let all = std::env::args().any(|argument| argument == "--all");
    let every = || RULES.into_iter().flat_map(|rule| DIALECTS.map(|dialect| (rule, dialect)));
    let rows: Vec<_> = if all { every().collect() } else { CHOICE.to_vec() };
    println!("{CALLS} GETs of {CALLERS} callers, {LIMIT} per {WINDOW:?}, latency {LATENCY:?}");
    println!("medians over {} phases of the wall second, the worst in brackets", PHASES.len());
    println!();
    println!(
        "{:<16} {:<11} {:>10} {:>6} {:>18} {:>20} {:>9} {:>18}",
        "rule",
        "headers",
        "429 told",
        "other",
        "429 upstream /100",
        "makespan s",
        "ideal s",
        "makespan / ideal"
    );
    for (rule, dialect) in rows {
        let runs = PHASES.map(|phase| tokio::spawn(run(rule, dialect, phase)));
        let mut done = Vec::new();
        for run in runs {
            done.push(run.await??);
        }
        print_row(rule, dialect, &done);
    }
    Ok(())
}

fn print_row(rule: &str, dialect: &str, runs: &[Run]) {
    let (throttles, worst_throttles) = spread(runs, |run| run.throttles);
    let (makespan, slowest) = spread(runs, |run| run.makespan.as_secs_f64());
    let (ideal, _) = spread(runs, |run| run.ideal.as_secs_f64());
    let (ratio, worst_ratio) = spread(runs, Run::ratio);
    println!(
        "{rule:<16} {dialect:<11} {:>10} {:>6} {:>18} {:>20} {:>9} {:>18}",
        runs.iter().map(|run| run.told).sum::<u32>(),
        runs.iter().map(|run| run.other).sum::<u32>(),
        format!("{throttles:.2} ({worst_throttles:.2})"),
        format!("{makespan:.3} ({slowest:.3})"),
        format!("{ideal:.3}"),
        format!("{ratio:.3} ({worst_ratio:.3})"),
    );
}

/// The median and the largest.
fn spread(runs: &[Run], value: impl Fn(&Run) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    (f64::midpoint(values[middle - 1], values[middle]), values[values.len() - 1])
}

async fn run(rule: &str, dialect: &str, phase: Duration) -> Result<Run, Failure> {
    let rule: Rule = rule.parse()?;
    // Aligned windows begin at another part of the run in each of them.
    let shift = phase * 5;
    let config = SimConfig {
        rule,
        limit: LIMIT,
        window: WINDOW,
        phase: shift,
        headers: dialect.parse()?,
        latency: format!("{}ms", LATENCY.as_millis()).parse()?,
        ..SimConfig::default()
    };
    until_phase(phase).await;
    let sim = tidegate_sim::serve(loopback().await?, config).await?;
    let gateway = gateway(&sim, dialect).await?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    make_ready(&client, gateway.admin_addr()).await?;
    until_phase(phase).await;
    let quota = QuotaRule { rule, limit: LIMIT, window: WINDOW, phase: shift, burst: None };
    let ideal = ideal(quota, Duration::from_secs_f64(sim.stats().elapsed));
    let begun = Instant::now();
    let (told, other) = call_all(&client, gateway.data_addr()).await?;
    let makespan = begun.elapsed();
    let stats = sim.stats();
    let throttles =
        f64::from(u32::try_from(stats.throttled)?) / f64::from(u32::try_from(stats.accepted)?) * 100.0;
    gateway.drain().await;
    sim.shutdown().await;
    Ok(Run { told, other, throttles, makespan, ideal })
}

/// The makespan if each call is admitted at the first millisecond at which the rule allows it.
fn ideal(rule: QuotaRule, start: Duration) -> Duration {
    let mut model = QuotaModel::new(rule);
    let mut now = start;
    for _ in 0..CALLS {
        while !model.admit(now, 1).ok {
            now += Duration::from_millis(1);
        }
    }
    now.saturating_sub(start) + LATENCY
}

async fn gateway(sim: &Sim, dialect: &str) -> Result<Gateway, Failure> {
    let name = match dialect {
        "guide" => "genesys-guide",
        "ietf" => "ietf",
        _ => "generic",
    };
    let profile = Profile::builtin(name).ok_or("the profile is not built in")?;
    let mut upstream = UpstreamConfig::new(Arc::new(profile), sim.url(), sim.url());
    let credentials = ClientCredentials::new("demo-client", &SecretString::from("demo-secret"));
    upstream.credential = Some((CredentialId::new("demo"), credentials));
    let config = GatewayConfig::new(upstream);
    Ok(tidegate_gateway::start(config, Vec::new(), loopback().await?, loopback().await?)?)
}

async fn loopback() -> std::io::Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").await
}

/// Sleeps until the wall clock's second is at `phase`.
async fn until_phase(phase: Duration) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Duration::from_nanos(u64::from(since.subsec_nanos()));
    let ahead = phase.checked_sub(at).unwrap_or_else(|| (phase + Duration::from_secs(1)).saturating_sub(at));
    tokio::time::sleep(ahead).await;
}

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

/// Lets the gateway fetch its token, which is no part of the measurement.
async fn make_ready(client: &HttpClient, admin: SocketAddr) -> Result<(), Failure> {
    let response = client.get(format!("http://{admin}/readyz").parse()?).await?;
    if response.status().is_success() { Ok(()) } else { Err("the gateway is not ready".into()) }
}

/// Makes all calls; how many were told 429, and how many something else that is not 200.
async fn call_all(client: &HttpClient, addr: SocketAddr) -> Result<(u32, u32), Failure> {
    let uri: Uri = format!("http://{addr}/api/v2/users/00000000-0000-4000-8000-000000000001").parse()?;
    let left = Arc::new(AtomicU32::new(CALLS));
    let callers = (0..CALLERS).map(|_| {
        let (client, uri, left) = (client.clone(), uri.clone(), Arc::clone(&left));
        tokio::spawn(async move {
            let (mut told, mut other) = (0, 0);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                let response = client.get(uri.clone()).await?;
                match response.status().as_u16() {
                    200 => {}
                    429 => told += 1,
                    _ => other += 1,
                }
                response.into_body().collect().await?;
            }
            Ok::<_, Failure>((told, other))
        })
    });
    let mut sums = (0, 0);
    for caller in futures_util::future::join_all(callers).await {
        let (told, other) = caller??;
        sums = (sums.0 + told, sums.1 + other);
    }
    if sums.1 > 0 {
        eprintln!("{} answers were neither 200 nor 429", sums.1);
    }
    Ok(sums)
}
