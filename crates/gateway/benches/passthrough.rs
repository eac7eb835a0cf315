//! What the gateway costs a call when no limit holds it: against a direct connection, and against a proxy without any
//! features.
//!
//! The load and the upstream share one thread, the proxy under test has another, so that on two cores neither takes
//! the other's time. All subjects run in each round, one after the other; medians over the rounds are compared, the
//! range stands beside them. *Closed loop*: 64 connections, each sends its next request when it has its answer. *Open
//! loop*: requests leave on a schedule, at half of what the gateway reached in the closed loop, and time counts from
//! the instant at which a request was due, so that a stall is felt by all it delays. *CPU* is the time that the thread
//! of the proxy under test was running, per request, where the system tells.
//!
//! `cargo xtask bench passthrough` takes about a minute; `-- --rounds N` for more than 7 rounds.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::{Request, Response};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidegate::{Profile, UpstreamConfig};
use tidegate_gateway::{Gateway, GatewayConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::time::Instant;

const CONNECTIONS: usize = 64;
const ROUND: Duration = Duration::from_millis(1500);
const BODY: usize = 1024;

type Failure = Box<dyn Error + Send + Sync>;

/// Everything that is compared, in the order in which it is printed.
const SUBJECTS: [&str; 3] = ["direct", "featureless proxy", "gateway"];

/// What one subject did in one part of one round.
struct Sample {
    per_second: f64,
    p50: f64,
    p99: f64,
    /// Microseconds of CPU per request of the proxy's thread.
    cpu: Option<f64>,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let rounds = match arguments.iter().position(|argument| argument == "--rounds") {
        Some(at) => arguments.get(at + 1).ok_or("--rounds: how many?")?.parse()?,
        None => 7,
    };
    let (load, proxies) = (one_thread("load")?, one_thread("proxies")?);
    let upstream = load.block_on(start_upstream())?;
    let floor = proxies.block_on(start_featureless(upstream))?;
    let gateway = proxies.block_on(start_gateway(upstream))?;
    let addrs = [upstream, floor, gateway.data_addr()];
    println!("GET of {BODY} bytes over {CONNECTIONS} connections, {rounds} rounds of {ROUND:?} per subject");
    for addr in addrs {
        load.block_on(load.spawn(closed_loop(addr, ROUND / 2)))??;
    }
    let closed =
        rounds_of(rounds, &proxies, addrs, |addr| load.block_on(load.spawn(closed_loop(addr, ROUND))))?;
    print_table("closed loop", &closed);
    let rate = median(&closed["gateway"], |sample| sample.per_second) / 2.0;
    let open = rounds_of(rounds, &proxies, addrs, |addr| load.block_on(load.spawn(open_loop(addr, rate))))?;
    print_table(&format!("open loop at {rate:.0} requests/s"), &open);
    proxies.shutdown_background();
    load.shutdown_background();
    Ok(())
}

fn one_thread(name: &str) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()
}

type Samples = BTreeMap<&'static str, Vec<Sample>>;
type Measured = Result<Result<Vec<Duration>, Failure>, tokio::task::JoinError>;

/// All subjects in each round, one after the other.
fn rounds_of(
    rounds: usize,
    proxies: &Runtime,
    addrs: [SocketAddr; 3],
    measure: impl Fn(SocketAddr) -> Measured,
) -> Result<Samples, Failure> {
    let mut samples = Samples::new();
    for _ in 0..rounds {
        for (subject, addr) in SUBJECTS.into_iter().zip(addrs) {
            let (cpu, begun) = (cpu_of(proxies.handle()), Instant::now());
            let mut times = measure(addr)??;
            let (took, cpu) = (begun.elapsed(), cpu.zip(cpu_of(proxies.handle())));
            let cpu =
                cpu.filter(|_| subject != "direct").map(|(before, after)| (after - before) / count(&times));
            times.sort_unstable();
            let sample = Sample {
                per_second: count(&times) / took.as_secs_f64(),
                p50: micros(times[times.len() / 2]),
                p99: micros(times[times.len() * 99 / 100]),
                cpu,
            };
            samples.entry(subject).or_default().push(sample);
        }
    }
    Ok(samples)
}

fn print_table(title: &str, samples: &Samples) {
    println!("\n{title}: medians, ranges in brackets");
    println!(
        "{:<18} {:>26} {:>24} {:>26} {:>9} {:>9} {:>9}",
        "", "requests/s", "p50 µs", "p99 µs", "+p50 µs", "+p99 µs", "CPU µs"
    );
    let direct = &samples["direct"];
    for subject in SUBJECTS {
        let of = &samples[subject];
        let cell = |value: fn(&Sample) -> f64| {
            let all = of.iter().map(value);
            let (low, high) =
                all.fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
            format!("{:.0} ({low:.0}-{high:.0})", median(of, value))
        };
        let added = |value: fn(&Sample) -> f64| format!("{:.0}", median(of, value) - median(direct, value));
        let cpu = match of[0].cpu {
            Some(_) => format!("{:.1}", median(of, |sample| sample.cpu.unwrap_or_default())),
            None => "-".to_owned(),
        };
        println!(
            "{subject:<18} {:>26} {:>24} {:>26} {:>9} {:>9} {cpu:>9}",
            cell(|sample| sample.per_second),
            cell(|sample| sample.p50),
            cell(|sample| sample.p99),
            added(|sample| sample.p50),
            added(|sample| sample.p99),
        );
    }
    let rate = |subject: &str| median(&samples[subject], |sample| sample.per_second);
    println!(
        "gateway / featureless proxy: {:.2} of the requests/s",
        rate("gateway") / rate("featureless proxy")
    );
}

fn median(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "a benchmark makes fewer than 2^53 requests")]
fn count(times: &[Duration]) -> f64 {
    times.len() as f64
}

/// CPU time, in microseconds, of the one worker of a runtime. Linux tells nanoseconds as the first word of a file.
fn cpu_of(runtime: &Handle) -> Option<f64> {
    let read = async { std::fs::read_to_string("/proc/thread-self/schedstat") };
    let text = runtime.block_on(runtime.spawn(read)).ok()?.ok()?;
    let nanos: f64 = text.split(' ').next()?.parse().ok()?;
    Some(nanos / 1000.0)
}

/// An upstream that is faster than any proxy: it answers each head with the same bytes.
async fn start_upstream() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {BODY}\r\n\r\n");
    let answer: Arc<[u8]> = [head.as_bytes(), &[b'x'; BODY]].concat().into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream, Arc::clone(&answer)));
        }
    });
    Ok(addr)
}

async fn answer_all(mut stream: TcpStream, answer: Arc<[u8]>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(4096);
    while stream.read_buf(&mut read).await? > 0 {
        // One request at a time: none of the subjects pipelines.
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            stream.write_all(&answer).await?;
        }
    }
    Ok(())
}

/// A proxy that does nothing but forward, with hyper's own pooled client.
async fn start_featureless(upstream: SocketAddr) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if stream.set_nodelay(true).is_ok() {
                tokio::spawn(forward_all(stream, client.clone(), upstream));
            }
        }
    });
    Ok(addr)
}

async fn forward_all(stream: TcpStream, client: Client<HttpConnector, Incoming>, upstream: SocketAddr) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let client = client.clone();
        async move {
            let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
            let uri: Result<Uri, _> = format!("http://{upstream}{target}").parse();
            let answer = match uri {
                Ok(uri) => {
                    *request.uri_mut() = uri;
                    client.request(request).await.ok()
                }
                Err(_) => None,
            };
            Ok::<_, Infallible>(answer.map_or_else(bad_gateway, |answer| answer.map(Either::Left)))
        }
    });
    // A connection that ends badly shows as an error of the load.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

fn bad_gateway() -> Response<Either<Incoming, Empty<Bytes>>> {
    let mut response = Response::new(Either::Right(Empty::new()));
    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
    response
}

async fn start_gateway(upstream: SocketAddr) -> Result<Gateway, Failure> {
    let profile = Profile::builtin("generic").ok_or("the profile is not built in")?;
    let url = format!("http://{upstream}");
    let config = GatewayConfig::new(UpstreamConfig::new(Arc::new(profile), url.clone(), url));
    let data = TcpListener::bind("127.0.0.1:0").await?;
    let admin = TcpListener::bind("127.0.0.1:0").await?;
    Ok(tidegate_gateway::start(config, Vec::new(), data, admin)?)
}

/// One connection of the load.
struct Line {
    stream: TcpStream,
    /// Each line asks for something else, else the gateway would share calls.
    request: Vec<u8>,
    read: Vec<u8>,
}

impl Line {
    async fn open(addr: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let user = stream.local_addr()?.port();
        let head = "Host: localhost\r\nAccept: application/json";
        let request = format!("GET /api/v2/users/{user} HTTP/1.1\r\n{head}\r\n\r\n").into_bytes();
        Ok(Self { stream, request, read: Vec::with_capacity(8192) })
    }

    /// One request and its whole answer.
    async fn exchange(&mut self) -> Result<(), Failure> {
        self.stream.write_all(&self.request).await?;
        self.read.clear();
        loop {
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err("the connection was closed".into());
            }
            let head = self.read.windows(4).position(|window| window == b"\r\n\r\n");
            if head.is_some_and(|head| self.read.len() >= head + 4 + BODY) {
                break;
            }
        }
        if self.read.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err("an answer was not 200".into()) }
    }
}

/// Each connection sends its next request when it has its answer.
async fn closed_loop(addr: SocketAddr, time: Duration) -> Result<Vec<Duration>, Failure> {
    let end = Instant::now() + time;
    let lines = (0..CONNECTIONS).map(|_| {
        tokio::spawn(async move {
            let mut line = Line::open(addr).await?;
            let mut times = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                line.exchange().await?;
                times.push(begun.elapsed());
            }
            Ok::<_, Failure>(times)
        })
    });
    joined(lines.collect()).await
}

/// Requests leave on a schedule, whatever became of those before.
async fn open_loop(addr: SocketAddr, rate: f64) -> Result<Vec<Duration>, Failure> {
    let (mut schedule, mut lines) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let (due, mut dues) = mpsc::unbounded_channel::<Instant>();
        schedule.push(due);
        let mut line = Line::open(addr).await?;
        lines.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while let Some(due) = dues.recv().await {
                line.exchange().await?;
                times.push(due.elapsed());
            }
            Ok::<_, Failure>(times)
        }));
    }
    let begun = Instant::now();
    let mut next = begun;
    for due in schedule.iter().cycle() {
        // A timer's millisecond would be coarser than what is measured.
        while Instant::now() < next {
            tokio::task::yield_now().await;
        }
        if next >= begun + ROUND || due.send(next).is_err() {
            break;
        }
        next += Duration::from_secs_f64(1.0 / rate);
    }
    drop(schedule);
    joined(lines).await
}

type Load = tokio::task::JoinHandle<Result<Vec<Duration>, Failure>>;

async fn joined(lines: Vec<Load>) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    for line in lines {
        times.extend(line.await??);
    }
    Ok(times)
}
