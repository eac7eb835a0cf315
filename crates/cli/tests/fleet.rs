//! Two gateways, a Redis server and a simulator, all real processes: what they must never do, however slow the machine is, and
//! that they share rather than wait: three fifths of the quota are used. How much more, and how few throttles there are, is
//! measured by `cargo xtask bench fleet`.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a panic is how a test fails; the modules serve the benchmark, of which this is a part"
)]
#![cfg(unix)]

#[path = "../../quota-dynamodb/tests/dynamodb/emulator.rs"]
mod emulator;
#[path = "../benches/fleet/judge.rs"]
mod judge;
#[path = "../benches/fleet/load.rs"]
mod load;
#[path = "../../quota-redis/tests/redis/server.rs"]
mod server;
#[path = "../benches/fleet/world.rs"]
mod world;

use std::sync::atomic::Ordering;
use std::time::Duration;

use judge::{Record, all_joined, exchanges};
use load::{Load, client};
use tokio::time::Instant;
use world::{Setup, Sharing, World};

const LIMIT: u32 = 60;
const WINDOW: Duration = Duration::from_secs(3);

/// Twice the quota, for 9 windows, without a throttle.
async fn two_share(rule: &'static str) {
    let setup = Setup { gateways: 2, ..Setup::new(rule, LIMIT, WINDOW, Sharing::Redis) };
    let world = World::start(&setup).unwrap();
    let client = client();
    let load = Load::start(&world, &client, 2.0 * setup.pace(), 7);
    let mut record = Record::default();
    record.watch(world.sim, &client, 9 * WINDOW).await.unwrap();
    let logs: Vec<String> = world.gateways.iter().map(world::Gateway::log).collect();
    let (from, to) = (0.0, record.now());
    let accepted = record.accepted(from, to);
    assert!(accepted >= 9 * LIMIT * 6 / 10, "{accepted} of {}: {logs:#?}", 9 * LIMIT);
    let throttled = record.throttles(from, to);
    assert!(throttled <= 0.0, "{throttled} per 100, and nobody else draws: {logs:#?}");
    assert_eq!(load.calls.lost.load(Ordering::Relaxed), 0, "{:?}", load.calls.losses.lock());
    assert!(exchanges(&world, &client).await.unwrap().all > 0.0);
    // One whose exchanges were late on a busy machine is by itself for a moment.
    let patience = Instant::now() + Duration::from_secs(30);
    while !all_joined(&world, &client).await.unwrap() {
        assert!(Instant::now() < patience, "both share: {logs:#?}");
        record.watch(world.sim, &client, Duration::from_millis(100)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_gateways_on_a_fixed_window_are_never_throttled_and_lose_nothing() {
    // Its end is told in whole seconds, but who opened it knows the instant, so no scout comes too early.
    two_share("fixed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_gateways_on_a_sliding_log_are_never_throttled_and_lose_nothing() {
    two_share("sliding-log").await;
}
