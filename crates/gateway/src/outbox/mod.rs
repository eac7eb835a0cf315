//! The outbox: writes that their callers do not wait for (RFC 7240, `Prefer: respond-async`), and events for webhooks.
//!
//! What was accepted is on disk before its caller is told 202; from then on the gateway owes it, over restarts and crashes.
//! [`tidegate_core::outbox`] decides what is due and what a failure means; [`tidegate_store::outbox`] writes down the intent
//! before each send and the outcome after it; here is what moves between them.
//!
//! | module | does |
//! | --- | --- |
//! | [`prefer`] | reads what a caller prefers |
//! | [`accept`] | takes writes in, or says why not; keeps places for writes whose callers wait |
//! | [`run`] | sends what is due, and notes how that ended |
//! | [`write`](mod@write) | one write on its way |
//! | [`sink`] | tells events to others, as signed webhooks |
//! | [`status`] | what a caller is told of its own |
//! | [`operate`] | what an operator sees and does |
//!
//! One lock guards the machine; it is held for a few lines and never over a wait.

mod accept;
mod operate;
pub(crate) mod prefer;
mod run;
mod sink;
mod status;
mod write;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate::clock::Clock;
use tidegate::transport::Transport;
use tidegate_core::idempotency::{BodyDigest, digest};
use tidegate_core::outbox::{self as machine, Bounds, New, Seq, State, Waits};
use tidegate_core::time::{Mono, Wall};
use tidegate_store::outbox::{Head, OutboxError, OutboxFile};
use tidegate_telemetry::Metrics;
use tokio::sync::watch;

pub(crate) use self::accept::{Asked, SeatHeld};
pub(crate) use self::operate::OutboxBody;
pub use self::operate::latch_of;
use self::sink::Events;
pub(crate) use self::sink::Sinks;
pub use self::sink::{SinkConfig, SinkSecret, sink_url};
pub(crate) use self::status::id_in;
use crate::caller::Caller;
use crate::once::later::Later;
use crate::tenants::Tenants;

/// Locks of keys: so many keyed writes share a flush of the disk.
const LOCKS: usize = 64;

/// How long a connection to a sink may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Where the outbox is and what it holds.
#[derive(Clone, Debug)]
pub struct OutboxConfig {
    /// Its file.
    pub path: PathBuf,
    /// What it holds at most, and for how long.
    pub bounds: Bounds,
    /// Where events are told.
    pub sinks: Vec<SinkConfig>,
}

/// The outbox of a gateway.
#[derive(Debug)]
pub(crate) struct Outbox {
    file: OutboxFile,
    machine: Mutex<machine::Outbox>,
    /// Counts changes, for those who wait for one.
    changed: watch::Sender<u64>,
    next: AtomicU64,
    /// Held while a key is looked up and taken: two that come at once are one write. One for many keys.
    keys: Box<[tokio::sync::Mutex<()>]>,
    /// Writes on their way.
    under_way: Mutex<HashMap<Seq, Later>>,
    stopping: watch::Sender<bool>,
    tenants: Arc<Tenants>,
    callers: Vec<Arc<Caller>>,
    clock: Clock,
    /// What was under way before this had ended by then.
    opened: Wall,
    bounds: Bounds,
    waits: Waits,
    event_waits: Waits,
    max_wait: Duration,
    sinks: Arc<Sinks>,
    /// By which they are told.
    transport: Transport,
    /// Events to be written down; taken by the task that does so.
    events: Mutex<Option<Events>>,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// Opens it with all that an earlier process left. To be called outside of the runtime's own threads, or before they are busy:
    /// it reads the file.
    ///
    /// # Errors
    /// What the disk said.
    pub(crate) fn open(
        config: &OutboxConfig,
        tenants: Arc<Tenants>,
        callers: Vec<Arc<Caller>>,
        metrics: Arc<Metrics>,
        max_wait: Duration,
        (sinks, events): (Arc<Sinks>, Events),
    ) -> Result<Arc<Self>, OutboxError> {
        let OutboxConfig { path, bounds, .. } = config;
        let file = OutboxFile::open(path)?;
        let clock = Clock::start();
        let mut machine = machine::Outbox::new(*bounds, clock.seed());
        let (wall, now) = (clock.wall(), clock.now());
        // It is asked on a thread of its own, because this one may belong to the runtime.
        let heads = std::thread::scope(|scope| scope.spawn(|| file.heads_blocking()).join());
        let heads = heads.expect("reading the entries does not panic")?;
        for head in heads {
            restore(&mut machine, head, wall, now);
        }
        let next = AtomicU64::new(file.last() + 1);
        Ok(Arc::new(Self {
            file,
            machine: Mutex::new(machine),
            changed: watch::Sender::new(0),
            next,
            keys: (0..LOCKS).map(|_| tokio::sync::Mutex::default()).collect(),
            under_way: Mutex::default(),
            stopping: watch::Sender::new(false),
            tenants,
            callers,
            clock,
            opened: wall,
            bounds: *bounds,
            waits: Waits::of_writes(),
            event_waits: Waits::of_webhooks(),
            max_wait,
            sinks,
            transport: Transport::new(clock, CONNECT),
            events: Mutex::new(Some(events)),
            metrics,
        }))
    }

    /// The lock of a key.
    fn lock_of(&self, key: &str) -> &tokio::sync::Mutex<()> {
        &self.keys[usize::from(BodyDigest::raw(key.as_bytes()).as_bytes()[0]) % LOCKS]
    }

    /// Tells everybody who waits that something has changed.
    fn changed(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The name of an entry: its number, and what only this file can make of it and its owner. So nobody else's can be guessed,
    /// and one that is gone is known to have been there.
    fn id(&self, seq: Seq, tenant: &str, owner: &str) -> String {
        let number = seq.to_be_bytes();
        let parts = [self.file.secret().as_slice(), &number, tenant.as_bytes(), owner.as_bytes()];
        let proof = digest("tidegate outbox entry 1", &parts);
        let proof = proof.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes));
        format!("{seq:016x}{proof:032x}")
    }

    /// The number in the name of an entry of this owner.
    fn seq_of(&self, id: &str, tenant: &str, owner: &str) -> Option<Seq> {
        use subtle::ConstantTimeEq as _;
        let seq = Seq::from_str_radix(id.get(..16)?, 16).ok()?;
        let right = self.id(seq, tenant, owner);
        bool::from(right.as_bytes().ct_eq(id.as_bytes())).then_some(seq)
    }

    /// Waits until an entry is over, or gone; false if it is not by `until`.
    async fn over(&self, seq: Seq, until: Mono) -> bool {
        let mut changed = self.changed.subscribe();
        let is_over = || {
            let state = self.machine.lock().state(seq);
            !matches!(state, Some(State::Waiting(_) | State::Sending))
        };
        let waiting = async {
            while !is_over() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout_at(self.clock.instant(until), waiting).await.is_ok()
    }
}

/// Takes in what an earlier process left.
fn restore(machine: &mut machine::Outbox, head: Head, wall: Wall, now: Mono) {
    let Some(state) = head.state(wall, now) else {
        tracing::warn!(target: "tidegate", "the outbox holds an entry in a state of another version: {}", head.id);
        return;
    };
    let new = New {
        seq: head.seq,
        group: head.group.into(),
        lines: vec![head.line.into()],
        marks: head.mark.into_iter().map(Arc::from).collect(),
        bytes: head.bytes,
        deadline: head.deadline.map(|deadline| now + deadline.since(wall).unwrap_or_default()),
        since: now.back(wall.since(head.since).unwrap_or_default()),
    };
    machine.restore(new, state, head.course.failed, head.course.doubtful);
}

/// Whose entries are counted together.
fn group_of(tenant: &str) -> String {
    format!("tenant {tenant}")
}
