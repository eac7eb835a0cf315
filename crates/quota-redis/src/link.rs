//! The one connection to a server: made and mended in the background, never in a call's way.
//!
//! It is also the breaker. After three late answers in a row nothing more is sent on a connection until it has answered a `PING`:
//! answers come in the order of their requests, so with that one all before it have come, and the connection is as good as before.
//! A server under load would only have more to do if its clients came back on new ones. One that does not answer within half a
//! second, as where a firewall has forgotten it, is given up like one that breaks. Another attempt
//! follows at once, further ones after 100 ms and then twice as long each, up to half a second, each pause shorter by up to a quarter by chance, so
//! that processes that lost one server do not return in step: a server that is back is found within half a second. Between attempts calls are refused at once and told when the next one is; a call that comes then waits for
//! it as it would for an answer, so that what was due is said as soon as there is a connection. A new connection counts only
//! when it has answered: a server that is stopped and still accepts connections is not taken for one that is back.
//!
//! Attempts end when nobody has asked for a while; the next call begins them again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::fault::Fault;
use crate::target::{Target, Wire};

/// Answers in a row that may be late.
const LATE: u32 = 3;
/// Late answers are waited for so long before their connection is given up.
const STILL: Duration = Duration::from_millis(500);
/// Between attempts, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));
/// Nobody asked for so long: attempts end.
const IDLE: Duration = Duration::from_secs(30);

/// The connection.
pub(crate) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    target: Target,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    phase: Phase,
    /// Connections made so far: what is said of an older one is no news.
    made: u64,
    /// Late answers in a row.
    late: u32,
    asked: Instant,
}

enum Phase {
    /// Nothing is under way.
    Apart,
    /// The first attempt is under way: it is waited for.
    First,
    Up(Wire),
    /// Attempts are made in the background; the next one begins then, or is under way since.
    Down(Fault, Instant),
}

/// A connection in use.
pub(crate) struct Lent {
    pub(crate) wire: Wire,
    number: u64,
}

/// Why none is lent, and when to ask again.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) fault: Fault,
    pub(crate) retry_after: Option<Duration>,
}

impl Link {
    pub(crate) fn new(target: Target) -> Self {
        let state = State { phase: Phase::Apart, made: 0, late: 0, asked: Instant::now() };
        Self { shared: Arc::new(Shared { target, state: Mutex::new(state), changed: Notify::new() }) }
    }

    pub(crate) fn name(&self) -> &str {
        self.shared.target.name()
    }

    /// The connection. An attempt that is under way is waited for, no longer than `patience`.
    pub(crate) async fn lend(&self, patience: Duration) -> Result<Lent, Refused> {
        let by = Instant::now() + patience;
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = self.look() {
                return found;
            }
            if timeout_at(by, changed).await.is_err() {
                return Err(Refused { fault: Fault::late(patience), retry_after: self.retry_after() });
            }
        }
    }

    /// Time to the next attempt, zero while one is under way; `None`: there was none yet that failed.
    fn retry_after(&self) -> Option<Duration> {
        match self.shared.state.lock().phase {
            Phase::Down(_, until) => Some(until.saturating_duration_since(Instant::now())),
            Phase::Apart | Phase::First | Phase::Up(_) => None,
        }
    }

    fn look(&self) -> Option<Result<Lent, Refused>> {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        state.asked = now;
        match &state.phase {
            Phase::Up(wire) => Some(Ok(Lent { wire: wire.clone(), number: state.made })),
            Phase::Down(fault, until) if *until > now => {
                Some(Err(Refused { fault: fault.clone(), retry_after: Some(*until - now) }))
            }
            Phase::Down(..) | Phase::First => None,
            Phase::Apart => {
                state.phase = Phase::First;
                tokio::spawn(connect(Arc::clone(&self.shared), None));
                None
            }
        }
    }

    /// A connection has answered, whatever it said.
    pub(crate) fn answered(&self, lent: &Lent) {
        let mut state = self.shared.state.lock();
        if state.made == lent.number {
            state.late = 0;
        }
    }

    /// A connection did not answer in time.
    pub(crate) fn was_late(&self, lent: &Lent, patience: Duration) {
        let mut state = self.shared.state.lock();
        if state.made == lent.number {
            state.late += 1;
            if state.late >= LATE {
                mend(&self.shared, &mut state, Fault::late(patience), Some(lent.wire.clone()));
            }
        }
    }

    /// A connection is of no use any more.
    pub(crate) fn broke(&self, lent: &Lent, fault: &Fault) {
        let mut state = self.shared.state.lock();
        if state.made == lent.number {
            mend(&self.shared, &mut state, fault.clone(), None);
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("to", &self.name()).finish_non_exhaustive()
    }
}

/// Nothing is sent until there is a connection that answers: the `slow` one that there is, or another.
fn mend(shared: &Arc<Shared>, state: &mut State, fault: Fault, slow: Option<Wire>) {
    if matches!(state.phase, Phase::Up(_)) {
        state.phase = Phase::Down(fault, Instant::now());
        tokio::spawn(connect(Arc::clone(shared), slow));
    }
}

/// Waits for a `slow` connection to answer; makes another where there is none or it does not, however often it takes.
async fn connect(shared: Arc<Shared>, slow: Option<Wire>) {
    if let Some(mut wire) = slow
        && let Ok(Ok(())) = timeout(STILL, wire.ping()).await
    {
        let mut state = shared.state.lock();
        // It is the same one, so what is still said of it is news.
        (state.phase, state.late) = (Phase::Up(wire), 0);
        drop(state);
        shared.changed.notify_waiters();
        return;
    }
    let mut pause = PAUSE.0;
    loop {
        let fault = match timeout(Target::CONNECT, shared.target.connect()).await {
            Ok(Ok(wire)) => {
                let mut state = shared.state.lock();
                state.phase = Phase::Up(wire);
                state.made += 1;
                state.late = 0;
                shared.changed.notify_waiters();
                return;
            }
            Ok(Err(error)) => Fault::of_connecting(Some(&error), Target::CONNECT, shared.target.is_tls()),
            Err(_) => Fault::of_connecting(None, Target::CONNECT, shared.target.is_tls()),
        };
        tracing::debug!(store = shared.target.name(), ?fault, "no connection");
        let until = Instant::now() + shortened(pause, fastrand::f64());
        shared.state.lock().phase = Phase::Down(fault, until);
        shared.changed.notify_waiters();
        sleep_until(until).await;
        pause = (2 * pause).min(PAUSE.1);
        let mut state = shared.state.lock();
        if state.asked.elapsed() > IDLE {
            state.phase = Phase::Apart;
            return;
        }
    }
}

/// A pause, shorter by up to a quarter; `chance` is from 0 to 1.
fn shortened(pause: Duration, chance: f64) -> Duration {
    pause.mul_f64(1.0 - chance / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_and_never_longer() {
        let pause = |chance| shortened(PAUSE.1, chance).as_millis();
        assert_eq!([pause(0.0), pause(0.5), pause(1.0)], [500, 437, 375]);
    }
}
