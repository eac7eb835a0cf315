//! Sharing a quota between processes.
//!
//! Processes that draw from one quota meet in a store. The store keeps one *ledger* per bank; each process is a *holder*
//! that has *permits* leased from it, spends them without asking, and speaks to it in *exchanges*: in go what it has, what
//! ended, what the server certified and what its calls want; out come grants, the lease they are valid for, a pause, and
//! when to ask again. The server whose quota it is stays the source of truth: the ledger is anchored by what answers say.
//!
//! | file | idea |
//! | --- | --- |
//! | `wire` | the one operation, in ages and cumulative counts |
//! | `hex` | identifiers that survive every format |
//! | `ledger` | one bank's state: holders, limits, replay |
//! | `limit` | what is held of one limit, and of those who hold permits of it |
//! | `room`, `scout` | what is there of it, and who finds that out |
//! | `hear`, `refuse` | what a report does to a limit, and what a throttle does |
//! | `told` | what is told of it |
//! | `loss` | what a limit makes of a state that was lost |
//! | `grant` | who gets how many permits, and when |
//! | `certificate`, `log`, `foreign` | what the server certified, own attempts, strangers |
//! | `door` | a family's breaker, shared |
//! | `holding` | the local side: permits in hand, what has ended, when to ask again |
//! | `part`, `fallback` | how a process takes part, and what it does without the store |
//! | `stagger` | starts that are spread |

mod certificate;
mod differing;
mod door;
mod fallback;
mod foreign;
mod grant;
mod hear;
mod hex;
mod holding;
mod ledger;
mod limit;
mod log;
mod loss;
mod part;
mod refuse;
mod room;
mod scout;
mod stagger;
mod told;
mod wire;

pub use differing::Differing;
pub use fallback::{Fallback, Part};
pub use holding::{Holding, May, Permit, Refused};
pub use ledger::Ledger;
pub use part::{Away, OnStoreLoss, ShareConfig};
pub use stagger::stagger;
pub use wire::{
    At, BankKey, DoorChange, DoorReply, DoorSide, Ended, Exchange, Grant, HolderId, Kind, LimitKey,
    LimitReply, LimitSide, LimitView, Ms, PROTOCOL, Recall, Refill, Refusal, Reply, Sight, Terms, Unanswered,
    Want,
};
