//! The suite that every store must pass.
//!
//! A store is right if it answers as the ledger of [`tidegate_core::share`] does, whatever is said to it: that model *is* the
//! specification. [`check`] plays random histories of a few holders and banks to the store and to the model, at the store's own
//! time, and compares each answer. Some holders are sensible, others say anything. A history that shows a difference is shortened before it is told. Then it tries what a
//! model cannot show: locks, fences and kept values.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use std::time::Duration;
//!
//! use tidegate_quota::MemoryStore;
//! use tidegate_quota::conformance::{Depth, Subject, check};
//!
//! struct Memory(MemoryStore, Arc<AtomicU64>);
//!
//! impl Subject for Memory {
//!     type Store = MemoryStore;
//!     fn store(&self) -> &MemoryStore {
//!         &self.0
//!     }
//!     async fn now(&self) -> u64 {
//!         self.1.load(Ordering::Relaxed)
//!     }
//!     async fn pass(&self, time: Duration) {
//!         self.1.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
//!     }
//!     async fn empty(&self) {
//!         self.0.forget();
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
//! let time = Arc::clone(&clock);
//! let subject = Memory(MemoryStore::at(move || time.load(Ordering::Relaxed)), clock);
//! check(&subject, Depth { seed: 1, runs: 2, steps: 50, wait: Duration::from_secs(5) }).await;
//! # }
//! ```

mod holder;
mod locks;
mod met;
mod moody;
mod play;

use std::future::Future;
use std::time::Duration;

use tidegate_core::share::At;

pub use met::Met;

use crate::store::Store;

/// What the time of a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// It passes by itself.
    Real,
    /// It passes where the harness says so: what is read at one instant is compared as a whole, and it is set back now and then.
    Made,
}

/// A store under test, with what only its harness can do.
pub trait Subject {
    /// What is tested.
    type Store: Store;

    /// What its time is.
    const CLOCK: Clock = Clock::Real;

    /// The store.
    fn store(&self) -> &Self::Store;

    /// The instant, by the store's own clock, at which it answered the latest exchange: the model answers at the same.
    fn now(&self) -> impl Future<Output = At> + Send;

    /// Lets time pass for the store: a made clock is set forward, a real one is waited for.
    fn pass(&self, time: Duration) -> impl Future<Output = ()> + Send;

    /// Sets a made clock back, as the clock of a store's machine may be. Real ones are left alone.
    fn set_back(&self, time: Duration) -> impl Future<Output = ()> + Send {
        let _ = time;
        std::future::ready(())
    }

    /// Forgets everything, locks and values included.
    fn empty(&self) -> impl Future<Output = ()> + Send;
}

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// Of the chance: the same seed plays the same histories.
    pub seed: u64,
    /// Histories. Every fourth has sensible holders, the others are of three moods.
    pub runs: u32,
    /// Steps of each.
    pub steps: u32,
    /// The longest time between two steps. With 10 s and more, leases run out and holders are given up; a store whose time is
    /// real is tried with a few milliseconds, one that is made with a state's life and more (150 s).
    pub wait: Duration,
}

/// Tries a store. What the histories met tells whether they were many and long enough: a test asserts it where time is made.
///
/// # Panics
/// Where the store differs from the model: with the shortest history found that shows it. Where a lock, a fence or a kept
/// value is not what [`Store`] promises. Where the store cannot be reached.
pub async fn check(subject: &impl Subject, depth: Depth) -> Met {
    let mut met = Met::default();
    for run in 0..depth.runs {
        let history = play::history(depth, u64::from(run));
        if let Some(difference) = play::play(subject, &history, &mut met).await {
            let (history, difference) = play::shorten(subject, history, difference).await;
            let steps = history.steps.len();
            panic!("after {steps} steps of run {run} (seed {}):\n{difference}", depth.seed);
        }
    }
    locks::check(subject).await;
    met
}
