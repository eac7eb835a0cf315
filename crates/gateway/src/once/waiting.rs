//! Who waits for a write, and what becomes of it when nobody does.
//!
//! The last one who stops waiting decides: a write that has not left is stopped, one that has is left to be adopted. The
//! end of its task tells everybody, whichever way the task ends.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method};
use tidegate_store::ledger::Scope;

use super::answer::{Ended, Fate, lost};
use super::flight::{Flight, Print, hash};
use super::order::{Order, Turn};
use super::{Once, Table};

/// A write without a key, as far as an identical one must agree with it.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) method: Method,
    /// Path and query, as the caller wrote them.
    pub(super) target: String,
    pub(super) caller: String,
    /// The name the caller gave the write for the upstream: with another one it is another write.
    pub(super) named: Option<HeaderValue>,
    pub(super) body: Bytes,
    /// Whether executing it twice could do harm. Where it could not, sending again tells more than an old answer.
    pub(super) can_be_adopted: bool,
}

impl Subject {
    /// Its place among the writes to `path`. A PATCH is worth adopting only while it is the last of them; a POST makes
    /// something new.
    pub(super) fn turn(&self, order: &Arc<Order>, path: &str) -> Turn {
        let overtakable = self.can_be_adopted && self.method == Method::PATCH;
        Turn::new(order, path, overtakable.then(|| self.print()))
    }

    pub(super) fn print(&self) -> Print {
        let named = self.named.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let [caller, method, target] = [&self.caller, self.method.as_str(), &self.target].map(str::as_bytes);
        hash("tidegate orphan 1", &[caller, method, target, named, &self.body])
    }
}

/// What a keyed write finds.
pub(super) enum Seat {
    /// It is the first.
    First(Waiter),
    /// The same one is in flight.
    Joined(Waiter),
    /// Another one is in flight with its key.
    Another,
}

/// Where a write is found by others.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Keyed(Scope, String),
    Plain(Arc<Subject>),
}

impl Place {
    pub(super) fn find<'t>(&self, table: &'t Table) -> Option<&'t Arc<Flight>> {
        match self {
            Self::Keyed(scope, key) => table.keyed.get(&(*scope, key.clone())),
            Self::Plain(_) => None,
        }
    }

    pub(super) fn insert(&self, table: &mut Table, flight: &Arc<Flight>) {
        if let Self::Keyed(scope, key) = self {
            table.keyed.insert((*scope, key.clone()), Arc::clone(flight));
        }
    }

    /// Takes `flight` out; another one that came after it stays.
    pub(super) fn remove(&self, table: &mut Table, flight: &Arc<Flight>) {
        if let Self::Keyed(scope, key) = self {
            let place = (*scope, key.clone());
            if table.keyed.get(&place).is_some_and(|there| Arc::ptr_eq(there, flight)) {
                table.keyed.remove(&place);
            }
        }
    }
}

/// One who waits for a write. Dropped before its end, as by a caller that hangs up, it leaves the write to others.
pub(super) struct Waiter {
    once: Arc<Once>,
    pub(super) flight: Arc<Flight>,
    place: Place,
}

impl Waiter {
    /// One more waits for `flight`. Under the table's lock, where others can find it.
    pub(super) fn new(once: &Arc<Once>, flight: &Arc<Flight>, place: Place) -> Self {
        flight.join();
        Self { once: Arc::clone(once), flight: Arc::clone(flight), place }
    }

    /// The end of the task that carries the write out.
    pub(super) fn landing(&self) -> Landing {
        self.once.running.send_modify(|running| *running += 1);
        Landing { once: Arc::clone(&self.once), flight: Arc::clone(&self.flight), place: self.place.clone() }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut table = self.once.table.lock();
        if self.flight.part() && self.flight.ended().is_none() {
            abandon(&self.once, &mut table, &self.flight, &self.place);
        }
    }
}

/// Nobody waits for `flight` any more, and it has not ended.
fn abandon(once: &Once, table: &mut Table, flight: &Arc<Flight>, place: &Place) {
    if flight.call_off() {
        place.remove(table, flight);
        return;
    }
    if let Place::Plain(subject) = place
        && subject.can_be_adopted
    {
        let now = once.tenant.upstream.clock().now();
        table.orphans.leave(subject.print(), Arc::clone(flight), now);
    }
}

/// The end of a write's task, however it comes.
pub(super) struct Landing {
    once: Arc<Once>,
    pub(super) flight: Arc<Flight>,
    place: Place,
}

impl Landing {
    pub(super) fn end(&self, ended: Ended) {
        let now = self.once.tenant.upstream.clock().now();
        let mut table = self.once.table.lock();
        let abandoned = self.flight.was_abandoned();
        // An answer that came whole was told to whoever waited; one that still comes only to the first.
        let is_for_all = ended.is_for_all() && (ended.fate == Fate::Unknown || abandoned);
        if abandoned {
            ended.forget_stream();
        }
        self.flight.end(ended, now);
        self.place.remove(&mut table, &self.flight);
        if let Place::Plain(subject) = &self.place
            && is_for_all
            && subject.can_be_adopted
        {
            table.orphans.leave(subject.print(), Arc::clone(&self.flight), now);
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if self.flight.ended().is_none() {
            // The task was stopped, or it failed.
            self.end(lost(self.once.shape(), self.flight.exit.may_have_left()));
        }
        self.once.running.send_modify(|running| *running -= 1);
    }
}
