//! What an outbox holds: an entry as it was accepted, and what became of it.

use tidegate_core::idempotency::BodyDigest;
use tidegate_core::outbox::{Seq, State, Why};
use tidegate_core::time::{Mono, Wall};

use crate::ledger::{Kept, Scope};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A write of a caller that does not wait for it.
    Write,
    /// An event for a webhook.
    Event,
}

impl Kind {
    /// Its name in the file and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Event => "event",
        }
    }
}

/// The caller's `Idempotency-Key`, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// Whose key it is.
    pub scope: Scope,
    /// The key.
    pub key: String,
    /// What is written.
    pub payload: BodyDigest,
}

/// An entry as it was accepted. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its number.
    pub seq: Seq,
    /// Its name in status URLs and for webhooks.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// The tenant it is for.
    pub tenant: String,
    /// Who put it there.
    pub owner: String,
    /// Whose entries are counted together: the tenant's, or the sink's.
    pub group: String,
    /// The line it stands in.
    pub line: String,
    /// The line of its target, where that is another.
    pub mark: Option<String>,
    /// Its caller's key.
    pub keyed: Option<Keyed>,
    /// Its method.
    pub method: String,
    /// Path and query; of an event: the sink.
    pub target: String,
    /// Its header fields as in [`Kept::headers`]. Never one that is a secret.
    pub headers: Vec<u8>,
    /// Its body.
    pub body: Vec<u8>,
    /// The class it is sent in.
    pub class: String,
    /// The name of the credential it is sent with.
    pub credential: String,
    /// The transaction that its key at the upstream is made of.
    pub transaction: String,
    /// After this it is not worth sending.
    pub deadline: Option<Wall>,
    /// When it was accepted.
    pub since: Wall,
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// Where it is in its life, by name: `waiting`, `sending`, `done` or `dead`.
    pub state: String,
    /// Why it is dead.
    pub why: Option<String>,
    /// An earlier sending may have been executed.
    pub doubtful: bool,
    /// Tries that failed.
    pub failed: u32,
    /// Attempts that left.
    pub attempts: u32,
    /// It is not sent before this.
    pub not_before: Wall,
    /// When it was first about to leave.
    pub first_sent: Option<Wall>,
    /// When its last sending had ended.
    pub ended: Option<Wall>,
    /// The key that the upstream was sent.
    pub sent_key: Option<String>,
    /// Its answer.
    pub answer: Option<Kept>,
}

/// An entry without what was sent and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub seq: Seq,
    /// Its name.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// The tenant it is for.
    pub tenant: String,
    /// Whose entries are counted together.
    pub group: String,
    /// The line it stands in.
    pub line: String,
    /// The line of its target, where that is another.
    pub mark: Option<String>,
    /// Its method.
    pub method: String,
    /// Path and query; of an event: the sink.
    pub target: String,
    /// Bytes of request and answer.
    pub bytes: u64,
    /// After this it is not worth sending.
    pub deadline: Option<Wall>,
    /// When it was accepted.
    pub since: Wall,
    /// What became of it. Without the answer's header fields and body.
    pub course: Course,
}

impl Head {
    /// Its state for the machine, which counts in `now`; `wall` is the same instant. `None` for a word of another version.
    pub fn state(&self, wall: Wall, now: Mono) -> Option<State> {
        let ago = |at: Wall| now.back(wall.since(at).unwrap_or_default());
        Some(match self.course.state.as_str() {
            // A clock that was set does not keep anything for longer than the wait itself could have been.
            "waiting" => State::Waiting(now + self.course.not_before.since(wall).unwrap_or_default()),
            "sending" => State::Sending,
            "done" => State::Done(ago(self.course.ended.unwrap_or(wall))),
            "dead" => State::Dead(Why::of(self.course.why.as_deref()?)?),
            _ => return None,
        })
    }
}

/// How a sending ended, to be noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settle {
    /// It is tried again.
    Again {
        /// Not before this.
        at: Wall,
        /// Tries that failed.
        failed: u32,
        /// It may have been executed all the same.
        doubtful: bool,
    },
    /// It is delivered, with this answer.
    Done(Kept),
    /// It is a dead letter, with the last answer there was.
    Dead(Why, Option<Kept>),
}
