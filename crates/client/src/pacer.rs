//! The shell around one bank: a lock, one timer, and a channel per waiting call.
//!
//! The bank decides; this module only locks it for a few lines, sleeps until the instant it names, and hands each
//! grant to the one waiter it chose. The timer task exists only while somebody waits. A ticket gives back on drop
//! what its stage allows: unsent quota returns to the gates, sent quota never does.
//!
//! Who waits and who is woken is in `timer`, what a caller holds in `ticket`, how the bank meets other processes in `exchanges`,
//! and how its state is stored in `keeping`.

mod exchanges;
mod keeping;
mod ticket;
mod timer;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_core::event::Event;
use tidegate_core::key::Family;
use tidegate_core::latency::Recent;
use tidegate_core::pace::{
    Ask, Asked, Bank, BankConfig, BankSnapshot, Class, Named, Quoted, Refusal, SpecProblem, WaiterId, Woken,
};
use tidegate_core::time::Mono;
use tokio::sync::{Notify, oneshot, watch};

use self::exchanges::ToCourier;
pub use self::ticket::Ticket;
use crate::clock::Clock;
use crate::observe::Observers;
use crate::share::Link;

/// Paces all calls of one tenant on one upstream.
#[derive(Clone)]
pub struct Pacer {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Notify,
    /// The state should be stored soon: a gate closed, a breaker changed, or the upstream told a quota.
    to_keep: Notify,
    /// The state should be stored at once: half of a lease was used, or what is stored is old.
    to_lease: Notify,
    clock: Clock,
    observers: Observers,
    /// Where the quota is shared with other processes.
    link: OnceLock<Link>,
    /// Attempts that go on when their caller has gone.
    outliving: watch::Sender<usize>,
}

struct State {
    bank: Bank,
    /// Who waits, since when, and where it is told.
    waiting: HashMap<WaiterId, (Mono, oneshot::Sender<Granted>)>,
    woken: Vec<(WaiterId, Woken)>,
    timer_runs: bool,
    /// What the timer sleeps for.
    wake: Option<Mono>,
    courier_runs: bool,
    /// What the courier sleeps for.
    exchange: Option<Mono>,
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
            wake: None,
            courier_runs: false,
            exchange: None,
            answer_times: HashMap::new(),
        };
        let outliving = watch::Sender::new(0);
        let shared = Shared {
            state: Mutex::new(state),
            changed: Notify::new(),
            to_keep: Notify::new(),
            to_lease: Notify::new(),
            clock,
            observers,
            link: OnceLock::new(),
            outliving,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Waits for a ticket.
    ///
    /// # Errors
    /// The bank's refusal, at once or as soon as the forecast says that the call cannot leave in time.
    pub async fn acquire(&self, ask: &Ask<'_>) -> Result<Ticket, Refusal> {
        loop {
            let asked = self.locked(|state, now| match state.bank.ask(now, ask) {
                Asked::Granted(id) => Ok(Ok(id)),
                Asked::Refused(refusal) => Ok(Err(refusal)),
                Asked::Queued(waiter) => {
                    let (tell, granted) = oneshot::channel();
                    state.waiting.insert(waiter, (now, tell));
                    Err((waiter, granted))
                }
            });
            match asked {
                Ok(decided) => return decided.map(|id| self.ticket(id, Duration::ZERO)),
                Err((waiter, granted)) => {
                    if let Some(granted) = self.wait(waiter, granted).await {
                        return granted;
                    }
                }
            }
            // The timer's runtime ended while others wait on another one: they queue again, with a timer of theirs.
            // Giving way first lets a runtime that is ending itself end this loop.
            tokio::task::yield_now().await;
        }
    }

    /// The upstream lists what its limits allow (see [`Bank::set_quotas`]).
    pub fn set_quotas(&self, listed: &[Quoted<'_>]) -> Vec<Named> {
        let before = self.revision();
        let named = self.locked(|state, _| state.bank.set_quotas(listed));
        if self.revision() != before {
            self.shared.to_keep.notify_one();
        }
        named
    }

    /// Why calls of a class wait for a window of the calendar, in words, and for how long; `None` if they do not.
    pub fn held(&self, class: Class) -> Option<(String, Duration)> {
        self.locked(|state, now| state.bank.held_words(now, class))
    }

    /// What the gates hold now, for `/api/state` and the metrics.
    pub fn snapshot(&self) -> BankSnapshot {
        self.locked(|state, now| state.bank.snapshot(now))
    }

    /// The 95th percentile of the family's latest answer times, if any is known.
    pub fn answer_time(&self, family: &Family) -> Option<Duration> {
        self.shared.state.lock().answer_times.get(family).and_then(Recent::p95)
    }

    /// Runs `change` under the lock, then hands out what it made possible. Grants and events leave after the lock
    /// is released: a grant whose waiter is gone comes back through [`Ticket`]'s drop, which locks again.
    fn locked<R>(&self, change: impl FnOnce(&mut State, Mono) -> R) -> R {
        let (now, result, woken, events, timer_moves, lease_low, courier) = {
            let mut state = self.shared.state.lock();
            let state = &mut *state;
            let now = self.shared.clock.now();
            if state.bank.has_calendar() {
                state.bank.tell_time(now, self.shared.clock.wall());
            }
            let result = change(state, now);
            state.bank.advance(now, &mut state.woken);
            let State { waiting, woken, .. } = state;
            let woken: Vec<_> =
                woken.drain(..).map(|(waiter, woken)| (waiting.remove(&waiter), woken)).collect();
            let timer_moves = state.timer_runs && (state.waiting.is_empty() | state.plan_wake(now));
            let courier = state.plan_exchange(now);
            (now, result, woken, state.bank.drain_events(), timer_moves, state.bank.is_store_due(), courier)
        };
        for (waiter, woken) in woken {
            let (since, tell) = waiter.unzip();
            let granted = match woken {
                Woken::Granted(id) => Ok(self.ticket(id, now - since.unwrap_or(now))),
                Woken::Refused(refusal) => Err(refusal),
            };
            if let Some(tell) = tell {
                // A waiter that is gone returns its grant here, and the ticket's drop gives it back.
                drop(tell.send(granted));
            }
        }
        let closing = |event: &Event| matches!(event, Event::Throttled { .. } | Event::Breaker { .. });
        if events.iter().any(closing) {
            self.shared.to_keep.notify_one();
        }
        if lease_low {
            self.shared.to_lease.notify_one();
        }
        self.shared.observers.events(&events);
        if timer_moves {
            self.shared.changed.notify_one();
        }
        match courier {
            Some(ToCourier::Start) => self.start_courier(),
            Some(ToCourier::Look) => drop(self.shared.link.get().map(|link| link.changed.notify_one())),
            None => {}
        }
        result
    }

    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn now(&self) -> Mono {
        self.shared.clock.now()
    }
}
