//! What a store of shared quota must do.

use std::fmt::{self, Debug};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tidegate_core::share::{BankKey, Exchange, HolderId, LimitView, Reply};

use crate::error::StoreError;

/// Where the banks of several processes meet.
///
/// Every operation is atomic, and time is the store's own. A future may be dropped at any point: the operation then
/// happened or did not, and saying it again is harmless ([`Store::exchange`]: the same `seq`; [`Store::lock`]: the same
/// `who`).
pub trait Store: Debug + Send + Sync {
    /// Says `said` to the ledger of a bank and brings its answer. Where there is no ledger, one begins.
    ///
    /// # Errors
    /// [`StoreError::Unanswered`] is the ledger's own refusal; the others say that it was not asked, or that its answer
    /// was lost.
    fn exchange<'a>(&'a self, bank: BankKey, said: &'a Exchange) -> BoxFuture<'a, Result<Reply, StoreError>>;

    /// A lock for `life`, with a fence above every earlier one of this name; or who holds it, and for how long yet. Who
    /// holds it already gets it again with the same fence, and its life begins anew.
    fn lock<'a>(
        &'a self,
        name: &'a Name,
        who: HolderId,
        life: Duration,
    ) -> BoxFuture<'a, Result<Lock, StoreError>>;

    /// Keeps `bytes` for `life` under the fence of a lock, and ends that lock. False, and nothing is changed, where a
    /// higher fence was given out meanwhile.
    fn put<'a>(
        &'a self,
        name: &'a Name,
        fence: u64,
        bytes: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// What is kept under a name.
    fn get<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Kept>, StoreError>>;

    /// Ends the lock with this fence before its time; another one is left alone.
    fn unlock<'a>(&'a self, name: &'a Name, fence: u64) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Reads the state of a bank, for people. Changes nothing.
    fn view(&self, bank: BankKey) -> BoxFuture<'_, Result<Vec<LimitView>, StoreError>>;

    /// Whether everything that is needed is there: version, scripts, permissions, table.
    fn check(&self) -> BoxFuture<'_, Result<About, StoreError>>;

    /// Which store it is, as its errors name it, such as `redis at 127.0.0.1:6379`; never with a password.
    #[expect(clippy::unnecessary_literal_bound, reason = "other stores lend what they were set up with")]
    fn name(&self) -> &str {
        "the store"
    }

    /// For how long an exchange is waited for.
    fn patience(&self) -> Duration;
}

/// Names a lock and the value kept under it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The bank it belongs to.
    pub bank: BankKey,
    /// Which in the bank, as `token/reporting`. Letters, digits and `-_./`.
    pub what: String,
}

/// What became of asking for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// It is given.
    Yours {
        /// Above every earlier one of its name.
        fence: u64,
    },
    /// Somebody else holds it.
    Held {
        /// The other's.
        fence: u64,
        /// Of the other's life, at most.
        left: Duration,
    },
}

/// A value that a store keeps. Its `Debug` does not show the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    /// The fence it was put under.
    pub fence: u64,
    /// The value.
    pub bytes: Vec<u8>,
    /// Of its life.
    pub left: Duration,
}

impl Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.bytes.len();
        f.debug_struct("Kept").field("fence", &self.fence).field("length", &length).finish_non_exhaustive()
    }
}

/// What a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Such as `redis 7.0.15 at 127.0.0.1:6379`; never a password.
    pub what: String,
    /// The protocol of the state in it, where there is one.
    pub protocol: Option<u16>,
}
