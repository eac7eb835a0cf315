//! When an attempt may leave.
//!
//! The server is the source of truth; it tells late, out of order, incompletely, or not at all, and strangers draw from
//! the same quota. The [`Bank`] reaches the full quota and does not exceed it.
//!
//! | file | idea |
//! | --- | --- |
//! | `bank`, `settle` | asks, waiters and tickets of one tenant; what answers do to them |
//! | `registry`, `lane` | which gates a call must pass; who passes the same (who goes first is [`crate::schedule`]'s part) |
//! | `gate` | one limit, whatever is known about it |
//! | `policy` | how much of it a class leaves to others |
//! | `tide` | a limit the server tells about: spend what is certified, scout when something will be there |
//! | `certificate` | what the server is known to have left |
//! | `promise` | when it promised to give back, as an interval on the own clock |
//! | `refill`, `flow` | by which rule it gives back, and how fast |
//! | `own`, `ride` | own attempts as a sliding log holds them; spending them as they come back |
//! | `strangers` | what others take |
//! | `sliding` | a declared quota as a sliding log of own attempts times a learnt share |
//! | `learnt` | a rate learnt from throttles where nothing is told or declared |
//! | `cubic` | the curve on which a cut level returns |
//! | `concurrency`, `crowd` | bounds on attempts in flight; a cap or a rate? |
//! | `closing` | what a throttle closes, and for how long |
//! | `ticket` | permission for one attempt, and what its loss means at each stage |

mod ask;
mod bank;
mod certificate;
mod closing;
mod concurrency;
mod crowd;
mod cubic;
mod drift;
mod flow;
mod gate;
mod gist;
mod keep;
mod lane;
mod learnt;
mod lease;
mod names;
mod own;
mod policy;
mod promise;
mod refill;
mod registry;
mod ride;
mod secs;
mod settle;
mod slab;
mod sliding;
mod snapshot;
mod spec;
mod standing;
mod strangers;
mod ticket;
mod tide;
mod trip;
mod wanting;
mod when;

pub use crate::schedule::{CallerId, Class, UnknownClass};
pub use ask::{Answer, AnswerKind, Ask, Asked, Refusal, RefusalReason, TokenSlot, WaiterId, Woken};
pub use bank::{Bank, Named, Quoted};
pub use drift::{DriftHour, DriftSnapshot};
pub use keep::{Kept, KeptProblem, Lost, Restored, Uptime};
pub use policy::{ClassPolicy, Taking, UnknownTaking};
pub use snapshot::{
    BankSnapshot, BreakerSnapshot, FleetSnapshot, GateSnapshot, HoldSnapshot, ShareSnapshot, WaitingSnapshot,
    WindowSnapshot,
};
pub use spec::{BankConfig, LimitKind, LimitSpec, Observes, Partition, SpecProblem};
pub use ticket::TicketId;
