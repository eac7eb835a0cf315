//! The retry client most programs have, imitated honestly.
//!
//! It is the loop of a hundred forum answers: forty workers take row after row, send one PATCH for each, and look at
//! what comes back. 429: sleep for `Retry-After`, or for 2^n seconds if there is none. 401: log in and go on. No answer:
//! send it again. After five tries the row is given up. It obeys `Retry-After` to the letter and its workers share the
//! newest token, so it is a good one of its kind; what it lacks is what a loop around one request cannot have: a view of
//! the quota, a token renewed before it dies, and a name by which the server could recognise a write it has already done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request};
use parking_lot::Mutex;
use secrecy::SecretString;
use tidegate::clock::Clock;
use tidegate::token::{ClientCredentials, TokenEndpoint};
use tidegate::transport::{SendOptions, Transport, Wire};
use tidegate::{Profile, RequestBody};
use tokio::task::JoinSet;

use super::world::{CLIENT_ID, CLIENT_SECRET, Row};
use crate::failure::Failure;
use crate::progress::Sample;

/// Rows in hand at once.
const WORKERS: usize = 40;

/// Tries per row.
const TRIES: u32 = 5;

/// The time-out common HTTP libraries have, or are given.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Answers are read to their end, so that connections are used again; none is longer than this.
const MAX_ANSWER: usize = 64 * 1024;

/// What the client itself sees.
#[derive(Debug, Default)]
pub(super) struct Tally {
    ended: AtomicU64,
    throttled: AtomicU64,
    unauthorized: AtomicU64,
    unanswered: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    /// Answers of 429.
    pub(super) fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Rows given up.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// For the progress line.
    pub(super) fn sample(&self) -> Sample {
        Sample {
            ended: self.ended.load(Ordering::Relaxed),
            notes: vec![
                (self.throttled(), "times 429"),
                (self.unauthorized.load(Ordering::Relaxed), "times 401"),
                (self.unanswered.load(Ordering::Relaxed), "cut off"),
                (self.lost(), "lost"),
            ],
            held: None,
        }
    }

    fn note(&self, seen: Seen) {
        let count = match seen {
            Seen::Answer { status: 429, .. } => &self.throttled,
            Seen::Answer { status: 401, .. } => &self.unauthorized,
            Seen::Nothing => &self.unanswered,
            Seen::Answer { .. } => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a try brought.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    Answer { status: u16, retry_after: Option<Duration> },
    Nothing,
}

/// What the loop does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Done,
    GiveUp,
    Again,
    AgainAfter(Duration),
    AgainWithNewToken,
}

/// The whole policy. `tried` counts from 1.
fn next(tried: u32, seen: Seen) -> Next {
    let doubled = Duration::from_secs(1 << tried.saturating_sub(1).min(6));
    match seen {
        Seen::Answer { status: 200..300, .. } => Next::Done,
        _ if tried >= TRIES => Next::GiveUp,
        Seen::Answer { status: 429, retry_after } => Next::AgainAfter(retry_after.unwrap_or(doubled)),
        Seen::Answer { status: 401, .. } => Next::AgainWithNewToken,
        Seen::Answer { status: 500.., .. } => Next::AgainAfter(doubled),
        Seen::Answer { .. } => Next::GiveUp,
        Seen::Nothing => Next::Again,
    }
}

/// What all workers share: the job, the connections, and the token that was fetched last.
struct Shop {
    base: String,
    rows: Vec<Row>,
    taken: AtomicUsize,
    transport: Transport,
    login: TokenEndpoint,
    credentials: ClientCredentials,
    token: Mutex<HeaderValue>,
    tally: Arc<Tally>,
}

/// Applies `rows` at the API at `base`.
pub(super) async fn apply(
    base: &str,
    profile: &Arc<Profile>,
    rows: Vec<Row>,
    tally: Arc<Tally>,
) -> Result<(), Failure> {
    let clock = Clock::start();
    let transport = Transport::new(clock, TIMEOUT);
    let token_uri = format!("{base}/oauth/token").parse().map_err(Failure::internal)?;
    let login = TokenEndpoint::new(token_uri, Arc::new(transport.clone()), Arc::clone(profile), clock);
    let credentials = ClientCredentials::new(CLIENT_ID, &SecretString::from(CLIENT_SECRET));
    let first = login.fetch(&credentials).await.map_err(Failure::internal)?;
    let shop = Arc::new(Shop {
        base: base.to_owned(),
        rows,
        taken: AtomicUsize::new(0),
        transport,
        login,
        credentials,
        token: Mutex::new(first.bearer),
        tally,
    });
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let shop = Arc::clone(&shop);
        workers.spawn(async move { shop.work().await });
    }
    while let Some(ended) = workers.join_next().await {
        ended.map_err(Failure::internal)?;
    }
    Ok(())
}

impl Shop {
    async fn work(&self) {
        while let Some(row) = self.rows.get(self.taken.fetch_add(1, Ordering::Relaxed)) {
            if !self.patch(row).await {
                self.tally.lost.fetch_add(1, Ordering::Relaxed);
            }
            self.tally.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the row was confirmed.
    async fn patch(&self, row: &Row) -> bool {
        let mut tried = 0;
        loop {
            let seen = self.send(row).await;
            self.tally.note(seen);
            tried += 1;
            match next(tried, seen) {
                Next::Done => return true,
                Next::GiveUp => return false,
                Next::Again => {}
                Next::AgainAfter(wait) => tokio::time::sleep(wait).await,
                Next::AgainWithNewToken => self.log_in().await,
            }
        }
    }

    /// Logs in without asking whether another worker is just doing so; a login that fails is noticed by the next 401.
    async fn log_in(&self) {
        if let Ok(grant) = self.login.fetch(&self.credentials).await {
            *self.token.lock() = grant.bearer;
        }
    }

    async fn send(&self, row: &Row) -> Seen {
        let body = serde_json::json!([{ "id": row.skill, "proficiency": row.proficiency }]).to_string();
        let mut request = Request::new(RequestBody::from(body));
        *request.method_mut() = Method::PATCH;
        let Ok(uri) = format!("{}/api/v2/users/{}/routingskills/bulk", self.base, row.user).parse() else {
            return Seen::Answer { status: 400, retry_after: None };
        };
        *request.uri_mut() = uri;
        request.headers_mut().insert(AUTHORIZATION, self.token.lock().clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let options = SendOptions { timeout: TIMEOUT, careful: false };
        let Ok(response) = self.transport.send(request, options).await else { return Seen::Nothing };
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let seen = Seen::Answer { status: response.status().as_u16(), retry_after };
        match response.into_body().bytes(MAX_ANSWER).await {
            Ok(_) => seen,
            Err(_) => Seen::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> Seen {
        Seen::Answer { status, retry_after: None }
    }

    #[test]
    fn retry_after_is_obeyed_and_otherwise_the_wait_doubles() {
        let told = Seen::Answer { status: 429, retry_after: Some(Duration::from_secs(4)) };
        assert_eq!(next(1, told), Next::AgainAfter(Duration::from_secs(4)));
        let waits = [1, 2, 3, 4].map(|tried| next(tried, answer(429)));
        assert_eq!(waits, [1, 2, 4, 8].map(|wait| Next::AgainAfter(Duration::from_secs(wait))));
    }

    #[test]
    fn a_dead_token_is_replaced_and_a_lost_answer_resent() {
        assert_eq!(next(1, answer(401)), Next::AgainWithNewToken);
        assert_eq!(next(1, Seen::Nothing), Next::Again);
        assert_eq!(next(1, answer(204)), Next::Done);
    }

    #[test]
    fn the_fifth_try_is_the_last_and_a_refusal_is_final() {
        for seen in [answer(429), answer(401), answer(503), Seen::Nothing] {
            assert_eq!(next(TRIES, seen), Next::GiveUp, "{seen:?}");
        }
        assert_eq!(next(TRIES, answer(200)), Next::Done);
        assert_eq!(next(1, answer(404)), Next::GiveUp);
    }
}
