//! The exit codes: a public table, and the one function that chooses from it.
//!
//! Scripts act on these, so they never change their meaning. Where several apply, the one that needs a person most
//! wins: an unknown outcome (3) outranks failed items (1), because failed items can simply be run again and unknown
//! ones must be looked at first.

use tidegate_store::Counts;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done.
    Done = 0,
    /// Some items failed.
    ItemsFailed = 1,
    /// The command line, the configuration, the recipe or the input is wrong; nothing was sent.
    Usage = 2,
    /// The outcome of some items is unknown.
    OutcomeUnknown = 3,
    /// The upstream refused to work with us at all: credentials, permission, or unreachable.
    UpstreamRefused = 4,
    /// An internal error, or one of the disk.
    Internal = 5,
    /// Interrupted; the run can be resumed.
    Interrupted = 130,
}

impl Exit {
    /// The whole table, in order.
    pub const ALL: [Self; 7] = [
        Self::Done,
        Self::ItemsFailed,
        Self::Usage,
        Self::OutcomeUnknown,
        Self::UpstreamRefused,
        Self::Internal,
        Self::Interrupted,
    ];

    /// The process's exit code.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What it means, for documentation and `--help`.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ItemsFailed => "some items failed",
            Self::Usage => "usage, configuration, recipe or input is wrong; nothing was sent",
            Self::OutcomeUnknown => "the outcome of some items is unknown (outranks 1)",
            Self::UpstreamRefused => "the upstream refused",
            Self::Internal => "internal error, or an error of the disk",
            Self::Interrupted => "interrupted, resumable",
        }
    }
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every item was dealt with, or the journal of some run is only being looked at.
    Finished,
    /// Ctrl-C, or the deadline of the run.
    Interrupted,
    /// The upstream would not work with us, so going on was pointless.
    UpstreamRefused,
    /// A bug or a disk error ended it.
    Internal,
}

/// The exit code for a run that ended so, with its items standing so.
pub const fn exit(ending: Ending, counts: &Counts) -> Exit {
    match ending {
        Ending::Internal => Exit::Internal,
        Ending::UpstreamRefused => Exit::UpstreamRefused,
        Ending::Interrupted => Exit::Interrupted,
        Ending::Finished if counts.unknown > 0 => Exit::OutcomeUnknown,
        Ending::Finished if counts.failed > 0 || counts.cancelled > 0 => Exit::ItemsFailed,
        Ending::Finished if counts.pending() > 0 => Exit::Interrupted,
        Ending::Finished => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(counts: Counts) -> Exit {
        exit(Ending::Finished, &counts)
    }

    #[test]
    fn codes_are_those_documented() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2, 3, 4, 5, 130]);
    }

    #[test]
    fn the_worst_outcome_decides() {
        let ok = Counts { ok: 9, ..Counts::default() };
        assert_eq!(finished(ok), Exit::Done);
        assert_eq!(finished(Counts { failed: 1, ..ok }), Exit::ItemsFailed);
        assert_eq!(finished(Counts { cancelled: 1, ..ok }), Exit::ItemsFailed);
        assert_eq!(finished(Counts { unknown: 1, ..ok }), Exit::OutcomeUnknown);
        assert_eq!(finished(Counts { unknown: 1, failed: 5, ..ok }), Exit::OutcomeUnknown, "3 outranks 1");
        assert_eq!(
            finished(Counts { planned: 1, ..ok }),
            Exit::Interrupted,
            "an unfinished run is resumable"
        );
        assert_eq!(finished(Counts::default()), Exit::Done);
    }

    #[test]
    fn an_ending_that_stopped_the_run_outranks_its_items() {
        let counts = Counts { unknown: 1, failed: 1, planned: 1, ..Counts::default() };
        assert_eq!(exit(Ending::Interrupted, &counts), Exit::Interrupted);
        assert_eq!(exit(Ending::UpstreamRefused, &counts), Exit::UpstreamRefused);
        assert_eq!(exit(Ending::Internal, &counts), Exit::Internal);
    }
}
