//! Time-outs, backoff, the longest wait and the breaker beside each other: none of them does another one's work.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; sockets take real time"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use tidegate::{CallReport, Class, Client, ErrorKind, Profile, Upstream, UpstreamConfig};
use tidegate_core::backoff::{Backoff, Kind};
use tidegate_core::breaker::BreakerConfig;
use tidegate_core::budget::BudgetRules;
use tidegate_core::pace::RefusalReason;
use tidegate_core::profile::Timeouts;
use tidegate_sim::SimConfig;
use tokio::time::Instant;

use self::support::{Fake, answer, config};

const S: Duration = Duration::from_secs(1);
const USERS: &str = "/api/v2/users";

fn over(wire: &Fake, config: UpstreamConfig) -> Client {
    Client::over(Upstream::with_wire(config, Arc::new(wire.clone())).unwrap())
}

/// A client that repeats nothing, so that each call is one failure of its family.
fn fragile(wire: &Fake, threshold: u32, cool_down: Duration) -> Client {
    let breaker = BreakerConfig { threshold, cool_down, longest_cool_down: 10 * cool_down };
    over(wire, UpstreamConfig { breaker, max_retries: 0, ..config("generic") })
}

#[tokio::test(start_paused = true)]
async fn a_backoff_longer_than_every_time_out_trips_none() {
    let mut profile = Profile::builtin("genesys").unwrap();
    profile.timeouts = Timeouts { connect: S, read: S, write: S, bulk: S };
    profile.backoff = Backoff::try_new(Kind::Equal, 40 * S, 40 * S).unwrap();
    let wire = Fake::new([]);
    let client = over(&wire, UpstreamConfig { profile: Arc::new(profile), ..config("genesys") });
    for class in [Class::Interactive, Class::Bulk] {
        wire.then_all([answer(502), answer(502)]);
        let response = client.get(USERS).class(class).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    let seen = wire.seen();
    let waits: Vec<Duration> = seen.windows(2).map(|two| two[1].at.saturating_sub(two[0].at)).collect();
    assert!(waits.iter().filter(|wait| **wait >= 20 * S).count() == 4, "half of 40 s at least: {waits:?}");
}

#[tokio::test(start_paused = true)]
async fn the_longest_wait_bounds_what_comes_before_the_send_and_not_the_answer() {
    for class in [Class::Interactive, Class::Bulk] {
        let wire = Fake::new([answer(200).after(4 * S)]);
        let client = over(&wire, config("genesys"));
        let began = Instant::now();
        let response = client.get(USERS).class(class).max_wait(S).send().await.unwrap();
        assert_eq!((response.status().as_u16(), began.elapsed() >= 4 * S), (200, true));
        assert_eq!(response.extensions().get::<CallReport>().unwrap().attempts, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bulk_read_has_thirty_seconds_and_every_write_has_too() {
    for (method, class, slow, fine) in [
        (http::Method::GET, Class::Interactive, 11, false),
        (http::Method::GET, Class::Interactive, 9, true),
        (http::Method::GET, Class::Bulk, 29, true),
        (http::Method::GET, Class::Bulk, 31, false),
        (http::Method::PUT, Class::Bulk, 29, true),
        (http::Method::PUT, Class::Interactive, 29, true),
    ] {
        let wire = Fake::new([answer(200).after(slow * S)]);
        let client = over(&wire, UpstreamConfig { max_retries: 0, ..config("genesys") });
        let ended = client.request(method.clone(), USERS).class(class).send().await;
        assert_eq!(ended.is_ok(), fine, "{method} {class:?} {slow} s: {ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_failures_as_configured_open_the_breaker_and_one_probe_closes_it() {
    for threshold in [2, 5, 7] {
        let wire = Fake::new((0..threshold).map(|_| answer(500)));
        let client = fragile(&wire, threshold, 20 * S);
        for _ in 0..threshold {
            assert_eq!(client.get(USERS).max_wait(S).send().await.unwrap().status(), 500);
        }
        let refused = client.get(USERS).max_wait(S).send().await.unwrap_err();
        assert_eq!((refused.kind(), refused.refusal()), (ErrorKind::Refused, Some(&RefusalReason::Breaker)));
        let after = refused.retry_after().unwrap();
        assert!(after > 19 * S && after <= 20 * S, "{after:?}");
        assert_eq!(wire.seen().len(), threshold as usize, "nothing was sent");
        tokio::time::sleep(after).await;
        assert_eq!(client.get(USERS).max_wait(S).send().await.unwrap().status(), 200, "the probe");
        assert_eq!(client.get(USERS).max_wait(S).send().await.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn bulk_parks_while_the_breaker_is_open_and_nothing_fails() {
    let wire = Fake::new((0..5).map(|_| answer(500)));
    let client = fragile(&wire, 5, 30 * S);
    for _ in 0..5 {
        client.get(USERS).send().await.unwrap();
    }
    let began = Instant::now();
    let mut parked = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        parked.spawn(async move { client.get(USERS).class(Class::Bulk).send().await.unwrap().status() });
    }
    let statuses = parked.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(began.elapsed() >= 30 * S, "{:?}", began.elapsed());
    assert_eq!(wire.seen().len(), 25);
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_delivers_the_answer_instead_of_sending_again() {
    let wire = Fake::new([answer(502)]);
    let budget = BudgetRules { capacity: 0, ..BudgetRules::default() };
    let client = over(&wire, UpstreamConfig { budget, ..config("genesys") });
    assert_eq!(client.get(USERS).send().await.unwrap().status(), 502);
    assert_eq!(wire.seen().len(), 1);
}

#[tokio::test]
async fn on_sockets_an_outage_opens_the_breaker_and_its_end_is_found_by_one_call() {
    let outage = ["\"internal-error\""; 6].join(", ");
    let toml = format!("limit = 0\nlatency = \"5ms\"\n[faults]\nscript = [{outage}]");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sim = tidegate_sim::serve(listener, SimConfig::from_toml(&toml).unwrap()).await.unwrap();
    let mut config = config("genesys");
    (config.api, config.login) = (sim.url(), sim.url());
    config.credential.as_mut().unwrap().1 =
        tidegate::token::ClientCredentials::new("demo-client", &"demo-secret".to_owned().into());
    config.max_retries = 0;
    let cool_down = Duration::from_millis(400);
    config.breaker = BreakerConfig { threshold: 5, cool_down, longest_cool_down: cool_down };
    let client = Client::over(Upstream::new(config).unwrap());
    for _ in 0..5 {
        assert_eq!(client.get("/api/v2/users?pageSize=1").send().await.unwrap().status(), 500);
    }
    let refused = client.get("/api/v2/users?pageSize=1").max_wait(Duration::from_millis(100)).send().await;
    assert_eq!(refused.unwrap_err().refusal(), Some(&RefusalReason::Breaker));
    // The first probe meets the last fault, the second finds the outage ended.
    let parked = client.get("/api/v2/users?pageSize=1").class(Class::Bulk);
    assert_eq!(parked.send().await.unwrap().status(), 500);
    let parked = client.get("/api/v2/users?pageSize=1").class(Class::Bulk);
    assert_eq!(parked.send().await.unwrap().status(), 200);
    let stats = sim.stats();
    assert_eq!((stats.statuses.get(&500), stats.statuses.get(&200)), (Some(&6), Some(&1)), "{stats:?}");
    sim.shutdown().await;
}
