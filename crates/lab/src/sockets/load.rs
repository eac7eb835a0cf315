//! The callers of a load, as tasks, and the two kinds of clients they call through.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use tidegate_core::pace::Class;
use tidegate_core::time::Mono;
use tidegate_sim::Sim;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::book::Book;
use super::driver::Driver;
use super::far::Tag;
use super::product::Product;
use crate::call::{End, Route};
use crate::error::LabError;
use crate::feed::Feed;
use crate::plan::Plan;
use crate::strategy::StrategyName;

/// One process on the client's side.
#[derive(Debug, Clone)]
pub(super) enum Player {
    /// The client's whole stack.
    Product(Arc<Product>),
    /// A strategy of virtual time, driven.
    Driven(Arc<Driver>),
}

impl Player {
    pub(super) fn new(
        plan: &Plan<'_>,
        name: StrategyName,
        instance: usize,
        sim: &Sim,
        book: &Arc<Book>,
    ) -> Result<Self, LabError> {
        let product = Product::new(plan, instance, sim, book)?;
        Ok(match name {
            StrategyName::Tidegate | StrategyName::NoCalendar => Self::Product(Arc::new(product)),
            _ => Self::Driven(Arc::new(Driver::start(plan, name, instance, product, Arc::clone(book)))),
        })
    }

    /// Fetches the tokens of all its clients. A login that is refused is made again when a call needs it.
    pub(super) async fn log_in(&self) {
        match self {
            Self::Product(product) => product.log_in().await,
            Self::Driven(driver) => driver.log_in().await,
        }
    }

    /// Warnings so far that Retry-After and reset disagree; only the product gives any.
    pub(super) fn hint_mismatches(&self) -> u64 {
        match self {
            Self::Product(product) => product.hint_mismatches(),
            Self::Driven(_) => 0,
        }
    }

    async fn call(&self, call: Call) -> End {
        match self {
            Self::Product(product) => product.call(call).await,
            Self::Driven(driver) => driver.call(call).await,
        }
    }
}

/// One call to be made.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) load: usize,
    pub(super) route: Arc<Route>,
    pub(super) path: String,
    pub(super) class: Class,
    pub(super) deadline: Option<Mono>,
    pub(super) body: Arc<str>,
    pub(super) tag: Tag,
}

/// One load of one instance, with all that its tasks need to know.
#[derive(Debug)]
pub(super) struct Spec {
    instance: usize,
    load: usize,
    is_job: bool,
    class: Class,
    deadline: Option<Duration>,
    callers: u32,
    arrives: bool,
    body: Arc<str>,
    caller: HeaderValue,
    routes: Vec<Arc<Route>>,
    users: u64,
    feed: Arc<Mutex<Feed>>,
}

impl Spec {
    pub(super) fn new(plan: &Plan<'_>, instance: usize, load: usize) -> Self {
        let spec = plan.load(load);
        let caller = format!("{instance} {}", plan.credential(instance, load));
        Self {
            instance,
            load,
            is_job: spec.is_job(),
            class: spec.class,
            deadline: spec.deadline,
            callers: spec.callers,
            arrives: spec.rate.is_some(),
            body: spec.body.as_str().into(),
            // A client's name that is no header text leaves its calls out of the picture; nothing else reads it.
            caller: HeaderValue::from_str(&caller).unwrap_or_else(|_| HeaderValue::from_static("")),
            routes: plan.routes[load].clone(),
            users: u64::from(plan.server.users.max(1)),
            feed: Arc::new(Mutex::new(plan.feed(instance, load))),
        }
    }

    /// The calls that have not begun.
    pub(super) fn feed(&self) -> Arc<Mutex<Feed>> {
        Arc::clone(&self.feed)
    }

    /// Makes all its calls.
    pub(super) async fn run(self, player: Player, book: Arc<Book>) {
        let spec = Arc::new(self);
        let mut tasks = JoinSet::new();
        if spec.arrives {
            loop {
                let Some(at) = spec.feed.lock().next_arrival() else { break };
                sleep_until(book.instant(at)).await;
                let Some(n) = spec.feed.lock().take(at) else { break };
                let (spec, player, book) = (Arc::clone(&spec), player.clone(), Arc::clone(&book));
                tasks.spawn(async move { spec.one(n, &player, &book).await });
                while tasks.try_join_next().is_some() {}
            }
        } else {
            let from = spec.feed.lock().from();
            sleep_until(book.instant(from)).await;
            for _ in 0..spec.callers {
                let (spec, player, book) = (Arc::clone(&spec), player.clone(), Arc::clone(&book));
                tasks.spawn(async move {
                    while let Some(n) = spec.take(&book) {
                        spec.one(n, &player, &book).await;
                    }
                });
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    fn take(&self, book: &Book) -> Option<u64> {
        self.feed.lock().take(book.now())
    }

    /// Makes the n-th call.
    async fn one(&self, n: u64, player: &Player, book: &Book) {
        let deadline = self.deadline.map(|deadline| Mono::ZERO + book.now() + deadline);
        let serial = book.begin(self.load, self.is_job, self.class, deadline);
        let route = &self.routes[usize::try_from(n % self.routes.len() as u64).unwrap_or(0)];
        let user = u32::try_from((self.instance as u64 * 7 + n) % self.users).unwrap_or(0);
        let call = Call {
            load: self.load,
            route: Arc::clone(route),
            path: route.path(user),
            class: self.class,
            deadline,
            body: Arc::clone(&self.body),
            tag: Tag { serial, caller: self.caller.clone() },
        };
        book.end(serial, player.call(call).await);
    }
}
