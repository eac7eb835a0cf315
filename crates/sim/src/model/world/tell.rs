//! Where what changes meets those who are told: channels, webhooks, and the judge's log.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::World;
use crate::model::fault::Faults;
use crate::model::org::Done;
use crate::model::org::changes::ChangeRecord;
use crate::model::push::NoSocket;
use crate::model::push::faults::SocketFault;
use crate::model::push::handle::Subscriber;
use crate::model::push::hooks::Delivery;
use crate::model::push::sockets::Due;
use crate::model::route::Caller;
use crate::wire::errors::ApiError;
use crate::wire::form;
use crate::wire::message::ApiRequest;

/// The calls about notifications channels.
pub(super) const NOTIFICATIONS: &str = "/api/v2/notifications/";

impl World {
    /// Says where this server is reached, such as `ws://127.0.0.1:8790`; `connectUri` points there.
    pub fn set_origin(&mut self, origin: &str) {
        origin.clone_into(&mut self.origin);
        self.push.set_origin(origin);
    }

    /// Lets time pass until `now`: what moves by itself moves, and faults change when it is their time.
    pub(super) fn advance(&mut self, now: Duration) {
        while self.events.front().is_some_and(|event| event.at <= now) {
            if let Some(event) = self.events.pop_front() {
                self.org.advance(event.at);
                self.tell();
                self.replace_faults(event.at, event.faults);
            }
        }
        self.org.advance(now);
        self.tell();
    }

    pub(super) fn replace_faults(&mut self, now: Duration, faults: Faults) {
        self.push.set_faults(now, &faults);
        self.faults.replace(now, faults);
    }

    /// Tells what has changed.
    pub(super) fn tell(&mut self) {
        for change in self.org.take_changes() {
            for (topic, body) in change.topics() {
                self.push.emit(change.at, &topic, &body);
            }
            self.log.add(change);
        }
    }

    /// Answers a call about channels. Channels need no permission; their topics do.
    pub(super) fn notifications(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        caller: &Caller,
    ) -> Option<Done> {
        if request.method == Method::HEAD {
            let request = ApiRequest { method: Method::GET, ..request.clone() };
            return self.notifications(now, &request, caller);
        }
        let rest = request.path.strip_prefix(NOTIFICATIONS)?;
        let decoded: Vec<String> =
            rest.split('/').filter(|part| !part.is_empty()).map(form::decode_segment).collect();
        let path: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let who = Subscriber {
            client: &caller.credential,
            permits: &|permission| self.oauth.permits(&caller.credential, permission),
            wall: self.wall + now,
        };
        self.push.handle(now, request, &path, &who)
    }

    /// Something happens to a topic now, although nothing changed.
    pub fn emit(&mut self, now: Duration, topic: &str, body: &Value) {
        self.catch_up(now, |_, _, _| {});
        self.push.emit(now, topic, body);
    }

    /// Changes now what the GET of `path` shows: to a value by name, or to the next one. What it shows then.
    pub fn change(&mut self, now: Duration, path: &str, to: Option<&str>) -> Result<Value, ApiError> {
        self.catch_up(now, |_, _, _| {});
        let body = self.org.change(now, path, to)?;
        self.tell();
        Ok(body)
    }

    /// Every change so far, or those of one path.
    pub fn changes(&mut self, now: Duration, path: Option<&str>) -> Vec<ChangeRecord> {
        self.catch_up(now, |_, _, _| {});
        self.log.records(path)
    }

    /// For how long `version` of what `path` shows has not been the current one, as of `at` or else now; zero if it is.
    pub fn outdated(&mut self, now: Duration, path: &str, version: u64, at: Option<Duration>) -> Duration {
        self.catch_up(now, |_, _, _| {});
        self.log.outdated(at.unwrap_or(now), path, version)
    }

    /// One user as the judge sees it; none if there is no such user.
    pub fn user(&self, id: &str) -> Option<Value> {
        self.org.users().judged(id)
    }

    /// Changes whenever there may be something new to send.
    pub fn epoch(&self) -> u64 {
        self.push.epoch()
    }

    /// A WebSocket is to be opened for a channel; its number.
    pub fn connect(&mut self, now: Duration, channel: &str) -> Result<u64, NoSocket> {
        self.catch_up(now, |_, _, _| {});
        let id = self.next_id;
        self.next_id += 1;
        self.push.connect(now, channel, id).map(|()| id)
    }

    /// The client of a socket sent a text.
    pub fn heard(&mut self, now: Duration, socket: u64, text: &str) {
        self.push.heard(now, socket, text);
    }

    /// What is due for a socket.
    pub fn due(&mut self, now: Duration, socket: u64) -> Due {
        self.catch_up(now, |_, _, _| {});
        let due = self.push.take(now, socket);
        Due { next: self.sooner(due.next), ..due }
    }

    /// A socket has been closed, by whomever.
    pub fn closed(&mut self, socket: u64) {
        self.push.closed(socket);
    }

    /// Does something to open sockets; to how many.
    pub fn act(&mut self, now: Duration, fault: SocketFault, channel: Option<&str>) -> u64 {
        self.catch_up(now, |_, _, _| {});
        self.push.act(now, fault, channel)
    }

    /// Webhook deliveries that are due, and when to ask again.
    pub fn deliveries(&mut self, now: Duration) -> (Vec<Delivery>, Option<Duration>) {
        self.catch_up(now, |_, _, _| {});
        let (deliveries, next) = self.push.take_hooks(now, self.wall(now));
        // Without a target there is nobody to move for.
        (deliveries, if self.config.webhooks.is_empty() { None } else { self.sooner(next) })
    }

    /// A delivery was answered with a status, or not at all.
    pub fn delivered(&mut self, status: Option<u16>) {
        self.push.hook_answered(status);
    }

    /// The first of `next`, the next thing that moves by itself, and the next change of the faults.
    fn sooner(&self, next: Option<Duration>) -> Option<Duration> {
        let event = self.events.front().map(|event| event.at);
        next.into_iter().chain(self.org.next_move()).chain(event).min()
    }
}
