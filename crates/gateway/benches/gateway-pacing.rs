//! How close the gateway comes to the full quota, and how often it exceeds it: one row of the table of pacing.
//!
//! 40 callers make 1500 GETs through a gateway whose upstream, the simulator, admits 300 per 5 s in windows opened by their
//! first call, 20 ms away, and tells so in the guide's headers. Every phase begins at another part of the wall clock's second,
//! because these headers name resets in whole seconds of it. The simulator's books are the judge. The *ideal* knows the rule: each call
//! is admitted at the first instant at which the rule allows it, and is answered one latency later.
//!
//! `cargo xtask bench pacing` runs it last and puts it into its table; `cargo xtask bench gateway-pacing` prints it alone. `--phases N` for
//! other than 5, `--json` for the figures by which the table knows them.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

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
use serde::Serialize;
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

type Failure = Box<dyn Error + Send + Sync>;

/// What one phase came to; the names are those of the table's figures.
#[derive(Debug, Serialize)]
struct Run {
    /// The ideal's time over the time it took.
    efficiency: f64,
    /// Throttles at the upstream per 100 calls it accepted.
    throttles: f64,
    throttle_count: f64,
    /// Calls that were not answered 200, whatever else.
    lost: f64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let phases: u32 = match arguments.iter().position(|argument| argument == "--phases") {
        Some(at) => arguments.get(at + 1).ok_or("--phases: how many?")?.parse()?,
        None => 5,
    };
    // Side by side: together they are a few hundred calls per second, far below what would make them wait for each other.
    let runs = (0..phases).map(|phase| tokio::spawn(run(Duration::from_secs(1) * phase / phases)));
    let mut done = Vec::new();
    for run in futures_util::future::join_all(runs).await {
        done.push(run??);
    }
    if arguments.iter().any(|argument| argument == "--json") {
        println!("{}", serde_json::to_string(&done)?);
        return Ok(());
    }
    println!("{CALLS} GETs of {CALLERS} callers, {LIMIT} per {WINDOW:?}, latency {LATENCY:?}");
    for Run { efficiency, throttles, throttle_count, lost } in done {
        println!(
            "efficiency {efficiency:.3}, {throttle_count} throttles ({throttles:.2} per 100), {lost} not answered 200"
        );
    }
    Ok(())
}

async fn run(phase: Duration) -> Result<Run, Failure> {
    let config = SimConfig {
        rule: Rule::Fixed,
        limit: LIMIT,
        window: WINDOW,
        headers: "guide".parse()?,
        latency: format!("{}ms", LATENCY.as_millis()).parse()?,
        ..SimConfig::default()
    };
    let sim = tidegate_sim::serve(loopback().await?, config).await?;
    let gateway = gateway(&sim).await?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    make_ready(&client, gateway.admin_addr()).await?;
    until_phase(phase).await;
    let begun = Instant::now();
    let good = call_all(&client, gateway.data_addr()).await?;
    let makespan = begun.elapsed();
    let stats = sim.stats();
    gateway.drain().await;
    sim.shutdown().await;
    let throttled = f64::from(u32::try_from(stats.throttled)?);
    Ok(Run {
        efficiency: ideal().as_secs_f64() / makespan.as_secs_f64(),
        throttles: 100.0 * throttled / f64::from(u32::try_from(stats.accepted)?.max(1)),
        throttle_count: throttled,
        lost: f64::from(CALLS - good),
    })
}

/// The makespan if each call is admitted at the first millisecond at which the rule allows it. A window that its first call opens
/// has no phase, so the start does not matter.
fn ideal() -> Duration {
    let rule =
        QuotaRule { rule: Rule::Fixed, limit: LIMIT, window: WINDOW, phase: Duration::ZERO, burst: None };
    let mut model = QuotaModel::new(rule);
    let mut now = Duration::ZERO;
    for _ in 0..CALLS {
        while !model.admit(now, 1).ok {
            now += Duration::from_millis(1);
        }
    }
    // The callers' own bound in the last window: each waits for an answer before its next call.
    now + LATENCY * (LIMIT / CALLERS)
}

async fn gateway(sim: &Sim) -> Result<Gateway, Failure> {
    let profile = Profile::builtin("genesys-guide").ok_or("the profile is not built in")?;
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

/// Makes all calls; how many were answered 200.
async fn call_all(client: &HttpClient, addr: SocketAddr) -> Result<u32, Failure> {
    let left = Arc::new(AtomicU32::new(CALLS));
    let callers = (0..CALLERS).map(|number| {
        // Each asks for something else, else they would share calls.
        let user = "api/v2/users/00000000-0000-4000-8000-000000000001";
        let uri = format!("http://{addr}/{user}?caller={number}").parse::<Uri>();
        let (client, left) = (client.clone(), Arc::clone(&left));
        tokio::spawn(async move {
            let (uri, mut good) = (uri?, 0);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                let response = client.get(uri.clone()).await?;
                good += u32::from(response.status().as_u16() == 200);
                response.into_body().collect().await?;
            }
            Ok::<_, Failure>(good)
        })
    });
    let mut good = 0;
    for caller in futures_util::future::join_all(callers).await {
        good += caller??;
    }
    Ok(good)
}
