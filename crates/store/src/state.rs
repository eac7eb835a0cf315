//! The life of an item, folded by one function.
//!
//! Every write to the journal goes through [`next_state`]; nothing else decides what may follow what. A transition
//! that is not in its table is refused, because it means that two parts of the program disagree about whether
//! something was sent, and that must stop a run rather than be papered over.
//!
//! ```text
//!            Intend            Succeed ──▶ ok
//! planned ──────────▶ sent ──▶ Fail    ──▶ failed ──Intend──▶ sent
//!   │  ▲               │       LoseTrack ─▶ unknown ─Intend─▶ resent   (a read may settle it: Succeed, Fail)
//!   │  └────Unsent─────┘ Intend (after a crash)
//!   ▼                  ▼
//! cancelled          resent   (may have been executed before; Unsent proves nothing and leaves it in doubt)
//! ```

use std::fmt;

/// Where an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Not sent, and proven so.
    Planned,
    /// Its first sending was intended; no outcome yet.
    Sent,
    /// A further sending was intended while an earlier one was in doubt; no outcome yet.
    Resent,
    /// The upstream confirmed it.
    Ok,
    /// The upstream refused it, or it was given up knowing that it was not executed.
    Failed,
    /// It may or may not have been executed, and nobody will find out by waiting.
    Unknown,
    /// Taken out of the run before it was sent.
    Cancelled,
}

impl State {
    /// All states, in the order of an item's life.
    pub const ALL: [Self; 7] =
        [Self::Planned, Self::Sent, Self::Resent, Self::Ok, Self::Failed, Self::Unknown, Self::Cancelled];

    /// The name the journal stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Sent => "sent",
            Self::Resent => "resent",
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether a run still has to do something about it.
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Planned | Self::Sent | Self::Resent)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happened to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// It is about to be sent. Must be durable before the first byte leaves.
    Intend,
    /// The intended sending is proven not to have happened: no byte left, or it was refused before execution.
    Unsent,
    /// The upstream confirmed it, or a read showed that it had been applied.
    Succeed,
    /// The upstream refused it, or a read showed that it had not been applied.
    Fail,
    /// The answer is lost and the item may have been executed.
    LoseTrack,
    /// It is taken out of the run.
    Cancel,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 6] =
        [Self::Intend, Self::Unsent, Self::Succeed, Self::Fail, Self::LoseTrack, Self::Cancel];
}

/// An event that cannot follow a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {event:?} cannot happen to an item that is {state}")]
pub struct Illegal {
    /// Where the item stood.
    pub state: State,
    /// What was said to have happened to it.
    pub event: Event,
}

/// The state after `event`: the whole recovery logic of the journal.
///
/// # Errors
/// [`Illegal`] if `event` cannot follow `state`; the item keeps its state.
pub const fn next_state(state: State, event: Event) -> Result<State, Illegal> {
    let next = match (state, event) {
        // A failed item is known not to have been executed, so trying again starts afresh.
        (State::Planned | State::Failed, Event::Intend) => State::Sent,
        // A resumed run cannot know what became of an open intent, nor an operator who retries an unknown one; and
        // proof that the later sending did not happen says nothing about the earlier one.
        (State::Sent | State::Resent | State::Unknown, Event::Intend) | (State::Resent, Event::Unsent) => {
            State::Resent
        }
        (State::Sent, Event::Unsent) => State::Planned,
        (State::Sent | State::Resent | State::Unknown, Event::Succeed) => State::Ok,
        (State::Sent | State::Resent | State::Unknown, Event::Fail) => State::Failed,
        (State::Sent | State::Resent, Event::LoseTrack) => State::Unknown,
        (State::Planned, Event::Cancel) => State::Cancelled,
        _ => return Err(Illegal { state, event }),
    };
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Cancel, Fail, Intend, LoseTrack, Succeed, Unsent};
    use State::{Cancelled, Failed, Ok as Done, Planned, Resent, Sent, Unknown};

    /// The table as prose in the module docs has it, written down a second time in another shape: one row per state,
    /// one column per event in the order of [`Event::ALL`].
    const TABLE: [(State, [Option<State>; 6]); 7] = [
        //          Intend        Unsent         Succeed     Fail          LoseTrack      Cancel
        (Planned, [Some(Sent), None, None, None, None, Some(Cancelled)]),
        (Sent, [Some(Resent), Some(Planned), Some(Done), Some(Failed), Some(Unknown), None]),
        (Resent, [Some(Resent), Some(Resent), Some(Done), Some(Failed), Some(Unknown), None]),
        (Done, [None; 6]),
        (Failed, [Some(Sent), None, None, None, None, None]),
        (Unknown, [Some(Resent), None, Some(Done), Some(Failed), None, None]),
        (Cancelled, [None; 6]),
    ];

    #[test]
    fn every_state_and_event_follows_the_table() {
        for (state, row) in TABLE {
            for (event, expected) in Event::ALL.into_iter().zip(row) {
                let expected = expected.ok_or(Illegal { state, event });
                assert_eq!(next_state(state, event), expected, "{state:?} + {event:?}");
            }
        }
    }

    #[test]
    fn the_table_names_every_state_once() {
        assert_eq!(TABLE.map(|(state, _)| state), State::ALL);
    }

    /// What the world did, told apart from what the journal knows: no path may call an item untouched or failed
    /// while a sending of it has an open end.
    #[test]
    fn an_item_in_doubt_is_never_called_untouched() {
        let mut frontier = vec![(Planned, false)];
        let mut seen = std::collections::HashSet::new();
        while let Some((state, doubt)) = frontier.pop() {
            if !seen.insert((state, doubt)) {
                continue;
            }
            assert!(!(doubt && matches!(state, Planned | Cancelled)), "{state:?} hides a doubt");
            for event in Event::ALL {
                let Ok(next) = next_state(state, event) else { continue };
                // An intent over an open or lost one leaves the earlier sending in doubt; only an answer ends it.
                let doubt = match event {
                    Intend => doubt || matches!(state, Sent | Resent | Unknown),
                    Unsent | Cancel => doubt,
                    LoseTrack => true,
                    Succeed | Fail => false,
                };
                frontier.push((next, doubt));
            }
        }
        assert!(seen.contains(&(Resent, true)), "the walk reached the interesting part");
    }

    #[test]
    fn names_round_trip() {
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(state));
        }
        assert_eq!(State::from_name("lost"), None);
    }
}
