//! Who decides when an attempt leaves: one strategy per file, all behind one small trait.
//!
//! A strategy is the client side of one process: it paces, retries and gives up. It never sees the server's state, only what an
//! answer says. The lab gives it the calls, carries out its orders, and wakes it when it asks to be woken.

mod aimd;
mod courier;
mod fixed_rate;
mod guide;
mod reactive;
mod repeat;
mod tidegate;
pub(crate) mod told;

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tidegate_core::time::Mono;
use tidegate_sim::wire::message::ApiResponse;

use crate::call::{CallId, CallInfo, End};
use crate::plan::{Plan, Stream};
use crate::sharing::Record;
use crate::store::FleetStore;

/// What a strategy wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Send an attempt of this call now.
    Send(CallId),
    /// The call has ended.
    End(CallId, End),
}

/// Orders in the order they were given.
#[derive(Debug, Default)]
pub struct Orders(VecDeque<Order>);

impl Orders {
    /// Sends an attempt of `call` now. A call has at most one under way.
    pub fn send(&mut self, call: CallId) {
        self.0.push_back(Order::Send(call));
    }

    /// Ends `call`; nothing of it may be under way.
    pub fn end(&mut self, call: CallId, end: End) {
        self.0.push_back(Order::End(call, end));
    }

    /// The oldest order.
    pub fn pop(&mut self) -> Option<Order> {
        self.0.pop_front()
    }
}

/// The client side of one process. `now` never decreases.
pub trait Strategy: Send {
    /// A call begins. Sooner or later it is sent, or ended.
    fn begin(&mut self, now: Mono, call: &CallInfo, orders: &mut Orders);

    /// An attempt has really left: after its order, and after the wait for a token if one was needed.
    fn left(&mut self, now: Mono, call: CallId, orders: &mut Orders) {
        let _ = (now, call, orders);
    }

    /// The attempt of `call` was answered; `None`: the connection closed without an answer. A 401 has made the lab
    /// fetch another token already.
    fn answered(&mut self, now: Mono, call: &CallInfo, answer: Option<&ApiResponse>, orders: &mut Orders);

    /// The instant named by [`Strategy::next_wake`] has come.
    fn wake(&mut self, now: Mono, orders: &mut Orders);

    /// When it wants to be woken, if nothing happens before.
    fn next_wake(&self, now: Mono) -> Option<Mono>;

    /// Warnings so far that Retry-After and reset disagree.
    fn hint_mismatches(&self) -> u64 {
        0
    }

    /// What it did with the store of the fleet; `None`: it shares nothing.
    fn record(&self) -> Option<&Record> {
        None
    }
}

/// What a strategy is told at its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Briefing<'a, 's> {
    pub(crate) plan: &'a Plan<'s>,
    pub(crate) instance: usize,
    /// Where instances meet, if they share their quotas.
    pub(crate) store: Option<&'a Arc<FleetStore>>,
}

impl Briefing<'_, '_> {
    /// The instance's own chance.
    fn rng(&self) -> fastrand::Rng {
        self.plan.rng(Stream::Strategy, self.instance as u64)
    }

    /// Callers at work in this instance: what the guide calls workers.
    fn workers(&self) -> u32 {
        let closed = self.plan.fleet().load.iter().filter(|load| load.rate.is_none());
        closed.map(|load| load.callers).sum::<u32>().max(1)
    }
}

/// The strategies there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StrategyName {
    /// The real core: gates, tickets, retry machine.
    Tidegate,
    /// The same without the scenario's calendar.
    NoCalendar,
    /// Sends at once; after a 429 waits as told, or 2^n seconds.
    Reactive,
    /// The same with chance added to every wait.
    ReactiveJitter,
    /// The guide's pacer, backoff and breaker.
    Guide,
    /// Told the true quota, spread evenly.
    FixedRate,
    /// Bounds calls in flight, up by one per round trip, halved by a throttle.
    Aimd,
}

impl StrategyName {
    /// All of them, the product first.
    pub const ALL: [Self; 7] = [
        Self::Tidegate,
        Self::NoCalendar,
        Self::Reactive,
        Self::ReactiveJitter,
        Self::Guide,
        Self::FixedRate,
        Self::Aimd,
    ];

    /// Those that a scenario plays which names none: without a calendar the product is the product.
    pub fn usual() -> Vec<Self> {
        Self::ALL.into_iter().filter(|name| *name != Self::NoCalendar).collect()
    }

    /// Its name in scenario files and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::NoCalendar => "no-calendar",
            Self::Reactive => "reactive",
            Self::ReactiveJitter => "reactive-jitter",
            Self::Guide => "guide",
            Self::FixedRate => "fixed-rate",
            Self::Aimd => "aimd",
        }
    }

    /// One instance's strategy.
    pub(crate) fn build(self, briefing: &Briefing<'_, '_>) -> Box<dyn Strategy> {
        match self {
            Self::Tidegate => Box::new(tidegate::Tidegate::new(briefing, true)),
            Self::NoCalendar => Box::new(tidegate::Tidegate::new(briefing, false)),
            Self::Reactive => Box::new(reactive::Reactive::new(briefing, false)),
            Self::ReactiveJitter => Box::new(reactive::Reactive::new(briefing, true)),
            Self::Guide => Box::new(guide::Guide::new(briefing)),
            Self::FixedRate => Box::new(fixed_rate::FixedRate::new(briefing)),
            Self::Aimd => Box::new(aimd::Aimd::new(briefing)),
        }
    }
}

impl fmt::Display for StrategyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a strategy (there are tidegate, no-calendar, reactive, reactive-jitter, guide, fixed-rate, aimd)"
)]
pub struct UnknownStrategy;

impl FromStr for StrategyName {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, UnknownStrategy> {
        Self::ALL.into_iter().find(|name| name.name() == text).ok_or(UnknownStrategy)
    }
}
