//! The judge's hand on what changes and on who is told.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Simulation, help};
use crate::error::SimError;
use crate::model::org::changes::ChangeRecord;
use crate::model::push::NoSocket;
use crate::model::push::faults::SocketFault;
use crate::model::push::hooks::Delivery;
use crate::model::push::sockets::Due;
use crate::strict;
use crate::wire::message::{ApiRequest, ApiResponse};

/// The body of `POST /sim/emit`: one of `path` and `topic`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Emit {
    path: Option<String>,
    to: Option<String>,
    topic: Option<String>,
    body: Value,
}

/// The body of `POST /sim/sockets`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sockets {
    r#do: Option<SocketFault>,
    channel: Option<String>,
}

impl Simulation {
    /// Answers the control calls about changes, events and sockets.
    pub(super) fn push_control(&mut self, request: &ApiRequest) -> ApiResponse {
        let answered = match (request.path.as_str(), &request.method) {
            ("/sim/changes", &Method::GET) => {
                let changes = self.changes(request.query("path"));
                Ok(json!({ "now": self.now().as_secs_f64(), "changes": changes }))
            }
            ("/sim/age", &Method::GET) => {
                let version = request.query("version").and_then(|text| text.parse().ok());
                let at = request.query("at").map(|text| {
                    let seconds =
                        text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                    seconds.ok_or_else(|| format!("at: \"{text}\" is not a number of seconds"))
                });
                match (request.query("path"), version, at.transpose()) {
                    (_, _, Err(error)) => Err(error),
                    (Some(path), Some(version), Ok(at)) => {
                        Ok(json!({ "outdated": self.outdated(path, version, at).as_secs_f64() }))
                    }
                    _ => Err("path and version are needed".to_owned()),
                }
            }
            ("/sim/emit", &Method::POST) => self.emitted(&request.body),
            ("/sim/sockets", &Method::POST) => self.acted(&request.body),
            _ => return ApiResponse::json(404, &help()),
        };
        match answered {
            Ok(body) => ApiResponse::json(200, &body),
            Err(error) => ApiResponse::json(400, &json!({ "error": error })),
        }
    }

    fn emitted(&mut self, body: &[u8]) -> Result<Value, String> {
        let order: Emit = strict::read_json("event", body).map_err(|error| error.to_string())?;
        match (order.path, order.topic) {
            (Some(path), None) => self.change(&path, order.to.as_deref()).map_err(|error| error.to_string()),
            (None, Some(topic)) => {
                self.emit(&topic, &order.body);
                Ok(json!({ "ok": true }))
            }
            _ => Err("either path or topic is needed".to_owned()),
        }
    }

    fn acted(&mut self, body: &[u8]) -> Result<Value, String> {
        let order: Sockets = strict::read_json("sockets", body).map_err(|error| error.to_string())?;
        let fault = order.r#do.ok_or_else(|| "do is needed: kill or closing".to_owned())?;
        Ok(json!({ "sockets": self.act(fault, order.channel.as_deref()) }))
    }

    /// Tells the tasks of sockets and webhooks, if there may be something new for them.
    pub(super) fn stir(&self) {
        let epoch = self.world.epoch();
        self.changed.send_if_modified(|seen| std::mem::replace(seen, epoch) != epoch);
    }

    /// Hears of something new for sockets and webhooks.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn changes(&mut self, path: Option<&str>) -> Vec<ChangeRecord> {
        let now = self.now();
        self.catch_up(now);
        self.world.changes(now, path)
    }

    pub(crate) fn outdated(&mut self, path: &str, version: u64, at: Option<Duration>) -> Duration {
        let now = self.now();
        self.catch_up(now);
        self.world.outdated(now, path, version, at)
    }

    pub(crate) fn change(&mut self, path: &str, to: Option<&str>) -> Result<Value, SimError> {
        let now = self.now();
        self.catch_up(now);
        let changed = self.world.change(now, path, to);
        self.stir();
        changed.map_err(|error| SimError::Invalid { what: "change", problems: vec![error.message] })
    }

    pub(crate) fn emit(&mut self, topic: &str, body: &Value) {
        let now = self.now();
        self.catch_up(now);
        self.world.emit(now, topic, body);
        self.stir();
    }

    pub(crate) fn act(&mut self, fault: SocketFault, channel: Option<&str>) -> u64 {
        let now = self.now();
        self.catch_up(now);
        let done = self.world.act(now, fault, channel);
        self.stir();
        done
    }

    /// Opens a socket for a channel: its number, and where its task hears of something new.
    pub(crate) fn connect(&mut self, channel: &str) -> (Result<u64, NoSocket>, watch::Receiver<u64>) {
        let now = self.now();
        self.catch_up(now);
        let connected = self.world.connect(now, channel);
        self.stir();
        (connected, self.changed())
    }

    pub(crate) fn heard(&mut self, socket: u64, text: &str) {
        let now = self.now();
        self.world.heard(now, socket, text);
        self.stir();
    }

    /// What is due for a socket, and the time that is asked at.
    pub(crate) fn due(&mut self, socket: u64) -> (Due, Duration) {
        let now = self.now();
        self.catch_up(now);
        let due = self.world.due(now, socket);
        self.stir();
        (due, now)
    }

    /// Webhook deliveries that are due and when to ask again, and the time that is asked at.
    pub(crate) fn deliveries(&mut self) -> ((Vec<Delivery>, Option<Duration>), Duration) {
        let now = self.now();
        self.catch_up(now);
        let deliveries = self.world.deliveries(now);
        self.stir();
        (deliveries, now)
    }
}
