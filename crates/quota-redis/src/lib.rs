//! A shared quota in Redis or Valkey.
//!
//! Why Redis: a script is atomic, runs in the server's own time, and one round trip on a local network takes less than a
//! millisecond. An exchange over all limits of a call is one script and one round trip; the keys of a bank have one hash
//! tag, so that they lie in one slot of a cluster. The connection is made in the background and never in a call's way, and
//! a breaker of its own keeps a server that does not answer from delaying anybody twice.
//!
//! | file | idea |
//! | --- | --- |
//! | `config` | where the server is and who we are |
//! | `target` | how a connection to it is made, single or cluster, with or without TLS |
//! | `link` | the one connection: made and mended in the background, given up when it does not answer |
//! | `fault` | what an error means and what to do about it |
//! | `keys` | names of keys, all of a bank in one slot |
//! | `script` | running a script by its digest |
//! | `exchange/*.lua` | the arithmetic of [`tidegate_core::share`], section by section |
//! | `locks.lua` | locks and values |
//! | `store` | the [`Store`](tidegate_quota::Store) made of all that |
//!
//! ```no_run
//! use tidegate_quota::Store;
//! use tidegate_quota_redis::{RedisConfig, RedisStore};
//!
//! # async fn example() -> Result<(), tidegate_quota::StoreError> {
//! let store = RedisStore::new(RedisConfig::new("redis://127.0.0.1:6379"))?;
//! println!("{}", store.check().await?.what);
//! # Ok(()) }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a panic is how a test fails"))]

mod cause;
mod config;
mod fault;
mod keys;
mod link;
#[cfg(test)]
mod made_time;
mod script;
#[cfg(test)]
#[path = "../tests/redis/server.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod server;
mod store;
mod target;

pub use config::RedisConfig;
pub use store::RedisStore;
