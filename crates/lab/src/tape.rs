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

/// A stranger's call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visit {
    pub(crate) at: Duration,
    /// Which of [`Tape::callers`] made it.
    pub(crate) caller: usize,
    pub(crate) admitted: bool,
}

/// How service was found to be back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Recovery {
    /// Own attempts decided since the outage ended, to the first that was admitted.
    pub(crate) attempts: u64,
    /// The pause before that attempt over the pause before the one before it.
    pub(crate) growth: Option<f64>,
}

/// The record of one run.
#[derive(Debug)]
pub(crate) struct Tape {
    pub(crate) marks: Vec<Mark>,
    /// The strangers' calls, of any limit.
    pub(crate) visits: Vec<Visit>,
    /// Who the strangers are.
    pub(crate) callers: Vec<Caller>,
    parts: Parts,
}

/// The share of a call that the headline limit does not count.
const NOTHING: Share = Share { part: 0, cost: 0 };

impl Tape {
    pub(crate) fn new(headline: Headline) -> Self {
        Self { marks: Vec::new(), visits: Vec::new(), callers: Vec::new(), parts: Parts::new(headline) }
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

    /// How an outage that ended at `end` was found to be over; `None` if nothing was admitted since.
    pub(crate) fn recovery(&self, end: Duration) -> Option<Recovery> {
        let own = |mark: &&Mark| matches!(mark.kind, Kind::Own | Kind::OwnThrottled);
        let marks: Vec<&Mark> = self.marks.iter().filter(own).collect();
        let first = marks.partition_point(|mark| mark.at < end);
        let back = first + marks[first..].iter().position(|mark| mark.kind == Kind::Own)?;
        let pauses =
            marks[back.saturating_sub(3)..=back].windows(2).map(|two| two[1].at.saturating_sub(two[0].at));
        let growth = match *pauses.collect::<Vec<_>>() {
            [_, before, last] if !before.is_zero() => Some(last.as_secs_f64() / before.as_secs_f64()),
            _ => None,
        };
        Some(Recovery { attempts: (back - first + 1) as u64, growth })
    }

    /// One of ours has departed.
    pub(crate) fn freed(&mut self, at: Duration, share: Share) {
        if self.parts.is_cap() {
            self.marks.push(Mark { at, kind: Kind::Freed, share });
        }
    }

    /// A stranger called.
    pub(crate) fn stranger(&mut self, at: Duration, caller: &Caller, admitted: bool) {
        let known = self.callers.iter().position(|known| known.token == caller.token);
        let index = known.unwrap_or_else(|| {
            self.callers.push(caller.clone());
            self.callers.len() - 1
        });
        self.visits.push(Visit { at, caller: index, admitted });
        if !admitted {
            self.marks.push(Mark { at, kind: Kind::StrangerThrottled, share: NOTHING });
        } else if let Some(share) = self.parts.share(caller) {
            self.marks.push(Mark { at, kind: Kind::Stranger, share });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_is_told_by_probes_and_by_the_pause_before_the_last() {
        let second = |tenths: u64| Duration::from_millis(tenths * 100);
        let mark = |tenths, kind| Mark { at: second(tenths), kind, share: NOTHING };
        let mut tape = Tape::new(Headline::None);
        for tenths in [10, 20, 35] {
            tape.marks.push(mark(tenths, Kind::OwnThrottled));
        }
        assert_eq!(tape.recovery(second(40)), None, "nothing was admitted");
        tape.marks.push(mark(50, Kind::StrangerThrottled));
        tape.marks.push(mark(65, Kind::Own));
        assert_eq!(tape.recovery(second(40)), Some(Recovery { attempts: 1, growth: Some(2.0) }));
        assert_eq!(tape.recovery(second(30)), Some(Recovery { attempts: 2, growth: Some(2.0) }));
    }
}
