//! Merging writes: many small ones become few large ones, and each caller is told what became of its own.
//!
//! A [`MergeRule`] says which single write can be a row of which bulk call, and how that call's answer is told to each. A
//! [`Merger`] belongs to one tenant and decides when: writes to one entity stand in a *lane*, in the order in which they
//! came. Those that can be merged and agree in everything but their rows share a *group*; any other write is an entry of its own, and closes
//! the group before it. One entry of a lane is on its way at a time.
//!
//! The saving does not come from the window, which is short because it is a cost that every write pays. It comes from the quota: a group
//! takes writes until its call has its ticket and leaves ([`Merger::seal`]), so the longer calls wait, the more of them one call carries.
//!
//! Four promises, each a property in the tests against a server that knows singles only:
//! * **Order of arrival.** Within a lane no write overtakes another: the last write of an item is the last that came. An item is not
//!   twice in one group.
//! * **Each its own answer.** [`split`] tells what the single call would have been told, or says that it has to be sent alone.
//! * **Nothing twice.** A write is in one group or alone, never both, unless the bulk call was proven not to have taken effect, or its rule
//!   says that setting the same again changes nothing.
//! * **No wait without reason.** A group leaves when its window is over, or before when it is full or a write stands behind it.

mod lanes;
mod read;
mod rule;
mod split;
#[cfg(test)]
mod tests;

pub use self::lanes::{Bounds, EntryId, Join, Merger, Offer, SeatId, Tally, Turn};
pub use self::read::{LONGEST_WINDOW, MAX_ROWS, read_merges};
pub use self::rule::{Alone, AnswerAs, Item, MergeRule, Placed, Row, Single, find};
pub use self::split::{Verdict, split};
