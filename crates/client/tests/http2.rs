//! HTTP/2 to upstreams, on real sockets: what exactly is said of each end of a stream, and how connections are shared.
//!
//! Peers that misbehave are made of frames (RFC 9113 §4.1), because a well-kept library does not misbehave; peers that behave are
//! the `h2` crate's server.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tidegate::clock::Clock;
use tidegate::transport::{Connections, Http2, SendError, SendOptions, Transport, Wire};
use tidegate::{RequestBody, ResponseBody};
use tidegate_core::classify::{Delivery, Failure, Wrote};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Longer than anything here takes on a busy machine.
const AMPLE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Debug)]
struct Wired {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// A connection of HTTP/2, frame by frame, on the side of the server.
struct Frames(TcpStream);

impl Frames {
    async fn accept(mut stream: TcpStream) -> Self {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut this = Self(stream);
        this.write(SETTINGS, 0, 0, &[]).await;
        this
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // A client may have hung up already.
        drop(self.0.write_all(&frame).await);
    }

    async fn next(&mut self) -> Option<Wired> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Wired { kind: head[3], flags: head[4], stream })
    }

    /// Reads until a whole request has come, and returns its stream.
    async fn request(&mut self) -> Option<u32> {
        loop {
            let frame = self.next().await?;
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM > 0 {
                return Some(frame.stream);
            }
        }
    }

    async fn reset(&mut self, stream: u32, code: u32) {
        self.write(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    async fn go_away(&mut self, last: u32, code: u32) {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.write(GOAWAY, 0, 0, &payload).await;
    }

    /// Answers 200 without a body: the first entry of the static table that is a good answer (RFC 7541, appendix A).
    async fn answer(&mut self, stream: u32) {
        self.write(HEADERS, END_STREAM | END_HEADERS, stream, &[0x88]).await;
    }

    /// Reads until the other side closes.
    async fn rest(mut self) {
        while self.next().await.is_some() {}
    }
}

/// A server: `serve` gets each connection with its number, from 0.
async fn server<F, R>(serve: F) -> (SocketAddr, Arc<AtomicUsize>)
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
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(stream, count.fetch_add(1, Ordering::SeqCst)));
        }
    });
    (addr, accepted)
}

fn transport() -> Transport {
    Transport::among(&Connections::new(Clock::start()), Duration::from_secs(5), Http2::PriorKnowledge)
}

fn request(addr: SocketAddr, method: Method, body: impl Into<RequestBody>) -> Request<RequestBody> {
    let uri = format!("http://{addr}/api/v2/users");
    Request::builder().method(method).uri(uri).body(body.into()).unwrap()
}

async fn send(
    transport: &Transport,
    request: Request<RequestBody>,
    timeout: Duration,
) -> Result<Response<ResponseBody>, SendError> {
    let careful = !request.method().is_safe();
    let options = SendOptions { timeout, careful };
    tokio::time::timeout(AMPLE, transport.send(request, options)).await.expect("nothing may hang")
}

/// What is said of a POST whose stream ends in this way, and how often the peer saw it.
async fn failure_of<F, R>(end: F) -> (Failure, usize)
where
    F: Fn(Frames, u32) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let (addr, _) = server(move |stream, _| {
        let (end, count) = (end.clone(), Arc::clone(&count));
        async move {
            let mut frames = Frames::accept(stream).await;
            let stream = frames.request().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            end(frames, stream).await;
        }
    })
    .await;
    let error = send(&transport(), request(addr, Method::POST, "{}"), AMPLE).await.unwrap_err();
    (error.failure, seen.load(Ordering::SeqCst))
}

#[tokio::test]
async fn each_end_of_a_stream_is_told_as_what_it_proves() {
    let unknown = Failure::Interrupted { whole: true };
    for (code, failure) in [(0x7, Failure::StreamRefused), (0x2, unknown), (0x8, unknown), (0xb, unknown)] {
        let told = failure_of(move |mut frames, stream| async move {
            frames.reset(stream, code).await;
            frames.rest().await;
        })
        .await;
        assert_eq!(told, (failure, 1), "RST_STREAM {code:#x}");
    }
    for (below, code, failure) in [
        (true, 0x0, Failure::StreamRefused),
        (true, 0xb, Failure::StreamRefused),
        (false, 0x0, unknown),
        (false, 0xb, unknown),
        (false, 0x2, unknown),
    ] {
        let told = failure_of(move |mut frames, stream| async move {
            frames.go_away(if below { 0 } else { stream }, code).await;
            // Where the stream lies below, its connection is what ends it.
        })
        .await;
        assert_eq!(told, (failure, 1), "GOAWAY {code:#x}, below: {below}");
    }
    let told = failure_of(|frames, _| async move { drop(frames) }).await;
    assert_eq!(told, (unknown, 1), "the connection closed without a word");
}

#[tokio::test]
async fn a_go_away_that_spares_the_stream_lets_its_answer_come() {
    let (addr, accepted) = server(|stream, _| async move {
        let mut frames = Frames::accept(stream).await;
        let stream = frames.request().await.unwrap();
        // As servers announce that they will stop: first the highest there is, then the last.
        frames.go_away(0x7fff_ffff, 0).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        frames.go_away(stream, 0).await;
        frames.answer(stream).await;
        frames.rest().await;
    })
    .await;
    let transport = transport();
    for _ in 0..3 {
        let response = send(&transport, request(addr, Method::POST, "{}"), AMPLE).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 3, "nothing new on a connection that is told to end");
}

#[tokio::test]
async fn of_many_streams_a_go_away_returns_only_those_above() {
    let (addr, _) = server(|stream, number| async move {
        let mut frames = Frames::accept(stream).await;
        if number > 0 {
            while let Some(stream) = frames.request().await {
                frames.answer(stream).await;
            }
            return;
        }
        let mut streams = Vec::new();
        for _ in 0..6 {
            streams.push(frames.request().await.unwrap());
        }
        streams.sort_unstable();
        frames.go_away(streams[1], 0).await;
        frames.answer(streams[0]).await;
        frames.answer(streams[1]).await;
        frames.rest().await;
    })
    .await;
    let transport = transport();
    let sent = join_all((0..6).map(|_| send(&transport, request(addr, Method::POST, "{}"), AMPLE))).await;
    let answered = sent.iter().filter(|sent| sent.is_ok()).count();
    let refused = sent.iter().filter_map(|sent| sent.as_ref().err()).map(|error| error.failure);
    assert_eq!(answered, 2);
    assert!(refused.into_iter().all(|failure| failure == Failure::StreamRefused));
}

#[tokio::test]
async fn a_refused_stream_leaves_the_connection_in_use_and_calm_ends_it() {
    for (code, connections) in [(0x7, 1), (0x2, 1), (0xb, 2)] {
        let (addr, accepted) = server(move |stream, number| async move {
            let mut frames = Frames::accept(stream).await;
            let mut count = 0;
            while let Some(stream) = frames.request().await {
                count += 1;
                if count == 1 && number == 0 {
                    frames.reset(stream, code).await;
                } else {
                    frames.answer(stream).await;
                }
            }
        })
        .await;
        let transport = transport();
        send(&transport, request(addr, Method::POST, "{}"), AMPLE).await.unwrap_err();
        for _ in 0..2 {
            let response = send(&transport, request(addr, Method::POST, "{}"), AMPLE).await.unwrap();
            assert_eq!(response.status(), 200);
        }
        assert_eq!(accepted.load(Ordering::SeqCst), connections, "{code:#x}");
    }
}

#[tokio::test]
async fn a_stream_whose_time_is_over_is_reset_and_its_neighbours_go_on() {
    let (told, mut resets) = mpsc::channel(1);
    let (addr, accepted) = server(move |stream, _| {
        let told = told.clone();
        async move {
            let mut frames = Frames::accept(stream).await;
            let silent = frames.request().await.unwrap();
            let answered = frames.request().await.unwrap();
            while let Some(frame) = frames.next().await {
                if frame.kind == RST_STREAM {
                    told.send(frame.stream == silent).await.unwrap();
                    frames.answer(answered).await;
                }
            }
        }
    })
    .await;
    let transport = transport();
    let late = send(&transport, request(addr, Method::POST, "{}"), SHORT);
    let neighbour = async {
        tokio::time::sleep(SHORT / 4).await;
        send(&transport, request(addr, Method::POST, "{}"), AMPLE).await
    };
    let (late, neighbour) = tokio::join!(late, neighbour);
    let failure = late.unwrap_err().failure;
    assert_eq!(failure, Failure::TimedOut { wrote: Wrote::Whole });
    assert_eq!(failure.delivery(), Delivery::MaybeExecuted);
    assert_eq!(neighbour.unwrap().status(), 200);
    assert_eq!(resets.recv().await, Some(true));
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_peer_that_speaks_no_http2_is_no_connection_and_says_what_to_do() {
    let (addr, _) = server(|mut stream, _| async move {
        drop(stream.read(&mut [0; 64]).await);
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await);
    })
    .await;
    let error = send(&transport(), request(addr, Method::POST, "{}"), AMPLE).await.unwrap_err();
    assert_eq!(error.failure, Failure::ConnectFailed);
    assert!(error.to_string().contains("leave http2 at auto"), "{error}");
}

/// A server that behaves: how many streams it allows, how long it takes, and what it saw.
#[derive(Clone, Default)]
struct Good {
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
}

impl Good {
    async fn start(allows: u32, takes: Duration) -> (Self, SocketAddr, Arc<AtomicUsize>) {
        let good = Self::default();
        let shared = good.clone();
        let (addr, accepted) = server(move |stream, _| {
            let good = shared.clone();
            async move {
                let mut builder = h2::server::Builder::new();
                let mut connection =
                    builder.max_concurrent_streams(allows).handshake::<_, Bytes>(stream).await.unwrap();
                let here = Arc::new(AtomicUsize::new(0));
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(good.clone().serve(Arc::clone(&here), request, respond, takes));
                }
            }
        })
        .await;
        (good, addr, accepted)
    }

    /// Answers with the path and the length of the body.
    async fn serve(
        self,
        here: Arc<AtomicUsize>,
        request: Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
        takes: Duration,
    ) {
        self.most.fetch_max(here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        let (head, mut body) = request.into_parts();
        let mut length = 0;
        while let Some(Ok(data)) = body.data().await {
            length += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        tokio::time::sleep(takes).await;
        let fields = ["host", "connection", "te", "transfer-encoding"];
        let strange = fields.iter().filter(|name| head.headers.contains_key(**name)).count();
        let announced = head.headers.get("content-length").map_or("", |value| value.to_str().unwrap());
        let answer = format!("{} {length} {announced} {strange}", head.uri);
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(answer.into(), false).unwrap();
        let trailers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("x-sum"),
            http::HeaderValue::from_static("1"),
        )]);
        here.fetch_sub(1, Ordering::SeqCst);
        self.served.fetch_add(1, Ordering::SeqCst);
        stream.send_trailers(trailers).unwrap();
    }
}

#[tokio::test]
async fn two_hundred_attempts_at_once_keep_to_ten_streams_a_connection() {
    let (good, addr, accepted) = Good::start(10, Duration::from_millis(100)).await;
    let transport = transport();
    let sent = join_all((0..200).map(|n| {
        let uri = format!("http://{addr}/api/v2/users?n={n}");
        let request = Request::builder().uri(uri).body(RequestBody::empty()).unwrap();
        let transport = &transport;
        async move {
            let response = send(transport, request, AMPLE).await.unwrap();
            response.into_body().bytes(1 << 16).await.unwrap()
        }
    }))
    .await;
    for (n, answer) in sent.iter().enumerate() {
        assert_eq!(*answer, format!("http://{addr}/api/v2/users?n={n} 0  0"));
    }
    assert_eq!(good.served.load(Ordering::SeqCst), 200);
    assert!(good.most.load(Ordering::SeqCst) <= 10, "the peer's bound");
    let connections = accepted.load(Ordering::SeqCst);
    assert!((2..=40).contains(&connections), "{connections} connections");
}

#[tokio::test]
async fn one_connection_carries_what_the_peer_allows_and_is_opened_once() {
    let (good, addr, accepted) = Good::start(100, Duration::from_millis(50)).await;
    let transport = transport();
    join_all((0..100).map(|_| send(&transport, request(addr, Method::POST, "{}"), AMPLE)))
        .await
        .into_iter()
        .for_each(|sent| assert_eq!(sent.unwrap().status(), 200));
    assert_eq!((good.served.load(Ordering::SeqCst), accepted.load(Ordering::SeqCst)), (100, 1));
}

#[tokio::test]
async fn bodies_pass_whole_in_both_directions_and_fields_of_connections_stay_behind() {
    let (_, addr, _) = Good::start(10, Duration::ZERO).await;
    let transport = transport();
    // More than any window.
    let mut held = request(addr, Method::PUT, vec![b'x'; 3 << 20]);
    for (name, value) in [("connection", "x-own"), ("te", "gzip"), ("transfer-encoding", "chunked")] {
        held.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    let response = send(&transport, held, AMPLE).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "1");
    let length = 3 << 20;
    assert_eq!(collected.to_bytes(), format!("http://{addr}/api/v2/users {length} {length} 0"));
    let parts = futures_util::stream::iter(
        (0..50).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![1; 10_000])))),
    );
    let streamed = RequestBody::once(StreamBody::new(parts));
    let response = send(&transport, request(addr, Method::POST, streamed), AMPLE).await.unwrap();
    let answer = response.into_body().bytes(1 << 16).await.unwrap();
    assert_eq!(answer, format!("http://{addr}/api/v2/users 500000  0"));
}

#[tokio::test]
async fn a_body_that_breaks_off_resets_its_stream_and_is_not_called_unsent() {
    let (_, addr, accepted) = Good::start(10, Duration::ZERO).await;
    let transport = transport();
    let parts = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(std::io::Error::other("gone"))];
    let body = RequestBody::once(StreamBody::new(futures_util::stream::iter(parts)));
    let error = send(&transport, request(addr, Method::POST, body), AMPLE).await.unwrap_err();
    assert_eq!(error.failure, Failure::Interrupted { whole: false }, "{error}");
    let response = send(&transport, request(addr, Method::POST, "{}"), AMPLE).await.unwrap();
    assert_eq!((response.status().as_u16(), accepted.load(Ordering::SeqCst)), (200, 1));
}

#[tokio::test]
async fn an_answer_that_is_given_up_frees_its_place() {
    let (_, addr, accepted) = Good::start(1, Duration::ZERO).await;
    let transport = transport();
    for _ in 0..5 {
        drop(send(&transport, request(addr, Method::GET, ""), AMPLE).await.unwrap());
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}
