//! What tenants cost, and what one that is offered ten times its quota costs the others.
//!
//! *Memory*: 200 tenants in one process, by a counting allocator: as they are configured, after a call for each, and after a call of
//! each of 500 agents of each, every one with a token (and so with gates) of its own. Upstream and callers are in the same
//! process; what they hold is a few kept connections.
//!
//! *Neighbours*: one tenant's callers make a call every 20 ms, open-loop, 10 ms of upstream time each, alone and beside another tenant that
//! may make 100 calls per second and is offered 1,000. Rounds of both follow each other, so that what else the machine does is in both.
//!
//! `cargo xtask bench tenants`; `--rounds N` for other than 5, `--agents N` for other than 500.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

use std::alloc::System;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidegate::{Profile, UpstreamConfig};
use tidegate_core::glob::PathGlob;
use tidegate_core::key::Tenant;
use tidegate_core::pace::{LimitKind, LimitSpec, Observes, Partition};
use tidegate_gateway::{Gateway, GatewayConfig, KeepKeys, KeepState, TenantConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TENANTS: u32 = 200;
/// Callers that are at it at once while memory is measured.
const LINES: u32 = 16;

const ROUND: Duration = Duration::from_secs(6);
const EVERY: Duration = Duration::from_millis(20);
const UPSTREAM_TIME: Duration = Duration::from_millis(10);
const QUOTA: u64 = 100;
const TENFOLD: Duration = Duration::from_millis(1);

type Failure = Box<dyn Error + Send + Sync>;
type HttpClient = Client<HttpConnector, Empty<Bytes>>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |flag: &str, default: u32| match arguments.iter().position(|argument| argument == flag) {
        Some(at) => Ok::<u32, Failure>(arguments.get(at + 1).ok_or("how many?")?.parse()?),
        None => Ok(default),
    };
    let (agents, rounds) = (number("--agents", 500)?, number("--rounds", 5)?);
    memory(agents).await?;
    neighbours(rounds).await
}

/// Bytes that are allocated and not freed.
fn held() -> usize {
    let stats = COUNTED.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

async fn memory(agents: u32) -> Result<(), Failure> {
    let url = upstream(Duration::ZERO).await?;
    let profile = Arc::new(Profile::builtin("genesys").ok_or("the profile is not built in")?);
    let before = held();
    let configs = (0..TENANTS).map(|number| tenant(&format!("t{number}"), &profile, &url)).collect();
    let begun = Instant::now();
    let gateway = gateway(configs).await?;
    let (configured, took) = (held() - before, begun.elapsed());
    println!("{TENANTS} tenants configured in {took:.1?}: {} bytes each", configured / TENANTS as usize);
    let client = Client::builder(TokioExecutor::new()).build_http();
    let addr = gateway.data_addr();
    let bearer = |tenant: u32, agent: u32| {
        let uri = format!("http://{addr}/t/t{tenant}/api/v2/users/me");
        Request::get(uri).header("authorization", format!("Bearer {tenant}-{agent}")).body(Empty::new())
    };
    for tenant in 0..TENANTS {
        expect_ok(&client, bearer(tenant, 0)?).await?;
    }
    let started = held() - before;
    println!("called once: {} bytes each", (started - configured) / TENANTS as usize);
    let begun = Instant::now();
    let lines = (0..LINES).map(|line| {
        let client = client.clone();
        async move {
            for agent in 1..agents {
                for tenant in (line..TENANTS).step_by(LINES as usize) {
                    expect_ok(&client, bearer(tenant, agent)?).await?;
                }
            }
            Ok::<_, Failure>(())
        }
    });
    for line in futures_util::future::join_all(lines).await {
        line?;
    }
    let (all, took) = (held() - before, begun.elapsed());
    let count = TENANTS as usize * agents.saturating_sub(1).max(1) as usize;
    println!(
        "{agents} agents of each, {count} in all, in {took:.1?}: {} bytes each, {:.1} MB together",
        all.saturating_sub(started) / count,
        mega(all)
    );
    gateway.drain().await;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "megabytes are told with one decimal")]
fn mega(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

async fn neighbours(rounds: u32) -> Result<(), Failure> {
    let url = upstream(UPSTREAM_TIME).await?;
    let profile = Arc::new(Profile::builtin("generic").ok_or("the profile is not built in")?);
    let mut noisy = tenant("noisy", &profile, &url);
    noisy.upstream.limits.push(LimitSpec {
        key: "all".to_owned(),
        aliases: Vec::new(),
        method: None,
        path: PathGlob::parse("/**")?,
        kind: LimitKind::Rate { quota: QUOTA, window: Duration::from_secs(1) },
        per: vec![Partition::Tenant],
        pin: true,
        observes: Observes::OwnName,
        assumed: false,
    });
    let gateway = gateway(vec![tenant("quiet", &profile, &url), noisy]).await?;
    let call = |tenant: &str| format!("http://{}/t/{tenant}/api/v2/users/me", gateway.data_addr());
    let (quiet, noisy) = (call("quiet"), call("noisy"));
    offered(&quiet, EVERY, Duration::from_secs(1)).await;
    println!("a neighbour's latency, a call every {EVERY:?}, upstream time {UPSTREAM_TIME:?}");
    let mut rows = Vec::new();
    for round in 0..rounds {
        let alone = offered(&quiet, EVERY, ROUND).await;
        let (beside, loud) = tokio::join!(offered(&quiet, EVERY, ROUND), offered(&noisy, TENFOLD, ROUND));
        println!("round {round}: alone {alone}; beside {beside}; the other one: {loud}");
        rows.push((alone, beside));
    }
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let of = |outcome: &Outcome| outcome.quantile(part).as_secs_f64() * 1e3;
        let [alone, beside] = [
            median(rows.iter().map(|(alone, _)| of(alone)).collect()),
            median(rows.iter().map(|(_, beside)| of(beside)).collect()),
        ];
        println!(
            "{name}: {alone:.2} ms alone, {beside:.2} ms beside: {:+.1} %",
            (beside / alone - 1.0) * 100.0
        );
    }
    gateway.drain().await;
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What became of calls.
struct Outcome {
    /// Ascending, of those that were answered 200.
    latencies: Vec<Duration>,
    refused: usize,
}

impl Outcome {
    fn quantile(&self, part: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let index = (self.latencies.len() as f64 * part) as usize;
        self.latencies.get(index.min(self.latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [half, most] = [0.5, 0.99].map(|part| self.quantile(part).as_secs_f64() * 1e3);
        write!(f, "{} served, p50 {half:.2} p99 {most:.2} ms, {} refused", self.latencies.len(), self.refused)
    }
}

/// Offers a call every `pause` for `time`, whatever became of the ones before.
async fn offered(uri: &str, pause: Duration, time: Duration) -> Outcome {
    let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    let begun = Instant::now();
    let mut calls = Vec::new();
    let mut at = begun;
    while at < begun + time {
        tokio::time::sleep_until(at).await;
        let (client, uri) = (client.clone(), uri.parse().expect("it is a URL"));
        calls.push(tokio::spawn(async move {
            // From the instant it was due: a generator that is late must not hide it.
            let response = client.get(uri).await.ok()?;
            let good = response.status().is_success();
            response.into_body().collect().await.ok()?;
            Some((good, at.elapsed()))
        }));
        at += pause;
    }
    let mut outcome = Outcome { latencies: Vec::new(), refused: 0 };
    for call in calls {
        match call.await.ok().flatten() {
            Some((true, took)) => outcome.latencies.push(took),
            _ => outcome.refused += 1,
        }
    }
    outcome.latencies.sort_unstable();
    outcome
}

fn tenant(name: &str, profile: &Arc<Profile>, url: &str) -> TenantConfig {
    let mut upstream = UpstreamConfig::new(Arc::clone(profile), url, url);
    upstream.tenant = Tenant::new(name);
    upstream.fetch_limits = false;
    TenantConfig { upstream, state: KeepState::Nowhere, keys: KeepKeys::InMemory }
}

async fn gateway(tenants: Vec<TenantConfig>) -> Result<Gateway, Failure> {
    let config = GatewayConfig {
        tenants_by_path: true,
        // Who offers ten times the quota waits for no longer than a round.
        max_wait: Duration::from_secs(3),
        ..GatewayConfig::of(tenants)
    };
    let [data, admin] = [TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?];
    Ok(tidegate_gateway::start(config, Vec::new(), data, admin)?)
}

async fn expect_ok(client: &HttpClient, request: Request<Empty<Bytes>>) -> Result<(), Failure> {
    let response = client.request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    if status.is_success() { Ok(()) } else { Err(format!("answered {status}").into()) }
}

/// A server that answers every request after `time`.
async fn upstream(time: Duration) -> Result<String, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, time));
        }
    });
    Ok(url)
}

async fn serve(mut stream: TcpStream, time: Duration) {
    let mut head = Vec::with_capacity(1024);
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_buf(&mut head).await {
                Ok(read) if read > 0 => {}
                _ => return,
            }
        }
        tokio::time::sleep(time).await;
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.is_err() {
            return;
        }
    }
}
