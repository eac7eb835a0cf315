//! The way between client and server: half a round trip each way, drawn anew, so that answers overtake each other.

use std::time::Duration;

use tidegate_sim::text::Spread;

/// One direction after the other.
#[derive(Debug)]
pub(crate) struct Network {
    rtt: Spread,
    rng: fastrand::Rng,
}

impl Network {
    pub(crate) fn new(rtt: Spread, rng: fastrand::Rng) -> Self {
        Self { rtt, rng }
    }

    /// The time one way takes.
    pub(crate) fn one_way(&mut self) -> Duration {
        self.rtt.draw(&mut self.rng) / 2
    }
}
