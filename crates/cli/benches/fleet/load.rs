//! Callers: they come by chance, more to some gateways than to others, and come back when a gateway tells them to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::header::RETRY_AFTER;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::world::World;

/// How the demand falls off from gateway to gateway: the n-th has 1/n^0.8 of the first's.
const SKEW: f64 = 0.8;

/// Callers that wait at one gateway at most, as those of a program's connection pool; further ones do not come.
const CALLERS: usize = 100;

/// After how long a caller comes back if it is not told.
const COME_BACK: Duration = Duration::from_secs(1);

const PATH: &str = "/api/v2/users/00000000-0000-4000-8000-000000000001";

/// A client of all gateways.
pub(crate) type HttpClient = Client<HttpConnector, Empty<Bytes>>;

/// What has become of the calls.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Answered with 200.
    pub(crate) good: AtomicU64,
    /// Attempts of callers so far.
    made: AtomicU64,
    /// Told by a gateway to come back later, and came back.
    pub(crate) sent_back: AtomicU64,
    /// Ended with their gateway.
    pub(crate) killed: AtomicU64,
    /// Answered with something else, or not at all.
    pub(crate) lost: AtomicU64,
    /// How each of these ended.
    pub(crate) losses: Mutex<Vec<String>>,
}

/// One gateway as callers see it.
#[derive(Debug)]
struct Door {
    addr: SocketAddr,
    alive: AtomicBool,
    waiting: AtomicUsize,
}

/// Demand that goes on until this value is dropped.
pub(crate) struct Load {
    pub(crate) calls: Arc<Calls>,
    doors: Arc<Vec<Door>>,
    _arrivals: JoinSet<()>,
}

impl Load {
    /// So many calls per second, over all gateways.
    pub(crate) fn start(world: &World, client: &HttpClient, per_second: f64, seed: u64) -> Self {
        let door = |addr| Door { addr, alive: AtomicBool::new(true), waiting: AtomicUsize::new(0) };
        let doors: Arc<Vec<Door>> =
            Arc::new(world.gateways.iter().map(|gateway| door(gateway.data)).collect());
        let calls = Arc::<Calls>::default();
        let mut arrivals = JoinSet::new();
        arrivals.spawn(arrive(Arc::clone(&doors), client.clone(), Arc::clone(&calls), per_second, seed));
        Self { calls, doors, _arrivals: arrivals }
    }

    /// A gateway is about to end: its callers go to the others.
    pub(crate) fn leave(&self, gateway: usize) {
        self.doors[gateway].alive.store(false, Ordering::SeqCst);
    }
}

/// A client that keeps connections as programs do.
pub(crate) fn client() -> HttpClient {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn arrive(doors: Arc<Vec<Door>>, client: HttpClient, calls: Arc<Calls>, per_second: f64, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut callers = JoinSet::new();
    let mut at = Instant::now();
    loop {
        at += Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / per_second);
        sleep_until(at).await;
        while callers.try_join_next().is_some() {}
        let chosen = choose(&doors, &mut rng);
        if doors[chosen].waiting.fetch_add(1, Ordering::Relaxed) >= CALLERS {
            doors[chosen].waiting.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (doors, client, calls) = (Arc::clone(&doors), client.clone(), Arc::clone(&calls));
        callers.spawn(async move {
            call(&doors[chosen], &client, &calls).await;
            doors[chosen].waiting.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// One of the gateways that are there, by their weights.
fn choose(doors: &[Door], rng: &mut Rng) -> usize {
    let weight = |place: usize| f64::from(u32::try_from(place + 1).unwrap_or(u32::MAX)).powf(-SKEW);
    let alive: Vec<usize> =
        (0..doors.len()).filter(|&door| doors[door].alive.load(Ordering::SeqCst)).collect();
    let mut left = rng.f64() * alive.iter().copied().map(weight).sum::<f64>();
    for &door in &alive {
        left -= weight(door);
        if left <= 0.0 {
            return door;
        }
    }
    alive.last().copied().unwrap_or(0)
}

/// One call, until it has an answer that is not "come back later".
async fn call(door: &Door, client: &HttpClient, calls: &Calls) {
    let lost = |how: String| {
        calls.lost.fetch_add(1, Ordering::Relaxed);
        calls.losses.lock().push(how);
    };
    loop {
        // Each asks for something else, else they would share calls.
        let number = calls.made.fetch_add(1, Ordering::Relaxed);
        let uri = format!("http://{}{PATH}?n={number}", door.addr).parse().expect("an address and a path");
        let answered = match client.get(uri).await {
            Ok(answer) => finished(answer).await,
            Err(error) => Err(error.to_string()),
        };
        match answered {
            Ok(answer) if answer.status() == StatusCode::OK => {
                calls.good.fetch_add(1, Ordering::Relaxed);
                return;
            }
            // The gateway's own refusal, or the upstream's, where it asks for more patience than the call has.
            Ok(answer) if answer.headers().contains_key(RETRY_AFTER) => {
                calls.sent_back.fetch_add(1, Ordering::Relaxed);
                sleep(come_back(&answer)).await;
                if !door.alive.load(Ordering::SeqCst) {
                    calls.killed.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
            Ok(answer) => return lost(format!("{} {:?}", answer.status(), answer.headers())),
            Err(_) if !door.alive.load(Ordering::SeqCst) => {
                calls.killed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(error) => return lost(error),
        }
    }
}

/// An answer whose body has arrived.
async fn finished(answer: Response<Incoming>) -> Result<Response<()>, String> {
    let (parts, body) = answer.into_parts();
    body.collect().await.map_err(|error| error.to_string())?;
    Ok(Response::from_parts(parts, ()))
}

fn come_back(answer: &Response<()>) -> Duration {
    let told = answer.headers().get(RETRY_AFTER);
    let seconds = told.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    seconds.map_or(COME_BACK, Duration::from_secs)
}
