//! The transport against servers that misbehave, on real sockets: what exactly it says of each.
//!
//! Times are bounds for what must not hang; no test measures speed.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tidegate::clock::Clock;
use tidegate::transport::{SendError, SendOptions, Transport, Wire};
use tidegate::{RequestBody, ResponseBody};
use tidegate_core::classify::{Failure, Wrote};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Longer than anything here takes on a busy machine.
const AMPLE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server written for one test: `serve` gets each connection with its number, from 0.
struct Server {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    async fn new<F, R>(serve: F) -> Self
    where
        F: Fn(TcpStream, usize) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, count.fetch_add(1, Ordering::SeqCst)));
            }
        });
        Self { addr, accepted }
    }

    fn request(&self, method: Method, body: impl Into<RequestBody>) -> Request<RequestBody> {
        let uri = format!("http://{}/api/v2/users", self.addr);
        Request::builder().method(method).uri(uri).body(body.into()).unwrap()
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Reads one request with a `Content-Length` body or none; `false` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    stream.read_exact(&mut body).await.is_ok()
}

/// Answers every request of a connection with `answer`.
async fn answer_all(mut stream: TcpStream, answer: &[u8]) {
    while read_request(&mut stream).await && stream.write_all(answer).await.is_ok() {}
}

/// Waits until the other side has closed.
async fn until_closed(mut stream: TcpStream) {
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}

fn transport() -> Transport {
    Transport::new(Clock::start(), Duration::from_secs(5))
}

fn within(timeout: Duration, careful: bool) -> SendOptions {
    SendOptions { timeout, careful }
}

async fn send(
    transport: &Transport,
    request: Request<RequestBody>,
    options: SendOptions,
) -> Result<http::Response<ResponseBody>, SendError> {
    tokio::time::timeout(AMPLE, transport.send(request, options)).await.expect("nothing may hang")
}

async fn get(transport: &Transport, server: &Server) -> Bytes {
    let response = send(transport, server.request(Method::GET, ""), within(AMPLE, false)).await.unwrap();
    response.into_body().bytes(1 << 20).await.unwrap()
}

async fn failure(server: &Server, timeout: Duration) -> Failure {
    let request = server.request(Method::POST, "{}");
    send(&transport(), request, within(timeout, true)).await.unwrap_err().failure
}

#[tokio::test]
async fn a_port_nobody_listens_on_is_connect_failed() {
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let request = Request::builder().uri(format!("http://{addr}/")).body(RequestBody::empty()).unwrap();
    let error = send(&transport(), request, within(AMPLE, false)).await.unwrap_err();
    assert_eq!(error.failure, Failure::ConnectFailed);
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

#[tokio::test]
async fn tls_to_a_plain_port_is_tls_failed_and_says_what_to_do() {
    let server = Server::new(|mut stream, _| async move {
        drop(stream.read(&mut [0; 64]).await);
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await);
        until_closed(stream).await;
    })
    .await;
    let uri = format!("https://{}/", server.addr);
    let request = Request::builder().uri(uri).body(RequestBody::empty()).unwrap();
    let error = send(&transport(), request, within(AMPLE, false)).await.unwrap_err();
    assert_eq!(error.failure, Failure::TlsFailed);
    assert!(error.to_string().contains("use http://"), "{error}");
}

#[tokio::test]
async fn a_server_that_hangs_up_during_the_handshake_is_tls_failed() {
    let server = Server::new(|mut stream, _| async move {
        drop(stream.read(&mut [0; 8 * 1024]).await);
    })
    .await;
    let uri = format!("https://{}/", server.addr);
    let request = Request::builder().uri(uri).body(RequestBody::empty()).unwrap();
    let error = send(&transport(), request, within(AMPLE, false)).await.unwrap_err();
    assert_eq!(error.failure, Failure::TlsFailed, "{error}");
}

#[tokio::test]
async fn a_server_that_reads_and_hangs_up_is_interrupted() {
    let server = Server::new(|mut stream, _| async move {
        read_request(&mut stream).await;
    })
    .await;
    assert_eq!(failure(&server, AMPLE).await, Failure::Interrupted { whole: true });
}

#[tokio::test]
async fn a_server_that_hangs_up_at_once_is_not_sent_only_if_nothing_was_written() {
    let server = Server::new(|stream, _| async move { drop(stream) }).await;
    let failure = failure(&server, AMPLE).await;
    // Whether the first bytes or the close come first is up to the kernel; both are told as what they were.
    assert!(matches!(failure, Failure::Interrupted { .. } | Failure::ZeroBytesWritten), "{failure:?}");
}

#[tokio::test]
async fn a_connection_lost_in_the_middle_of_a_request_is_told_from_one_lost_behind_it() {
    // More than the kernel takes for a reader that does not read.
    let upload = vec![b'x'; 64 << 20];
    let server = Server::new(|mut stream, _| async move {
        let mut some = [0; 4096];
        stream.read_exact(&mut some).await.unwrap();
    })
    .await;
    let request = server.request(Method::POST, RequestBody::from(upload.clone()));
    let error = send(&transport(), request, within(AMPLE, true)).await.unwrap_err();
    assert_eq!(error.failure, Failure::Interrupted { whole: false }, "{error}");
    let silent = Server::new(|mut stream, _| async move {
        let mut some = [0; 4096];
        stream.read_exact(&mut some).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let request = silent.request(Method::POST, RequestBody::from(upload.clone()));
    let error = send(&transport(), request, within(SHORT, true)).await.unwrap_err();
    assert_eq!(error.failure, Failure::TimedOut { wrote: Wrote::Part }, "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_timed_out_after_writing_and_its_connection_closed() {
    let (closed, mut told) = mpsc::channel(1);
    let server = Server::new(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            read_request(&mut stream).await;
            until_closed(stream).await;
            closed.send(()).await.unwrap();
        }
    })
    .await;
    assert_eq!(failure(&server, SHORT).await, Failure::TimedOut { wrote: Wrote::Whole });
    tokio::time::timeout(AMPLE, told.recv()).await.expect("closed").unwrap();
}

#[tokio::test]
async fn a_head_that_is_cut_is_truncated_and_one_that_is_no_http_is_unreadable() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(10_000));
    for (answer, expected) in [
        (&b"HTTP/1.1 200 OK\r\nContent-"[..], Failure::AnswerTruncated),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", Failure::AnswerUnreadable),
        (many.as_bytes(), Failure::AnswerUnreadable),
    ] {
        let answer = answer.to_vec();
        let server = Server::new(move |mut stream, _| {
            let answer = answer.clone();
            async move {
                read_request(&mut stream).await;
                drop(stream.write_all(&answer).await);
            }
        })
        .await;
        assert_eq!(failure(&server, AMPLE).await, expected);
    }
}

#[tokio::test]
async fn an_answer_cut_in_its_body_is_an_answer_whose_body_fails() {
    let server = Server::new(|mut stream, nth| async move {
        read_request(&mut stream).await;
        if nth == 0 {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await);
        } else {
            drop(stream.write_all(OK).await);
        }
    })
    .await;
    let transport = transport();
    let response = send(&transport, server.request(Method::GET, ""), within(AMPLE, false)).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().bytes(100).await.expect_err("ten bytes were announced");
    assert_eq!(get(&transport, &server).await, "ok");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_body_that_falls_silent_fails_and_closes_its_connection() {
    let (closed, mut told) = mpsc::channel(1);
    let server = Server::new(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            read_request(&mut stream).await;
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await);
            until_closed(stream).await;
            closed.send(()).await.unwrap();
        }
    })
    .await;
    // Long enough for the headers on a busy machine; the body never comes.
    let patience = Duration::from_secs(1);
    let response =
        send(&transport(), server.request(Method::GET, ""), within(patience, false)).await.unwrap();
    let body = tokio::time::timeout(AMPLE, response.into_body().bytes(100)).await.expect("it ends");
    assert!(body.unwrap_err().to_string().contains("silent"));
    tokio::time::timeout(AMPLE, told.recv()).await.expect("closed").unwrap();
}

#[tokio::test]
async fn answers_read_to_their_end_share_one_connection_with_and_without_bodies() {
    let server = Server::new(|mut stream, _| async move {
        for answer in [
            OK,
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            OK,
        ] {
            read_request(&mut stream).await;
            stream.write_all(answer).await.unwrap();
        }
        until_closed(stream).await;
    })
    .await;
    let transport = transport();
    let methods = [Method::GET, Method::DELETE, Method::GET, Method::HEAD, Method::GET, Method::POST];
    for method in methods {
        let careful = !method.is_safe();
        let response = send(&transport, server.request(method, ""), within(AMPLE, careful)).await.unwrap();
        response.into_body().bytes(100).await.unwrap();
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_half_read_body_closes_its_connection() {
    let (closed, mut told) = mpsc::channel(1);
    let server = Server::new(move |mut stream, nth| {
        let closed = closed.clone();
        async move {
            if nth > 0 {
                return answer_all(stream, OK).await;
            }
            read_request(&mut stream).await;
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhalf").await);
            until_closed(stream).await;
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let transport = transport();
    let response = send(&transport, server.request(Method::GET, ""), within(AMPLE, false)).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    tokio::time::timeout(AMPLE, told.recv()).await.expect("closed").unwrap();
    assert_eq!(get(&transport, &server).await, "ok");
}

#[tokio::test]
async fn a_dropped_attempt_closes_its_connection() {
    let (closed, mut told) = mpsc::channel(1);
    let server = Server::new(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            read_request(&mut stream).await;
            until_closed(stream).await;
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let transport = transport();
    let attempt = transport.send(server.request(Method::GET, ""), within(AMPLE, false));
    tokio::time::timeout(SHORT, attempt).await.expect_err("no answer");
    tokio::time::timeout(AMPLE, told.recv()).await.expect("closed").unwrap();
}

#[tokio::test]
async fn a_close_that_was_announced_costs_later_writes_nothing() {
    let server = Server::new(|mut stream, nth| async move {
        match nth {
            0 => {
                read_request(&mut stream).await;
                drop(
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
                        .await,
                );
            }
            1 => {
                read_request(&mut stream).await;
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nok").await);
            }
            _ => answer_all(stream, OK).await,
        }
    })
    .await;
    let transport = transport();
    for _ in 0..3 {
        assert_eq!(get(&transport, &server).await, "ok");
    }
    let response = send(&transport, server.request(Method::POST, "{}"), within(AMPLE, true)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.accepted(), 3, "the write shares the third connection");
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced_unnoticed() {
    let (closing, mut told) = mpsc::channel(1);
    let server = Server::new(move |mut stream, nth| {
        let closing = closing.clone();
        async move {
            if nth > 0 {
                return answer_all(stream, OK).await;
            }
            read_request(&mut stream).await;
            drop(stream.write_all(OK).await);
            drop(stream);
            closing.send(()).await.unwrap();
        }
    })
    .await;
    let transport = transport();
    assert_eq!(get(&transport, &server).await, "ok");
    told.recv().await.unwrap();
    // The close is on its way or here; on loopback it is here before anything written later arrives there.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(get(&transport, &server).await, "ok");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn writes_do_not_trust_connections_idle_for_half_of_the_shortest_close() {
    const PATIENCE: Duration = Duration::from_millis(500);
    let server = Server::new(|mut stream, _| async move {
        while let Ok(true) = tokio::time::timeout(PATIENCE, read_request(&mut stream)).await {
            drop(stream.write_all(OK).await);
        }
    })
    .await;
    let transport = transport();
    assert_eq!(get(&transport, &server).await, "ok");
    // The first connection is closed idle; the second is old enough for a write not to trust it.
    tokio::time::sleep(PATIENCE * 2).await;
    assert_eq!(get(&transport, &server).await, "ok");
    assert_eq!(server.accepted(), 2);
    tokio::time::sleep(PATIENCE.mul_f32(0.95)).await;
    let response = send(&transport, server.request(Method::POST, "{}"), within(AMPLE, true)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.accepted(), 3);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_upload_ended_closes_the_connection() {
    let (closed, mut told) = mpsc::channel(1);
    let server = Server::new(move |mut stream, nth| {
        let closed = closed.clone();
        async move {
            if nth > 0 {
                return answer_all(stream, OK).await;
            }
            drop(stream.read(&mut [0; 1024]).await);
            drop(stream.write_all(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\n\r\nbig").await);
            until_closed(stream).await;
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let transport = transport();
    let first = Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"and so on")));
    let endless =
        futures_util::StreamExt::chain(futures_util::stream::iter([first]), futures_util::stream::pending());
    let upload = RequestBody::once(StreamBody::new(endless));
    let response = send(&transport, server.request(Method::POST, upload), within(AMPLE, true)).await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(response.into_body().bytes(100).await.unwrap(), "big");
    tokio::time::timeout(AMPLE, told.recv()).await.expect("the upload ends").unwrap();
    assert_eq!(get(&transport, &server).await, "ok");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn an_upload_that_makes_progress_is_not_timed_out() {
    let server = Server::new(|mut stream, _| async move {
        let mut seen = Vec::new();
        while !seen.ends_with(b"0\r\n\r\n") {
            seen.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(OK).await.unwrap();
        until_closed(stream).await;
    })
    .await;
    // Eight chunks with pauses below the time-out, which together are longer than it.
    let chunks = futures_util::stream::unfold(0, |sent| async move {
        tokio::time::sleep(Duration::from_millis(150)).await;
        (sent < 8).then(|| (Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"chunk"))), sent + 1))
    });
    let upload = RequestBody::once(StreamBody::new(chunks));
    let options = within(Duration::from_secs(1), true);
    let response = send(&transport(), server.request(Method::POST, upload), options).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_called_unsent() {
    let server = Server::new(|stream, _| until_closed(stream)).await;
    let broken = futures_util::stream::iter([
        Ok(Frame::data(Bytes::from_static(b"half"))),
        Err(std::io::Error::other("the caller went away")),
    ]);
    let upload = RequestBody::once(StreamBody::new(broken));
    let error =
        send(&transport(), server.request(Method::POST, upload), within(AMPLE, true)).await.unwrap_err();
    // Whether its first bytes left before it broke is what the meter says.
    assert!(
        matches!(error.failure, Failure::Interrupted { whole: false } | Failure::ZeroBytesWritten),
        "{error:?}"
    );
    assert!(error.to_string().contains("the caller went away"), "{error}");
}

#[tokio::test]
async fn fifty_attempts_at_once_each_get_their_own_answer() {
    let server = Server::new(|stream, _| answer_all(stream, OK)).await;
    let transport = transport();
    for _ in 0..4 {
        let calls = (0..50).map(|_| get(&transport, &server));
        assert!(futures_util::future::join_all(calls).await.iter().all(|body| body == "ok"));
    }
    assert!(server.accepted() <= 200);
}
