//! Windows of the calendar, as callers and operators of the gateway meet them.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tidegate_core::calendar::{Calendar, Cron, Window, Zone};

use crate::stage::{Caller, FIRST, play_with};

/// A window that is open whenever the test runs.
fn always() -> Window {
    Window {
        name: "wfm publish".to_owned(),
        cron: Cron::parse("* * * * *").unwrap(),
        zone: Zone::utc(),
        lasts: Duration::from_mins(20),
        hold: [false, false, true, false],
        reserve: [0, 0, 0, 50],
        stagger: Duration::ZERO,
    }
}

#[tokio::test]
async fn a_held_call_is_refused_at_once_unsent_with_the_windows_name() {
    let played = play_with("genesys-guide", "limit = 300", |config| {
        config.tenants[0].upstream.calendar = Arc::new(Calendar::new(vec![always()]));
    })
    .await;
    let held = played.caller.call(Method::GET, FIRST, &[("Tidegate-Class", "bulk")], "").await;
    assert!(held.is_ours(429, ("tidegate-refused", "window")), "{held:?}");
    assert_eq!(held.header("tidegate-limit"), "window \"wfm publish\"");
    assert_eq!(held.header("retry-after"), "180");
    let message = held.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("The calls of this class are held by window \"wfm publish\", nothing was sent"),
        "{message}"
    );
    assert_eq!(played.sim.stats().accepted, 0);
    assert_eq!(played.caller.get(FIRST).await.status, 200, "others go on");

    let admin = Caller::new(played.gateway.admin_addr());
    let state: Value = admin.get("/api/state").await.json();
    let tenant = &state["tenants"][0];
    assert_eq!(
        (&tenant["windows"][0]["name"], &tenant["windows"][0]["open"]),
        (&"wfm publish".into(), &true.into())
    );
    assert_eq!((&tenant["held"][0]["class"], tenant["held"].as_array().unwrap().len()), (&"bulk".into(), 1));
    let metrics = String::from_utf8(admin.get("/metrics").await.body.to_vec()).unwrap();
    for line in [
        "tidegate_window_open{window=\"wfm publish\",tenant=\"default\"} 1.0",
        "tidegate_held_seconds{class=\"bulk\",tenant=\"default\"} ",
        "tidegate_refusals_total{limit=\"window \\\"wfm publish\\\"\",reason=\"window\",tenant=\"default\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}\nlacks {line}");
    }
}
