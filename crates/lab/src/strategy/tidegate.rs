//! The product: the core's bank of gates and its retry machine, driven as the client's layers drive them.
//!
//! The order is that of the client: begin → ask for a ticket → leave (the ticket is marked as sent) → the answer's raw header
//! text through the core's reader → told to the gates → the retry machine says what comes next. A refused call comes back
//! at the time it was given, as a caller of the gateway does. Where the fleet shares its quotas, the bank speaks to the
//! store through `courier`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tidegate_core::budget::{Budget, BudgetRules};
use tidegate_core::classify::{Facts, Failure, Outcome};
use tidegate_core::event::Event;
use tidegate_core::observe::{Observation, observe, observe_body};
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, Refusal, TicketId, TokenSlot, WaiterId, Woken,
};
use tidegate_core::profile::Profile;
use tidegate_core::retry::{Attempts, Next, RetryPolicy};
use tidegate_core::share::{HolderId, ShareConfig};
use tidegate_core::time::{Mono, Wall};
use tidegate_sim::wire::message::ApiResponse;

use super::courier::Courier;
use super::repeat::Timers;
use super::{Briefing, Orders, Strategy, told};
use crate::call::{CallId, CallInfo, End};
use crate::network::Network;
use crate::plan::Stream;
use crate::sharing::Record;

/// A refused caller that is told to come back at once takes a breath all the same.
const BREATH: Duration = Duration::from_millis(1);

/// A call that has not ended.
#[derive(Debug)]
struct Running {
    info: CallInfo,
    attempts: Attempts,
    ticket: Option<TicketId>,
}

/// See the module.
pub(super) struct Tidegate {
    bank: Bank,
    /// Carries exchanges, where the fleet shares its quotas.
    courier: Option<Courier>,
    profile: Arc<Profile>,
    policy: RetryPolicy,
    budget: Budget,
    rng: fastrand::Rng,
    token: TokenSlot,
    wall: Duration,
    calls: HashMap<CallId, Running>,
    waiters: HashMap<WaiterId, CallId>,
    timers: Timers,
    woken: Vec<(WaiterId, Woken)>,
    mismatches: u64,
}

impl Tidegate {
    /// `dated`: it knows the scenario's calendar.
    pub(super) fn new(briefing: &Briefing<'_, '_>, dated: bool) -> Self {
        let plan = briefing.plan;
        let profile = Arc::clone(&plan.profile);
        let mut rng = briefing.rng();
        let mut limits = profile.limits.clone();
        if plan.fleet().declared {
            let declared = told::declared(&plan.server);
            limits.retain(|limit| declared.iter().all(|other| other.key != limit.key));
            limits.extend(declared);
        }
        let policies = plan.fleet().class.policies();
        let calendar = if dated { plan.fleet().calendar(plan.wall) } else { Arc::default() };
        let seed = rng.u64(..);
        let config =
            BankConfig { limits, policies, seed, calendar, stagger_seed: seed, ..BankConfig::default() };
        let mut bank = Bank::new(config).expect("the simulator checked the limits when it read them");
        bank.tell_time(Mono::ZERO, Wall::from_unix_millis(millis(plan.wall)));
        let courier = briefing.store.map(|store| {
            let quota = &plan.fleet().quota;
            bank.share(ShareConfig {
                holder: HolderId(rng.u64(..)),
                on_store_loss: quota.on_store_loss,
                max_instances: quota.max_instances,
                tokens_shared: false,
            });
            let network = Network::new(quota.rtt, plan.rng(Stream::Store, briefing.instance as u64));
            Courier::new(Arc::clone(store), network, quota.timeout)
        });
        Self {
            bank,
            courier,
            policy: RetryPolicy {
                backoff: profile.backoff,
                matrix: profile.retry.clone(),
                ..RetryPolicy::default()
            },
            profile,
            budget: Budget::new(BudgetRules::default(), Mono::ZERO),
            rng,
            token: TokenSlot(briefing.instance as u64),
            wall: plan.wall,
            calls: HashMap::new(),
            waiters: HashMap::new(),
            timers: Timers::default(),
            woken: Vec::new(),
            mismatches: 0,
        }
    }

    fn ask(&mut self, now: Mono, id: CallId, orders: &mut Orders) {
        let Some(running) = self.calls.get_mut(&id) else { return };
        let info = &running.info;
        let asked = self.bank.ask(
            now,
            &Ask {
                method: &info.route.method,
                path: &info.path,
                family: &info.route.family,
                credential: &info.credential,
                token: self.token,
                class: info.class,
                caller: info.caller,
                deadline: info.deadline,
                give_up_at: running.attempts.send_by(),
            },
        );
        match asked {
            Asked::Granted(ticket) => self.granted(id, ticket, orders),
            Asked::Queued(waiter) => {
                self.waiters.insert(waiter, id);
            }
            Asked::Refused(refusal) => self.refused(now, id, &refusal, orders),
        }
    }

    fn granted(&mut self, id: CallId, ticket: TicketId, orders: &mut Orders) {
        if let Some(running) = self.calls.get_mut(&id) {
            running.ticket = Some(ticket);
            orders.send(id);
        }
    }

    /// The caller comes back when it was told to, unless that is too late for it.
    fn refused(&mut self, now: Mono, id: CallId, refusal: &Refusal, orders: &mut Orders) {
        let Some(running) = self.calls.get(&id) else { return };
        let again = now + refusal.retry_after.max(BREATH);
        if running.attempts.in_doubt() {
            self.end(id, End::Unknown, orders);
        } else if running.info.deadline.is_some_and(|deadline| again >= deadline) {
            self.end(id, End::GaveUp, orders);
        } else {
            self.timers.set(again, id);
        }
    }

    fn end(&mut self, id: CallId, end: End, orders: &mut Orders) {
        self.calls.remove(&id);
        orders.end(id, end);
    }

    /// The bank's contract: after every change, hand out what it made possible, and say what is due.
    fn settle(&mut self, now: Mono, orders: &mut Orders) {
        self.hand_out(now, orders);
        let Some(courier) = &mut self.courier else { return };
        if courier.begin(now, &mut self.bank) {
            self.hand_out(now, orders);
        }
    }

    fn hand_out(&mut self, now: Mono, orders: &mut Orders) {
        let mut woken = std::mem::take(&mut self.woken);
        self.bank.advance(now, &mut woken);
        for (waiter, outcome) in woken.drain(..) {
            let Some(id) = self.waiters.remove(&waiter) else { continue };
            match outcome {
                Woken::Granted(ticket) => self.granted(id, ticket, orders),
                Woken::Refused(refusal) => self.refused(now, id, &refusal, orders),
            }
        }
        self.woken = woken;
        for event in self.bank.drain_events() {
            self.mismatches += u64::from(matches!(event, Event::HintMismatch { .. }));
            if let Some(courier) = &mut self.courier {
                courier.record.event(now - Mono::ZERO, &event);
            }
        }
    }

    /// What the core reads in an answer.
    fn read(&self, now: Mono, answer: Option<&ApiResponse>) -> (Observation, AnswerKind, Outcome) {
        let Some(answer) = answer else {
            let lost = Outcome::Failed(Failure::Interrupted { whole: true });
            return (Observation::default(), AnswerKind::HardFailure, lost);
        };
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = header_map(answer);
        let wall = millis(self.wall + (now - Mono::ZERO));
        let mut seen = observe(&self.profile.headers, status, &headers, Wall::from_unix_millis(wall));
        if self.profile.throttle.needs_body(answer.status) {
            observe_body(&self.profile.headers, status, &answer.body, &mut seen);
        }
        let throttled = self.profile.throttle.applies(answer.status, &seen, &answer.body);
        let kind = if throttled {
            AnswerKind::Throttled
        } else {
            match status {
                StatusCode::UNAUTHORIZED => AnswerKind::Unauthorized,
                StatusCode::NOT_FOUND => AnswerKind::NotFound,
                status if status.is_server_error() => AnswerKind::HardFailure,
                _ => AnswerKind::Accepted,
            }
        };
        let outcome = Outcome::Answered { status, hint: seen.retry_after, throttled };
        (seen, kind, outcome)
    }

    fn follow(&mut self, now: Mono, id: CallId, next: Next, good: bool, orders: &mut Orders) {
        match next {
            Next::Deliver { .. } => self.end(id, if good { End::Good } else { End::Rejected }, orders),
            Next::Retry { at, .. } if at > now => self.timers.set(at, id),
            Next::Retry { .. } | Next::RefreshToken => self.ask(now, id, orders),
            Next::GiveUp { .. } => self.end(id, End::GaveUp, orders),
            Next::Unknown { .. } => self.end(id, End::Unknown, orders),
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn header_map(answer: &ApiResponse) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(answer.headers.len());
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    headers
}

impl Strategy for Tidegate {
    fn begin(&mut self, now: Mono, call: &CallInfo, orders: &mut Orders) {
        let mut facts = Facts::new(call.route.method.clone());
        facts.dedup = self.profile.idempotency.dedup.filter(|_| call.route.is_write());
        facts.give_up_at = call.deadline;
        let attempts = Attempts::new(facts, now);
        self.calls.insert(call.id, Running { info: call.clone(), attempts, ticket: None });
        self.ask(now, call.id, orders);
        self.settle(now, orders);
    }

    fn left(&mut self, now: Mono, call: CallId, orders: &mut Orders) {
        if let Some(ticket) = self.calls.get(&call).and_then(|running| running.ticket) {
            self.bank.sent(now, ticket);
            if let Some(courier) = &mut self.courier {
                courier.record.left(now - Mono::ZERO);
            }
            self.settle(now, orders);
        }
    }

    fn answered(&mut self, now: Mono, call: &CallInfo, answer: Option<&ApiResponse>, orders: &mut Orders) {
        let (seen, kind, outcome) = self.read(now, answer);
        let ticket = self.calls.get_mut(&call.id).and_then(|running| running.ticket.take());
        if let Some(ticket) = ticket {
            self.bank.answered(now, ticket, &Answer { kind, observation: &seen });
            self.settle(now, orders);
        }
        let Some(running) = self.calls.get_mut(&call.id) else { return };
        let next = running.attempts.next(now, &outcome, &mut self.budget, &self.policy, &mut self.rng);
        self.follow(now, call.id, next, kind == AnswerKind::Accepted, orders);
        self.settle(now, orders);
    }

    fn wake(&mut self, now: Mono, orders: &mut Orders) {
        if let Some(courier) = &mut self.courier {
            courier.advance(now, &mut self.bank);
        }
        while let Some(call) = self.timers.due(now) {
            self.ask(now, call, orders);
        }
        self.settle(now, orders);
    }

    fn next_wake(&self, now: Mono) -> Option<Mono> {
        let courier = self.courier.as_ref();
        let exchange = courier.and_then(|courier| courier.due(now, &self.bank));
        let way = courier.and_then(Courier::next);
        [self.timers.next(), self.bank.next_wake(now), exchange, way].into_iter().flatten().min()
    }

    fn hint_mismatches(&self) -> u64 {
        self.mismatches
    }

    fn record(&self) -> Option<&Record> {
        self.courier.as_ref().map(|courier| &courier.record)
    }
}
