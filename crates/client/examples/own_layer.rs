//! A layer of one's own in the stack, and an observer.
//!
//! The layer sits between the token and the wire: what reaches it has waited for quota and is about to leave. Here
//! it adds a header and notes every attempt in an audit trail; an attempt it answers with
//! [`AttemptError::Stopped`] is not sent, and its quota is given back.
//!
//! ```sh
//! cargo run -p tidegate --example own_layer
//! ```

#![allow(clippy::print_stdout, reason = "printing is what this example does")]

#[path = "shared/mod.rs"]
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::{HeaderValue, Method};
use parking_lot::Mutex;
use tidegate::Client;
use tidegate::body::BoxError;
use tidegate::layer::{Answered, Around, Attempt, AttemptError, AttemptService, around};
use tidegate::observe::{AttemptDone, Observer};

/// A trail has its bound too.
const MAX_LINES: usize = 1000;

/// What left, in order.
#[derive(Clone, Default)]
pub(crate) struct Trail(Arc<Mutex<Vec<String>>>);

impl Trail {
    /// Whatever has to be durable before the first byte leaves goes here.
    fn note(&self, attempt: &Attempt) -> Result<(), AttemptError> {
        let request = &attempt.request;
        let mut lines = self.0.lock();
        if lines.len() == MAX_LINES {
            return Err(AttemptError::Stopped("the trail is full".into()));
        }
        lines.push(format!("{} {} (attempt {})", request.method(), request.uri().path(), attempt.number()));
        Ok(())
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

/// Notes every attempt before it leaves.
#[derive(Clone)]
struct Audit(Trail);

impl<S: AttemptService> Around<S, Attempt> for Audit {
    type Below = Attempt;

    async fn handle(self, mut below: S, mut attempt: Attempt) -> Result<Answered, AttemptError> {
        attempt.request.headers_mut().insert("x-audit", HeaderValue::from_static("winter-campaign"));
        self.0.note(&attempt)?;
        below.call(attempt).await
    }
}

/// Counts what the upstream answered.
#[derive(Default)]
pub(crate) struct Counter {
    pub(crate) answers: AtomicU32,
    pub(crate) throttles: AtomicU32,
}

impl Observer for Counter {
    fn attempt(&self, attempt: &AttemptDone<'_>) {
        let counter = if attempt.status == Some(429) { &self.throttles } else { &self.answers };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (trail, counter) = run().await?;
    for line in trail.lines() {
        println!("{line}");
    }
    let (answers, throttles) =
        (counter.answers.load(Ordering::Relaxed), counter.throttles.load(Ordering::Relaxed));
    println!("{answers} answers, {throttles} throttles");
    Ok(())
}

/// Makes two calls, of which the first is throttled once; what was noted and counted.
pub(crate) async fn run() -> Result<(Trail, Arc<Counter>), BoxError> {
    let api = shared::Api::from_env_or_simulated("[faults]\nscript = [\"throttle\"]").await?;
    let counter = Arc::new(Counter::default());
    let plain = api.client().observer(Arc::clone(&counter) as Arc<dyn Observer>).build()?;
    let trail = Trail::default();
    let client = Client::with_layer(Arc::clone(plain.upstream()), around(Audit(trail.clone())));

    client.get("/api/v2/users?pageSize=1").send().await?;
    let user = "/api/v2/users/00000000-0000-4000-8000-000000000001/routingskills/bulk";
    let skills = r#"[{"id":"10000000-0000-4000-8000-000000000002","proficiency":5}]"#;
    client.request(Method::PATCH, user).json(skills).send().await?;
    api.finish().await;
    Ok((trail, counter))
}
