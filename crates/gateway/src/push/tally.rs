//! What push did so far, for `/api/state`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tidegate_core::push::{Totals, Verdict};

/// Rejected topics that are listed.
const MOST_LISTED: usize = 50;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    events: u64,
    duplicates: u64,
    late: u64,
    pub(super) gaps: u64,
    pub(super) losses: u64,
    pub(super) channels: u64,
    pub(super) no_room: u64,
}

impl Counts {
    pub(super) fn event(&mut self, verdict: Verdict) {
        self.events += 1;
        match verdict {
            Verdict::New => {}
            Verdict::Late => self.late += 1,
            Verdict::Duplicate => self.duplicates += 1,
        }
    }
}

/// Reads of paths whose events arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CoveredReads {
    /// Answered from memory, beyond the answer's own age: without events they had been calls.
    pub(crate) saved: u64,
    /// Answered from memory, within the answer's own age.
    pub(crate) fresh: u64,
    /// Answered by a call.
    pub(crate) asked: u64,
}

/// Push in `/api/state`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct PushBody {
    channels_open: usize,
    channels_made: u64,
    topics_wanted: usize,
    topics_covered: usize,
    topics_rejected: BTreeMap<String, String>,
    topics_without_room: u64,
    paths_followed: usize,
    events: u64,
    duplicates: u64,
    late: u64,
    gaps: u64,
    losses: u64,
    reads_saved: u64,
    reads_fresh: u64,
    reads_asked: u64,
    subscribers: usize,
    subscribers_cut: u64,
}

impl PushBody {
    pub(super) fn of(
        totals: Totals,
        counts: &Counts,
        rejected: &BTreeMap<Arc<str>, Arc<str>>,
        paths_followed: usize,
        reads: CoveredReads,
    ) -> Self {
        let rejected = rejected.iter().take(MOST_LISTED);
        Self {
            channels_open: totals.live,
            channels_made: counts.channels,
            topics_wanted: totals.wanted,
            topics_covered: totals.covered,
            topics_rejected: rejected.map(|(topic, why)| (topic.to_string(), why.to_string())).collect(),
            topics_without_room: counts.no_room,
            paths_followed,
            events: counts.events,
            duplicates: counts.duplicates,
            late: counts.late,
            gaps: counts.gaps,
            losses: counts.losses,
            reads_saved: reads.saved,
            reads_fresh: reads.fresh,
            reads_asked: reads.asked,
            ..Self::default()
        }
    }

    pub(super) fn with_listeners(self, subscribers: usize, subscribers_cut: u64) -> Self {
        Self { subscribers, subscribers_cut, ..self }
    }
}
