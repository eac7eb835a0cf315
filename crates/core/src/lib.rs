//! Pure decisions of Tidegate.
//!
//! Everything that decides lives here: when an attempt may leave, what an answer says about the quota, whether a
//! failed attempt may be sent again, when a token is due. Nothing here reads a clock, draws a random number from
//! the system, looks at the environment, spawns a task or touches a socket; `now` is always an argument and chance
//! comes from a generator the caller seeds. That is what lets the same code run on sockets, in virtual time with
//! thousands of instances, and under property tests.
//!
//! | module | decides |
//! | --- | --- |
//! | [`time`] | what an instant is: monotonic and wall time are different types |
//! | [`glob`] | which paths a rule is about |
//! | [`key`] | which family, tenant and credential a request belongs to |
//! | [`observe`] | what one response said about limits, in relative durations |
//! | [`pace`] | when an attempt may leave: gates, tickets and the bank that holds them |
//! | [`schedule`] | who goes next among those who wait: classes, callers, deadlines |
//! | [`share`] | how many attempts each of several processes may send: the arithmetic of a shared quota
//! | [`breaker`] | when a family is refused for a while |
//! | [`calendar`] | windows in which classes are held or something is kept for them |
//! | [`classify`] | what is known about an attempt's delivery, and the verdicts drawn from it |
//! | [`retry`] | the next step of a call after an attempt |
//! | [`reconcile`] | what a read says about a write whose outcome nobody knows |
//! | [`mark`] | the words in which a gateway tells what became of a write |
//! | [`backoff`], [`budget`] | how long to wait where nothing better is known, and how much extra load is fair |
//! | [`poll`] | when a job of the upstream is looked at next |
//! | [`cache`] | which reads share a call, how old an answer may be, when it is asked for again, what a write makes stale |
//! | [`merge`] | which single writes share a bulk call, when it leaves, and what each of them is told |
//! | [`push`] | which channels on which an upstream tells what changes are kept, and which paths are worth it |
//! | [`token`] | the life of an access token |
//! | [`outbox`] | what was accepted to be sent later: its order, its tries, what its failures mean |
//! | [`outlook`] | when a job will be finished: the pacing played forward |
//! | [`permission`] | which permission a refusal says is missing |
//! | [`idempotency`] | the key a write carries on every attempt |
//! | [`profile`] | a vendor's rules, read from TOML |
//! | [`template`] | what a text with holes is, and how what fills them stays data |
//! | [`listing`] | which limits an upstream lists on request, and when to ask |
//! | [`latency`] | how long the upstream takes to answer, of late |
//! | [`event`] | every fact worth telling an operator |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a panic is how a test fails"))]

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod cache;
pub mod calendar;
pub mod classify;
pub mod event;
pub mod glob;
pub mod idempotency;
pub mod key;
pub mod latency;
pub mod listing;
pub mod mark;
pub mod merge;
pub mod observe;
pub mod outbox;
pub mod outlook;
pub mod pace;
pub mod permission;
pub mod poll;
pub mod profile;
pub mod push;
pub mod reconcile;
pub mod retry;
pub mod schedule;
pub mod share;
pub mod template;
pub mod time;
pub mod token;
