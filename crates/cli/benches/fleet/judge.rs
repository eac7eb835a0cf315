//! What happened, by the books of the simulator and the metrics of the gateways. No gateway judges itself: it is only
//! asked how often it spoke with the store.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::load::HttpClient;
use crate::world::World;

type Failure = Box<dyn Error + Send + Sync>;

/// How often the books are read.
const EVERY: Duration = Duration::from_millis(50);

/// The simulator's books at one instant.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Books {
    /// Seconds since the start.
    pub(crate) elapsed: f64,
    pub(crate) accepted: u32,
    pub(crate) throttled: u32,
    pub(crate) strangers: u32,
    pub(crate) oauth: Oauth,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Oauth {
    pub(crate) calls: u32,
    pub(crate) overlap_max: u32,
}

/// What happened over a time, in steps.
#[derive(Debug, Default)]
pub(crate) struct Record {
    books: Vec<Books>,
}

impl Record {
    /// Watches for so long.
    pub(crate) async fn watch(
        &mut self,
        sim: SocketAddr,
        client: &HttpClient,
        long: Duration,
    ) -> Result<(), Failure> {
        let end = Instant::now() + long;
        while Instant::now() < end {
            self.books.push(books(sim, client).await?);
            sleep(EVERY).await;
        }
        Ok(())
    }

    /// The instant of the last look, in seconds of the simulator.
    pub(crate) fn now(&self) -> f64 {
        self.books.last().map_or(0.0, |books| books.elapsed)
    }

    fn at(&self, second: f64) -> Books {
        let later = self.books.partition_point(|books| books.elapsed <= second);
        self.books[later.saturating_sub(1).min(self.books.len() - 1)]
    }

    /// The part of the quota that was drawn from `from` to `to`, strangers' draw included.
    ///
    /// A window's quota is drawn in a fraction of it, so what a stretch holds depends on where in a window it begins. It is the mean over
    /// stretches of whole windows that begin at each twentieth of one.
    pub(crate) fn used(&self, from: f64, to: f64, limit: u32, window: Duration) -> f64 {
        const PHASES: u32 = 20;
        let window = window.as_secs_f64();
        let windows = ((to - from) / window - 1.0).floor().max(1.0);
        let drawn = |phase: u32| {
            let from = from + window * f64::from(phase) / f64::from(PHASES);
            let (first, last) = (self.at(from), self.at(from + windows * window));
            let drawn = |books: Books| f64::from(books.accepted) + f64::from(books.strangers);
            // The looks are not exactly where they should be.
            (drawn(last) - drawn(first)) / (last.elapsed - first.elapsed)
        };
        (0..PHASES).map(drawn).sum::<f64>() / f64::from(PHASES) * window / f64::from(limit)
    }

    /// Own throttles per 100 own calls that drew quota.
    pub(crate) fn throttles(&self, from: f64, to: f64) -> f64 {
        let (first, last) = (self.at(from), self.at(to));
        100.0 * f64::from(last.throttled - first.throttled)
            / f64::from((last.accepted - first.accepted).max(1))
    }

    /// Own calls that drew quota.
    pub(crate) fn accepted(&self, from: f64, to: f64) -> u32 {
        self.at(to).accepted - self.at(from).accepted
    }
}

pub(crate) async fn books(sim: SocketAddr, client: &HttpClient) -> Result<Books, Failure> {
    Ok(serde_json::from_str(&get(client, &format!("http://{sim}/sim/stats")).await?)?)
}

/// Exchanges with the store.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Exchanges {
    pub(crate) all: f64,
    /// Those that no answer came to in time.
    pub(crate) unanswered: f64,
    /// How long they took together.
    pub(crate) seconds: f64,
}

/// Exchanges with the store, of all gateways that run.
pub(crate) async fn exchanges(world: &World, client: &HttpClient) -> Result<Exchanges, Failure> {
    let mut sum = Exchanges::default();
    for gateway in world.gateways.iter().filter(|gateway| gateway.is_running()) {
        let text = get(client, &format!("http://{}/metrics", gateway.admin)).await?;
        for line in text.lines() {
            let counted = || line.rsplit(' ').next().unwrap_or_default().parse::<f64>();
            if line.starts_with("tidegate_quota_exchange_seconds_sum") {
                sum.seconds += counted()?;
            }
            if !line.starts_with("tidegate_quota_exchanges_total") {
                continue;
            }
            let counted = counted()?;
            sum.all += counted;
            sum.unanswered += if line.contains("\"answered\"") { 0.0 } else { counted };
        }
    }
    Ok(sum)
}

#[derive(Deserialize)]
struct State {
    tenants: Vec<Tenant>,
}

#[derive(Deserialize)]
struct Tenant {
    quota: Option<Quota>,
}

#[derive(Deserialize)]
struct Quota {
    mode: String,
}

/// Whether all gateways that run say that they share the quota. They are asked at the same time: one after the other would
/// measure the judge.
pub(crate) async fn all_joined(world: &World, client: &HttpClient) -> Result<bool, Failure> {
    let mut asked = JoinSet::new();
    for gateway in world.gateways.iter().filter(|gateway| gateway.is_running()) {
        asked.spawn(joined(gateway.admin, client.clone()));
    }
    let mut all = true;
    while let Some(answer) = asked.join_next().await {
        all &= answer??;
    }
    Ok(all)
}

async fn joined(admin: SocketAddr, client: HttpClient) -> Result<bool, Failure> {
    let state: State = serde_json::from_str(&get(&client, &format!("http://{admin}/api/state")).await?)?;
    let mut tenants = state.tenants.into_iter().filter_map(|tenant| tenant.quota);
    Ok(tenants.any(|quota| quota.mode == "joined"))
}

async fn get(client: &HttpClient, url: &str) -> Result<String, Failure> {
    let answer = client.get(url.parse()?).await?;
    if !answer.status().is_success() {
        return Err(format!("{url} answers {}", answer.status()).into());
    }
    Ok(String::from_utf8(answer.into_body().collect().await?.to_bytes().to_vec())?)
}
