//! What the upstream lists of its limits is used: raised limits in full, lowered ones before the first throttle.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use tidegate_core::pace::LimitSpec;
use tidegate_core::profile::Profile;
use tidegate_gateway::GatewayConfig;

use crate::stage::{Caller, FIRST, Played, play_with};

/// The key by which the platform names the limit of a client's token; the profile declares 300 per minute of it.
const KEY: &str = "client.credentials.token.rate.per.minute";

/// The other name of that limit.
const OTHER_NAME: &str = "token.rate.per.minute";

/// A silent platform of today that grants `limit` per minute, as the simulator lists it by itself.
fn platform(limit: u32) -> String {
    format!("headers = \"none\"\nlimit = {limit}\nlatency = \"1ms\"")
}

/// A gateway that asks, in front of a simulator.
async fn asking(sim: &str) -> Played {
    asking_with(sim, |_| {}).await
}

/// The same, with settings changed.
async fn asking_with(sim: &str, change: impl FnOnce(&mut GatewayConfig)) -> Played {
    play_with("genesys", sim, |config| {
        config.tenants[0].upstream.fetch_limits = true;
        change(config);
    })
    .await
}

async fn admin(played: &Played) -> Value {
    Caller::new(played.gateway.admin_addr()).get("/api/state").await.json()["tenants"][0].clone()
}

async fn metrics(played: &Played) -> String {
    let answer = Caller::new(played.gateway.admin_addr()).get("/metrics").await;
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// The state of the listing once it is no longer `not asked` or `asking`.
async fn settled(played: &Played) -> Value {
    for _ in 0..1000 {
        let listing = admin(played).await["listing"].clone();
        if !["not asked", "asking"].map(Value::from).contains(&listing["state"]) {
            return listing;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the listing is still being asked for: {}", admin(played).await);
}

fn quota(tenant: &Value, key: &str) -> Value {
    let gates = tenant["gates"].as_array().unwrap();
    gates.iter().find(|gate| gate["name"] == key).map_or(Value::Null, |gate| gate["quota"].clone())
}

/// Sends `count` calls at once and returns how many were answered 200.
async fn burst(played: &Played, count: usize) -> usize {
    // Each asks for something else, else they would share calls.
    let calls = (0..count).map(|n| {
        let caller = played.caller.clone();
        tokio::spawn(async move { caller.get(&format!("{FIRST}?n={n}")).await.status == 200 })
    });
    let mut good = 0;
    for call in calls.collect::<Vec<_>>() {
        good += usize::from(call.await.unwrap());
    }
    good
}

#[tokio::test]
async fn an_organisation_that_was_granted_more_is_paced_at_more() {
    let played = asking(&platform(600)).await;
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    let listing = settled(&played).await;
    assert_eq!(listing["state"], "fetched", "{listing}");
    let listed =
        |key: &str| listing["limits"].as_array().unwrap().iter().find(|limit| limit["key"] == key).cloned();
    assert_eq!(
        listed(KEY).unwrap(),
        serde_json::json!({ "key": KEY, "namespace": "platform.api", "value": 600, "use": "used" })
    );
    assert_eq!(listed("request.bytes.max").unwrap()["use"], "unknown");
    let tenant = admin(&played).await;
    assert_eq!((quota(&tenant, KEY), quota(&tenant, OTHER_NAME)), (600.into(), Value::Null), "one count");

    assert_eq!(burst(&played, 500).await, 500, "within the longest wait, though 300 are declared");
    assert_eq!(played.sim.stats().throttled, 0);
    let text = metrics(&played).await;
    assert!(
        text.contains(
            "tidegate_limit_listings_total{credential=\"demo\",outcome=\"fetched\",tenant=\"default\"} 1"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn an_organisation_that_has_less_is_not_throttled_after_the_listing_was_read() {
    let played = asking_with(&platform(150), |config| config.max_wait = Duration::from_secs(1)).await;
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    assert_eq!(settled(&played).await["state"], "fetched");
    let good = burst(&played, 200).await;
    let stats = played.sim.stats();
    assert_eq!(stats.throttled, 0);
    // Of the 150 one was the first call and two asked for the listing and the defaults.
    assert_eq!((good, stats.accepted), (147, 150));
}

#[tokio::test]
async fn a_limit_that_is_listed_under_its_other_name_is_the_same_limit() {
    let platform = format!("key = \"{OTHER_NAME}\"\n{}", platform(600));
    let played = asking(&platform).await;
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    assert_eq!(settled(&played).await["state"], "fetched");
    assert_eq!(quota(&admin(&played).await, KEY), 600);
    assert_eq!(burst(&played, 500).await, 500, "though 300 are declared");
    assert_eq!(played.sim.stats().throttled, 0);
}

#[tokio::test]
async fn the_organisations_own_number_goes_before_the_platforms_default() {
    let played = asking(&format!("limit_default = 90\n{}", platform(450))).await;
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    assert_eq!(settled(&played).await["state"], "fetched");
    assert_eq!(quota(&admin(&played).await, KEY), 450);
}

#[tokio::test]
async fn a_credential_without_the_permission_asks_once_and_keeps_what_is_declared() {
    let scopes =
        "[[oauth.clients]]\nid = \"demo-client\"\nsecret = \"demo-secret\"\nscopes = [\"view:users\"]";
    let played = asking(&format!("{}\n{scopes}", platform(600))).await;
    for _ in 0..20 {
        assert_eq!(played.caller.get(FIRST).await.status, 200);
    }
    let listing = settled(&played).await;
    assert_eq!(listing["state"], "denied", "{listing}");
    let why = listing["why"].as_str().unwrap();
    assert!(why.contains("missing the following permission(s): view:organizations"), "{why}");
    for _ in 0..20 {
        assert_eq!(played.caller.get(FIRST).await.status, 200);
    }
    let stats = played.sim.stats();
    assert_eq!(stats.statuses.get(&403).copied(), Some(2), "each path once: {:?}", stats.statuses);
    assert_eq!(quota(&admin(&played).await, KEY), 300);
    let text = metrics(&played).await;
    assert!(
        text.contains(
            "tidegate_limit_listings_total{credential=\"demo\",outcome=\"denied\",tenant=\"default\"} 1"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn a_pinned_limit_keeps_its_declared_number() {
    let played = asking_with(&platform(600), |config| {
        let declared = Profile::builtin("genesys").unwrap().limits;
        let own = declared.into_iter().find(|limit| limit.key == KEY).unwrap();
        config.tenants[0].upstream.limits = vec![LimitSpec { pin: true, ..own }];
    })
    .await;
    assert_eq!(played.caller.get(FIRST).await.status, 200);
    let listing = settled(&played).await;
    let own = listing["limits"].as_array().unwrap().iter().find(|limit| limit["key"] == KEY).unwrap();
    assert_eq!(own["use"], "pinned");
    assert_eq!(quota(&admin(&played).await, KEY), 300);
}

#[tokio::test]
async fn nothing_is_asked_where_it_is_turned_off_or_for_a_callers_own_token() {
    let off = play_with("genesys", &platform(600), |_| {}).await;
    assert_eq!(off.caller.get(FIRST).await.status, 200);
    assert_eq!(admin(&off).await["listing"]["state"], "off");

    let on = asking(&platform(600)).await;
    let token = login_directly(&on).await;
    let own = on.caller.call(Method::GET, FIRST, &[("Authorization", &token)], "").await;
    assert_eq!(own.status, 200);
    assert_eq!(admin(&on).await["listing"]["state"], "not asked");
    for played in [off, on] {
        assert_eq!(played.sim.stats().accepted, 1);
    }
}

/// Logs in at the simulator itself, so that the gateway never heard of the token.
async fn login_directly(played: &Played) -> String {
    let answer = Caller::new(played.sim.local_addr()).login(crate::stage::LOGIN).await;
    format!("Bearer {}", answer.json()["access_token"].as_str().unwrap())
}
