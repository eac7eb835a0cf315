//! When an attempt may leave.
//!
//! The server is the source of truth; it tells late, out of order, incompletely, or not at all, and strangers draw from
//! the same quota. The [`Bank`] reaches the full quota and does not exceed it.
//!
//! | file | idea |
//! | --- | --- |
//! | `bank`, `settle` | asks, waiters and tickets of one tenant; what answers do to them |
//! | `registry`, `lane`, `turns` | which gates a call must pass; who waits for the same; whose turn it is |
//! | `gate` | one limit, whatever is known about it |
//! | `tide` | a limit the server tells about: spend what is certified, scout when something will be there |
//! | `certificate` | what the server is known to have left |
//! | `promise` | when it promised to give back, as an interval on the own clock |
//! | `refill`, `flow` | by which rule it gives back, and how fast |
//! | `own`, `ride` | own attempts as a sliding log holds them; spending them as they come back |
//! | `strangers` | what others take |
//! | `sliding` | a declared quota as a sliding log of own attempts times a learnt share |
//! | `learnt` | a rate learnt from throttles where nothing is told or declared |
//! | `cubic` | the curve on which a cut level returns |
//! | `concurrency`, `closing` | bounds on attempts in flight; what a throttle closes |
//! | `ticket` | permission for one attempt, and what its loss means at each stage |

mod ask;
mod bank;
mod certificate;
mod closing;
mod concurrency;
mod cubic;
mod flow;
mod gate;
mod lane;
mod learnt;
mod own;
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
mod strangers;
mod ticket;
mod tide;
mod trip;
mod turns;
mod when;

pub use ask::{
    Answer, AnswerKind, Ask, Asked, Class, Refusal, RefusalReason, TokenSlot, UnknownClass, WaiterId, Woken,
};
pub use bank::{Bank, Named};
pub use snapshot::{BankSnapshot, BreakerSnapshot, GateSnapshot};
pub use spec::{BankConfig, LimitKind, LimitSpec, Observes, Partition, SpecProblem};
pub use ticket::TicketId;
