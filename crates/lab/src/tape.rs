//! What happened at the server, in order: enough to draw the picture and to charge the ideal with the strangers' draw.

use std::time::Duration;

use tidegate_sim::model::route::Caller;

use crate::headline::{Headline, Parts, Share};

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One of ours drew from the headline limit.
    Own,
    /// A stranger did.
    Stranger,
    /// One of ours was refused as too fast.
    OwnThrottled,
    /// A stranger was.
    StrangerThrottled,
    /// One of ours has departed: its place under a cap is free.
    Freed,
}

/// One event at the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    pub(crate) share: Share,
}

/// A stranger's admitted call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw {
    pub(crate) at: Duration,
    /// Which of [`Tape::callers`] made it.
    pub(crate) caller: usize,
}

/// The record of one run.
#[derive(Debug)]
pub(crate) struct Tape {
    pub(crate) marks: Vec<Mark>,
    /// What strangers took, of any limit.
    pub(crate) draws: Vec<Draw>,
    /// Who the strangers are.
    pub(crate) callers: Vec<Caller>,
    parts: Parts,
}

/// The share of a call that the headline limit does not count.
const NOTHING: Share = Share { part: 0, cost: 0 };

impl Tape {
    pub(crate) fn new(headline: Headline) -> Self {
        Self { marks: Vec::new(), draws: Vec::new(), callers: Vec::new(), parts: Parts::new(headline) }
    }

    /// One of ours was decided. Returns what it took.
    pub(crate) fn own(&mut self, at: Duration, caller: &Caller, throttled: bool) -> Option<Share> {
        if throttled {
            self.marks.push(Mark { at, kind: Kind::OwnThrottled, share: NOTHING });
            return None;
        }
        let share = self.parts.share(caller)?;
        self.marks.push(Mark { at, kind: Kind::Own, share });
        Some(share)
    }

    /// Own calls refused as too fast since `from`.
    pub(crate) fn throttles_since(&self, from: Duration) -> u64 {
        let refused = |mark: &&Mark| mark.kind == Kind::OwnThrottled && mark.at >= from;
        self.marks.iter().filter(refused).count() as u64
    }

    /// How often the server went from admitting ours to refusing them.
    pub(crate) fn closings(&self) -> u64 {
        let ours = self.marks.iter().filter_map(|mark| match mark.kind {
            Kind::Own => Some(false),
            Kind::OwnThrottled => Some(true),
            Kind::Stranger | Kind::StrangerThrottled | Kind::Freed => None,
        });
        let (mut closings, mut closed) = (0, false);
        for refused in ours {
            closings += u64::from(refused && !closed);
            closed = refused;
        }
        closings
    }

    /// One of ours has departed.
    pub(crate) fn freed(&mut self, at: Duration, share: Share) {
        if self.parts.is_cap() {
            self.marks.push(Mark { at, kind: Kind::Freed, share });
        }
    }

    /// A stranger called.
    pub(crate) fn stranger(&mut self, at: Duration, caller: &Caller, admitted: bool) {
        if !admitted {
            self.marks.push(Mark { at, kind: Kind::StrangerThrottled, share: NOTHING });
            return;
        }
        let known = self.callers.iter().position(|known| known.token == caller.token);
        let index = known.unwrap_or_else(|| {
            self.callers.push(caller.clone());
            self.callers.len() - 1
        });
        self.draws.push(Draw { at, caller: index });
        if let Some(share) = self.parts.share(caller) {
            self.marks.push(Mark { at, kind: Kind::Stranger, share });
        }
    }
}
