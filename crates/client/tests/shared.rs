//! Processes that share one quota: pacers on one store, against a server that counts for itself, in paused time.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::print_stdout, reason = "the figures of a run are worth reading")]

mod fleet {
    pub(crate) mod server;
    pub(crate) mod store;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use http::Method;
use parking_lot::Mutex;
use tidegate::clock::Clock;
use tidegate::observe::{Observer, Observers};
use tidegate::pacer::Pacer;
use tidegate::share::{BankKey, HolderId, OnStoreLoss, ShareConfig, SharedQuota, Store};
use tidegate_core::event::{BreakerState, Event, Level};
use tidegate_core::glob::PathGlob;
use tidegate_core::key::{CredentialId, Family};
use tidegate_core::pace::{
    Answer, AnswerKind, Ask, BankConfig, CallerId, Class, LimitKind, LimitSpec, Observes, Partition,
    RefusalReason, TokenSlot,
};
use tokio::time::{Instant, sleep, sleep_until};

use fleet::server::{Rule, Server, Telling};
use fleet::store::Wired;

const FAMILY: &str = "/api/v2/users";
const MS: Duration = Duration::from_millis(1);

/// One process.
struct Process {
    pacer: Pacer,
    server: Arc<Server>,
    one_way: Duration,
    events: Arc<Mutex<Vec<(Instant, Event)>>>,
    waiting: AtomicUsize,
    /// It was killed: it does not answer, nor does anything leave.
    gone: AtomicBool,
}

struct Events(Arc<Mutex<Vec<(Instant, Event)>>>);

impl Observer for Events {
    fn event(&self, event: &Event) {
        self.0.lock().push((Instant::now(), event.clone()));
    }
}

/// What a fleet is made of.
#[derive(Clone)]
struct Setup {
    server: Arc<Server>,
    store: Arc<Wired>,
    on_store_loss: OnStoreLoss,
    max_instances: u32,
    /// Each call counts for a declared limit of 3000 per minute, too, of which no answer tells.
    minute: bool,
}

impl Setup {
    fn new(rule: Rule, telling: Telling, quota: usize, window: Duration) -> Self {
        Self {
            server: Arc::new(Server::new(rule, telling, quota, window)),
            store: Arc::new(Wired::new(MS)),
            on_store_loss: OnStoreLoss::Share,
            max_instances: 64,
            minute: false,
        }
    }

    /// The limits of the profile `genesys`: a short one that answers tell of, and a declared one of a minute.
    fn like_genesys() -> Self {
        let told = Self::new(Rule::Fixed, Telling::Seconds, 300, 5_000 * MS);
        Self { minute: true, ..told }
    }

    fn start(&self, id: u64) -> Arc<Process> {
        let events = Arc::default();
        let declared = |quota, window| LimitSpec {
            key: "users".to_owned(),
            aliases: Vec::new(),
            method: None,
            path: PathGlob::parse("/**").unwrap(),
            kind: LimitKind::Rate { quota, window },
            per: vec![Partition::Credential],
            pin: false,
            assumed: false,
            observes: Observes::default(),
        };
        let limits = match self.server.telling {
            _ if self.minute => vec![declared(3_000, 60_000 * MS)],
            Telling::Headers | Telling::Seconds => Vec::new(),
            Telling::Silent => vec![declared(self.server.quota as u64, self.server.window)],
        };
        let config = BankConfig { limits, seed: id, ..BankConfig::default() };
        let observer: Arc<dyn Observer> = Arc::new(Events(Arc::clone(&events)));
        let pacer = Pacer::new(config, Clock::start(), Observers::new([observer])).unwrap();
        let config = ShareConfig {
            holder: HolderId(id),
            on_store_loss: self.on_store_loss,
            max_instances: self.max_instances,
            tokens_shared: false,
        };
        let store = Arc::clone(&self.store);
        pacer.share(&SharedQuota { store, config, token_key: None }, BankKey::of("https://api", "acme"));
        let server = Arc::clone(&self.server);
        Arc::new(Process {
            pacer,
            server,
            one_way: 10 * MS,
            events,
            waiting: AtomicUsize::new(0),
            gone: AtomicBool::new(false),
        })
    }
}

impl Process {
    /// One call of a class; how long it waited, or why it was refused.
    async fn call(&self, class: Class) -> Result<Duration, RefusalReason> {
        let family = Family::new(FAMILY);
        let ask = Ask {
            method: &Method::GET,
            path: FAMILY,
            family: &family,
            credential: &CredentialId::new("tests"),
            token: TokenSlot(0),
            class,
            caller: CallerId::ANYBODY,
            deadline: None,
            give_up_at: None,
        };
        let mut ticket = self.pacer.acquire(&ask).await.map_err(|refusal| refusal.reason)?;
        let waited = ticket.waited();
        if self.gone.load(Ordering::Relaxed) {
            std::mem::forget(ticket);
            return std::future::pending().await;
        }
        ticket.leave();
        sleep(self.one_way).await;
        let (kind, observation) = self.server.handle();
        sleep(self.one_way).await;
        ticket.answered(&Answer { kind, observation: &observation }, &family, Some(2 * self.one_way));
        if kind == AnswerKind::Accepted { Ok(waited) } else { Ok(Duration::MAX) }
    }

    /// Calls come by chance, so many per second, until `end`. At most 200 wait.
    async fn demand(self: Arc<Self>, per_second: f64, class: Class, end: Instant, seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let mut at = Instant::now();
        loop {
            at += Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / per_second);
            if at >= end {
                return;
            }
            sleep_until(at).await;
            if self.waiting.load(Ordering::Relaxed) < 200 {
                self.waiting.fetch_add(1, Ordering::Relaxed);
                let process = Arc::clone(&self);
                tokio::spawn(async move {
                    process.call(class).await.ok();
                    process.waiting.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    }

    fn saw(&self, what: impl Fn(&Event) -> bool) -> Vec<Instant> {
        self.events.lock().iter().filter(|(_, event)| what(event)).map(|&(at, _)| at).collect()
    }
}

/// A count to compute with.
fn num(count: impl TryInto<u32, Error: std::fmt::Debug>) -> f64 {
    f64::from(count.try_into().unwrap())
}

/// What came of a run.
#[derive(Debug)]
struct Told {
    /// Of the quota, in the windows after the first.
    used: f64,
    throttled: usize,
    accepted: usize,
    exchanges_per_call: f64,
}

/// `processes` want `demand` times the quota for so many windows, the first the most (Zipf, 0.8).
async fn run(setup: &Setup, processes: u64, demand: f64, windows: u32) -> Told {
    let began = Instant::now();
    let (quota, window) = (num(setup.server.quota), setup.server.window);
    let end = began + window * (windows + 1);
    let weights: Vec<f64> = (1..=processes).map(|rank| num(rank).powf(-0.8)).collect();
    let sum: f64 = weights.iter().sum();
    let mut fleet = Vec::new();
    for (id, weight) in weights.iter().enumerate() {
        let process = setup.start(1 + id as u64);
        let rate = demand * quota / window.as_secs_f64() * weight / sum;
        tokio::spawn(Arc::clone(&process).demand(rate, Class::Bulk, end, 77 + id as u64));
        fleet.push(process);
    }
    sleep_until(began + window).await;
    let before = setup.store.count();
    sleep_until(end).await;
    let (accepted, _) = setup.server.between(began + window, end);
    let (_, throttled) = setup.server.between(began, end);
    let told = Told {
        used: num(accepted) / (quota * f64::from(windows)),
        throttled,
        accepted,
        exchanges_per_call: num(setup.store.count() - before) / num(accepted),
    };
    println!("{:?} {:?} {processes}: {told:?}", setup.server.rule, setup.server.telling);
    told
}

/// 300 per 5 s, half as much again in demand, and nobody else.
async fn share_alone(rule: Rule, telling: Telling, processes: u64) {
    let told = run(&Setup::new(rule, telling, 300, 5_000 * MS), processes, 1.5, 20).await;
    assert_eq!(told.throttled, 0, "{told:?}");
    assert!(told.used >= 0.95, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn two_pacers_use_one_fixed_window_and_are_never_throttled() {
    share_alone(Rule::Fixed, Telling::Headers, 2).await;
}

#[tokio::test(start_paused = true)]
async fn two_pacers_use_one_sliding_log_and_are_never_throttled() {
    share_alone(Rule::Log, Telling::Headers, 2).await;
}

#[tokio::test(start_paused = true)]
async fn two_pacers_use_one_declared_quota_and_are_never_throttled() {
    share_alone(Rule::Log, Telling::Silent, 2).await;
}

#[tokio::test(start_paused = true)]
async fn eight_pacers_use_one_fixed_window_and_are_never_throttled() {
    share_alone(Rule::Fixed, Telling::Headers, 8).await;
}

#[tokio::test(start_paused = true)]
async fn eight_pacers_use_one_sliding_log_and_are_never_throttled() {
    share_alone(Rule::Log, Telling::Headers, 8).await;
}

/// A fleet at work, and the store it can lose.
struct AtWork {
    setup: Setup,
    fleet: Vec<Arc<Process>>,
    began: Instant,
}

impl AtWork {
    /// `processes` want one and a half quotas for `windows`; nothing has happened yet.
    fn begin(setup: Setup, processes: u64, windows: u32) -> Self {
        let began = Instant::now();
        let end = began + setup.server.window * windows;
        let rate = 1.5 * num(setup.server.quota) / setup.server.window.as_secs_f64() / num(processes);
        let start = |id| {
            let process = setup.start(id);
            tokio::spawn(Arc::clone(&process).demand(rate, Class::Bulk, end, id));
            process
        };
        let fleet = (1..=processes).map(start).collect();
        Self { setup, fleet, began }
    }

    async fn until(&self, windows: f64) -> Instant {
        let at = self.began + self.setup.server.window.mul_f64(windows);
        sleep_until(at).await;
        at
    }

    fn saw(&self, what: impl Fn(&Event) -> bool) -> Vec<Instant> {
        self.fleet.iter().flat_map(|process| process.saw(&what)).collect()
    }
}

/// Share of the quota that was accepted per window between two instants.
fn used(server: &Server, from: Instant, to: Instant) -> f64 {
    let (accepted, _) = server.between(from, to);
    num(accepted) / (num(server.quota) * (to - from).as_secs_f64() / server.window.as_secs_f64())
}

#[tokio::test(start_paused = true)]
async fn without_the_store_each_keeps_to_its_part_and_they_share_again_when_it_is_back() {
    for (rule, telling) in
        [(Rule::Fixed, Telling::Headers), (Rule::Log, Telling::Headers), (Rule::Log, Telling::Silent)]
    {
        let world = AtWork::begin(Setup::new(rule, telling, 300, 5_000 * MS), 4, 30);
        world.until(10.0).await;
        world.setup.store.cut.store(true, Ordering::Relaxed);
        let alone = world.until(11.0).await;
        let lost = world.saw(|event| matches!(event, Event::StoreAway { among: 4, .. }));
        assert_eq!(lost.len(), 4, "{rule:?} {telling:?}: each tells it once");
        let back = world.until(16.0).await;
        let server = &world.setup.server;
        let share = used(server, alone, back);
        assert!((0.6..=0.95).contains(&share), "{rule:?} {telling:?}: {share} of the quota on their own");
        world.setup.store.cut.store(false, Ordering::Relaxed);
        world.until(17.0).await;
        let returned = world.saw(|event| matches!(event, Event::StoreBack { .. }));
        assert_eq!(returned.len(), 4, "{rule:?} {telling:?}");
        let late = returned.iter().map(|&at| at - back).max().unwrap();
        assert!(late <= Duration::from_secs(2), "{rule:?} {telling:?}: {late:?}");
        assert!(world.fleet.iter().all(|process| process.pacer.share_mode_since().is_none()));
        let from = world.until(18.0).await;
        let to = world.until(28.0).await;
        let (accepted, throttled) = server.between(world.began, to);
        println!(
            "{rule:?} {telling:?}: {share} alone, {} after, {throttled} of {accepted} throttled",
            used(server, from, to)
        );
        assert!(throttled * 100 <= accepted, "{rule:?} {telling:?}: {throttled} of {accepted}");
        assert!(used(server, from, to) >= 0.95, "{rule:?} {telling:?}: {}", used(server, from, to));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_started_empty_is_told_again_what_is_known() {
    for (rule, telling) in
        [(Rule::Fixed, Telling::Headers), (Rule::Log, Telling::Headers), (Rule::Log, Telling::Silent)]
    {
        let world = AtWork::begin(Setup::new(rule, telling, 300, 5_000 * MS), 4, 30);
        world.until(10.3).await;
        world.setup.store.memory.forget();
        let from = world.until(12.0).await;
        assert_eq!(world.saw(|event| *event == Event::StoreForgot).len(), 4, "{rule:?} {telling:?}");
        let to = world.until(28.0).await;
        let (accepted, throttled) = world.setup.server.between(world.began, to);
        println!(
            "{rule:?} {telling:?}: {} after, {throttled} of {accepted} throttled",
            used(&world.setup.server, from, to)
        );
        assert!(throttled * 100 <= accepted, "{rule:?} {telling:?}: {throttled} of {accepted}");
        assert!(used(&world.setup.server, from, to) >= 0.95, "{rule:?} {telling:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_never_met_its_store_keeps_to_what_the_most_there_can_be_allow() {
    let mut setup = Setup::new(Rule::Log, Telling::Silent, 300, 5_000 * MS);
    setup.max_instances = 10;
    setup.store.cut.store(true, Ordering::Relaxed);
    let process = setup.start(1);
    let began = Instant::now();
    assert!(process.call(Class::Interactive).await.unwrap() <= 600 * MS, "nobody waits long for it");
    tokio::spawn(Arc::clone(&process).demand(60.0, Class::Bulk, began + 50_000 * MS, 3));
    sleep_until(began + 50_000 * MS).await;
    let (accepted, throttled) = setup.server.between(began + 5_000 * MS, Instant::now());
    assert_eq!(throttled, 0);
    assert!((220..=250).contains(&accepted), "{accepted}: 27 of each window");
}

#[tokio::test(start_paused = true)]
async fn a_successor_without_the_store_divides_among_as_many_as_were_known_before() {
    let setup = Setup::new(Rule::Log, Telling::Silent, 300, 5_000 * MS);
    let fleet: Vec<_> = (1..=3).map(|id| setup.start(id)).collect();
    for _ in 0..3 {
        for process in &fleet {
            process.call(Class::Bulk).await.unwrap();
        }
        sleep(1_000 * MS).await;
    }
    let kept = fleet[0].pacer.keep().last().write();
    setup.store.cut.store(true, Ordering::Relaxed);
    sleep(20_000 * MS).await;
    let successor = setup.start(9);
    let kept = tidegate_core::pace::Kept::read(&kept).unwrap();
    successor.pacer.restore(&kept, Duration::ZERO);
    successor.call(Class::Bulk).await.unwrap();
    let lost = |event: &Event| matches!(event, Event::StoreAway { among: 3, .. });
    assert_eq!(successor.saw(lost).len(), 1, "not the 64 there can be");
}

#[tokio::test(start_paused = true)]
async fn siblings_are_not_told_of_as_strangers_where_the_store_is_away_and_when_it_is_back() {
    for on_store_loss in [OnStoreLoss::Open, OnStoreLoss::Share] {
        let mut setup = Setup::new(Rule::Fixed, Telling::Headers, 300, 5_000 * MS);
        setup.on_store_loss = on_store_loss;
        let world = AtWork::begin(setup, 4, 20);
        world.until(4.0).await;
        world.setup.store.cut.store(true, Ordering::Relaxed);
        world.until(10.0).await;
        world.setup.store.memory.forget();
        world.setup.store.cut.store(false, Ordering::Relaxed);
        world.until(19.0).await;
        let strangers = world.saw(|event| matches!(event, Event::StrangersSeen { .. }));
        assert_eq!(strangers.len(), 0, "{on_store_loss:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_absence_that_was_told_at_the_start_is_news_again_once_the_store_has_answered() {
    let setup = Setup::new(Rule::Log, Telling::Silent, 300, 5_000 * MS);
    setup.store.cut.store(true, Ordering::Relaxed);
    let process = setup.start(1);
    process.pacer.store_is_known_away();
    for cut in [false, true] {
        process.call(Class::Interactive).await.unwrap();
        sleep(3_000 * MS).await;
        setup.store.cut.store(cut, Ordering::Relaxed);
        sleep(3_000 * MS).await;
    }
    process.call(Class::Interactive).await.unwrap();
    sleep(3_000 * MS).await;
    let of_store = |event: &&Event| matches!(event, Event::StoreAway { .. } | Event::StoreBack { .. });
    let events = process.events.lock();
    let levels: Vec<Level> =
        events.iter().map(|(_, event)| event).filter(of_store).map(Event::level).collect();
    assert_eq!(levels, [Level::Notice, Level::Notice, Level::Warn]);
}

#[tokio::test(start_paused = true)]
async fn closed_refuses_without_the_store_and_open_paces_alone() {
    for (on_store_loss, served) in [(OnStoreLoss::Closed, false), (OnStoreLoss::Open, true)] {
        let mut setup = Setup::new(Rule::Log, Telling::Silent, 300, 5_000 * MS);
        setup.on_store_loss = on_store_loss;
        let process = setup.start(1);
        process.call(Class::Interactive).await.unwrap();
        setup.store.cut.store(true, Ordering::Relaxed);
        sleep(2_000 * MS).await;
        let waiting = tokio::spawn({
            let process = Arc::clone(&process);
            async move { process.call(Class::Interactive).await }
        });
        let first = waiting.await.unwrap();
        let second = process.call(Class::Bulk).await;
        if served {
            assert!(first.unwrap() < 1_000 * MS);
            let began = Instant::now();
            for _ in 0..290 {
                assert!(process.call(Class::Bulk).await.is_ok());
            }
            assert!(Instant::now() - began < 8_000 * MS, "the whole quota is its own");
        } else {
            assert_eq!(first, Err(RefusalReason::QuotaStore), "who waits when it is lost");
            assert_eq!(second, Err(RefusalReason::QuotaStore));
            setup.store.cut.store(false, Ordering::Relaxed);
            sleep(2_000 * MS).await;
            assert!(process.call(Class::Bulk).await.is_ok());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_used_is_done_without_at_once_and_told_once() {
    let setup = Setup::new(Rule::Log, Telling::Silent, 300, 5_000 * MS);
    setup.store.unusable.store(true, Ordering::Relaxed);
    let process = setup.start(1);
    assert!(process.call(Class::Interactive).await.unwrap() < 100 * MS);
    sleep(10_000 * MS).await;
    assert_eq!(process.saw(|event| matches!(event, Event::StoreUnusable { .. })).len(), 1);
    assert_eq!(process.saw(|event| matches!(event, Event::StoreAway { .. })).len(), 1);
    let told =
        process.events.lock().iter().map(|(_, event)| event.to_string()).collect::<Vec<_>>().join("\n");
    assert_eq!(
        told.matches("wired cannot be used: no permission (allow it)").count(),
        1,
        "why, and once: {told}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_opens_for_all_and_one_of_them_probes() {
    let world = AtWork::begin(Setup::new(Rule::Fixed, Telling::Headers, 300, 5_000 * MS), 4, 60);
    world.until(4.0).await;
    let server = &world.setup.server;
    server.down.store(true, Ordering::Relaxed);
    let from = Instant::now();
    sleep(10_000 * MS).await;
    let opened = |event: &Event| matches!(event, Event::Breaker { state: BreakerState::Open, .. });
    let by_others = |event: &Event| {
        matches!(event, Event::Breaker { state: BreakerState::Open, cause: "opened by another process", .. })
    };
    assert_eq!(world.saw(opened).len(), 4, "{:?}", world.fleet[0].events.lock());
    assert!(!world.saw(by_others).is_empty(), "the failures of one count for all");
    let open = Instant::now();
    println!("{} failed before all were open", server.failed_between(from, open));
    sleep(50_000 * MS).await;
    let probes = server.failed_between(open, Instant::now());
    assert_eq!(probes, 1, "after 30 s one call is sent for all");
    server.down.store(false, Ordering::Relaxed);
    let began = Instant::now();
    sleep(60_000 * MS).await;
    let closed = |event: &Event| matches!(event, Event::Breaker { state: BreakerState::Closed, .. });
    let closed = world.saw(closed);
    assert_eq!(closed.len(), 4);
    let (first, last) = (closed.iter().min().unwrap(), closed.iter().max().unwrap());
    assert!(*last - *first < 3_000 * MS, "{:?} after {:?}", *last - *first, *first - began);
}

/// How long the calls of some processes waited that want so much per second each, sorted, from `from` on.
async fn waits(fleet: &[Arc<Process>], per_second: &[f64], from: Instant, end: Instant) -> Vec<Duration> {
    let waits: Arc<Mutex<Vec<Duration>>> = Arc::default();
    for (seed, (process, &rate)) in (1..).zip(fleet.iter().zip(per_second)) {
        let (process, waits) = (Arc::clone(process), Arc::clone(&waits));
        tokio::spawn(async move {
            let mut rng = Rng::with_seed(seed);
            let mut at = Instant::now();
            while at < end {
                sleep_until(at).await;
                let (process, waits) = (Arc::clone(&process), Arc::clone(&waits));
                tokio::spawn(async move {
                    let began = Instant::now();
                    let answer = process.call(Class::Interactive).await;
                    if began >= from {
                        waits.lock().push(answer.unwrap_or(Duration::MAX));
                    }
                });
                at += Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / rate);
            }
        });
    }
    sleep_until(end + 10_000 * MS).await;
    let mut waits = waits.lock().clone();
    waits.sort_unstable();
    waits
}

const UNEVEN: [f64; 8] = [5.0, 4.0, 3.0, 3.0, 2.0, 1.0, 1.0, 1.0];

#[tokio::test(start_paused = true)]
async fn calls_do_not_wait_while_two_thirds_of_both_their_limits_are_idle() {
    for (processes, times) in [(8, 1.0), (4, 3.0)] {
        let setup = Setup::like_genesys();
        let fleet: Vec<_> = (1..=processes).map(|id| setup.start(id)).collect();
        let began = Instant::now();
        let rates = UNEVEN.map(|rate| rate * times);
        let waits = waits(&fleet, &rates, began, began + 60_000 * MS).await;
        let (middle, most) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
        println!("{processes}: {} calls, p50 {middle:?}, p99 {most:?}, max {:?}", waits.len(), waits.last());
        assert!(most <= 300 * MS, "p99 {most:?}");
        assert!(*waits.last().unwrap() <= 1_500 * MS, "{:?}", waits.last());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_empty_stops_nobody_for_the_window_of_a_limit() {
    let setup = Setup::like_genesys();
    let fleet: Vec<_> = (1..=4).map(|id| setup.start(id)).collect();
    let (began, server) = (Instant::now(), Arc::clone(&setup.server));
    let end = began + 60_000 * MS;
    for (id, rate) in (1..).zip([40.0, 25.0, 15.0, 10.0]) {
        tokio::spawn(Arc::clone(&fleet[id - 1]).demand(rate, Class::Bulk, end, id as u64));
    }
    sleep(8_000 * MS).await;
    setup.store.cut.store(true, Ordering::Relaxed);
    sleep(10_000 * MS).await;
    setup.store.memory.forget();
    setup.store.cut.store(false, Ordering::Relaxed);
    sleep(3_000 * MS).await;
    for _ in 0..4 {
        let from = Instant::now();
        sleep(6_000 * MS).await;
        let (accepted, throttled) = server.between(from, Instant::now());
        println!("{accepted} accepted, {throttled} throttled in 6 s");
        assert!(accepted >= 250, "{accepted} accepted in 6 s");
    }
}

#[tokio::test(start_paused = true)]
async fn share_mode_begins_when_calls_cannot_leave_by_their_permits_not_when_those_of_a_longer_limit_end() {
    let setup = Setup::like_genesys();
    let fleet: Vec<_> = (1..=3).map(|id| setup.start(id)).collect();
    let began = Instant::now();
    let cut = {
        let store = Arc::clone(&setup.store);
        tokio::spawn(async move {
            sleep(7_000 * MS).await;
            store.cut.store(true, Ordering::Relaxed);
        })
    };
    let from = began + 6_000 * MS;
    let waits = waits(&fleet, &[10.0, 8.0, 5.0], from, began + 25_000 * MS).await;
    cut.await.unwrap();
    for process in &fleet {
        let away = process.saw(|event| matches!(event, Event::StoreAway { .. }));
        assert_eq!(away.len(), 1);
        let after = away[0] - (began + 7_000 * MS);
        println!("alone {after:?} after the store was lost");
        // The lease of the told limit is 625 ms, and 500 ms after it the store is taken to be away.
        assert!(after <= 1_500 * MS, "{after:?}");
    }
    let late = waits.iter().filter(|&&wait| wait > 1_500 * MS).count();
    println!("p99 {:?}, max {:?}, {late} late", waits[waits.len() * 99 / 100], waits.last());
    assert!(
        *waits.last().unwrap() <= 2_000 * MS,
        "a part of 18 per second each is enough: {:?}",
        waits.last()
    );
    let strangers = |event: &Event| matches!(event, Event::StrangersSeen { .. });
    assert!(fleet.iter().all(|process| process.saw(strangers).is_empty()), "they are siblings");
}

#[tokio::test(start_paused = true)]
async fn who_cannot_use_the_scout_does_not_keep_it_from_the_others() {
    let setup = Setup::like_genesys();
    let [first, second] = [1, 2].map(|id| setup.start(id));
    let family = Family::new(FAMILY);
    let ask = Ask {
        method: &Method::GET,
        path: FAMILY,
        family: &family,
        credential: &CredentialId::new("tests"),
        token: TokenSlot(0),
        class: Class::Interactive,
        caller: CallerId::ANYBODY,
        deadline: None,
        give_up_at: None,
    };
    let ticket = first.pacer.acquire(&ask).await.unwrap();
    // No token is to be had: the call is given up before it leaves.
    sleep(10 * MS).await;
    drop(ticket);
    sleep(100 * MS).await;
    let waited = second.call(Class::Interactive).await.unwrap();
    assert!(waited <= 200 * MS, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_process_says_a_word_every_half_minute() {
    let setup = Setup::new(Rule::Fixed, Telling::Headers, 300, 60_000 * MS);
    let process = setup.start(1);
    for _ in 0..10 {
        process.call(Class::Bulk).await.unwrap();
    }
    sleep(20_000 * MS).await;
    let before = setup.store.count();
    sleep(600_000 * MS).await;
    let words = setup.store.count() - before;
    assert!((20..=28).contains(&words), "{words} in ten minutes, one each 22 to 30 s");
}

#[tokio::test(start_paused = true)]
async fn exchanges_stay_rare() {
    for rule in [Rule::Fixed, Rule::Log] {
        let told = run(&Setup::new(rule, Telling::Headers, 300, 60_000 * MS), 8, 1.5, 6).await;
        assert!(told.exchanges_per_call <= 0.6, "{told:?}");
        assert_eq!(told.throttled, 0, "{told:?}");
        let told = run(&Setup::new(rule, Telling::Headers, 3_000, 5_000 * MS), 8, 1.5, 8).await;
        assert!(told.exchanges_per_call <= 0.1, "{told:?}");
        assert_eq!(told.throttled, 0, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_urgent_call_waits_for_one_exchange_beside_a_greedy_fleet_that_leaves_room() {
    let setup = Setup::new(Rule::Fixed, Telling::Headers, 300, 5_000 * MS);
    let end = Instant::now() + 100_000 * MS;
    let fleet: Vec<_> = (1..=3).map(|id| setup.start(id)).collect();
    for (id, process) in fleet.iter().enumerate() {
        tokio::spawn(Arc::clone(process).demand(10.0, Class::Bulk, end, id as u64));
    }
    sleep(20_000 * MS).await;
    let mut waits = Vec::new();
    for _ in 0..100 {
        waits.push(fleet[0].call(Class::Interactive).await.unwrap());
        sleep(370 * MS).await;
    }
    waits.sort_unstable();
    assert!(waits[50] <= MS, "half of them wait for nothing: {waits:?}");
    assert!(waits[90] <= 5 * MS, "the others for an exchange: {waits:?}");
}

#[tokio::test(start_paused = true)]
async fn whole_seconds_and_no_named_window_do() {
    for rule in [Rule::Fixed, Rule::Log] {
        let told = run(&Setup::new(rule, Telling::Seconds, 300, 5_000 * MS), 8, 1.5, 20).await;
        assert!(told.throttled * 1_000 <= 3 * told.accepted, "{rule:?}: {told:?}");
        assert!(told.used >= 0.95, "{rule:?}: {told:?}");
    }
}

/// Somebody who shares the quota and no store takes three tenths of it, ten at a time.
async fn stranger(server: Arc<Server>, end: Instant) {
    let pause = server.window.mul_f64(10.0 / (0.3 * num(server.quota)));
    while Instant::now() < end {
        for _ in 0..10 {
            server.handle_stranger();
        }
        sleep(pause).await;
    }
}

#[tokio::test(start_paused = true)]
async fn beside_a_stranger_few_are_throttled_and_little_is_lost() {
    for rule in [Rule::Fixed, Rule::Log] {
        let setup = Setup::new(rule, Telling::Headers, 300, 5_000 * MS);
        let end = Instant::now() + setup.server.window * 41;
        tokio::spawn(stranger(Arc::clone(&setup.server), end));
        let told = run(&setup, 8, 1.5, 40).await;
        assert!(told.throttled * 100 <= told.accepted, "{rule:?}: {told:?}");
        // Under a log what a burst of the stranger took comes back as a burst, and somebody has to look.
        let least = if rule == Rule::Fixed { 0.95 } else { 0.85 };
        assert!(told.used >= least, "{rule:?}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_is_missed_for_a_window_at_most() {
    for rule in [Rule::Fixed, Rule::Log] {
        let setup = Setup::new(rule, Telling::Headers, 300, 5_000 * MS);
        let fleet: Vec<_> = (1..=8).map(|id| setup.start(id)).collect();
        let end = Instant::now() + 200_000 * MS;
        let demands: Vec<_> = fleet
            .iter()
            .enumerate()
            .map(|(id, process)| tokio::spawn(Arc::clone(process).demand(15.0, Class::Bulk, end, id as u64)))
            .collect();
        let began = Instant::now();
        sleep(50_000 * MS).await;
        // Their calls end, and nothing of what they hold is told or given back.
        for (process, demand) in fleet.iter().zip(&demands).take(3) {
            demand.abort();
            process.gone.store(true, Ordering::Relaxed);
        }
        setup.store.dead.store(3, Ordering::Relaxed);
        sleep(5_000 * MS).await;
        let from = Instant::now();
        sleep(100_000 * MS).await;
        let (accepted, throttled) = setup.server.between(began, Instant::now());
        let rate = used(&setup.server, from, Instant::now());
        println!("{rule:?}: {rate} after 3 of 8 are gone, {throttled} of {accepted} throttled");
        assert!(rate >= 0.95, "{rule:?}: {rate}");
        assert!(throttled * 100 <= accepted, "{rule:?}: {throttled}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cap_on_attempts_at_once_is_kept_by_all_together() {
    let store = Arc::new(Wired::new(MS));
    let (at_once, most, done) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let end = Instant::now() + 60_000 * MS;
    for id in 1..=4 {
        let cap = LimitSpec {
            key: "at-once".to_owned(),
            aliases: Vec::new(),
            method: None,
            path: PathGlob::parse("/**").unwrap(),
            kind: LimitKind::Concurrent { cap: 10 },
            per: vec![Partition::Credential],
            pin: false,
            assumed: false,
            observes: Observes::default(),
        };
        let config = BankConfig { limits: vec![cap], seed: id, ..BankConfig::default() };
        let pacer = Pacer::new(config, Clock::start(), Observers::default()).unwrap();
        let config = ShareConfig {
            holder: HolderId(id),
            on_store_loss: OnStoreLoss::Share,
            max_instances: 64,
            tokens_shared: false,
        };
        let store: Arc<dyn Store> = Arc::<Wired>::clone(&store);
        pacer.share(&SharedQuota { store, config, token_key: None }, BankKey::of("https://api", "acme"));
        for _ in 0..8 {
            let pacer = pacer.clone();
            let (at_once, most, done) = (Arc::clone(&at_once), Arc::clone(&most), Arc::clone(&done));
            tokio::spawn(async move {
                let family = Family::new(FAMILY);
                while Instant::now() < end {
                    let ask = Ask {
                        method: &Method::GET,
                        path: FAMILY,
                        family: &family,
                        credential: &CredentialId::new("tests"),
                        token: TokenSlot(0),
                        class: Class::Bulk,
                        caller: CallerId::ANYBODY,
                        deadline: None,
                        give_up_at: None,
                    };
                    let mut ticket = pacer.acquire(&ask).await.unwrap();
                    ticket.leave();
                    most.fetch_max(at_once.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    sleep(100 * MS).await;
                    at_once.fetch_sub(1, Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                    let observation = tidegate_core::observe::Observation::default();
                    let answer = Answer { kind: AnswerKind::Accepted, observation: &observation };
                    ticket.answered(&answer, &family, Some(100 * MS));
                }
            });
        }
    }
    sleep_until(end).await;
    let (most, done) = (most.load(Ordering::Relaxed), done.load(Ordering::Relaxed));
    let per_call = num(store.count()) / num(done);
    println!("cap: {most} at once, {done} of 6000 done, {per_call} exchanges per call");
    assert!(most <= 10, "{most}");
    assert!(done >= 4_800, "{done}");
}

/// A process that drew from a quota of 300 per minute, and still has permits for later.
async fn with_permits_in_hand(setup: &Setup) -> Arc<Process> {
    let process = setup.start(1);
    let end = Instant::now() + 2_000 * MS;
    Arc::clone(&process).demand(40.0, Class::Bulk, end, 5).await;
    sleep(100 * MS).await;
    assert!(in_hand(&process) > 5, "{:?}", process.pacer.snapshot());
    process
}

fn in_hand(process: &Process) -> u32 {
    let gates = process.pacer.snapshot().gates;
    let declared = gates.iter().filter(|gate| gate.name == "users").filter_map(|gate| gate.shared.as_ref());
    declared.map(|shared| shared.permits).sum()
}

/// What the store holds for granted or in flight.
async fn out(setup: &Setup) -> u32 {
    let limits = setup.store.memory.view(BankKey::of("https://api", "acme")).await.unwrap();
    limits.iter().filter(|limit| limit.name == "users").map(|limit| limit.out).sum()
}

/// How long another process waits for all that is left of the quota.
async fn the_rest(setup: &Setup) -> Duration {
    let other = setup.start(2);
    let began = Instant::now();
    let (used, _) = setup.server.between(began - 60_000 * MS, began);
    let calls = (used..setup.server.quota).map(|_| {
        let other = Arc::clone(&other);
        tokio::spawn(async move { other.call(Class::Bulk).await.unwrap() })
    });
    let waits = futures_util::future::join_all(calls.collect::<Vec<_>>()).await;
    waits.into_iter().map(Result::unwrap).max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_a_process_holds_is_the_others_as_soon_as_it_leaves() {
    let mut waited = Vec::new();
    for leaves in [true, false] {
        let setup = Setup::new(Rule::Log, Telling::Silent, 300, 60_000 * MS);
        let process = with_permits_in_hand(&setup).await;
        assert!(out(&setup).await > 0);
        if leaves {
            let began = Instant::now();
            process.pacer.give_back().await;
            assert_eq!(Instant::now() - began, 2 * MS, "one exchange, there and back");
            assert_eq!((out(&setup).await, in_hand(&process)), (0, 0));
        } else {
            // As a crash does.
            setup.store.dead.store(1, Ordering::Relaxed);
            process.gone.store(true, Ordering::Relaxed);
        }
        waited.push(the_rest(&setup).await);
    }
    println!(
        "the last of the rest: {:?} after one that left, {:?} after one that died",
        waited[0], waited[1]
    );
    assert!(waited[0] < 1_000 * MS, "{waited:?}");
    assert!(waited[1] > 5_000 * MS, "it was taken for one that still holds them: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn leaving_takes_no_longer_than_an_exchange_and_nothing_where_the_store_is_known_to_be_away() {
    let setup = Setup::new(Rule::Log, Telling::Silent, 300, 60_000 * MS);
    let process = with_permits_in_hand(&setup).await;
    setup.store.cut.store(true, Ordering::Relaxed);
    for most in [50 * MS, Duration::ZERO] {
        let began = Instant::now();
        process.pacer.give_back().await;
        assert_eq!(Instant::now() - began, most);
    }
    let unused = setup.start(3);
    let before = setup.store.count();
    setup.store.cut.store(false, Ordering::Relaxed);
    unused.pacer.give_back().await;
    assert_eq!(setup.store.count(), before, "who holds nothing says nothing");
}

#[tokio::test(start_paused = true)]
async fn a_call_after_leaving_asks_the_store_again() {
    let setup = Setup::new(Rule::Log, Telling::Silent, 300, 60_000 * MS);
    let process = with_permits_in_hand(&setup).await;
    process.pacer.give_back().await;
    let before = setup.store.count();
    assert!(process.call(Class::Interactive).await.unwrap() < 100 * MS);
    assert_eq!(setup.store.count(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn leaving_overtakes_an_exchange_that_is_under_way() {
    let setup = Setup::new(Rule::Log, Telling::Silent, 300, 60_000 * MS);
    let process = with_permits_in_hand(&setup).await;
    while in_hand(&process) > 0 {
        process.call(Class::Bulk).await.unwrap();
    }
    let waiting = tokio::spawn({
        let process = Arc::clone(&process);
        async move { process.call(Class::Bulk).await }
    });
    // The exchange for it has left and is not there yet.
    sleep(MS / 2).await;
    waiting.abort();
    process.pacer.give_back().await;
    sleep(10 * MS).await;
    assert_eq!((out(&setup).await, in_hand(&process)), (0, 0), "what it brought was given back, too");
}
