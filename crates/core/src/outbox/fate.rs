//! What the end of a delivery means, and what is done then.

use std::time::Duration;

use fastrand::Rng;

/// How a delivery ended, as far as it says anything about the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The other side answered, and that answer is the entry's.
    Answered,
    /// It may have been executed, and nothing can tell.
    Unknown,
    /// It was proven not to have been executed.
    Unsent {
        /// When the other side, or the quota, wants to be asked again.
        retry_after: Option<Duration>,
        /// The wait was ordered by a quota: it uses up no try.
        ordered: bool,
    },
    /// It was not executed, and nothing but a person can change that.
    Refused,
}

/// Why an entry is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It may have been executed, and nothing can tell.
    Unknown,
    /// It was refused, and would be again.
    Refused,
    /// Every try failed.
    Tries,
    /// Its deadline was over before it could be sent.
    Deadline,
}

impl Why {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Refused, Self::Tries, Self::Deadline];

    /// Its name in files, reports and metrics.
    ///
    /// ```
    /// use tidegate_core::outbox::Why;
    ///
    /// assert_eq!(Why::Unknown.name(), "outcome-unknown");
    /// assert_eq!(Why::of("outcome-unknown"), Some(Why::Unknown));
    /// ```
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "outcome-unknown",
            Self::Refused => "refused",
            Self::Tries => "tries-used-up",
            Self::Deadline => "deadline-over",
        }
    }

    /// The reason of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.name() == name)
    }
}

/// What becomes of an entry after a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is delivered.
    Done,
    /// It is tried again after this time.
    Again(Duration),
    /// It is a dead letter.
    Dead(Why),
}

/// The waits between tries. When the last one is used up, the entry is a dead letter.
///
/// Each wait is drawn from the last fifth below to the first fifth above it, so that what failed together does not come back
/// together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits(pub Box<[Duration]>);

impl Waits {
    /// Of writes: quickly at first, since most failures are short, and for about two hours in all.
    pub fn of_writes() -> Self {
        Self([1, 2, 5, 15, 30, 60, 120, 300, 600, 600, 1800, 3600].map(Duration::from_secs).into())
    }

    /// Of webhooks: 5 s, 1 min, 10 min, 1 h, 6 h and three times 12 h, about two days in all. The Standard Webhooks
    /// specification recommends such a schedule ("Deliverability and reliability",
    /// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
    pub fn of_webhooks() -> Self {
        Self([5, 60, 600, 3_600, 21_600, 43_200, 43_200, 43_200].map(Duration::from_secs).into())
    }

    /// What `ended` means for an entry of which `failed` tries have failed before this one. `doubtful`: an earlier sending may
    /// have been executed, so that it is no answer that this one was not.
    pub fn judge(&self, ended: Ended, failed: u32, doubtful: bool, rng: &mut Rng) -> Verdict {
        let last = |why| Verdict::Dead(if doubtful { Why::Unknown } else { why });
        match ended {
            Ended::Answered => Verdict::Done,
            Ended::Unknown => Verdict::Dead(Why::Unknown),
            Ended::Refused => last(Why::Refused),
            Ended::Unsent { retry_after, ordered: true } => {
                Verdict::Again(retry_after.unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(100)))
            }
            Ended::Unsent { retry_after, ordered: false } => match self.0.get(failed as usize) {
                Some(wait) => {
                    let wait = wait.mul_f64(0.8 + 0.4 * rng.f64());
                    Verdict::Again(wait.max(retry_after.unwrap_or_default()))
                }
                None => last(Why::Tries),
            },
        }
    }
}
