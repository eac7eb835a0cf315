//! What a gateway says of a write's outcome, in its field `Tidegate-Outcome`.
//!
//! Gateway, client and bulk runner have the words from here, so that none of them can say one that another does not read.

use http::{HeaderMap, HeaderName};

/// The field.
pub const OUTCOME: HeaderName = HeaderName::from_static("tidegate-outcome");

/// What became of a write that was sent.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use tidegate_core::mark::{OUTCOME, OutcomeMark};
///
/// let mut headers = HeaderMap::new();
/// assert_eq!(OutcomeMark::of(&headers), None);
/// headers.insert(OUTCOME, HeaderValue::from_static("already-done"));
/// assert_eq!(OutcomeMark::of(&headers), Some(OutcomeMark::AlreadyDone));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeMark {
    /// Nobody can tell whether it was executed.
    Unknown,
    /// It was sent, and is not answered yet.
    InFlight,
    /// It was sent and not answered; executing it twice would do no harm.
    NoAnswer,
    /// It was sent, and what came back cannot be read; executing it twice would do no harm.
    UnreadableAnswer,
    /// The upstream's answer was cut behind its status. With a 424: that status was a 2xx, and the write was executed; with
    /// any other, the status is the upstream's.
    AnswerLost,
    /// It is done, perhaps with a refusal; its answer was not kept.
    AnswerNotKept,
    /// A read shows that it was executed.
    ConfirmedByRead,
    /// What was to be deleted is gone.
    AlreadyDone,
}

impl OutcomeMark {
    /// Every word with what it says.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::InFlight,
        Self::NoAnswer,
        Self::UnreadableAnswer,
        Self::AnswerLost,
        Self::AnswerNotKept,
        Self::ConfirmedByRead,
        Self::AlreadyDone,
    ];

    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::InFlight => "in-flight",
            Self::NoAnswer => "no-answer",
            Self::UnreadableAnswer => "unreadable-answer",
            Self::AnswerLost => "answer-lost",
            Self::AnswerNotKept => "answer-not-kept",
            Self::ConfirmedByRead => "confirmed-by-read",
            Self::AlreadyDone => "already-done",
        }
    }

    /// What an answer says; `None` if it says nothing, or a word of another version.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let word = headers.get(OUTCOME)?;
        Self::ALL.into_iter().find(|mark| word == mark.name())
    }
}
