//! The life of one call in the simulated server, in one file.
//!
//! A shell (sockets, or a virtual-time lab) calls [`World::arrive`] when a request is there, waits as told, calls
//! [`World::decide`], waits as told, delivers the reply, and calls [`World::depart`]. Splitting the latency around the decision is
//! what makes answers arrive late and out of order, as they do in the field.

mod github;
mod late;
mod serve;
mod tell;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::config::{Event, SimConfig};
use crate::model::concurrency::{Caps, Held};
use crate::model::dedup::Dedup;
use crate::model::fault::{FaultPlan, Faults};
use crate::model::ledger::{Ledger, Stats, WriteBook};
use crate::model::limits::Limits;
use crate::model::oauth::Oauth;
use crate::model::org::Org;
use crate::model::org::changes::ChangeLog;
use crate::model::push::Push;
use crate::model::route::Caller;
use crate::model::strangers::Strangers;
use crate::model::{Stream, uuid_text};
use crate::wire::headers::{Dialect, Style, http_date};
use crate::wire::message::{ApiRequest, ApiResponse};
use late::Parked;
use serve::Call;

/// The header by which writes are named across attempts.
pub const REQUEST_ID: &str = "x-genesys-request-id";

/// The token endpoint.
pub const TOKEN_PATH: &str = "/oauth/token";

/// A request has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Names the call until it departs.
    pub id: u64,
    /// Wait this long before [`World::decide`].
    pub wait: Duration,
}

/// What the caller gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An answer.
    Answer(ApiResponse),
    /// The connection closes without one.
    Close,
}

/// A call has been decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the caller gets.
    pub reply: Reply,
    /// Wait this long before delivering it.
    pub wait: Duration,
}

/// A call between arrival and departure.
#[derive(Debug)]
enum Inside {
    Api { after: Duration, held: Option<Held> },
    Login { after: Duration, client: String },
}

/// The whole simulated server.
#[derive(Debug)]
pub struct World {
    config: SimConfig,
    style: Style,
    /// The wall clock at `now == 0`, since the epoch.
    wall: Duration,
    oauth: Oauth,
    limits: Limits,
    caps: Caps,
    faults: FaultPlan,
    strangers: Strangers,
    events: VecDeque<Event>,
    dedup: Dedup,
    org: Org,
    push: Push,
    log: ChangeLog,
    /// Where this server is reached.
    origin: String,
    ledger: Ledger,
    calls: HashMap<u64, Inside>,
    /// Calls whose connection has closed and that are executed later.
    parked: Vec<Parked>,
    next_id: u64,
    ids: fastrand::Rng,
    latency: fastrand::Rng,
    late: fastrand::Rng,
}

impl World {
    /// A server at its start. `wall` is the wall clock at that instant, since the epoch. The configuration must be valid
    /// ([`SimConfig::validate`]).
    pub fn new(config: SimConfig, wall: Duration) -> Self {
        let rules = config.limit_rules();
        let mut events = config.events.clone();
        events.sort_by_key(|event| event.at);
        Self {
            style: Style {
                dialect: config.headers,
                reset: config.reset,
                reset_of: config.reset_of,
                retry_after: config.retry_after,
                short_by: config.short_by,
            },
            wall: (wall + config.clock_ahead).saturating_sub(config.clock_behind),
            oauth: Oauth::new(config.oauth.clone(), Stream::Tokens.rng(config.seed)),
            org: Org::new(&config, &rules),
            push: Push::new(&config),
            log: ChangeLog::default(),
            origin: String::new(),
            limits: Limits::new(rules, config.penalty),
            caps: Caps::new(config.cap_rules()),
            faults: FaultPlan::new(config.faults.clone(), Stream::Faults.rng(config.seed)),
            strangers: Strangers::new(&config.strangers, &mut Stream::Strangers.rng(config.seed)),
            events: events.into(),
            dedup: Dedup::new(config.dedup),
            ledger: Ledger::new(config.seed),
            calls: HashMap::new(),
            parked: Vec::new(),
            next_id: 0,
            ids: Stream::Ids.rng(config.seed),
            latency: Stream::Latency.rng(config.seed),
            late: Stream::Late.rng(config.seed),
            config,
        }
    }

    /// A fresh server for `config` that never reuses a call id of this one, so that calls still inside do no harm.
    #[must_use]
    pub fn restarted(&self, config: SimConfig, wall: Duration) -> Self {
        let mut world = Self { next_id: self.next_id, ..Self::new(config, wall) };
        world.set_origin(&self.origin);
        world
    }

    /// The configuration in force.
    pub fn config(&self) -> &SimConfig {
        &self.config
    }

    /// Replaces the faults; times in them count from `now`.
    pub fn set_faults(&mut self, now: Duration, faults: Faults) {
        self.catch_up(now, |_, _, _| {});
        self.replace_faults(now, faults);
    }

    /// The judge's books; `users` adds every user's skills.
    pub fn stats(&mut self, now: Duration, users: bool) -> Stats {
        self.catch_up(now, |_, _, _| {});
        let (push, hooks) = self.push.stats(now);
        let all = self.org.users();
        Stats {
            users_total: all.len() as u64,
            users_hash: all.hash(),
            users: users.then(|| all.skills()),
            jobs: self.org.jobs().stats().clone(),
            push,
            hooks,
            ..self.ledger.stats(now)
        }
    }

    /// Every write, with its attempts.
    pub fn writes(&self) -> Vec<WriteBook> {
        self.ledger.writes()
    }

    /// A request has arrived; draws its latency.
    pub fn arrive(&mut self, request: &ApiRequest) -> Arrival {
        let id = self.next_id;
        self.next_id += 1;
        let is_login = request.path == TOKEN_PATH;
        let latency = match (is_login, self.faults.faults().latency) {
            (true, _) => self.config.oauth.latency,
            (false, Some(latency)) => latency,
            (false, None) => self.config.latency,
        };
        let total = latency.draw(&mut self.latency);
        let wait = total.mul_f64(self.config.decide_at);
        let after = total.saturating_sub(wait);
        let inside = if is_login {
            let client = Oauth::client_of(request).unwrap_or_default();
            self.ledger.login_arrived(&client);
            Inside::Login { after, client }
        } else {
            self.ledger.arrived();
            Inside::Api { after, held: None }
        };
        self.calls.insert(id, inside);
        Arrival { id, wait }
    }

    /// Decides a call that has arrived. A call that arrived before a restart is decided without latency.
    pub fn decide(&mut self, now: Duration, id: u64, request: &ApiRequest) -> Decision {
        self.catch_up(now, |_, _, _| {});
        let mut call = Call { now, id, request, context: uuid_text(&mut self.ids), described: Vec::new() };
        let reply = if request.path == TOKEN_PATH { self.login(&call) } else { self.api(&mut call) };
        let reply = match reply {
            Reply::Answer(response) => Reply::Answer(self.finish(&call, response)),
            Reply::Close => Reply::Close,
        };
        let wait = match self.calls.get(&id) {
            Some(Inside::Api { after, .. } | Inside::Login { after, .. }) => *after,
            None => Duration::ZERO,
        };
        Decision { reply, wait }
    }

    /// The reply has been delivered, or the caller has gone. Unknown ids are ignored.
    pub fn depart(&mut self, id: u64) {
        match self.calls.remove(&id) {
            Some(Inside::Api { held, .. }) => {
                self.ledger.departed();
                if let Some(held) = held {
                    self.caps.release(held);
                }
            }
            Some(Inside::Login { client, .. }) => self.ledger.login_departed(&client),
            None => {}
        }
    }

    /// Whether it answers as GitHub does, in everything.
    fn is_github(&self) -> bool {
        self.style.dialect == Dialect::Github
    }

    fn wall(&self, now: Duration) -> Duration {
        self.wall + now
    }

    /// Lets late calls, strangers and events happen that were due until `now`, and tells each stranger's call with its time and whether it
    /// was admitted. [`World::decide`] does this by itself; a lab that wants to know what the strangers took calls it just
    /// before.
    pub fn catch_up(&mut self, now: Duration, mut told: impl FnMut(Duration, &Caller, bool)) {
        self.execute_late(now);
        while let Some((at, caller)) = self.strangers.next_due(now) {
            let admitted = self.limits.admit(at, &caller).refusal.is_none();
            self.ledger.stranger(at, admitted);
            told(at, &caller, admitted);
        }
        self.advance(now);
    }

    /// The headers of every answer.
    fn finish(&self, call: &Call<'_>, mut response: ApiResponse) -> ApiResponse {
        let wall = self.wall(call.now);
        if self.is_github() {
            response.headers.extend([
                ("X-GitHub-Request-Id".to_owned(), call.context.clone()),
                ("Date".to_owned(), http_date(wall)),
            ]);
            response.headers.extend(self.style.describe(&call.described, wall));
            return response;
        }
        response.headers.extend([
            ("ININ-Correlation-Id".to_owned(), call.context.clone()),
            ("Strict-Transport-Security".to_owned(), "max-age=600; includeSubDomains".to_owned()),
            ("Cache-Control".to_owned(), "no-cache, no-store, must-revalidate".to_owned()),
            ("Date".to_owned(), http_date(wall)),
        ]);
        response.headers.extend(self.style.describe(&call.described, wall));
        response
    }
}
