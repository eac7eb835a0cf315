//! The bank's part in a shared quota: what the courier asks of it and brings back.
//!
//! The courier is a task of [`crate::share`]; it is started by the change that makes an exchange due, and ends when none is.

use std::sync::Arc;

use tidegate_core::share::{Away, BankKey, Exchange, Reply};
use tidegate_core::time::Mono;
use tokio::time::Instant;

use super::{Pacer, State};
use crate::observe::StoreDone;
use crate::share::{Courier, Link, SharedQuota};

impl Pacer {
    /// Paces by permits from a store from now on, together with all who speak of `bank` there. To be called once, after
    /// [`restore`](Pacer::restore) and before the first [`acquire`](Pacer::acquire); a second call changes nothing.
    pub fn share(&self, quota: &SharedQuota, bank: BankKey) {
        let link = Link { store: Arc::clone(&quota.store), bank, changed: Arc::default() };
        if self.shared.link.set(link).is_ok() {
            self.shared.state.lock().bank.share(quota.config);
            // It makes itself known to the others, though nobody calls.
            self.locked(|_, _| ());
        }
    }

    /// Gives back what this process holds of a quota that it shares, so that the others need not wait for the end of a lease. To be
    /// called when nothing is to leave any more and the process ends. It takes no longer than the store's patience in all
    /// (`quota.timeout`), and nothing at all where nothing is shared or held, or the store is away. A call that comes after all asks
    /// the store as the first one did.
    pub async fn give_back(&self) {
        if let Some(link) = self.shared.link.get() {
            link.give_back(self).await;
        }
    }

    /// Since when this process paces by itself because the store is away; see [`Bank::share_mode_since`](tidegate_core::pace::Bank::share_mode_since).
    pub fn share_mode_since(&self) -> Option<Mono> {
        self.shared.state.lock().bank.share_mode_since()
    }

    /// Starts the courier, on whatever runtime this is called. Where there is none, the next call that is on one does.
    pub(super) fn start_courier(&self) {
        let (Some(link), Ok(runtime)) = (self.shared.link.get(), tokio::runtime::Handle::try_current())
        else {
            self.courier_is_gone();
            return;
        };
        drop(runtime.spawn(Courier::new(Arc::downgrade(&self.shared), link.clone()).run()));
    }

    /// Nobody makes exchanges any more.
    pub(crate) fn courier_is_gone(&self) {
        self.shared.state.lock().courier_runs = false;
    }

    /// When the next exchange is due. `None` ends the courier.
    pub(crate) fn exchange_due(&self) -> Option<Instant> {
        let now = self.now();
        let mut state = self.shared.state.lock();
        state.exchange = state.bank.exchange_due(now);
        state.courier_runs = state.exchange.is_some();
        state.exchange.map(|at| self.shared.clock.instant(at))
    }

    pub(crate) fn begin_exchange(&self) -> Option<Exchange> {
        self.locked(|state, now| state.bank.begin_exchange(now))
    }

    pub(crate) fn last_exchange(&self) -> Option<Exchange> {
        self.locked(|state, now| state.bank.last_exchange(now))
    }

    pub(crate) fn end_exchange(&self, said: &Exchange, answer: Result<&Reply, Away>) {
        self.locked(|state, now| state.bank.end_exchange(now, said, answer));
    }

    /// Whoever started this process was told that the store of its shared quota is away; it is not told as news again.
    pub fn store_is_known_away(&self) {
        self.locked(|state, _| state.bank.store_is_known_away());
    }

    pub(crate) fn store_failed(&self, why: &str) {
        self.locked(|state, _| state.bank.store_failed(why));
    }

    pub(crate) fn store_done(&self, done: &StoreDone<'_>) {
        self.shared.observers.store(done);
    }
}

impl State {
    /// What to do about the courier, now that an exchange may be due at another time.
    pub(super) fn plan_exchange(&mut self, now: Mono) -> Option<ToCourier> {
        let due = self.bank.exchange_due(now)?;
        if !std::mem::replace(&mut self.courier_runs, true) {
            return Some(ToCourier::Start);
        }
        // Later than it sleeps for: it finds out when it wakes.
        let earlier = self.exchange.is_some_and(|known| due < known);
        if earlier {
            self.exchange = Some(due);
        }
        earlier.then_some(ToCourier::Look)
    }
}

/// What the courier has to be told.
pub(super) enum ToCourier {
    Start,
    Look,
}
