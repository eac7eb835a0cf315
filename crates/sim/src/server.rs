//! The shell: sockets around the pure world.
//!
//! One lock guards the world for the few microseconds of a decision; latencies are waited for outside it. Header names are written
//! in title case on HTTP/1.1, as the platform does and as at least one official SDK needs. A dropped call closes its
//! connection without an answer.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::config::SimConfig;
use crate::control::Simulation;
use crate::error::SimError;
use crate::model::fault::Faults;
use crate::model::ledger::{Stats, WriteBook};
use crate::model::org::changes::ChangeRecord;
use crate::model::push::faults::SocketFault;
use crate::model::world::{Decision, Reply};
use crate::wire::message::{ApiRequest, ApiResponse};
use crate::witness::Witness;
use crate::{hooks, sockets};

/// Connections served at once; more wait in the listen queue. Above what the tests open, below the usual descriptor limit.
const MAX_CONNECTIONS: usize = 4096;

/// How long a connection may be idle (or a client dawdle over its headers) before it is closed; a common value of load balancers.
const IDLE: Duration = Duration::from_mins(1);

/// How long a shutdown waits for calls in progress.
const GRACE: Duration = Duration::from_secs(2);

/// Bytes of a too large body that are read and thrown away, so that the client gets to read the 413.
const DISCARD: usize = 8 << 20;

pub(crate) type Shared = Arc<Mutex<Simulation>>;

/// A running simulator. Dropping it stops the server without grace.
#[derive(Debug)]
pub struct Sim {
    addr: SocketAddr,
    shared: Shared,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Sim {
    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL, such as `http://127.0.0.1:8790`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The judge's books, without the users' skills.
    pub fn stats(&self) -> Stats {
        self.shared.lock().stats(false)
    }

    /// The judge's books with every user's skills.
    pub fn stats_with_users(&self) -> Stats {
        self.shared.lock().stats(true)
    }

    /// Every write, with each of its attempts, in the order of first arrivals.
    pub fn writes(&self) -> Vec<WriteBook> {
        self.shared.lock().world.writes()
    }

    /// Time since the start or the last reset: the clock of [`Sim::changes`].
    pub fn now(&self) -> Duration {
        self.shared.lock().now()
    }

    /// Every change so far of what the GET of `path` shows, or of everything.
    pub fn changes(&self, path: Option<&str>) -> Vec<ChangeRecord> {
        self.shared.lock().changes(path)
    }

    /// For how long `version` of what the GET of `path` shows has not been the current one, as of `at` on [`Sim::now`]'s clock or
    /// else now; zero if it is.
    pub fn outdated(&self, path: &str, version: u64, at: Option<Duration>) -> Duration {
        self.shared.lock().outdated(path, version, at)
    }

    /// Changes now what the GET of `path` shows: to a value by name, or to the next one. What it shows then.
    pub fn change(&self, path: &str, to: Option<&str>) -> Result<serde_json::Value, SimError> {
        self.shared.lock().change(path, to)
    }

    /// Something happens to a topic now, although nothing changed.
    pub fn emit(&self, topic: &str, body: &serde_json::Value) {
        self.shared.lock().emit(topic, body);
    }

    /// Does something to all open sockets, or to that of one channel; to how many.
    pub fn act(&self, fault: SocketFault, channel: Option<&str>) -> u64 {
        self.shared.lock().act(fault, channel)
    }

    /// Starts again with the configuration given to [`serve`], overridden by the keys of a JSON object (or by nothing, if empty).
    /// Tokens, users, quotas and books start afresh; connections stay.
    pub fn reset(&self, overrides: &str) -> Result<(), SimError> {
        self.shared.lock().reset(overrides.as_bytes())
    }

    /// Replaces the faults; times in them count from now.
    pub fn set_faults(&self, faults: Faults) -> Result<(), SimError> {
        self.shared.lock().set_faults(faults)
    }

    /// Stops accepting, lets calls in progress finish for up to two seconds, closes the rest.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the simulator's accept loop ended badly");
        }
    }

    /// Serves until the accept loop ends, which it does only when the runtime stops; for a command that runs until it is interrupted.
    pub async fn wait(&mut self) {
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the simulator's accept loop ended badly");
        }
    }
}

/// Starts a simulator on `listener`. It serves until [`Sim::shutdown`], or until the handle is dropped.
pub async fn serve(listener: TcpListener, config: SimConfig) -> Result<Sim, SimError> {
    start(listener, config, None)
}

/// As [`serve`], in sight of `witness`.
pub async fn serve_before(
    listener: TcpListener,
    config: SimConfig,
    witness: Arc<dyn Witness>,
) -> Result<Sim, SimError> {
    start(listener, config, Some(witness))
}

fn start(
    listener: TcpListener,
    config: SimConfig,
    witness: Option<Arc<dyn Witness>>,
) -> Result<Sim, SimError> {
    config.validate()?;
    let addr = listener.local_addr()?;
    let shared = Arc::new(Mutex::new(Simulation::new(config, witness, &format!("ws://{addr}"))));
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(hooks::post(Arc::clone(&shared), stopped.clone()));
    let task = tokio::spawn(accept(listener, Arc::clone(&shared), stopped));
    Ok(Sim { addr, shared, stop, task })
}

/// Accepts until told to stop (or until the handle is gone), then drains.
async fn accept(listener: TcpListener, shared: Shared, mut stopped: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopped.changed() => break,
            accepted = accept_one(&listener, &places) => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Some((stream, place)) = accepted else { continue };
        let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
        connections.spawn(async move {
            connection(stream, shared, stopped).await;
            drop(place);
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, drained).await.is_err() {
        connections.abort_all();
    }
}

async fn accept_one(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            // Mostly "too many open files": waiting a little lets connections end.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn connection(stream: TcpStream, shared: Shared, mut stopped: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let stop = stopped.clone();
    let service = service_fn(move |request| answer(Arc::clone(&shared), request, stop.clone()));
    let connection = http1::Builder::new()
        .title_case_headers(true)
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Why a connection is closed without an answer.
#[derive(Debug)]
enum Closed {
    Simulated,
    Client(hyper::Error),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simulated => f.write_str("closed by a simulated fault"),
            Self::Client(error) => write!(f, "the request could not be read: {error}"),
        }
    }
}

impl std::error::Error for Closed {}

/// Takes a call out of the world when it ends in any way, also when its client hangs up.
struct Departure {
    shared: Shared,
    id: u64,
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.shared.lock().depart(self.id);
    }
}

async fn answer(
    shared: Shared,
    request: Request<Incoming>,
    stopped: watch::Receiver<bool>,
) -> Result<Response<Full<Bytes>>, Closed> {
    if let Some(channel) = sockets::wanted(&request).map(str::to_owned) {
        return Ok(sockets::open(shared, request, &channel, stopped));
    }
    let max_body = shared.lock().world.config().max_body;
    let request = read(request, max_body).await.map_err(Closed::Client)?;
    if let Some(response) = shared.lock().control(&request) {
        return Ok(render(response));
    }
    let arrival = shared.lock().world.arrive(&request);
    let departure = Departure { shared: Arc::clone(&shared), id: arrival.id };
    pause(arrival.wait).await;
    let Decision { reply, wait } = shared.lock().decide(arrival.id, &request);
    pause(wait).await;
    drop(departure);
    match reply {
        Reply::Answer(response) => Ok(render(response)),
        Reply::Close => Err(Closed::Simulated),
    }
}

/// Sleeps from `now` until `then`, both since the start; for ever if there is no such time.
pub(crate) async fn wake_after(now: Duration, then: Option<Duration>) {
    match then {
        Some(then) => tokio::time::sleep(then.saturating_sub(now)).await,
        None => std::future::pending().await,
    }
}

async fn pause(wait: Duration) {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

/// Reads a request, keeping at most `max_body` bytes of body.
async fn read(request: Request<Incoming>, max_body: usize) -> Result<ApiRequest, hyper::Error> {
    let (head, mut body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = ApiRequest::new(head.method, target);
    request.headers = head.headers;
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        size += data.len();
        if size <= max_body {
            request.body.extend_from_slice(&data);
        } else {
            request.too_large = true;
            request.body = Vec::new();
        }
        if size > max_body + DISCARD {
            break;
        }
    }
    Ok(request)
}

/// The answer for hyper. Everything in it was written by this crate and is valid; if not, that is a bug worth a 500.
fn render(response: ApiResponse) -> Response<Full<Bytes>> {
    let builder = response
        .headers
        .iter()
        .fold(Response::builder().status(response.status), |builder, (name, value)| {
            builder.header(name, value)
        });
    builder.body(Full::new(Bytes::from(response.body))).unwrap_or_else(|error| {
        tracing::error!(%error, "the simulator wrote an invalid header");
        let mut response = Response::new(Full::new(Bytes::from_static(b"invalid header")));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}
