//! A shared quota in DynamoDB.
//!
//! Why DynamoDB: where a fleet runs on AWS, a table is there without a server to keep. It has no scripts, so the ledger of
//! [`tidegate_core::share`] runs here, in the process: the bank's one item is read, the exchange is applied, and the item is
//! written back on condition that nobody has written it meanwhile. A lost condition brings the item as it is now, and the
//! exchange is applied to that. An exchange that finds nobody else writing is one write and no read.
//!
//! DynamoDB tells no time that a condition could use. The time of the state is learnt from the `Date` of its answers and
//! from the state itself (`clock`), never from this machine's wall clock.
//!
//! | file | idea |
//! | --- | --- |
//! | `config` | the address of a table |
//! | `clock` | the store's time, from what answers say of it |
//! | `item` | what an item is, and what it must be |
//! | `fault` | what an error means and what to do about it |
//! | `breaker` | a table that does not answer delays nobody twice |
//! | `wire` | one request, within a time |
//! | `table` | the table: what it must be, and making it |
//! | `change` | read, apply, write on condition, again where somebody was faster |
//! | `store` | the [`Store`](tidegate_quota::Store) made of all that |
//!
//! ```no_run
//! use tidegate_quota::Store;
//! use tidegate_quota_dynamodb::{DynamoConfig, DynamoStore};
//!
//! # async fn example() -> Result<(), tidegate_quota::StoreError> {
//! let store = DynamoStore::new(DynamoConfig::parse("dynamodb://tidegate?region=eu-west-1")?)?;
//! for step in store.init(false).await? {
//!     println!("{step}");
//! }
//! println!("{}", store.check().await?.what);
//! # Ok(()) }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a panic is how a test fails"))]

mod breaker;
mod change;
mod clock;
mod config;
#[cfg(test)]
#[path = "../tests/dynamodb/emulator.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod emulator;
mod fault;
mod item;
#[cfg(test)]
mod made_time;
mod store;
mod table;
mod wire;

pub use config::DynamoConfig;
pub use store::DynamoStore;
