//! Waiting calls and the timer that wakes the bank for them.
//!
//! The timer task exists only while somebody waits. No change of the bank is missed by it: every change computes the next wake-up
//! under the lock and, if it differs from the one the timer sleeps for, leaves a permit in the [`Notify`](tokio::sync::Notify); the
//! timer takes that permit before it sleeps, or is woken by it. There is one timer at most, so no other task can take its permit.

use std::sync::{Arc, Weak};

use tidegate_core::pace::WaiterId;
use tidegate_core::time::Mono;
use tokio::sync::oneshot;

use super::{Granted, Pacer, Shared, State};

impl Pacer {
    /// Waits to be told; `None` if the timer ended without telling.
    pub(super) async fn wait(
        &self,
        waiter: WaiterId,
        granted: oneshot::Receiver<Granted>,
    ) -> Option<Granted> {
        let mut leave = LeaveQueue { pacer: self, waiter: Some(waiter) };
        self.start_timer();
        let granted = granted.await.ok();
        leave.waiter = None;
        granted
    }

    /// Starts the timer task unless it runs.
    fn start_timer(&self) {
        let runs = std::mem::replace(&mut self.shared.state.lock().timer_runs, true);
        if !runs {
            let timer = Timer { shared: Arc::downgrade(&self.shared), ended: false };
            tokio::spawn(timer.run());
        }
    }
}

impl State {
    /// Notes the next wake-up, and whether it is another than before.
    pub(super) fn plan_wake(&mut self, now: Mono) -> bool {
        let wake = self.bank.next_wake(now);
        std::mem::replace(&mut self.wake, wake) != wake
    }
}

/// Wakes the bank at the instants it names, for as long as somebody waits.
///
/// Made before its task is spawned: a runtime that ends drops it unpolled, and then others must learn of it too.
struct Timer {
    shared: Weak<Shared>,
    /// It ended because nobody waits any more; another may run by now.
    ended: bool,
}

impl Timer {
    async fn run(mut self) {
        let Some(pacer) = self.pacer() else { return };
        loop {
            let wake = {
                let mut state = pacer.shared.state.lock();
                if state.waiting.is_empty() {
                    state.timer_runs = false;
                    self.ended = true;
                    return;
                }
                state.plan_wake(pacer.shared.clock.now());
                state.wake
            };
            let changed = pacer.shared.changed.notified();
            match wake {
                Some(at) => {
                    let at = pacer.shared.clock.instant(at);
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => pacer.locked(|_, _| ()),
                        () = changed => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    fn pacer(&self) -> Option<Pacer> {
        self.shared.upgrade().map(|shared| Pacer { shared })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let Some(pacer) = self.pacer() else { return };
        let mut state = pacer.shared.state.lock();
        state.timer_runs = false;
        let now = pacer.shared.clock.now();
        let waiting = std::mem::take(&mut state.waiting);
        for waiter in waiting.keys() {
            state.bank.abandon(now, *waiter);
        }
        drop(state);
        // Those who still wait find their channel closed, and queue again.
        drop(waiting);
    }
}

/// Leaves the queue when a waiting call is dropped.
struct LeaveQueue<'a> {
    pacer: &'a Pacer,
    waiter: Option<WaiterId>,
}

impl Drop for LeaveQueue<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.pacer.locked(|state, now| {
                state.waiting.remove(&waiter);
                state.bank.abandon(now, waiter);
            });
        }
    }
}
