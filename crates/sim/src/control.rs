//! The judge's own endpoints: `/`, `/sim/...`. They need no token and draw no quota.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock::{Clock, wall};
use crate::config::SimConfig;
use crate::error::SimError;
use crate::model::fault::Faults;
use crate::model::ledger::Stats;
use crate::model::world::{Decision, Reply, World};
use crate::strict;
use crate::wire::message::{ApiRequest, ApiResponse};
use crate::witness::Witness;

mod push;

/// One user as the judge sees it; the id follows.
const USERS: &str = "/sim/users/";

/// A world and the clock that drives it; everything behind the server's one lock.
#[derive(Debug)]
pub(crate) struct Simulation {
    pub(crate) world: World,
    clock: Clock,
    /// What `POST /sim/reset` returns to.
    start: SimConfig,
    witness: Option<Arc<dyn Witness>>,
    /// Tells the tasks of sockets and webhooks that there may be something new for them.
    changed: watch::Sender<u64>,
}

impl Simulation {
    /// A simulation whose sockets are opened at `origin`.
    pub(crate) fn new(config: SimConfig, witness: Option<Arc<dyn Witness>>, origin: &str) -> Self {
        let mut world = World::new(config.clone(), wall());
        world.set_origin(origin);
        Self { world, clock: Clock::start(), start: config, witness, changed: watch::Sender::new(0) }
    }

    /// Time since the start or the last reset. Read under the lock, so that the world never sees time go back.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    pub(crate) fn reset(&mut self, overrides: &[u8]) -> Result<(), SimError> {
        let config = self.start.overridden(overrides)?;
        self.world = self.world.restarted(config, wall());
        self.clock = Clock::start();
        // What is open belongs to the time before.
        self.changed.send_replace(self.world.epoch());
        Ok(())
    }

    pub(crate) fn set_faults(&mut self, faults: Faults) -> Result<(), SimError> {
        let problems = faults.problems("");
        if !problems.is_empty() {
            return Err(SimError::Invalid { what: "faults", problems });
        }
        let now = self.now();
        self.catch_up(now);
        self.world.set_faults(now, faults);
        self.stir();
        Ok(())
    }

    /// Decides a call that has arrived.
    pub(crate) fn decide(&mut self, id: u64, request: &ApiRequest) -> Decision {
        let now = self.now();
        self.catch_up(now);
        let decision = self.world.decide(now, id, request);
        self.stir();
        if let Some(witness) = &self.witness {
            let status = match &decision.reply {
                Reply::Answer(response) => Some(response.status),
                Reply::Close => None,
            };
            witness.decided(now, id, request, status);
        }
        decision
    }

    /// A call has been answered, or its client has gone.
    pub(crate) fn depart(&mut self, id: u64) {
        self.world.depart(id);
        if let Some(witness) = &self.witness {
            witness.departed(self.now(), id);
        }
    }

    /// Lets the strangers do what was due, in sight of the witness.
    fn catch_up(&mut self, now: Duration) {
        if let Some(witness) = &self.witness {
            self.world.catch_up(now, |at, caller, admitted| witness.stranger(at, caller, admitted));
        }
    }

    pub(crate) fn stats(&mut self, users: bool) -> Stats {
        let now = self.now();
        self.catch_up(now);
        let stats = self.world.stats(now, users);
        self.stir();
        stats
    }

    /// Answers a control call; `None` if the path belongs to the simulated API.
    pub(crate) fn control(&mut self, request: &ApiRequest) -> Option<ApiResponse> {
        let known = match (request.path.as_str(), &request.method) {
            ("/", &Method::GET) => Ok(ApiResponse::json(200, &help())),
            ("/sim/stats", &Method::GET) => {
                let stats = self.stats(request.query("users") == Some("1"));
                serde_json::to_value(stats)
                    .map(|stats| ApiResponse::json(200, &stats))
                    .map_err(|error| error.to_string())
            }
            ("/sim/writes", &Method::GET) => serde_json::to_value(self.world.writes())
                .map(|writes| ApiResponse::json(200, &writes))
                .map_err(|error| error.to_string()),
            ("/sim/config", &Method::GET) => serde_json::to_value(self.world.config())
                .map(|config| ApiResponse::json(200, &config))
                .map_err(|error| error.to_string()),
            ("/sim/changes" | "/sim/age" | "/sim/emit" | "/sim/sockets", _) => {
                return Some(self.push_control(request));
            }
            ("/sim/reset", &Method::POST) => done(self.reset(&request.body)),
            ("/sim/faults", &Method::POST) => {
                done(strict::read_json("faults", &request.body).and_then(|faults| self.set_faults(faults)))
            }
            (path, &Method::GET) if path.starts_with(USERS) => {
                let user = self.world.user(&path[USERS.len()..]);
                Ok(user.map_or_else(|| ApiResponse::json(404, &help()), |user| ApiResponse::json(200, &user)))
            }
            (path, _) if path.starts_with("/sim/") || path == "/" => {
                return Some(ApiResponse::json(404, &help()));
            }
            _ => return None,
        };
        Some(known.unwrap_or_else(|error| ApiResponse::json(400, &json!({ "error": error }))))
    }
}

fn done(result: Result<(), SimError>) -> Result<ApiResponse, String> {
    result.map(|()| ApiResponse::json(200, &json!({ "ok": true }))).map_err(|error| error.to_string())
}

fn help() -> Value {
    json!({
        "what": "a simulated, quota-limited Platform API; nothing here is real",
        "POST /oauth/token": "client_credentials; demo-client / demo-secret unless configured",
        "/api/v2/...": "users, routing skills and languages, presences, scripts, conversations, notifications channels, bulk, analytics, recording and outbound jobs, external contacts, limits, SCIM users",
        "GET /sim/stats": "the judge's books; ?users=1 adds every user's skills",
        "GET /sim/writes": "every write, with each of its attempts",
        "GET /sim/config": "the configuration in force",
        "GET /sim/users/{id}": "one user: fields, version, skills and languages",
        "GET /sim/changes": "everything that changed, with its version; ?path= is the path of the GET that shows it",
        "GET /sim/age": "for how long ?version= of what ?path= shows has not been the current one, in seconds; &at= as of then",
        "POST /sim/emit": "{path, to}: changes now what the GET of the path shows; {topic, body}: an event without a change",
        "POST /sim/sockets": "{do: kill or closing, channel}: cuts or announces the end of all WebSockets, or of one",
        "POST /sim/reset": "start again; an optional JSON object overrides keys of the start configuration",
        "POST /sim/faults": "replace the faults: match, unavailable, unavailable_hint, drop_before, drop_after, \
            timeout_after, internal_error (probabilities 0 to 1), script (list of none, throttle, unavailable, \
            drop-before, drop-after, timeout-after, internal-error), brown_outs (list of from, to, status, hints, \
            match), latency, push (sockets, silent, refuse_upgrade, refuse_topics, drop, duplicate, reorder, delay, \
            script), hooks (drop, duplicate, reorder, bad_signature, replay, stale, script); {} removes them all",
    })
}
