//! The record of a run on sockets: kept by the callers, by the wire, and by the server's witness.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tidegate_core::pace::Class;
use tidegate_core::time::Mono;
use tidegate_sim::model::route::Caller;
use tidegate_sim::model::world::TOKEN_PATH;
use tidegate_sim::wire::message::ApiRequest;
use tidegate_sim::{Stats, Witness};
use tokio::time::Instant;

use super::Progress;
use super::far::CALLER;
use crate::call::End;
use crate::headline::{Headline, Share};
use crate::measure::{Outcome, Summary};
use crate::outage::outages;
use crate::plan::Plan;
use crate::strategy::StrategyName;
use crate::tape::Tape;

/// A call that has not ended.
#[derive(Debug)]
struct Open {
    load: usize,
    is_job: bool,
    class: Class,
    begun: Duration,
    /// When its latest attempt left.
    left: Option<Duration>,
    deadline: Option<Mono>,
}

/// See the module. Times count from the server's start.
#[derive(Debug)]
pub(super) struct Book {
    start: Instant,
    wall: Duration,
    /// When the last brown-out ends.
    recovers: Option<Duration>,
    progress: Arc<Progress>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Taken when the book is closed; what comes afterwards is not written down.
    outcome: Option<Outcome>,
    open: HashMap<u64, Open>,
    serial: u64,
    /// What calls inside the server took from the headline limit.
    shares: HashMap<u64, Share>,
}

impl Book {
    /// An empty book; its clock starts now, with the server's.
    pub(super) fn new(plan: &Plan<'_>, name: StrategyName, progress: Arc<Progress>) -> Arc<Self> {
        let outcome = Outcome::new(name, Tape::new(Headline::of(plan)), plan.fleet().settle);
        Arc::new(Self {
            start: Instant::now(),
            wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            recovers: outages(&plan.server).iter().map(|outage| outage.to).max(),
            progress,
            state: Mutex::new(State {
                outcome: Some(outcome),
                open: HashMap::new(),
                serial: 0,
                shares: HashMap::new(),
            }),
        })
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The wall clock at the server's start, since the epoch.
    pub(super) fn wall(&self) -> Duration {
        self.wall
    }

    /// The runtime's instant for `at`, to sleep until it.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.start + at
    }

    /// A call begins. Returns its name.
    pub(super) fn begin(&self, load: usize, is_job: bool, class: Class, deadline: Option<Mono>) -> u64 {
        let begun = self.now();
        let mut state = self.state.lock();
        state.serial += 1;
        let serial = state.serial;
        state.open.insert(serial, Open { load, is_job, class, begun, left: None, deadline });
        if let Some(outcome) = &mut state.outcome {
            outcome.calls += 1;
        }
        serial
    }

    /// An attempt of a call leaves.
    pub(super) fn leave(&self, serial: u64) {
        let now = self.now();
        let mut state = self.state.lock();
        if let Some(open) = state.open.get_mut(&serial) {
            open.left = Some(now);
        }
        if let Some(outcome) = &mut state.outcome {
            outcome.attempts += 1;
        }
    }

    /// A call has ended.
    pub(super) fn end(&self, serial: u64, end: End) {
        let now = self.now();
        let mut state = self.state.lock();
        let State { outcome, open, .. } = &mut *state;
        if let (Some(outcome), Some(call)) = (outcome, open.remove(&serial)) {
            let summary = Summary {
                class: call.class,
                serial,
                wait: call.left.unwrap_or(call.begun).saturating_sub(call.begun),
                sent: call.left.is_some(),
                deadline: call.deadline,
            };
            outcome.ended(now, &summary, end, call.is_job);
            self.progress.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the record: `left` says of each load how many of its calls were never made.
    pub(super) fn close(
        &self,
        plan: &Plan<'_>,
        now: Duration,
        left: impl Iterator<Item = (usize, u64)>,
        judged: &Stats,
    ) -> Outcome {
        let mut state = self.state.lock();
        let mut outcome = state.outcome.take().expect("a book is closed once");
        let is_job = |load: usize| plan.load(load).is_job();
        for (load, count) in left {
            outcome.unfinished += count;
            outcome.job_left += if is_job(load) { count } else { 0 };
        }
        for call in state.open.values() {
            outcome.unfinished += 1;
            outcome.job_left += u64::from(is_job(call.load));
            outcome.late += u64::from(call.deadline.is_some_and(|deadline| deadline < Mono::ZERO + now));
        }
        outcome.ended_at = now;
        outcome.judge(judged);
        outcome
    }
}

/// Who called, as the wire wrote it down: the instance and its client.
fn caller(request: &ApiRequest) -> Option<Caller> {
    let (instance, credential) = request.header(CALLER.as_str())?.split_once(' ')?;
    Some(Caller::new(&format!("instance-{instance}"), credential, request.method.as_str(), &request.path))
}

impl Witness for Book {
    fn stranger(&self, at: Duration, caller: &Caller, admitted: bool) {
        if let Some(outcome) = &mut self.state.lock().outcome {
            outcome.tape.stranger(at, caller, admitted);
        }
    }

    fn decided(&self, at: Duration, id: u64, request: &ApiRequest, status: Option<u16>) {
        if request.path == TOKEN_PATH {
            return;
        }
        let mut state = self.state.lock();
        let State { outcome: Some(outcome), shares, .. } = &mut *state else { return };
        if let Some(caller) = caller(request)
            && !matches!(status, Some(401 | 503))
            && let Some(share) = outcome.tape.own(at, &caller, status == Some(429))
        {
            shares.insert(id, share);
        }
        if !matches!(status, None | Some(401 | 429 | 503)) {
            outcome.admitted(at, self.recovers);
        }
    }

    fn departed(&self, at: Duration, id: u64) {
        let mut state = self.state.lock();
        if let Some(share) = state.shares.remove(&id)
            && let Some(outcome) = &mut state.outcome
        {
            outcome.tape.freed(at, share);
        }
    }
}
