//! The limits an upstream lists on request.
//!
//! A declared number is a guess about an organisation nobody has seen. Where the upstream can be asked, its answer is
//! better: a raised limit is used in full, a lowered one is kept before the first refusal. What is read becomes the quota of
//! the declared limit of that key ([`Bank::set_quota`](crate::pace::Bank::set_quota)); a key nobody declared is shown and
//! not used, because a listing says how much, not of what.
//!
//! | file | idea |
//! | --- | --- |
//! | `read` | from JSON to keys and values, by the profile's rules |
//! | `plan` | when to ask, and as whom |
//!
//! Sending is the shell's: a call like any other, in the background, that nobody waits for.

mod plan;
mod read;

pub use self::plan::{Denied, FetchPlan};
pub use self::read::{ListedLimit, MAX_LISTING, Unreadable, read_listing, read_why};
