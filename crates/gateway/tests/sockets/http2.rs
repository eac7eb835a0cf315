//! HTTP/2 on both sides of the gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Response;
use tidegate::Profile;
use tidegate::transport::Http2;
use tidegate_gateway::GatewayConfig;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, request,
};
use crate::stage::{Caller, Canned, Stage, field, stage, stage_with, upstream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn guide() -> Profile {
    Profile::builtin("genesys-guide").unwrap()
}

fn speaks_http2(config: &mut GatewayConfig) {
    config.tenants[0].upstream.http2 = Http2::PriorKnowledge;
}

async fn frames(stage: &Stage) -> Frames {
    Frames::connect(stage.caller.connect().await.stream).await
}

#[tokio::test]
async fn two_hundred_calls_at_once_on_one_connection_each_get_their_own_answer() {
    let url = upstream(|mut wire, _| async move {
        while let Some(head) = wire.until("\r\n\r\n").await {
            let target = head.split(' ').nth(1).unwrap().to_owned();
            tokio::time::sleep(Duration::from_millis(30)).await;
            wire.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len())).await;
        }
    })
    .await;
    let stage = stage(&url).await;
    let caller = Caller::by_http2(stage.gateway.data_addr());
    let targets: Vec<String> = (0..200).map(|n| format!("/api/v2/users?n={n}")).collect();
    let answers = join_all(targets.iter().map(|target| caller.get(target))).await;
    for (target, answer) in targets.iter().zip(answers) {
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, target.as_bytes()));
    }
}

/// An upstream by the `h2` crate that allows ten streams and answers with the target; and the most it had open on a connection, and
/// its connections.
async fn ten_streams() -> (String, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let [most, connections] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let shared = [Arc::clone(&most), Arc::clone(&connections)];
    let url = upstream(move |wire, _| {
        let [most, connections] = shared.clone();
        async move {
            connections.fetch_add(1, Ordering::SeqCst);
            let mut builder = h2::server::Builder::new();
            let handshake = builder.max_concurrent_streams(10).handshake::<_, Bytes>(wire.stream);
            let mut connection = handshake.await.unwrap();
            let open = Arc::new(AtomicUsize::new(0));
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let (open, most) = (Arc::clone(&open), Arc::clone(&most));
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    let target = request.uri().path_and_query().unwrap().as_str().to_owned();
                    let mut stream = respond.send_response(Response::new(()), false).unwrap();
                    open.fetch_sub(1, Ordering::SeqCst);
                    stream.send_data(target.into(), true).unwrap();
                });
            }
        }
    })
    .await;
    (url, most, connections)
}

#[tokio::test]
async fn from_one_connection_to_few_the_upstreams_bound_on_streams_is_kept() {
    let (url, most, connections) = ten_streams().await;
    let stage = stage_with(&url, guide(), speaks_http2).await;
    let caller = Caller::by_http2(stage.gateway.data_addr());
    let targets: Vec<String> = (0..200).map(|n| format!("/api/v2/users?n={n}")).collect();
    let answers = join_all(targets.iter().map(|target| caller.get(target))).await;
    for (target, answer) in targets.iter().zip(answers) {
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, target.as_bytes()));
    }
    assert!(most.load(Ordering::SeqCst) <= 10);
    let connections = connections.load(Ordering::SeqCst);
    assert!((2..=40).contains(&connections), "{connections}");
}

/// What becomes of the first POST on a connection.
#[derive(Clone, Copy, Debug)]
enum End {
    Reset(u32),
    GoAway { below: bool, code: u32 },
    Closed,
}

/// The answer to a POST whose first attempt ends so, and how many the upstream has executed or may have.
async fn post_that_meets(end: End) -> (u16, String, usize) {
    let executed = Arc::new(AtomicUsize::new(0));
    let (count, met) = (Arc::clone(&executed), Arc::new(AtomicUsize::new(0)));
    let url = upstream(move |wire, _| {
        let (count, met) = (Arc::clone(&count), Arc::clone(&met));
        async move {
            let mut frames = Frames::accept(wire.stream).await;
            while let Some(stream) = frames.request().await {
                if met.fetch_add(1, Ordering::SeqCst) > 0 {
                    count.fetch_add(1, Ordering::SeqCst);
                    frames.answer(stream).await;
                    continue;
                }
                match end {
                    End::Reset(7) => drop(frames.reset(stream, 7).await),
                    End::GoAway { below: true, code } => frames.go_away(0, code).await,
                    End::Reset(code) => {
                        count.fetch_add(1, Ordering::SeqCst);
                        frames.reset(stream, code).await;
                    }
                    End::GoAway { code, .. } => {
                        count.fetch_add(1, Ordering::SeqCst);
                        return frames.go_away(stream, code).await;
                    }
                    End::Closed => {
                        count.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                }
            }
        }
    })
    .await;
    // Its upstream recognises no key: what may have been executed is not sent again.
    let stage = stage_with(&url, Profile::builtin("genesys").unwrap(), speaks_http2).await;
    let answer = stage.caller.post("/api/v2/users", "{}").await;
    let mark = answer.header("tidegate-outcome").to_owned();
    (answer.status.as_u16(), mark, executed.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_post_is_executed_once_whatever_the_end_of_its_stream() {
    for end in
        [End::Reset(0x7), End::GoAway { below: true, code: 0x0 }, End::GoAway { below: true, code: 0xb }]
    {
        assert_eq!(
            post_that_meets(end).await,
            (200, String::new(), 1),
            "{end:?}: not processed, so sent again"
        );
    }
    for end in [
        End::Reset(0x2),
        End::Reset(0x8),
        End::Reset(0xb),
        End::GoAway { below: false, code: 0x0 },
        End::GoAway { below: false, code: 0x2 },
        End::GoAway { below: false, code: 0xb },
        End::Closed,
    ] {
        assert_eq!(post_that_meets(end).await, (424, "unknown".to_owned(), 1), "{end:?}: nobody knows");
    }
}

/// Header fields as they are written.
type Fields<'a> = &'a [(&'a str, &'a [u8])];

#[tokio::test]
async fn what_could_be_read_in_two_ways_further_on_is_refused_here() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage(&url).await;
    let cases: [(&str, Fields<'_>); 11] = [
        ("a line break in a value", &[("x-field", b"1\r\nx-smuggled: 1")]),
        ("a line feed in a value", &[("x-field", b"1\nx-smuggled: 1")]),
        ("a NUL in a value", &[("x-field", b"1\0")]),
        ("a line break in a name", &[("x-field: 1\r\nx-smuggled", b"1")]),
        ("an upper-case name", &[("X-Field", b"1")]),
        ("transfer-encoding", &[("transfer-encoding", b"chunked")]),
        ("connection", &[("connection", b"x-field")]),
        ("keep-alive", &[("keep-alive", b"timeout=5")]),
        ("upgrade", &[("upgrade", b"websocket")]),
        ("te of an encoding", &[("te", b"gzip")]),
        ("a pseudo-field behind a field", &[("x-field", b"1"), (":path", b"/other")]),
    ];
    for (what, fields) in cases {
        let mut frames = frames(&stage).await;
        frames.write(HEADERS, END_STREAM | END_HEADERS, 1, &request("GET", fields)).await;
        let verdict = frames.verdict().await.unwrap();
        assert!(matches!(verdict.kind, RST_STREAM | GOAWAY), "{what}: {verdict:?}");
    }
    assert_eq!(canned.heads().len(), 0, "nothing of it reached the upstream");
}

#[tokio::test]
async fn a_body_is_as_long_as_it_says_or_nothing_is_sent() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage(&url).await;
    for (says, is) in [
        (&b"1"[..], &b"hello"[..]),
        (b"10", b"hello"),
        (b"5, 5", b"hello"),
        (b"-5", b"hello"),
        (b"5x", b"hello"),
    ] {
        let mut frames = frames(&stage).await;
        frames.write(HEADERS, END_HEADERS, 1, &request("POST", &[("content-length", says)])).await;
        frames.write(DATA, END_STREAM, 1, is).await;
        let verdict = frames.verdict().await.unwrap();
        // 400: the body was found out when it was read.
        let is_400 = verdict.kind == HEADERS && verdict.payload.first() == Some(&0x8c);
        assert!(is_400 || matches!(verdict.kind, RST_STREAM | GOAWAY), "{says:?}: {verdict:?}");
    }
    assert_eq!(canned.heads().len(), 0);
    let mut frames = frames(&stage).await;
    frames.write(HEADERS, END_HEADERS, 1, &request("POST", &[("content-length", b"5")])).await;
    frames.write(DATA, END_STREAM, 1, b"hello").await;
    assert_eq!(frames.verdict().await.unwrap().kind, HEADERS);
    assert_eq!(canned.bodies(), [b"hello"]);
    assert_eq!(field(&canned.heads()[0], "content-length"), Some("5"));
}

#[tokio::test]
async fn what_http2_says_in_other_words_reaches_an_upstream_in_those_of_http1() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage(&url).await;
    let fields: [(&str, &[u8]); 5] = [
        ("cookie", b"a=1"),
        ("cookie", b"b=2"),
        ("te", b"trailers"),
        ("proxy-authorization", b"Basic x"),
        ("tidegate-class", b"bulk"),
    ];
    let mut frames = frames(&stage).await;
    frames.write(HEADERS, END_STREAM | END_HEADERS, 1, &request("GET", &fields)).await;
    assert_eq!(frames.verdict().await.unwrap().kind, HEADERS);
    let head = canned.heads().remove(0);
    assert!(head.starts_with("GET /api/v2/users HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2"));
    assert_eq!(field(&head, "host"), url.strip_prefix("http://"));
    for name in ["te", "proxy-authorization", "tidegate-class", "connection"] {
        assert_eq!(field(&head, name), None, "{name}: {head}");
    }
}

#[tokio::test]
async fn the_doors_are_the_same_by_either_protocol() {
    let (canned, url) = Canned::start(OK).await;
    let stage = stage(&url).await;
    let caller = Caller::by_http2(stage.gateway.data_addr());
    let foreign = crate::frames::block(&[
        (":method", b"GET"),
        (":scheme", b"http"),
        (":authority", b"evil.example"),
        (":path", b"/api/v2/users"),
    ]);
    let connect = crate::frames::block(&[(":method", b"CONNECT"), (":authority", b"elsewhere.example:443")]);
    let two_names = request("GET", &[("host", b"evil.example")]);
    // 421 and 501 are no entries of the static table: they are spelled out (RFC 7541 §6.2).
    for (block, status) in [(foreign, "421"), (connect, "501"), (two_names, "400")] {
        let mut frames = frames(&stage).await;
        frames.write(HEADERS, END_STREAM | END_HEADERS, 1, &block).await;
        let verdict = frames.verdict().await.unwrap();
        assert_eq!(status_of(&verdict.payload), status, "{verdict:?}");
    }
    let cross_site = [("sec-fetch-site", "cross-site")];
    let answer = caller.call(http::Method::GET, "/api/v2/users", &cross_site, "").await;
    assert_eq!((answer.status.as_u16(), answer.header("tidegate-refused")), (403, "foreign-origin"));
    assert_eq!(canned.heads().len(), 0);
}

/// The status at the beginning of an answer's block: an indexed field, or a literal with an indexed name, Huffman-coded digits.
fn status_of(block: &[u8]) -> String {
    match block {
        [0x88, ..] => "200".to_owned(),
        [0x8c, ..] => "400".to_owned(),
        [0x48, length, rest @ ..] if length & 0x80 > 0 => huffman_digits(&rest[..usize::from(length & 0x7f)]),
        [0x48, length, rest @ ..] => String::from_utf8_lossy(&rest[..usize::from(*length)]).into_owned(),
        _ => format!("{block:?}"),
    }
}

/// Digits as RFC 7541, appendix B, codes them: 0 to 2 in five bits, 3 to 9 in six.
fn huffman_digits(coded: &[u8]) -> String {
    let bits: Vec<String> = coded.iter().map(|byte| format!("{byte:08b}")).collect();
    let bits = bits.concat();
    let (mut rest, mut digits) = (bits.as_str(), String::new());
    while rest.len() >= 5 && digits.len() < 3 {
        let short = u8::from_str_radix(&rest[..5], 2).unwrap();
        if short <= 2 {
            digits.push(char::from(b'0' + short));
            rest = &rest[5..];
        } else {
            let long = u8::from_str_radix(&rest[..6], 2).unwrap();
            digits.push(char::from(b'3' + (long - 0b01_1001)));
            rest = &rest[6..];
        }
    }
    digits
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once_cost_their_connection_and_no_other() {
    let (_canned, url) = Canned::start(OK).await;
    let stage = stage(&url).await;
    let mut flood = frames(&stage).await;
    let get = request("GET", &[]);
    for stream in (1..).step_by(2).take(5_000) {
        let opened = flood.write(HEADERS, END_STREAM | END_HEADERS, stream, &get).await;
        if !opened || !flood.reset(stream, 8).await {
            break;
        }
    }
    while let Some(frame) = flood.next().await {
        if frame.kind == GOAWAY {
            assert_eq!(frame.payload[4..8], 0xb_u32.to_be_bytes(), "ENHANCE_YOUR_CALM");
        }
    }
    assert_eq!(stage.caller.get("/api/v2/users").await.status, 200);
}

#[tokio::test]
async fn a_head_that_never_ends_costs_its_connection_and_little_memory() {
    let (_canned, url) = Canned::start(OK).await;
    let stage = stage(&url).await;
    let mut flood = frames(&stage).await;
    flood.write(HEADERS, END_STREAM, 1, &request("GET", &[])).await;
    let more = crate::frames::block(&[("x-field", &[b'x'; 100][..]); 100]);
    let mut written = 0;
    while flood.write(CONTINUATION, 0, 1, &more).await {
        written += 1;
        assert!(written < 10_000, "a hundred megabytes of head were taken");
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.caller.get("/api/v2/users").await.status, 200);
}

#[tokio::test]
async fn a_gateway_that_stops_lets_open_streams_end() {
    let (seen, mut saw) = tokio::sync::mpsc::channel(1);
    let url = upstream(move |mut wire, _| {
        let seen = seen.clone();
        async move {
            wire.until("\r\n\r\n").await.unwrap();
            seen.send(()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            wire.write(OK).await;
        }
    })
    .await;
    let stage = stage(&url).await;
    let caller = Caller::by_http2(stage.gateway.data_addr());
    let call = tokio::spawn(async move { caller.get("/api/v2/users").await });
    saw.recv().await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), stage.gateway.drain()).await.expect("it ends");
    assert_eq!(call.await.unwrap().status, 200);
}
