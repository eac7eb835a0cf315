//! What may not pass the gateway, and in which shape the rest does.

use http::Method;
use tidegate_gateway::{GatewayConfig, StartError, start};
use tokio::net::TcpListener;

use crate::stage::{Canned, FIRST, field, play, play_with, stage};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn strangers_are_turned_away_before_anything_is_sent() {
    let played = play("genesys-guide", "").await;
    let get = format!("GET {FIRST} HTTP/1.1\r\n");
    for (request, status, reason) in [
        (format!("{get}Host: evil.example\r\n"), 421, "foreign-host"),
        (get.clone(), 400, "host"),
        (format!("{get}Host: localhost\r\nHost: evil.example\r\n"), 400, "host"),
        (format!("{get}Host: localhost\r\nOrigin: https://evil.example\r\n"), 403, "foreign-origin"),
        (format!("{get}Host: localhost\r\nOrigin: null\r\n"), 403, "foreign-origin"),
        (format!("{get}Host: localhost\r\nSec-Fetch-Site: cross-site\r\n"), 403, "foreign-origin"),
        (format!("GET http://elsewhere.example{FIRST} HTTP/1.1\r\nHost: localhost\r\n"), 400, "not-a-proxy"),
        ("CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: localhost\r\n".to_owned(), 501, "not-implemented"),
        (
            format!("{get}Host: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"),
            501,
            "not-implemented",
        ),
    ] {
        let mut wire = played.caller.connect().await;
        wire.write(&format!("{request}\r\n")).await;
        let head = wire.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}{head}");
        assert_eq!(field(&head, "tidegate-refused"), Some(reason), "{request}{head}");
    }
    let stats = played.sim.stats();
    assert_eq!((stats.accepted, stats.oauth.calls), (0, 0));
}

#[tokio::test]
async fn the_admin_port_has_the_same_door() {
    let played = play("genesys-guide", "").await;
    let admin = crate::stage::Caller::new(played.gateway.admin_addr());
    let get = "GET /api/state HTTP/1.1\r\nConnection: close\r\n";
    assert!(admin.raw(&format!("{get}Host: evil.example\r\n\r\n")).await.starts_with("HTTP/1.1 421 "));
    let foreign = format!("{get}Host: localhost\r\nOrigin: https://evil.example\r\n\r\n");
    assert!(admin.raw(&foreign).await.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn listed_hosts_and_origins_are_welcome() {
    let played = play_with("genesys-guide", "", |config| {
        config.doors.hosts.push("gateway.internal".to_owned());
        config.doors.origins.push("https://ours.example".to_owned());
    })
    .await;
    let head = format!(
        "GET {FIRST} HTTP/1.1\r\nHost: gateway.internal:8787\r\nOrigin: https://ours.example\r\nConnection: close\r\n\r\n"
    );
    assert!(played.caller.raw(&head).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn an_offer_of_http2_is_passed_over_and_not_passed_on() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage(&url).await;
    let head = "GET /api/v2/users HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n\
        Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n\r\n";
    let mut wire = stage.caller.connect().await;
    wire.write(head).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    for name in ["upgrade", "http2-settings", "connection"] {
        assert_eq!(field(&canned.heads()[0], name), None, "{name}");
    }
}

#[tokio::test]
async fn fields_of_one_connection_and_our_own_do_not_reach_the_upstream() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage(&url).await;
    let fields = [
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("Proxy-Connection", "keep-alive"),
        ("Tidegate-Class", "bulk"),
        ("Tidegate-Caller", "nightly export"),
        ("Tidegate-Anything", "else"),
        ("Expect", "100-continue"),
        ("X-Kept", "yes"),
    ];
    stage.caller.call(Method::POST, "/api/v2/users?a=b%20c", &fields, "{}").await;
    let head = &canned.heads()[0];
    assert!(head.starts_with("POST /api/v2/users?a=b%20c HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(head, "host"), Some(url.trim_start_matches("http://")));
    assert_eq!(field(head, "x-kept"), Some("yes"));
    for (name, _) in &fields[..fields.len() - 1] {
        assert_eq!(field(head, name), None, "{name}");
    }
}

#[tokio::test]
async fn fields_of_one_connection_and_false_marks_do_not_reach_the_caller() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
        Proxy-Authenticate: Basic\r\nTidegate-Refused: by-the-upstream\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
        Content-Length: 2\r\n\r\nok";
    let (_canned, url) = Canned::start(answer).await;
    let answer = stage(&url).await.caller.get("/api/v2/users").await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"ok"[..]));
    for name in ["x-hop", "keep-alive", "proxy-authenticate", "tidegate-refused"] {
        assert_eq!(answer.header(name), "", "{name}");
    }
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
}

#[tokio::test]
async fn what_is_paced_is_what_is_sent() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage(&url).await;
    for (asked, sent) in [
        // A final slash can mean another resource to the upstream, so it stays; the family is the same.
        ("/api/v2/users/", "/api/v2/users/"),
        ("/api/v2/./users/../users//%7Ekim", "/api/v2/users/~kim"),
        ("/../../api/v2/users/%2e%2e/skills", "/api/v2/skills"),
        ("/api/v2/users?path=/../x", "/api/v2/users?path=/../x"),
    ] {
        let mut wire = stage.caller.connect().await;
        wire.write(&format!("GET {asked} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200 "), "{asked}");
        let heads = canned.heads();
        assert!(heads.last().unwrap().starts_with(&format!("GET {sent} HTTP/1.1\r\n")), "{asked}: {heads:?}");
    }
    let before = canned.heads().len();
    for ambiguous in ["/api/v2/users%2f17", "/api/v2/users/%zz", "/api/v2/users/%252e%252e/x"] {
        let answer = stage.caller.get(ambiguous).await;
        assert!(answer.is_ours(400, ("tidegate-refused", "invalid-request")), "{ambiguous}: {answer:?}");
    }
    assert_eq!(canned.heads().len(), before, "nothing was sent");
}

#[tokio::test]
async fn a_request_with_two_framings_never_reaches_the_upstream_with_both() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage(&url).await;
    let smuggled = "POST /api/v2/users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\
        Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /api/v2/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stage.caller.raw(smuggled).await;
    for head in canned.heads() {
        assert!(!head.contains("smuggled"), "{head}");
        let framings = ["content-length", "transfer-encoding"];
        assert!(framings.iter().filter(|name| field(&head, name).is_some()).count() <= 1, "{head}");
    }
}

#[tokio::test]
async fn malformed_instructions_are_refused_and_nothing_is_sent() {
    let played = play("genesys-guide", "").await;
    for (name, value) in [
        ("Tidegate-Class", "urgent"),
        ("Tidegate-Caller", ""),
        ("Tidegate-Deadline", "soon"),
        ("Tidegate-Deadline", "-1"),
        ("Tidegate-Deadline", "0"),
        ("Tidegate-Deadline", "NaN"),
    ] {
        let answer = played.caller.call(Method::GET, FIRST, &[(name, value)], "").await;
        assert!(answer.is_ours(400, ("tidegate-refused", "invalid-request")), "{name}: {value}: {answer:?}");
    }
    assert_eq!(played.sim.stats().accepted, 0);
}

#[tokio::test]
async fn a_listener_that_others_can_reach_is_refused() {
    let stage = stage("http://127.0.0.1:1").await;
    drop(stage);
    let profile = std::sync::Arc::new(tidegate::Profile::builtin("genesys").unwrap());
    let config = GatewayConfig::new(tidegate::UpstreamConfig::new(
        profile,
        "http://127.0.0.1:1",
        "http://127.0.0.1:1",
    ));
    for open in [0, 1] {
        let data = TcpListener::bind(["0.0.0.0:0", "127.0.0.1:0"][open]).await.unwrap();
        let admin = TcpListener::bind(["127.0.0.1:0", "0.0.0.0:0"][open]).await.unwrap();
        let error = start(config.clone(), Vec::new(), data, admin).unwrap_err();
        assert!(matches!(error, StartError::NotLoopback { .. }), "{error}");
        assert!(error.to_string().contains("listen on 127.0.0.1"), "{error}");
    }
}

#[tokio::test]
async fn a_head_of_a_hundred_fields_passes_and_one_more_is_a_431() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage(&url).await;
    for (fields, status) in [(99, "200"), (100, "431")] {
        let mut wire = stage.caller.connect().await;
        let fields = "X-Field: 1\r\n".repeat(fields);
        wire.write(&format!("GET /api/v2/users HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).await;
        assert!(
            wire.head().await.starts_with(&format!("HTTP/1.1 {status} ")),
            "with Host one more: {status}"
        );
    }
    assert_eq!(canned.heads().len(), 1);
}
