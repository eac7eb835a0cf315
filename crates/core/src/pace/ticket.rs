//! Permission for one attempt, from every gate that applies.
//!
//! A ticket is taken from all gates or from none. It goes through three stages, and what its loss means depends on the
//! stage: *granted* (nothing was sent: everything is given back), *sent* (the server may have counted it: it stays
//! spent, only the place in flight is free again), *answered* (settled by the answer).

use std::sync::Arc;

use crate::key::{CredentialId, Family};
use crate::pace::secs::Interval;
use crate::time::Mono;

/// Names a ticket. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TicketId(pub(super) u64);

/// What one gate remembers of an attempt in flight. Times in seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempt {
    /// When it left; until then, when its permit was taken.
    pub(super) sent: f64,
    /// The certified level, if it was taken with nothing else in flight.
    pub(super) level_alone: Option<f64>,
    /// The promised reset when it was taken.
    pub(super) promised: Option<Interval>,
    /// When a scout for that reset was to leave.
    pub(super) send_at: Option<f64>,
    /// Nothing covered it.
    pub(super) scout: bool,
}

/// One gate's share of a ticket.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) gate: usize,
    pub(super) attempt: Attempt,
}

/// A granted permission.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) family: Family,
    pub(super) credential: CredentialId,
    pub(super) lane: usize,
    pub(super) sent: Option<Mono>,
    pub(super) granted: Mono,
    pub(super) holds: Vec<Hold>,
    pub(super) explained_by: Arc<str>,
}
