//! Bodies: streamed both ways with nothing piling up in between, replayed where they are small enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use tidegate::Profile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::stage::{Canned, field, stage, stage_with, upstream};

/// More than the socket buffers of two connections hold, so that a reader that stops is felt by the writer.
const MUCH: usize = 96 << 20;

/// What may have left a writer whose reader has stopped: socket buffers of two connections, and what hyper holds.
const IN_BUFFERS: u64 = 48 << 20;

#[tokio::test]
async fn a_slow_caller_holds_up_its_upstream_and_gets_every_byte() {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let url = upstream(move |mut wire, _| {
        let counted = Arc::clone(&counted);
        async move {
            wire.head().await;
            wire.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n")).await;
            for number in 0..MUCH >> 16 {
                wire.stream.write_all(&vec![u8::try_from(number % 251).unwrap(); 1 << 16]).await.unwrap();
                counted.fetch_add(1 << 16, Ordering::Relaxed);
            }
            wire.rest().await;
        }
    })
    .await;
    let stage = stage(&url).await;
    let mut wire = stage.caller.connect().await;
    wire.write("GET /api/v2/users HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let head = wire.head().await;
    assert_eq!(field(&head, "content-length"), Some(&*MUCH.to_string()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ahead = sent.load(Ordering::Relaxed);
    assert!(ahead < IN_BUFFERS, "{ahead} bytes were taken from the upstream for a caller that reads nothing");
    for number in 0..MUCH >> 16 {
        let block = wire.exactly(1 << 16).await;
        let expected = u8::try_from(number % 251).unwrap();
        assert!(block.iter().all(|byte| *byte == expected), "block {number}");
    }
}

#[tokio::test]
async fn a_slow_upstream_holds_up_its_caller_and_gets_every_byte() {
    let (told, tell) = tokio::sync::oneshot::channel::<()>();
    let tell = Arc::new(parking_lot::Mutex::new(Some(tell)));
    let url = upstream(move |mut wire, _| {
        let told = tell.lock().take().expect("one connection");
        async move {
            wire.head().await;
            told.await.unwrap();
            let mut left = MUCH;
            while left > 0 {
                let block = left.min(1 << 16);
                wire.exactly(block).await;
                left -= block;
            }
            wire.write("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
            wire.rest().await;
        }
    })
    .await;
    let stage = stage(&url).await;
    let mut wire = stage.caller.connect().await;
    wire.write(&format!(
        "POST /api/v2/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MUCH}\r\n\r\n"
    ))
    .await;
    let (mut reader, mut writer) = wire.stream.into_split();
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let writing = tokio::spawn(async move {
        for _ in 0..MUCH >> 16 {
            writer.write_all(&vec![b'x'; 1 << 16]).await.unwrap();
            counted.fetch_add(1 << 16, Ordering::Relaxed);
        }
        writer
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ahead = sent.load(Ordering::Relaxed);
    assert!(
        ahead < IN_BUFFERS,
        "{ahead} bytes were taken from the caller for an upstream that reads nothing"
    );
    told.send(()).unwrap();
    let mut head = vec![0; 12];
    reader.read_exact(&mut head).await.unwrap();
    assert_eq!(head, b"HTTP/1.1 201");
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn a_body_over_the_replay_cap_is_one_attempt_whose_refusal_is_delivered() {
    let large = vec![b'x'; 600_000];
    for (status, fields) in [
        ("429 Too Many Requests", "Retry-After: 1\r\n"),
        ("401 Unauthorized", ""),
        ("503 Busy", "Retry-After: 1\r\n"),
    ] {
        let (canned, url) =
            Canned::start(&format!("HTTP/1.1 {status}\r\n{fields}Content-Length: 2\r\n\r\nno")).await;
        let stage = stage(&url).await;
        let answer = stage.caller.call(Method::POST, "/api/v2/uploads", &[], large.clone()).await;
        assert_eq!(answer.status.as_str(), &status[..3]);
        assert_eq!((&answer.body[..], answer.header("tidegate-attempts")), (&b"no"[..], "1"));
        assert_eq!((canned.heads().len(), canned.bodies()[0].len()), (1, large.len()), "{status}");
    }
}

#[tokio::test]
async fn a_body_within_the_replay_cap_is_sent_again() {
    let url = upstream(|mut wire, _| async move {
        for attempt in 0.. {
            let Some(head) = wire.until("\r\n\r\n").await else { return };
            let body = wire.exactly(field(&head, "content-length").unwrap().parse().unwrap()).await;
            assert!(body == vec![b'y'; 500_000], "attempt {attempt}");
            let status = if attempt == 0 { "429 Too Many Requests\r\nRetry-After: 1" } else { "200 OK" };
            wire.write(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
        }
    })
    .await;
    let stage = stage(&url).await;
    let answer = stage.caller.call(Method::POST, "/api/v2/users", &[], vec![b'y'; 500_000]).await;
    assert_eq!((answer.status.as_u16(), answer.header("tidegate-attempts")), (200, "2"), "{answer:?}");
}

#[tokio::test]
async fn chunks_of_unknown_length_arrive_whole_on_both_sides_of_the_cap() {
    for (chunks, framing) in [(3, "content-length"), (20, "transfer-encoding")] {
        let (heads, mut arrived) = tokio::sync::mpsc::unbounded_channel();
        let url = upstream(move |mut wire, _| {
            let heads = heads.clone();
            async move {
                let head = wire.head().await;
                let total = match field(&head, "content-length") {
                    Some(length) => wire.exactly(length.parse().unwrap()).await.len(),
                    None => wire.until("\r\n0\r\n\r\n").await.unwrap().matches('z').count(),
                };
                heads.send((head, total)).unwrap();
                wire.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        })
        .await;
        let stage = stage(&url).await;
        let mut wire = stage.caller.connect().await;
        wire.write("POST /api/v2/uploads HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        let chunk = "z".repeat(50_000);
        for _ in 0..chunks {
            wire.write(&format!("c350\r\n{chunk}\r\n")).await;
        }
        wire.write("0\r\n\r\n").await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
        let (head, total) = arrived.recv().await.unwrap();
        assert_eq!(total, chunks * chunk.len());
        assert!(field(&head, framing).is_some(), "{head}");
    }
}

#[tokio::test]
async fn an_upload_may_take_longer_than_an_attempt_while_it_moves() {
    let (canned, url) = Canned::start("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let text = Profile::builtin_text("genesys").unwrap().replace("write = \"30s\"", "write = \"600ms\"");
    let stage = stage_with(&url, Profile::parse(&text, "test.toml").unwrap(), |_| {}).await;
    let mut wire = stage.caller.connect().await;
    wire.write("POST /api/v2/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 800000\r\n\r\n").await;
    let part = "u".repeat(100_000);
    for _ in 0..8 {
        wire.write(&part).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(canned.bodies()[0].len(), 800_000);
}

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    let (_canned, url) = Canned::start("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let text = Profile::builtin_text("genesys").unwrap().replace("write = \"30s\"", "write = \"400ms\"");
    let stage = stage_with(&url, Profile::parse(&text, "test.toml").unwrap(), |_| {}).await;
    let mut wire = stage.caller.connect().await;
    wire.write("POST /api/v2/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 800000\r\n\r\nbegun")
        .await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 424 "), "{head}");
}

#[tokio::test]
async fn the_trailers_of_a_request_are_dropped_and_its_body_is_whole() {
    let (canned, url) = Canned::start("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let stage = stage(&url).await;
    let mut wire = stage.caller.connect().await;
    wire.write(
        "POST /api/v2/users HTTP/1.1\r\nHost: localhost\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(canned.bodies(), [b"hello"]);
    let head = &canned.heads()[0];
    assert_eq!((field(head, "content-length"), field(head, "trailer")), (Some("5"), None), "{head}");
}
