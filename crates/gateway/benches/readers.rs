//! Many readers, few calls: what a rule of freshness costs and holds, on sockets.
//!
//! At each of 4 tenants 500 agents look at one script twice a second for a minute, while 8 programs read users one by one, as fast as the
//! tenant's quota (300 per 5 s) lets them. The rule is `max_age = "5s"`. A publisher raises the script's version at the upstream itself, past the
//! gateway, every 7 s, and notes when: an answer that shows an older version than the one of 5 s ago is too old. The calls of
//! the script are what the simulator's books have beyond the attempts of the programs and the publisher's own calls. What the gateway
//! refused for want of time never left and is none.
//!
//! `cargo xtask bench readers`; `--seconds N` for other than 60, `--agents N` for other than 500, `--json` for the figures alone.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;
use tidegate::token::ClientCredentials;
use tidegate::{Profile, UpstreamConfig};
use tidegate_core::cache::FreshRule;
use tidegate_core::glob::PathGlob;
use tidegate_core::key::{CredentialId, Tenant};
use tidegate_gateway::{Gateway, GatewayConfig, KeepKeys, KeepState, TenantConfig};
use tidegate_sim::{Sim, SimConfig};
use tokio::net::TcpListener;
use tokio::time::Instant;

const TENANTS: usize = 4;
const PROGRAMS: usize = 8;
const MAX_AGE: Duration = Duration::from_secs(5);
const EVERY: Duration = Duration::from_millis(500);
const PUBLISHED_EVERY: Duration = Duration::from_secs(7);
const SCRIPT: &str = "20000000-0000-4000-8000-000000000001";

type Failure = Box<dyn Error + Send + Sync>;
type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// What one tenant came to.
#[derive(Debug, Serialize)]
struct Row {
    tenant: String,
    reads: u64,
    /// Calls of the script that the upstream answered.
    calls: u64,
    /// What the goal allows.
    allowed: u64,
    /// Reads that showed a version older than the one of `max_age` ago.
    too_old: u64,
    /// The longest time from a change to the last read that did not show it, in seconds.
    seen_after: f64,
    /// The longest answer time that 99 of 100 reads from memory did not exceed, in milliseconds.
    p99_ms: f64,
    /// Reads that were not answered 200.
    failed: u64,
}

/// What the agents of a tenant saw.
#[derive(Default)]
struct Seen {
    /// When each version was published; the first at the start.
    published: Mutex<Vec<Instant>>,
    reads: AtomicU64,
    too_old: AtomicU64,
    failed: AtomicU64,
    longest_hidden: Mutex<Duration>,
    hits: Mutex<Vec<Duration>>,
}

struct Tenancy {
    sim: Sim,
    name: String,
    seen: Arc<Seen>,
    /// Attempts of the programs, and calls of the publisher.
    others: Arc<AtomicU64>,
}

fn argument(name: &str, default: u64) -> Result<u64, Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|argument| argument == name) {
        Some(at) => Ok(arguments.get(at + 1).ok_or_else(|| format!("{name}: how many?"))?.parse()?),
        None => Ok(default),
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (seconds, agents) = (argument("--seconds", 60)?, argument("--agents", 500)?);
    let mut tenancies = Vec::new();
    for number in 0..TENANTS {
        let config = SimConfig::from_toml("limit = 300\nwindow = \"5s\"\nlatency = \"20ms\"")?;
        let sim = tidegate_sim::serve(loopback().await?, config).await?;
        let (seen, others) = (Arc::new(Seen::default()), Arc::new(AtomicU64::new(0)));
        seen.published.lock().push(Instant::now());
        tenancies.push(Tenancy { sim, name: format!("t{number}"), seen, others });
    }
    let gateway = gateway(&tenancies).await?;
    let data = gateway.data_addr();
    let client: HttpClient =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(usize::MAX).build_http();
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for tenancy in &tenancies {
        play(tenancy, data, &client, agents, &stop, &mut tasks);
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    let rows: Vec<Row> = tenancies.iter().map(|tenancy| row(tenancy, seconds)).collect();
    print(&rows, seconds, agents)?;
    gateway.drain().await;
    for tenancy in tenancies {
        tenancy.sim.shutdown().await;
    }
    Ok(())
}

fn print(rows: &[Row], seconds: u64, agents: u64) -> Result<(), Failure> {
    if std::env::args().any(|argument| argument == "--json") {
        println!("{}", serde_json::to_string(rows)?);
        return Ok(());
    }
    println!(
        "{agents} agents per tenant, a read each {EVERY:?} for {seconds} s, max_age {MAX_AGE:?}; {PROGRAMS} programs beside them"
    );
    println!("tenant   reads  calls (allowed)  too old  last seen after  p99 from memory  not 200");
    for row in rows {
        let Row { tenant, reads, calls, allowed, too_old, seen_after, p99_ms, failed } = row;
        println!(
            "{tenant:<6} {reads:>7}  {calls:>5} ({allowed:>7})  {too_old:>7}  {seen_after:>13.2} s  {p99_ms:>12.2} ms  {failed:>7}"
        );
    }
    Ok(())
}

async fn gateway(tenancies: &[Tenancy]) -> Result<Gateway, Failure> {
    let profile = Arc::new(Profile::builtin("genesys-guide").ok_or("the profile is not built in")?);
    let tenants = tenancies.iter().map(|tenancy| {
        let mut upstream = UpstreamConfig::new(Arc::clone(&profile), tenancy.sim.url(), tenancy.sim.url());
        upstream.tenant = Tenant::new(&tenancy.name);
        upstream.fetch_limits = false;
        let credentials = ClientCredentials::new("demo-client", &SecretString::from("demo-secret"));
        upstream.credential = Some((CredentialId::new("demo"), credentials));
        TenantConfig { upstream, state: KeepState::Nowhere, keys: KeepKeys::InMemory }
    });
    let mut config = GatewayConfig::of(tenants.collect());
    config.tenants_by_path = true;
    config.fresh.push(FreshRule { path: PathGlob::parse("/api/v2/scripts/**")?, max_age: MAX_AGE });
    Ok(tidegate_gateway::start(config, Vec::new(), loopback().await?, loopback().await?)?)
}

async fn loopback() -> std::io::Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").await
}

/// Starts everybody who uses a tenant.
fn play(
    tenancy: &Tenancy,
    data: SocketAddr,
    client: &HttpClient,
    agents: u64,
    stop: &Arc<AtomicBool>,
    tasks: &mut Vec<tokio::task::JoinHandle<Result<(), Failure>>>,
) {
    let base = format!("http://{data}/t/{}/api/v2", tenancy.name);
    for agent in 0..agents {
        let uri = format!("{base}/scripts/published/{SCRIPT}");
        let (client, seen, stop) = (client.clone(), Arc::clone(&tenancy.seen), Arc::clone(stop));
        // The agents are spread over the interval, as people are.
        let first = EVERY * u32::try_from(agent).unwrap_or(0) / u32::try_from(agents).unwrap_or(u32::MAX);
        tasks.push(tokio::spawn(look(client, uri, seen, stop, first)));
    }
    for program in 0..PROGRAMS {
        let (client, base, others) = (client.clone(), base.clone(), Arc::clone(&tenancy.others));
        let stop = Arc::clone(stop);
        tasks.push(tokio::spawn(async move {
            for turn in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let user = "users/00000000-0000-4000-8000-000000000001";
                let uri: Uri = format!("{base}/{user}?program={program}&turn={turn}").parse()?;
                let request = Request::get(uri).header("Tidegate-Class", "bulk").body(Full::default())?;
                let answer = client.request(request).await?;
                let attempts = answer.headers().get("tidegate-attempts").ok_or("no attempts")?;
                others.fetch_add(attempts.to_str()?.parse()?, Ordering::Relaxed);
                answer.into_body().collect().await?;
            }
            Ok(())
        }));
    }
    tasks.push(tokio::spawn(publish(
        client.clone(),
        tenancy.sim.url(),
        Arc::clone(&tenancy.seen),
        Arc::clone(&tenancy.others),
        Arc::clone(stop),
    )));
}

/// One agent, for as long as it lasts.
async fn look(
    client: HttpClient,
    uri: String,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    first: Duration,
) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval_at(Instant::now() + first, EVERY);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let asked = Instant::now();
        let Ok((hit, body)) = read(&client, uri.parse()?).await else {
            seen.failed.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        seen.reads.fetch_add(1, Ordering::Relaxed);
        if hit {
            seen.hits.lock().push(asked.elapsed());
        }
        let version = serde_json::from_slice::<Value>(&body)?["version"].as_u64().ok_or("no version")?;
        seen.judge(version, asked);
    }
    Ok(())
}

impl Seen {
    /// An answer that shows `version` was asked for at `asked`, so it was given later than that: what was to be seen then is what
    /// must be.
    fn judge(&self, version: u64, asked: Instant) {
        let published = self.published.lock();
        let shown = usize::try_from(version).unwrap_or(usize::MAX);
        // The first version that this answer hides.
        if let Some(hidden) = published.get(shown) {
            let hidden_for = asked.saturating_duration_since(*hidden);
            let mut longest = self.longest_hidden.lock();
            *longest = hidden_for.max(*longest);
            if hidden_for > MAX_AGE {
                self.too_old.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Publishes the script at the upstream itself.
async fn publish(
    client: HttpClient,
    sim: String,
    seen: Arc<Seen>,
    others: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<(), Failure> {
    let form = "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret";
    let login = Request::post(format!("{sim}/oauth/token"))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(Full::from(form))?;
    let answer = client.request(login).await?.into_body().collect().await?.to_bytes();
    let token =
        serde_json::from_slice::<Value>(&answer)?["access_token"].as_str().ok_or("no token")?.to_owned();
    let mut ticks = tokio::time::interval_at(Instant::now() + PUBLISHED_EVERY, PUBLISHED_EVERY);
    loop {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{sim}/api/v2/scripts/published"))
            .header("Authorization", format!("Bearer {token}"))
            .header("Content-Type", "application/json")
            .body(Full::from(format!(r#"{{"scriptId": "{SCRIPT}"}}"#)))?;
        others.fetch_add(1, Ordering::Relaxed);
        let answer = client.request(request).await?;
        let done = answer.status() == 200;
        answer.into_body().collect().await?;
        // Nobody can blame an answer for a version that was not told to be there: it counts from here.
        if done {
            seen.published.lock().push(Instant::now());
        }
    }
}

/// The body of an answer, and whether it came from memory.
async fn read(client: &HttpClient, uri: Uri) -> Result<(bool, Bytes), Failure> {
    let answer = client.request(Request::get(uri).body(Full::default())?).await?;
    if answer.status() != 200 {
        return Err(answer.status().to_string().into());
    }
    let hit = answer.headers().get("cache-status").is_some_and(|status| status == "tidegate; hit");
    Ok((hit, answer.into_body().collect().await?.to_bytes()))
}

fn row(tenancy: &Tenancy, seconds: u64) -> Row {
    let (seen, others) = (&tenancy.seen, tenancy.others.load(Ordering::Relaxed));
    let stats = tenancy.sim.stats();
    let calls = (stats.accepted + stats.throttled).saturating_sub(others);
    // The way there and back is 20 ms.
    let allowed = (seconds * 1000).div_ceil(4960) + 1;
    let mut hits = std::mem::take(&mut *seen.hits.lock());
    hits.sort_unstable();
    let p99 = hits.get(hits.len() * 99 / 100).copied().unwrap_or_default();
    Row {
        tenant: tenancy.name.clone(),
        reads: seen.reads.load(Ordering::Relaxed),
        calls,
        allowed,
        too_old: seen.too_old.load(Ordering::Relaxed),
        seen_after: seen.longest_hidden.lock().as_secs_f64(),
        p99_ms: p99.as_secs_f64() * 1000.0,
        failed: seen.failed.load(Ordering::Relaxed),
    }
}
