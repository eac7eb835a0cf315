//! The one place that reads the clock; everything else is handed a [`Stopwatch`].

use std::time::{Duration, Instant};

/// Measures how long something took, on the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to measure.
    #[expect(clippy::disallowed_methods, reason = "this is the clock of this program")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A duration for a person: `0.4 s`, `38.2 s`, `4 m 07 s`.
pub(crate) fn human(duration: Duration) -> String {
    let tenths = duration.as_millis() / 100;
    if tenths < 600 {
        format!("{}.{} s", tenths / 10, tenths % 10)
    } else {
        let seconds = duration.as_secs();
        format!("{} m {:02} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        let of = |millis| human(Duration::from_millis(millis));
        assert_eq!(of(0), "0.0 s");
        assert_eq!(of(449), "0.4 s");
        assert_eq!(of(59_999), "59.9 s");
        assert_eq!(of(60_000), "1 m 00 s");
        assert_eq!(of(247_000), "4 m 07 s");
    }
}
