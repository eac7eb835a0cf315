//! A bot that polls 200 conversations every 2 s for a minute: straight, with push, and with push whose channel is cut five times.
//!
//! Each second one conversation changes at the upstream itself. After each change somebody reads it through the gateway until it shows: that
//! is how late a change is seen, and those reads count as well. A listener hears the events; a change is missed if neither
//! its event came nor, later, a gap of its topic that says so. The simulator counts the calls, those for channels and subscriptions
//! included, and knows every change.
//!
//! `cargo xtask bench push`; `--seconds N` for other than 60, `--write` for `docs/bench/push.md`.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::Value;
use tidegate::token::ClientCredentials;
use tidegate::{Profile, UpstreamConfig};
use tidegate_core::cache::FreshRule;
use tidegate_core::glob::PathGlob;
use tidegate_core::key::CredentialId;
use tidegate_core::push::FollowPace;
use tidegate_gateway::{Gateway, GatewayConfig, PushConfig};
use tidegate_sim::model::push::faults::SocketFault;
use tidegate_sim::{Sim, SimConfig};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, sleep_until};

const CONVERSATIONS: usize = 200;
const EVERY: Duration = Duration::from_secs(2);
const CHANGE_EVERY: Duration = Duration::from_secs(1);
/// Somebody looks this often whether a change is there.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOSSES: u32 = 5;
/// Below the time between two reads of a bot, so that nothing is renewed for it before it is covered.
const MAX_AGE: Duration = Duration::from_secs(1);
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Every bot has read twice by then, and once more.
const WARM_UP: Duration = Duration::from_secs(6);

type Failure = Box<dyn Error + Send + Sync>;
type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// How the bot's reads are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Polling,
    Push,
    PushWithLosses,
}

impl Way {
    const ALL: [Self; 3] = [Self::Polling, Self::Push, Self::PushWithLosses];

    fn name(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::Push => "push",
            Self::PushWithLosses => "push, channel cut five times",
        }
    }
}

/// What one way came to.
#[derive(Debug, Default)]
struct Row {
    reads: u64,
    /// Calls that the upstream answered, from the first read on and in the minute that is measured.
    calls_cold: u64,
    calls: u64,
    changes: usize,
    /// Changes whose event came, that a gap told of, and that nobody told of.
    heard: usize,
    told_by_gap: usize,
    missed: usize,
    losses: u64,
    seen: Vec<Duration>,
    failed: u64,
}

impl Row {
    fn quantile(&self, hundredths: usize) -> f64 {
        let at = (self.seen.len() * hundredths).div_ceil(100).saturating_sub(1);
        self.seen.get(at).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }
}

/// What a listener was told: versions by path, and when the last gap of a path came.
#[derive(Debug, Default)]
struct Heard {
    versions: BTreeMap<String, BTreeSet<u64>>,
    gaps: BTreeMap<String, Instant>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = match arguments.iter().position(|argument| argument == "--seconds") {
        Some(at) => arguments.get(at + 1).ok_or("--seconds: how many?")?.parse()?,
        None => 60,
    };
    let mut rows = Vec::new();
    for way in Way::ALL {
        rows.push((way, run(way, Duration::from_secs(seconds)).await?));
    }
    let table = table(&rows);
    println!("{table}");
    if arguments.iter().any(|argument| argument == "--write") {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/bench/push.md");
        let build = if cfg!(debug_assertions) { "a build without optimisation" } else { "a release build" };
        let measured =
            format!("Measured for {seconds} s each way, with {build}, beside whatever else the machine did.");
        std::fs::write(page, format!("{}{table}\n{measured} {}", HEAD.trim_start(), verdicts(&rows)))?;
    }
    Ok(())
}

const HEAD: &str = "
# A bot that polls

`cargo xtask bench push --write` makes this page. A bot reads 200 conversations every 2 s through a gateway, a simulator is the upstream and counts the calls,
those for channels and subscriptions included. Each second a conversation changes; after each change somebody reads it every 10 ms until it shows, and those
reads count as well. In the third row the channel's socket is cut five times, and three conversations change while it is away.

`calls` are those of the time that begins when everything is covered; `from cold` are all, from the first read on. `[push] follow = true` with `reads = 2`, and
`[[fresh]] max_age = \"1s\"`; plain polling has neither.

";

fn table(rows: &[(Way, Row)]) -> String {
    let polled = rows.first().map_or(1, |(_, row)| row.calls.max(1));
    let mut out = String::from(
        "| way | reads | calls | fewer | from cold | changes | event came | told by a gap | missed | losses | seen p50 | seen p99 | slowest | not 200 |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (way, row) in rows {
        let count = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        let fewer = 100.0 * (1.0 - count(row.calls) / count(polled));
        let listens = *way != Way::Polling;
        let told = |number: usize| if listens { number.to_string() } else { String::new() };
        let millis = |hundredths| {
            if listens { format!("{:.0} ms", row.quantile(hundredths)) } else { String::new() }
        };
        writeln!(
            out,
            "| {} | {} | {} | {fewer:.1} % | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            way.name(),
            row.reads,
            row.calls,
            row.calls_cold,
            row.changes,
            told(row.heard),
            told(row.told_by_gap),
            told(row.missed),
            row.losses,
            millis(50),
            millis(99),
            millis(100),
            row.failed,
        )
        .expect("writing to a string cannot fail");
    }
    out
}

fn verdicts(rows: &[(Way, Row)]) -> String {
    let polled = rows.first().map_or(1, |(_, row)| row.calls.max(1));
    let mut out = String::from(
        "Goals: at least 95 % fewer calls, no event missed, a change seen within a second (p99).\n\n",
    );
    for (way, row) in rows.iter().filter(|(way, _)| *way != Way::Polling) {
        let word = |met: bool| if met { "met" } else { "missed" };
        writeln!(
            out,
            "* {}: calls {}, events {}, time {}.",
            way.name(),
            word(row.calls * 20 <= polled),
            word(row.missed == 0),
            word(row.quantile(99) <= 1000.0),
        )
        .expect("writing to a string cannot fail");
    }
    out.push_str(
        "\nEach loss costs one read of everything that is polled: nothing says what was missed, and the upstream has no call for many conversations at once.\n",
    );
    out
}

async fn loopback() -> Result<TcpListener, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0").await?)
}

fn path(number: usize) -> String {
    format!("/api/v2/conversations/30000000-0000-4000-8000-{:012x}", number + 1)
}

async fn gateway(sim: &Sim, way: Way) -> Result<Gateway, Failure> {
    let mut profile = Profile::builtin("genesys").ok_or("no such profile")?;
    // Losses come every ten seconds here: a channel has to live for a heartbeat to end the backoff.
    profile.push.as_mut().ok_or("no push")?.heartbeat = HEARTBEAT;
    // What is polled straight does not fit into the platform's quota; here calls are counted and not paced.
    profile.limits.clear();
    let mut upstream = UpstreamConfig::new(Arc::new(profile), sim.url(), sim.url());
    let credentials = ClientCredentials::new("demo-client", &SecretString::from("demo-secret"));
    upstream.credential = Some((CredentialId::new("demo"), credentials));
    upstream.fetch_limits = false;
    let tenant = upstream.tenant.as_str().to_owned();
    let mut config = GatewayConfig::new(upstream);
    if way != Way::Polling {
        let follow = Some(FollowPace { reads: 2, ..FollowPace::default() });
        config.push.push((tenant, PushConfig { follow, ..PushConfig::default() }));
        let path = PathGlob::parse("/api/v2/conversations/*")?;
        config.fresh.push(FreshRule { path, max_age: MAX_AGE });
    }
    Ok(tidegate_gateway::start(config, Vec::new(), loopback().await?, loopback().await?)?)
}

async fn run(way: Way, length: Duration) -> Result<Row, Failure> {
    let config = format!(
        "limit = 0\nlatency = \"20ms\"\n[live]\nconversations = {CONVERSATIONS}\n[notifications]\nheartbeat = \"1s\""
    );
    let sim = Arc::new(tidegate_sim::serve(loopback().await?, SimConfig::from_toml(&config)?).await?);
    let gateway = gateway(&sim, way).await?;
    let data = gateway.data_addr();
    let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    let cold = sim.stats().accepted;
    let (reads, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (stop, _) = tokio::sync::watch::channel(false);
    let mut bots = Vec::new();
    for number in 0..CONVERSATIONS {
        let bot =
            poll(client.clone(), data, number, stop.subscribe(), Arc::clone(&reads), Arc::clone(&failed));
        bots.push(tokio::spawn(bot));
    }
    let heard = Arc::new(Mutex::new(Heard::default()));
    let listener =
        (way != Way::Polling).then(|| tokio::spawn(listen(client.clone(), data, Arc::clone(&heard))));
    sleep(WARM_UP).await;
    if way != Way::Polling {
        covered(&client, gateway.admin_addr()).await?;
        // What was read before it was covered is read once more.
        sleep(EVERY * 2).await;
    }
    let begin = Instant::now();
    let end = begin + length;
    let (before, reads_before) = (sim.stats().accepted, reads.load(Ordering::Relaxed));
    let cutter = (way == Way::PushWithLosses).then(|| tokio::spawn(cut(Arc::clone(&sim), begin, length)));
    let seen = change(&sim, &client, data, way, (begin, end)).await?;
    sleep_until(end).await;
    let calls = sim.stats().accepted - before;
    stop.send_replace(true);
    for bot in bots {
        bot.await??;
    }
    let mut row = Row {
        reads: reads.load(Ordering::Relaxed) - reads_before,
        calls_cold: sim.stats().accepted - cold,
        calls,
        failed: failed.load(Ordering::Relaxed),
        losses: sim.stats().push.sockets_killed,
        seen,
        ..Row::default()
    };
    row.seen.sort_unstable();
    if let Some(cutter) = cutter {
        cutter.await??;
    }
    // What was told last is on its way.
    sleep(Duration::from_secs(1)).await;
    judge(&mut row, &sim, &heard.lock(), Instant::now());
    if let Some(listener) = listener {
        listener.abort();
    }
    gateway.drain().await;
    if let Some(sim) = Arc::into_inner(sim) {
        sim.shutdown().await;
    }
    Ok(row)
}

/// Compares what happened with what was told.
fn judge(row: &mut Row, sim: &Sim, heard: &Heard, now: Instant) {
    let sim_now = sim.now();
    for change in sim.changes(None) {
        row.changes += 1;
        if heard.versions.get(&change.path).is_some_and(|versions| versions.contains(&change.version)) {
            row.heard += 1;
            continue;
        }
        let at = now - sim_now.saturating_sub(Duration::from_secs_f64(change.at));
        if heard.gaps.get(&change.path).is_some_and(|gap| *gap >= at) {
            row.told_by_gap += 1;
        } else {
            row.missed += 1;
        }
    }
}

async fn get(client: &HttpClient, addr: SocketAddr, target: &str) -> Result<(u16, Bytes), Failure> {
    let request = Request::get(format!("http://{addr}{target}")).body(Full::default())?;
    let response = client.request(request).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

/// Waits until the events of every conversation arrive.
async fn covered(client: &HttpClient, admin: SocketAddr) -> Result<(), Failure> {
    loop {
        let (_, state) = get(client, admin, "/api/state").await?;
        let state: Value = serde_json::from_slice(&state)?;
        if state["tenants"][0]["push"]["topics_covered"] == CONVERSATIONS {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Reads one conversation every two seconds.
async fn poll(
    client: HttpClient,
    addr: SocketAddr,
    number: usize,
    stop: tokio::sync::watch::Receiver<bool>,
    reads: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
) -> Result<(), Failure> {
    let spread = EVERY * u32::try_from(number)? / u32::try_from(CONVERSATIONS)?;
    let mut next = Instant::now() + spread;
    while !*stop.borrow() {
        sleep_until(next).await;
        let (status, _) = get(&client, addr, &path(number)).await?;
        reads.fetch_add(1, Ordering::Relaxed);
        if status != 200 {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        next += EVERY;
    }
    Ok(())
}

/// Changes a conversation each second, and looks how long it takes until that is seen.
async fn change(
    sim: &Arc<Sim>,
    client: &HttpClient,
    addr: SocketAddr,
    way: Way,
    (begin, end): (Instant, Instant),
) -> Result<Vec<Duration>, Failure> {
    let mut looks = Vec::new();
    let mut next = begin;
    // All is seen before the end.
    while next + Duration::from_secs(3) < end {
        sleep_until(next).await;
        let path = path(fastrand::usize(..CONVERSATIONS));
        sim.change(&path, None)?;
        let version = sim.changes(Some(&path)).last().map_or(0, |change| change.version);
        if way != Way::Polling {
            looks.push(tokio::spawn(look(client.clone(), addr, path, version, end)));
        }
        next += CHANGE_EVERY;
    }
    let mut seen = Vec::new();
    for look in looks {
        seen.push(look.await??);
    }
    Ok(seen)
}

async fn look(
    client: HttpClient,
    addr: SocketAddr,
    path: String,
    version: u64,
    end: Instant,
) -> Result<Duration, Failure> {
    let began = Instant::now();
    while Instant::now() < end {
        let (_, body) = get(&client, addr, &path).await?;
        let shown: Value = serde_json::from_slice(&body).unwrap_or_default();
        if shown["version"].as_u64() >= Some(version) {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(began.elapsed())
}

/// Cuts the channel at even distances, and lets something change while it is away.
async fn cut(sim: Arc<Sim>, begin: Instant, length: Duration) -> Result<(), Failure> {
    for number in 0..LOSSES {
        sleep_until(begin + length * (2 * number + 1) / (2 * LOSSES)).await;
        sim.act(SocketFault::Kill, None);
        for _ in 0..3 {
            sim.change(&path(fastrand::usize(..CONVERSATIONS)), None)?;
        }
    }
    Ok(())
}

/// Hears what is told of conversations.
async fn listen(client: HttpClient, addr: SocketAddr, heard: Arc<Mutex<Heard>>) -> Result<(), Failure> {
    let target = format!("http://{addr}/tidegate/events?topic=v2.detail.*");
    let response = client.request(Request::get(target).body(Full::default())?).await?;
    let mut body = response.into_body();
    let mut text = String::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else { continue };
        text.push_str(std::str::from_utf8(&piece)?);
        while let Some((event, rest)) = text.split_once("\n\n") {
            hear(event, &heard);
            text = rest.to_owned();
        }
    }
    Ok(())
}

fn hear(event: &str, heard: &Mutex<Heard>) {
    let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else { return };
    let Ok(told) = serde_json::from_str::<Value>(data) else { return };
    let topic = told["topic"].as_str().unwrap_or_default();
    let id = topic.trim_start_matches("v2.detail.events.conversation.").split(['.', '?']).next();
    let path = format!("/api/v2/conversations/{}", id.unwrap_or_default());
    let mut heard = heard.lock();
    if event.contains("event: gap") {
        heard.gaps.insert(path, Instant::now());
    } else if let Some(version) = told["body"]["version"].as_u64() {
        heard.versions.entry(path).or_default().insert(version);
    }
}
