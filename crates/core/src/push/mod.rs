//! Push instead of polling: keeping channels on which an upstream tells what changes.
//!
//! An upstream with notification channels tells of a *topic* (`v2.users.7.presence`) once somebody has subscribed to it on a
//! channel, over a socket of that channel. Nothing of that is durable: a socket ends whenever it likes, may fall silent without
//! ending, and what happened meanwhile is told to nobody. So what stands on events is only as good as the keeping of channels.
//!
//! * [`Keeper`] keeps as many channels as the wanted topics need: which is opened when, what is subscribed on which, when a silent one
//!   is given up, and when one is replaced before it ends. It says of each topic since when it is *covered*, that is subscribed
//!   on a channel whose socket is heard, and what was missed while it was not.
//! * [`Seen`] tells an event that is new from one that came twice or late.
//! * [`Follow`] says which paths are read so often that their topic is worth a subscription.
//! * [`PushRules`] are a vendor's: which path is told about by which topic, and how its channels live.
//!
//! What stands on events is held to be true for a bounded time only ([`COVERED`](crate::cache::COVERED)), because channels also
//! lose single events without a sign.

mod channel;
mod follow;
mod keeper;
mod rule;
mod seen;
#[cfg(test)]
mod tests;

pub use self::channel::{AskId, Cause, ChannelId, Do, Gap, News};
pub use self::follow::{Follow, FollowPace};
pub use self::keeper::{AskFailed, Keeper, Pace, TooMany, Totals};
pub(crate) use self::rule::read as read_rules;
pub use self::rule::{Carried, ChannelKind, PushRules, TopicPattern, TopicRule, parts, topic};
pub use self::seen::{Order, Seen, Verdict};
