//! What a ledger holds: a keyed write, and what became of it.

use tidegate_core::idempotency::BodyDigest;
use tidegate_core::time::{Mono, Wall};

/// Whose key it is: a hash over tenant, caller, method and target. The same key means another write elsewhere.
pub type Scope = [u8; 32];

/// SHA-256 of the bearer a program calls with; bearers themselves are not kept.
pub type BearerDigest = [u8; 32];

/// An instant by both clocks: what is written down is read by another process and needs the wall clock; what is in memory
/// grows older by the monotonic one, which is never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// By the wall clock.
    pub wall: Wall,
    /// By the clock of this process.
    pub mono: Mono,
}

/// A write that is about to leave under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// Whose key it is.
    pub scope: Scope,
    /// The caller's key.
    pub key: String,
    /// What is written.
    pub payload: BodyDigest,
    /// The key that the upstream is sent; empty where it is sent none.
    pub sent_key: String,
    /// The method, for people who look.
    pub method: String,
    /// The path, for people who look. Without the query, which can hold personal data.
    pub path: String,
    /// Who the bearer of a login through the gateway belongs to. The login itself is forgotten when the process ends;
    /// its program goes on with the bearer, and is still the same caller.
    pub login: Option<(BearerDigest, String)>,
}

/// Names an entry of one ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryId(pub(super) i64);

/// A write that left under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: EntryId,
    /// What was written.
    pub payload: BodyDigest,
    /// The key that the upstream was sent.
    pub sent_key: String,
    /// When it was first about to leave.
    pub first_sent: Wall,
    /// When its last sending had ended; `None` while that may be under way. Of what an earlier process left in flight: when the
    /// ledger was opened after it.
    pub ended: Option<Wall>,
    /// What became of it.
    pub standing: Standing,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was about to leave; whether it was executed was not heard of, or the process ended before it was.
    Sent,
    /// The upstream may have executed it, and nothing could tell.
    Unknown,
    /// It was answered. `None`: with an answer too large to be kept, or that had to make room.
    Done(Option<Kept>),
}

/// An answer, to be given again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its status.
    pub status: u16,
    /// Its header fields, as they stand in a message: `name: value`, each ended by CR LF.
    pub headers: Vec<u8>,
    /// Its body.
    pub body: Vec<u8>,
}

/// How many entries there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub entries: u64,
    /// Those whose outcome is not known; one in flight counts until it is.
    pub unknown: u64,
}
