//! The shell around one bank: a lock, one timer, and a channel per waiting call.
//!
//! The bank decides; this file only locks it for a few lines, sleeps until the instant it names, and hands each
//! grant to the one waiter it chose. The timer task exists only while somebody waits. A ticket gives back on drop
//! what its stage allows: unsent quota returns to the gates, sent quota never does.
//!
//! No change of the bank is missed by the timer: every change computes the next wake-up under the lock and, if it
//! differs from the one the timer sleeps for, leaves a permit in the [`Notify`]; the timer takes that permit before
//! it sleeps, or is woken by it. There is one timer at most, so no other task can take its permit.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_core::event::Event;
use tidegate_core::key::Family;
use tidegate_core::latency::Recent;
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, BankSnapshot, Kept, Named, Quoted, Refusal, Restored,
    SpecProblem, TicketId, WaiterId, Woken,
};
use tidegate_core::share::{Away, BankKey, Exchange, Reply};
use tidegate_core::time::{Mono, Wall};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::observe::{Observers, StoreDone};
use crate::share::{Courier, Link, SharedQuota};

/// Families whose answer times are remembered; beyond it the estimate of the profile's floor is used.
const MAX_TIMED_FAMILIES: usize = 1024;

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

    /// Paces by permits from a store from now on, together with all who speak of `bank` there. To be called once, after
    /// [`restore`](Pacer::restore) and before the first [`acquire`](Pacer::acquire); a second call changes nothing.
    pub fn share(&self, quota: &SharedQuota, bank: BankKey) {
        let link = Link { store: Arc::clone(&quota.store), bank, changed: Arc::default() };
        if self.shared.link.set(link).is_ok() {
            self.shared.state.lock().bank.share(quota.config);
        }
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

    /// Gives back what this process holds of a quota that it shares, so that the others need not wait for the end of a lease. To be
    /// called when nothing is to leave any more and the process ends. It takes no longer than the store's patience in all
    /// (`quota.timeout`), and nothing at all where nothing is shared or held, or the store is away. A call that comes after all asks
    /// the store as the first one did.
    pub async fn give_back(&self) {
        if let Some(link) = self.shared.link.get() {
            link.give_back(self).await;
        }
    }

    /// What the gates hold now, for `/api/state` and the metrics.
    pub fn snapshot(&self) -> BankSnapshot {
        let now = self.shared.clock.now();
        self.shared.state.lock().bank.snapshot(now)
    }

    /// The state of the gates, to be stored for a successor; see [`Bank::keep`].
    pub fn keep(&self) -> Kept {
        let (now, wall) = (self.shared.clock.now(), self.wall());
        self.shared.state.lock().bank.keep(now, wall)
    }

    /// The state of the gates, to be stored now; see [`Bank::begin_store`].
    pub(crate) fn begin_store(&self) -> Kept {
        let (now, wall) = (self.shared.clock.now(), self.wall());
        self.shared.state.lock().bank.begin_store(now, wall)
    }

    /// What became of it.
    pub(crate) fn end_store(&self, stored: bool) {
        self.locked(|state, _| if stored { state.bank.stored() } else { state.bank.not_stored() });
    }

    /// Begins with what another process stored; see [`Bank::restore`]. To be called before the first
    /// [`acquire`](Pacer::acquire).
    pub fn restore(&self, kept: &Kept, uncovered: Duration) -> Restored {
        self.restore_at(self.wall(), kept, uncovered)
    }

    /// The same when it is `today`, whatever the wall clock shows.
    pub(crate) fn restore_at(&self, today: Wall, kept: &Kept, uncovered: Duration) -> Restored {
        let now = self.shared.clock.now();
        self.shared.state.lock().bank.restore(now, today, kept, uncovered)
    }

    /// Changes with the state, but for the passing of time.
    pub fn revision(&self) -> u64 {
        self.shared.state.lock().bank.revision()
    }

    pub(crate) fn wall(&self) -> Wall {
        self.shared.clock.wall()
    }

    /// Whether a state should be stored, if the last one is old; see [`Bank::has_unstored`].
    pub(crate) fn has_unstored(&self) -> bool {
        self.shared.state.lock().bank.has_unstored()
    }

    /// Waits until half of a lease is used or what is stored is old: who comes later may have to wait for a stored state. One task
    /// may wait.
    pub(crate) async fn to_lease(&self) {
        self.shared.to_lease.notified().await;
    }

    /// Waits until the state should be stored soon. One task may wait.
    pub(crate) async fn to_keep(&self) {
        self.shared.to_keep.notified().await;
    }

    /// The 95th percentile of the family's latest answer times, if any is known.
    pub fn answer_time(&self, family: &Family) -> Option<Duration> {
        self.shared.state.lock().answer_times.get(family).and_then(Recent::p95)
    }

    /// Attempts in flight that go on when their caller has gone.
    pub fn outliving(&self) -> usize {
        *self.shared.outliving.borrow()
    }

    /// Waits until there is none of them.
    pub async fn idle(&self) {
        // The sender lives as long as this pacer, so there is always an answer.
        drop(self.shared.outliving.subscribe().wait_for(|outliving| *outliving == 0).await);
    }

    /// Waits to be told; `None` if the timer ended without telling.
    async fn wait(&self, waiter: WaiterId, granted: oneshot::Receiver<Granted>) -> Option<Granted> {
        let mut leave = LeaveQueue { pacer: self, waiter: Some(waiter) };
        self.start_timer();
        let granted = granted.await.ok();
        leave.waiter = None;
        granted
    }

    fn ticket(&self, id: TicketId, waited: Duration) -> Ticket {
        Ticket { id, pacer: self.clone(), waited, settled: false }
    }

    /// Runs `change` under the lock, then hands out what it made possible. Grants and events leave after the lock
    /// is released: a grant whose waiter is gone comes back through [`Ticket`]'s drop, which locks again.
    fn locked<R>(&self, change: impl FnOnce(&mut State, Mono) -> R) -> R {
        let (now, result, woken, events, timer_moves, lease_low, courier) = {
            let mut state = self.shared.state.lock();
            let state = &mut *state;
            let now = self.shared.clock.now();
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

    /// Starts the courier, on whatever runtime this is called. Where there is none, the next call that is on one does.
    fn start_courier(&self) {
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

    pub(crate) fn store_failed(&self, why: &str) {
        self.locked(|state, _| state.bank.store_failed(why));
    }

    pub(crate) fn store_done(&self, done: &StoreDone<'_>) {
        self.shared.observers.store(done);
    }

    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn now(&self) -> Mono {
        self.shared.clock.now()
    }

    /// Since when this process paces by itself because the store is away; see [`Bank::share_mode_since`].
    pub fn share_mode_since(&self) -> Option<Mono> {
        self.shared.state.lock().bank.share_mode_since()
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
    fn plan_wake(&mut self, now: Mono) -> bool {
        let wake = self.bank.next_wake(now);
        std::mem::replace(&mut self.wake, wake) != wake
    }

    /// What to do about the courier, now that an exchange may be due at another time.
    fn plan_exchange(&mut self, now: Mono) -> Option<ToCourier> {
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
enum ToCourier {
    Start,
    Look,
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

/// Permission for one attempt.
///
/// Dropped before it is sent it gives back what it held. Dropped after, what the upstream may have counted stays
/// spent.
#[derive(Debug)]
#[must_use = "a ticket that is dropped is given back"]
pub struct Ticket {
    id: TicketId,
    pacer: Pacer,
    waited: Duration,
    settled: bool,
}

impl Ticket {
    /// How long the limits made it wait: zero if it was there at once, however slow this machine is.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The limit that explains the wait for this ticket.
    pub fn limit(&self) -> Arc<str> {
        self.pacer.shared.state.lock().bank.ticket_limit(self.id)
    }

    /// The attempt leaves now: from here on its quota counts as spent.
    pub fn leave(&mut self) {
        self.pacer.locked(|state, now| state.bank.sent(now, self.id));
    }

    /// Counts its attempt among those that outlive their callers, until the returned value is dropped.
    pub(crate) fn outlive(&self) -> Outliving {
        self.pacer.shared.outliving.send_modify(|outliving| *outliving += 1);
        Outliving { pacer: self.pacer.clone() }
    }

    /// Settles the ticket with what the answer said, and how long it took to come.
    pub fn answered(mut self, answer: &Answer<'_>, family: &Family, took: Option<Duration>) {
        self.settled = true;
        self.pacer.locked(|state, now| {
            state.bank.answered(now, self.id, answer);
            // Every mistyped path is a family of its own: those must not take the place of real ones.
            let Some(took) = took.filter(|_| answer.kind != AnswerKind::NotFound) else { return };
            if let Some(recent) = state.answer_times.get_mut(family) {
                recent.record(took);
            } else if state.answer_times.len() < MAX_TIMED_FAMILIES {
                state.answer_times.entry(family.clone()).or_default().record(took);
            }
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.pacer.locked(|state, now| state.bank.dropped(now, self.id));
        }
    }
}

/// One attempt that goes on when its caller has gone.
pub(crate) struct Outliving {
    pacer: Pacer,
}

impl Drop for Outliving {
    fn drop(&mut self) {
        self.pacer.shared.outliving.send_modify(|outliving| *outliving -= 1);
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::key::CredentialId;
    use tidegate_core::observe::Observation;
    use tidegate_core::pace::{CallerId, Class, TokenSlot};

    use super::*;

    #[tokio::test]
    async fn answer_times_are_kept_of_families_that_exist() {
        let pacer = Pacer::new(BankConfig::default(), Clock::start(), Observers::default()).expect("a bank");
        let credential = CredentialId::new("c");
        for (path, kind, known) in
            [("/api/v2/users", AnswerKind::Accepted, true), ("/api/v2/typo", AnswerKind::NotFound, false)]
        {
            let family = Family::of(path);
            let ask = Ask {
                method: &http::Method::GET,
                path,
                family: &family,
                credential: &credential,
                token: TokenSlot(1),
                class: Class::Interactive,
                caller: CallerId::ANYBODY,
                deadline: None,
                give_up_at: None,
            };
            for _ in 0..32 {
                let mut ticket = pacer.acquire(&ask).await.expect("a ticket");
                ticket.leave();
                let nothing = Observation::default();
                let answer = Answer { kind, observation: &nothing };
                ticket.answered(&answer, &family, Some(Duration::from_millis(5)));
            }
            assert_eq!(pacer.answer_time(&family).is_some(), known, "{path}");
        }
    }
}
