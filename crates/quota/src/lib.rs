//! Where processes that share a quota meet.
//!
//! The arithmetic of sharing is pure and lives in [`tidegate_core::share`]; this crate says what a place to meet must do
//! (the trait [`Store`]), has one for processes that are none ([`MemoryStore`]: parts of one program, tests, the lab), and a
//! suite that every store must pass (`conformance`, with the feature of that name). Stores over a network are crates of
//! their own.
//!
//! ```
//! use tidegate_core::share::{BankKey, Exchange, HolderId, PROTOCOL};
//! use tidegate_quota::{MemoryStore, Store};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let store = MemoryStore::at(|| 1_700_000_000_000);
//! let bank = BankKey::of("https://api.example.com", "acme");
//! let said = Exchange {
//!     protocol: PROTOCOL,
//!     holder: HolderId(7),
//!     seq: 1,
//!     incarnation: None,
//!     salt: 99,
//!     slack: 0,
//!     heard: None,
//!     answered: 0,
//!     limits: Vec::new(),
//!     asks: Vec::new(),
//!     doors: Vec::new(),
//!     leaves: false,
//! };
//! let reply = store.exchange(bank, &said).await.unwrap();
//! assert_eq!((reply.incarnation, reply.holders), (99, 1));
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a panic is how a test fails"))]

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod memory;
mod seal;
mod slot;
mod store;

pub use error::StoreError;
pub use memory::MemoryStore;
pub use seal::{KeyProblem, TokenKey};
pub use slot::Slot;
pub use store::{About, Kept, Lock, Name, Store};
