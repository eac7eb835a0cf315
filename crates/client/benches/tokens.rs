//! What short tokens and a slow token endpoint cost: the calls per second of 40 workers whose token lives two seconds and takes
//! 300 ms to fetch, over those of the same workers with a token that outlives the run.
//!
//! The simulator answers a call after 100 ms and limits nothing, so a worker waits for its answer and for its token only. Its
//! books are the judge: token calls never overlap, no token is rejected, nothing counts as a throttle, no breaker opens.
//!
//! `cargo xtask bench tokens` prints it and fails where a bound is missed; `--seconds N` for other than 15 per run.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate::observe::Observer;
use tidegate::{Client, Profile};
use tidegate_core::event::Event;
use tidegate_sim::{SimConfig, Stats};
use tokio::net::TcpListener;
use tokio::time::Instant;

const WORKERS: u32 = 40;

/// What the run with short tokens has to reach of the other's calls per second.
const BOUND: f64 = 0.95;

const USER: &str = "/api/v2/users/00000000-0000-4000-8000-000000000001";

type Failure = Box<dyn Error + Send + Sync>;

/// Counts throttles and changes of breakers.
#[derive(Debug, Default)]
struct Watch {
    throttles: AtomicU64,
    breakers: AtomicU64,
}

impl Observer for Watch {
    fn event(&self, event: &Event) {
        match event {
            Event::Throttled { .. } => self.throttles.fetch_add(1, Ordering::Relaxed),
            Event::Breaker { .. } => self.breakers.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

struct Run {
    answered: u64,
    other: u64,
    throttles: u64,
    breakers: u64,
    stats: Stats,
}

impl Run {
    fn rejected(&self) -> u64 {
        self.stats.statuses.get(&401).copied().unwrap_or_default()
    }

    fn is_clean(&self) -> bool {
        let wrong = self.other + self.rejected() + self.throttles + self.breakers;
        self.stats.oauth.overlap_max == 1 && wrong == 0
    }

    fn show(&self, life: &str, length: Duration) {
        println!(
            "{life:<5} {:>8.1} {:>7} {:>8} {:>4} {:>6} {:>10} {:>9}",
            ratio(self.answered, length.as_secs()),
            self.stats.oauth.calls,
            self.stats.oauth.overlap_max,
            self.rejected(),
            self.other,
            self.throttles,
            self.breakers,
        );
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = match arguments.iter().position(|argument| argument == "--seconds") {
        Some(at) => arguments.get(at + 1).ok_or("--seconds: how many?")?.parse()?,
        None => 15,
    };
    let length = Duration::from_secs(seconds);
    println!("life   calls/s  logins  overlap  401  other  throttles  breakers");
    let long = run("24h", length).await?;
    long.show("24 h", length);
    let short = run("2s", length).await?;
    short.show("2 s", length);
    let share = ratio(short.answered, long.answered);
    println!("\nthroughput {share:.4} of the long token's (at least {BOUND})");
    if !long.is_clean() || !short.is_clean() {
        return Err("a token was rejected, fetched twice at once, or taken for a throttle".into());
    }
    if share < BOUND { Err(format!("throughput {share:.4} is below {BOUND}").into()) } else { Ok(()) }
}

#[expect(clippy::cast_precision_loss, reason = "counts of some thousands")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// 40 workers call for `length` with tokens of this life. What comes before the first token does not count.
async fn run(life: &str, length: Duration) -> Result<Run, Failure> {
    let config = SimConfig::from_toml(&format!(
        "limit = 0\nusers = 1\nlatency = \"100ms\"\n[oauth]\ntoken_ttl = \"{life}\"\nlatency = \"300ms\"\n"
    ))?;
    let sim = tidegate_sim::serve(TcpListener::bind("127.0.0.1:0").await?, config).await?;
    let watch = Arc::new(Watch::default());
    let profile = Profile::builtin("genesys-guide").ok_or("the profile ships with the crate")?;
    let client = Client::builder(profile, sim.url(), sim.url())
        .credential("bench", "demo-client", "demo-secret")
        .observer(Arc::clone(&watch) as Arc<dyn Observer>)
        .build()?;
    client.upstream().check().await?;
    let end = Instant::now() + length;
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(work(client.clone(), end));
    }
    let (mut answered, mut other) = (0, 0);
    while let Some(worker) = workers.join_next().await {
        let (one, another) = worker?;
        answered += one;
        other += another;
    }
    let stats = sim.stats();
    sim.shutdown().await;
    let (throttles, breakers) =
        (watch.throttles.load(Ordering::Relaxed), watch.breakers.load(Ordering::Relaxed));
    Ok(Run { answered, other, throttles, breakers, stats })
}

/// Calls until `end`: how many were answered well, and how many otherwise.
async fn work(client: Client, end: Instant) -> (u64, u64) {
    let (mut answered, mut other) = (0, 0);
    while Instant::now() < end {
        match client.get(USER).send().await {
            Ok(answer) if answer.status().is_success() => {
                answered += u64::from(answer.into_body().bytes(1 << 20).await.is_ok());
            }
            Ok(_) | Err(_) => other += 1,
        }
    }
    (answered, other)
}
