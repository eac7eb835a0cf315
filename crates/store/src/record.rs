//! What is stored: the run's header, its items, their outcomes, and counts.

use std::fmt;

use tidegate_core::time::Wall;
use uuid::Uuid;

use crate::state::{Event, State};

/// A SHA-256 digest, shown as hexadecimal.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a run is: fixed when the journal is created, so that a resume can check that it continues the same thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunHeader {
    /// The recipe's name.
    pub recipe: String,
    /// Digest of the recipe's text.
    pub recipe_digest: Digest,
    /// The input file as the user named it.
    pub input_name: String,
    /// Digest of the input's bytes.
    pub input_digest: Digest,
    /// The tenant written to.
    pub tenant: String,
    /// The profile in force.
    pub profile: String,
    /// Options of the run as JSON text; the journal keeps them and does not read them.
    pub options: String,
    /// When the journal was created.
    pub created: Wall,
}

/// A run as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it is.
    pub header: RunHeader,
    /// When planning was complete; `None` if it was interrupted, and then nothing was or may be sent.
    pub planned: Option<Wall>,
    /// When it was cancelled.
    pub cancelled: Option<Wall>,
    /// How many items it has.
    pub items: u64,
}

/// A planned request, not yet stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewItem {
    /// Place in the run; unique. The planner uses the input line of the item's first row.
    pub seq: u64,
    /// The item's name in reports, such as the user id whose rows it merges.
    pub id: String,
    /// HTTP method.
    pub method: String,
    /// Path and query, percent-encoded.
    pub target: String,
    /// Request body, if any.
    pub body: Option<Vec<u8>>,
    /// Idempotency key: the same on every attempt and after every restart.
    pub key: Uuid,
    /// Names the logical write across attempts, processes and restarts.
    pub transaction: Uuid,
    /// Input lines merged into this item.
    pub lines: Vec<u64>,
}

/// What one call ended with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Attempts this call made; added to those of earlier calls.
    pub attempts: u32,
    /// The last status seen.
    pub http_status: Option<u16>,
    /// Why it did not succeed, for a person.
    pub error: Option<String>,
}

/// Something that happened to an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which item.
    pub seq: u64,
    /// What happened.
    pub event: Event,
    /// The particulars.
    pub outcome: Outcome,
}

/// An item with where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The request, with the body and key in force.
    pub request: NewItem,
    /// How often its body was amended; 0 is the body that was planned.
    pub rev: u32,
    /// Where it stands.
    pub state: State,
    /// Attempts over all calls.
    pub attempts: u32,
    /// The last status seen.
    pub http_status: Option<u16>,
    /// Why it did not succeed.
    pub error: Option<String>,
    /// When its first sending was intended; the age of a possible execution counts from here.
    pub first_sent: Option<Wall>,
    /// When its state last changed.
    pub updated: Option<Wall>,
}

/// An item that a run still has to deal with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The item.
    pub item: Item,
    /// An earlier sending of it has no outcome, so it may already have been executed. Not so where the upstream
    /// accepted it as a job: then that is its outcome so far.
    pub maybe_executed: bool,
    /// The job that the upstream made of it.
    pub job: Option<Job>,
}

/// A job of the upstream, as it was last known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The upstream's name of it.
    pub id: String,
    /// Its state in the upstream's words.
    pub state: String,
    /// How far this side is with it.
    pub step: Step,
    /// Where the next page of results begins, if some were read.
    pub cursor: Option<String>,
    /// Results read so far.
    pub fetched: u64,
    /// Length of the file of results after the latest page.
    pub bytes: u64,
    /// Polls that were written down: those that saw another state than the one before.
    pub polls: u32,
    /// When it was accepted.
    pub submitted: Wall,
    /// The latest poll that was written down.
    pub polled: Option<Wall>,
}

/// The upstream's acceptance of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The upstream's name of the job.
    pub job: String,
    /// Its first state, in the upstream's words.
    pub state: String,
    /// What is next: [`Step::Polling`], or [`Step::Fetched`] where the answer held all results.
    pub step: Step,
    /// The status of the answer.
    pub http_status: Option<u16>,
    /// Attempts the submission took.
    pub attempts: u32,
    /// The item's rows, where the upstream tells them apart.
    pub parts: Vec<Part>,
}

/// How far this side is with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// It is polled.
    Polling,
    /// It was told to start, and is polled.
    Started,
    /// The upstream has ended it; its results are being read.
    Fetching,
    /// All results are read.
    Fetched,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 4] = [Self::Polling, Self::Started, Self::Fetching, Self::Fetched];

    /// The name the journal stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::Started => "started",
            Self::Fetching => "fetching",
            Self::Fetched => "fetched",
        }
    }

    /// The step of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }
}

/// What is known of one row of an item whose upstream tells each row's outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Its place in the item, from 0.
    pub ord: u32,
    /// Its name in reports.
    pub id: String,
    /// Its line in the input, where that is known.
    pub line: Option<u64>,
    /// How often it was sent again because the upstream asked for that.
    pub round: u32,
    /// Where it stands; `None` while the upstream has not told.
    pub state: Option<PartState>,
    /// The status the upstream told for it.
    pub http_status: Option<u16>,
    /// Why it did not succeed.
    pub error: Option<String>,
}

/// Where a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartState {
    /// Applied.
    Ok,
    /// Refused.
    Failed,
    /// Refused for now: the upstream says that it may be sent again.
    Retry,
    /// It was sent again: its outcome is that of a later item.
    Followed,
    /// Nobody knows.
    Unknown,
}

impl PartState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Failed, Self::Retry, Self::Followed, Self::Unknown];

    /// The name the journal stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Retry => "retry",
            Self::Followed => "followed",
            Self::Unknown => "unknown",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What a page of results changes; written in one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Where the next page begins; `None` after the last one.
    pub cursor: Option<String>,
    /// Results on it.
    pub results: u64,
    /// What they say about the item's parts.
    pub parts: Vec<Part>,
    /// Length of the file of results with this page in it.
    pub bytes: u64,
}

/// An item's line in a report: everything but the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemResult {
    /// Place in the run.
    pub seq: u64,
    /// The item's name.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// The last status seen.
    pub http_status: Option<u16>,
    /// Attempts over all calls.
    pub attempts: u32,
    /// Idempotency key.
    pub key: Uuid,
    /// Why it did not succeed.
    pub error: Option<String>,
    /// Input lines merged into it, ascending.
    pub lines: Vec<u64>,
    /// How many parts it has whose outcomes are known apart; see [`Reader::parts`](crate::Reader::parts).
    pub parts: u32,
}

/// How many parts stand where; parts that were sent again count where they were sent last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartCounts {
    /// Applied.
    pub ok: u64,
    /// Refused.
    pub failed: u64,
    /// Nobody knows.
    pub unknown: u64,
    /// Not told yet, or to be sent again.
    pub open: u64,
}

impl PartCounts {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.ok + self.failed + self.unknown + self.open
    }
}

/// How many items stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not sent.
    pub planned: u64,
    /// Sent without an outcome yet, resent ones included.
    pub sent: u64,
    /// Confirmed.
    pub ok: u64,
    /// Refused.
    pub failed: u64,
    /// Outcome unknown.
    pub unknown: u64,
    /// Cancelled before sending.
    pub cancelled: u64,
}

impl Counts {
    /// All items.
    pub const fn total(&self) -> u64 {
        self.planned + self.sent + self.ok + self.failed + self.unknown + self.cancelled
    }

    /// Items a run still has to deal with.
    pub const fn pending(&self) -> u64 {
        self.planned + self.sent
    }

    /// The count `state` belongs to.
    pub(crate) fn slot(&mut self, state: State) -> &mut u64 {
        match state {
            State::Planned => &mut self.planned,
            State::Sent | State::Resent => &mut self.sent,
            State::Ok => &mut self.ok,
            State::Failed => &mut self.failed,
            State::Unknown => &mut self.unknown,
            State::Cancelled => &mut self.cancelled,
        }
    }
}
