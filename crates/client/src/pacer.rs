//! The shell around one bank: a lock, one timer, and a channel per waiting call.
//!
//! The bank decides; this file only locks it for a few lines, sleeps until the instant it names, and hands each
//! grant to the one waiter it chose. The timer task exists only while somebody waits. A ticket gives back on drop
//! what its stage allows: unsent quota returns to the gates, sent quota never does.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_core::key::Family;
use tidegate_core::latency::Recent;
use tidegate_core::pace::{
    Answer, Ask, Asked, Bank, BankConfig, BankSnapshot, Refusal, SpecProblem, TicketId, WaiterId, Woken,
};
use tokio::sync::{Notify, oneshot};

use crate::clock::Clock;
use crate::observe::Observers;

/// Families whose answer times are remembered; beyond it the estimate of the profile's floor is used.
const MAX_TIMED_FAMILIES: usize = 1024;

/// Paces all calls of one tenant on one upstream.
#[derive(Clone)]
pub struct Pacer {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    clock: Clock,
    observers: Observers,
}

struct State {
    bank: Bank,
    waiting: HashMap<WaiterId, oneshot::Sender<Granted>>,
    woken: Vec<(WaiterId, Woken)>,
    timer_runs: bool,
    answer_times: HashMap<Family, Recent>,
}

type Granted = Result<Ticket, Refusal>;

impl std::fmt::Debug for Pacer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pacer").finish_non_exhaustive()
    }
}

impl Pacer {
    /// A pacer with the gates of `config`.
    ///
    /// # Errors
    /// Every problem of the configuration.
    pub fn new(config: BankConfig, clock: Clock, observers: Observers) -> Result<Self, Vec<SpecProblem>> {
        let state = State {
            bank: Bank::new(config)?,
            waiting: HashMap::new(),
            woken: Vec::new(),
            timer_runs: false,
            answer_times: HashMap::new(),
        };
        let shared = Shared { state: Mutex::new(state), changed: Notify::new(), clock, observers };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Waits for a ticket.
    ///
    /// # Errors
    /// The bank's refusal, at once or as soon as the forecast says that the call cannot leave in time.
    pub async fn acquire(&self, ask: &Ask<'_>) -> Result<Ticket, Refusal> {
        let asked = self.locked(|state, now| match state.bank.ask(now, ask) {
            Asked::Granted(id) => Ok(Ok(id)),
            Asked::Refused(refusal) => Ok(Err(refusal)),
            Asked::Queued(waiter) => {
                let (tell, granted) = oneshot::channel();
                state.waiting.insert(waiter, tell);
                Err((waiter, granted))
            }
        });
        match asked {
            Ok(decided) => decided.map(|id| self.ticket(id)),
            Err((waiter, granted)) => self.wait(waiter, granted).await,
        }
    }

    /// What the gates hold now, for `/api/state` and the metrics.
    pub fn snapshot(&self) -> BankSnapshot {
        let now = self.shared.clock.now();
        self.shared.state.lock().bank.snapshot(now)
    }

    /// The 95th percentile of the family's latest answer times, if any is known.
    pub fn answer_time(&self, family: &Family) -> Option<Duration> {
        self.shared.state.lock().answer_times.get(family).and_then(Recent::p95)
    }

    async fn wait(&self, waiter: WaiterId, granted: oneshot::Receiver<Granted>) -> Granted {
        self.start_timer();
        let mut leave = LeaveQueue { pacer: self, waiter: Some(waiter) };
        let granted = granted.await.expect("a waiter is told before its channel is dropped");
        leave.waiter = None;
        granted
    }

    fn ticket(&self, id: TicketId) -> Ticket {
        Ticket { id, pacer: self.clone(), done: false }
    }

    /// Runs `change` under the lock, then hands out what it made possible. Grants and events leave after the lock
    /// is released: a grant whose waiter is gone comes back through [`Ticket`]'s drop, which locks again.
    fn locked<R>(&self, change: impl FnOnce(&mut State, tidegate_core::time::Mono) -> R) -> R {
        let (result, woken, events) = {
            let mut state = self.shared.state.lock();
            let state = &mut *state;
            let now = self.shared.clock.now();
            let result = change(state, now);
            state.bank.advance(now, &mut state.woken);
            let woken: Vec<_> =
                state.woken.drain(..).map(|(waiter, woken)| (state.waiting.remove(&waiter), woken)).collect();
            (result, woken, state.bank.drain_events())
        };
        for (tell, woken) in woken {
            let granted = match woken {
                Woken::Granted(id) => Ok(self.ticket(id)),
                Woken::Refused(refusal) => Err(refusal),
            };
            if let Some(tell) = tell {
                // A waiter that is gone returns its grant here, and the ticket's drop gives it back.
                drop(tell.send(granted));
            }
        }
        self.shared.observers.events(&events);
        self.shared.changed.notify_one();
        result
    }

    /// Starts the timer task unless it runs.
    fn start_timer(&self) {
        let runs = std::mem::replace(&mut self.shared.state.lock().timer_runs, true);
        if !runs {
            tokio::spawn(run_timer(Arc::downgrade(&self.shared)));
        }
    }
}

/// Wakes the bank at the instants it names, for as long as somebody waits.
async fn run_timer(shared: Weak<Shared>) {
    loop {
        let Some(pacer) = shared.upgrade().map(|shared| Pacer { shared }) else { return };
        let wake = {
            let mut state = pacer.shared.state.lock();
            if state.waiting.is_empty() {
                state.timer_runs = false;
                return;
            }
            state.bank.next_wake(pacer.shared.clock.now())
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

/// Permission for one attempt.
///
/// Dropped before it is sent it gives back what it held. Dropped after, what the upstream may have counted stays
/// spent.
#[derive(Debug)]
#[must_use = "a ticket that is dropped is given back"]
pub struct Ticket {
    id: TicketId,
    pacer: Pacer,
    done: bool,
}

impl Ticket {
    /// The limit that explains the wait for this ticket.
    pub fn limit(&self) -> Arc<str> {
        self.pacer.shared.state.lock().bank.ticket_limit(self.id)
    }

    /// What marks the attempt as leaving, for whoever sends it.
    pub fn departure(&self) -> Departure {
        Departure { id: self.id, pacer: self.pacer.clone() }
    }

    /// Settles the ticket with what the answer said, and how long it took to come.
    pub fn answered(mut self, answer: &Answer<'_>, family: &Family, took: Option<Duration>) {
        self.done = true;
        self.pacer.locked(|state, now| {
            state.bank.answered(now, self.id, answer);
            let Some(took) = took else { return };
            if state.answer_times.len() < MAX_TIMED_FAMILIES || state.answer_times.contains_key(family) {
                state.answer_times.entry(family.clone()).or_default().record(took);
            }
        });
    }
}

/// Marks a ticket's attempt as leaving.
#[derive(Debug)]
pub struct Departure {
    id: TicketId,
    pacer: Pacer,
}

impl Departure {
    /// The attempt leaves now: from here on its quota counts as spent.
    pub fn leave(self) {
        self.pacer.locked(|state, now| state.bank.sent(now, self.id));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.done {
            self.pacer.locked(|state, now| state.bank.dropped(now, self.id));
        }
    }
}
