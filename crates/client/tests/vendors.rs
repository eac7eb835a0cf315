//! What vendors do that others do not, through the whole stack: throttles that look like something else, families made of ids,
//! budgets told in the body.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tidegate::{Client, Upstream};

use self::support::{Act, Fake, answer, config};

const S: Duration = Duration::from_secs(1);

/// These bring their own tokens.
fn client(wire: &Fake, profile: &str) -> Client {
    let mut config = config(profile);
    config.credential = None;
    Client::over(Upstream::with_wire(config, Arc::new(wire.clone())).unwrap())
}

fn json(status: u16, body: &str) -> Act {
    answer(status).header("content-type", "application/json").body(body.to_owned())
}

/// The status, the body, and how long after the first the last request was sent.
async fn call(wire: &Fake, client: &Client, method: Method, path: &str) -> (u16, String, Duration) {
    let first = wire.seen().len();
    let response = client.request(method, path).json("{}").send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().bytes(100_000).await.unwrap();
    let seen = wire.seen();
    let took = seen.last().unwrap().at.saturating_sub(seen[first].at);
    (status, String::from_utf8(body.to_vec()).unwrap(), took)
}

#[tokio::test(start_paused = true)]
async fn slack_a_200_that_is_a_throttle_is_waited_out_and_any_other_is_passed_on_whole() {
    let throttle = json(200, r#"{"ok":false,"error":"ratelimited"}"#).header("retry-after", "30");
    let other = r#"{"ok":false,"error":"channel_not_found"}"#;
    let wire = Fake::new([throttle, json(200, other), json(200, other)]);
    let client = client(&wire, "slack");
    let (status, body, took) = call(&wire, &client, Method::POST, "/api/chat.postMessage").await;
    assert_eq!((status, body.as_str()), (200, other), "a refused message is no message: it is sent again");
    assert!(took >= 30 * S && wire.seen().len() == 2, "{took:?}");
    let (_, body, _) = call(&wire, &client, Method::POST, "/api/chat.postMessage").await;
    assert_eq!((body.as_str(), wire.seen().len()), (other, 3));
}

#[tokio::test(start_paused = true)]
async fn shopify_a_dear_query_is_not_sent_again_before_there_are_points_for_it() {
    let body = |left: u32| {
        format!(
            r#"{{"errors":[{{"message":"Throttled","extensions":{{"code":"THROTTLED"}}}}],"extensions":{{"cost":{{"requestedQueryCost":500,"throttleStatus":{{"maximumAvailable":1000,"currentlyAvailable":{left},"restoreRate":50}}}}}}}}"#
        )
    };
    let wire = Fake::new([json(200, &body(100)), json(200, r#"{"data":{}}"#)]);
    let client = client(&wire, "shopify");
    let (status, body, took) = call(&wire, &client, Method::POST, "/admin/api/2025-01/graphql.json").await;
    assert_eq!((status, body.as_str()), (200, r#"{"data":{}}"#));
    assert!(
        took >= 8 * S && took < 19 * S,
        "400 points at 50 a second, and not longer than until all are back: {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn discord_a_channels_limit_holds_up_that_channel_and_a_global_one_everything() {
    let route = || answer(429).header("retry-after", "20").header("x-ratelimit-scope", "user");
    let wire = Fake::new([route()]);
    let client = client(&wire, "discord");
    let waiting = client.clone();
    let first = tokio::spawn(async move {
        waiting
            .request(Method::POST, "/api/v10/channels/1/messages")
            .json("{}")
            .send()
            .await
            .unwrap()
            .status()
    });
    tokio::time::sleep(S).await;
    client.get("/api/v10/guilds/8").send().await.unwrap();
    assert_eq!(first.await.unwrap(), 200);
    let at = |wire: &Fake, target: &str| {
        let all = wire.seen();
        all.iter().filter(|seen| seen.target == target).map(|seen| seen.at).collect::<Vec<_>>()
    };
    let (messages, guild) = (at(&wire, "/api/v10/channels/1/messages"), at(&wire, "/api/v10/guilds/8"));
    assert!(messages[1] >= messages[0] + 20 * S && guild[0] < messages[0] + 5 * S, "{messages:?} {guild:?}");

    let everything = json(429, r#"{"message":"You are being rate limited.","retry_after":20,"global":true}"#)
        .header("retry-after", "20")
        .header("x-ratelimit-global", "true");
    let wire = Fake::new([everything]);
    let client = self::client(&wire, "discord");
    let waiting = client.clone();
    let first = tokio::spawn(async move {
        waiting
            .request(Method::POST, "/api/v10/channels/1/messages")
            .json("{}")
            .send()
            .await
            .unwrap()
            .status()
    });
    tokio::time::sleep(S).await;
    client.get("/api/v10/guilds/8").send().await.unwrap();
    assert_eq!(first.await.unwrap(), 200);
    let (messages, guild) = (at(&wire, "/api/v10/channels/1/messages"), at(&wire, "/api/v10/guilds/8"));
    assert!(guild[0] >= messages[0] + 20 * S, "{messages:?} {guild:?}");
}

#[tokio::test(start_paused = true)]
async fn github_a_403_is_a_throttle_by_its_text_and_waits_a_minute_where_nothing_says_how_long() {
    let secondary = json(403, r#"{"message":"You have exceeded a secondary rate limit."}"#);
    let wire = Fake::new([secondary, json(403, r#"{"message":"Resource not accessible by integration"}"#)]);
    let (status, body, took) = call(&wire, &client(&wire, "github"), Method::POST, "/repos/o/r/issues").await;
    assert_eq!(status, 403, "the second one is an answer");
    assert!(body.contains("not accessible") && took >= 60 * S && wire.seen().len() == 2, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn salesforce_a_403_of_the_days_limit_is_not_a_missing_permission() {
    let limit = r#"[{"message":"TotalRequests Limit exceeded.","errorCode":"REQUEST_LIMIT_EXCEEDED"}]"#;
    let wire = Fake::new([json(403, limit)]);
    let (status, _, _) =
        call(&wire, &client(&wire, "salesforce"), Method::POST, "/services/data/v64.0/sobjects/A").await;
    assert_eq!((status, wire.seen().len()), (200, 2));
}
