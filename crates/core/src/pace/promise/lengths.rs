//! What is known of windows when nothing is known of the present one.

use serde::{Deserialize, Serialize};

use super::Promise;
use crate::pace::secs::Interval;

/// How long windows are, and what the server's numbers were caught at. Seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::pace) struct Lengths {
    length: Option<(f64, f64)>,
    /// By so much the server gives back later than its coarse number says.
    #[serde(default)]
    rounding: f64,
    /// The length of its windows was once guessed wrong.
    #[serde(default)]
    guessed_wrong: bool,
}

impl Promise {
    /// What is worth keeping: how long windows are, and what this server's numbers were caught at. Of the phase nothing
    /// is, nor of what the first answer tells again.
    pub(in crate::pace) fn keep(&self) -> Lengths {
        let &Self {
            length,
            rounding,
            guessed_wrong,
            due: _,
            opened: _,
            first_up: _,
            longest_after: _,
            ahead: _,
            ended_before: _,
            grain: _,
            epoch: _,
            offset: _,
            seen_length: _,
            passed: _,
        } = self;
        let length = length.filter(|length| length.lo.is_finite() && length.up.is_finite());
        Lengths { length: length.map(|length| (length.lo, length.up)), rounding, guessed_wrong }
    }

    /// Promises of windows whose length is known from before.
    pub(in crate::pace) fn restore(Lengths { length, rounding, guessed_wrong }: Lengths) -> Self {
        let length = length.map(|(lo, up)| Interval::new(lo, up));
        Self { length, rounding, guessed_wrong, ..Self::new() }
    }
}
