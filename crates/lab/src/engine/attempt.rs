//! The life of an attempt, from leaving to its answer.

use std::time::Duration;

use http::HeaderValue;
use tidegate_sim::model::route::Caller;
use tidegate_sim::model::world::{REQUEST_ID, Reply};
use tidegate_sim::wire::message::{ApiRequest, ApiResponse};

use super::{Engine, Event, login, mono};
use crate::call::{CallId, CallInfo};
use crate::headline::Share;
use crate::measure::Summary;

/// A call that has not ended, with its attempt if one is under way.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) info: CallInfo,
    pub(super) instance: usize,
    pub(super) load: usize,
    begun: Duration,
    serial: u64,
    /// When its latest attempt left.
    left: Duration,
    attempts: u32,
    request: Option<ApiRequest>,
    world_id: u64,
    share: Option<Share>,
    response: Option<ApiResponse>,
}

impl Open {
    pub(super) fn new(info: CallInfo, instance: usize, load: usize, begun: Duration, serial: u64) -> Self {
        Self {
            info,
            instance,
            load,
            begun,
            serial,
            left: begun,
            attempts: 0,
            request: None,
            world_id: 0,
            share: None,
            response: None,
        }
    }

    /// What remains of it in the books.
    pub(super) fn summary(&self) -> Summary {
        Summary {
            class: self.info.class,
            serial: self.serial,
            wait: self.left.saturating_sub(self.begun),
            sent: self.attempts > 0,
            deadline: self.info.deadline,
        }
    }

    fn request(&self, authorization: HeaderValue, body: &str) -> ApiRequest {
        let route = &self.info.route;
        let mut request = ApiRequest::new(route.method.clone(), &self.info.path);
        request.headers.insert(http::header::AUTHORIZATION, authorization);
        if route.is_write() {
            request.body = body.as_bytes().to_vec();
            let key = format!("00000000-0000-4000-9000-{:012x}", self.serial);
            request
                .headers
                .insert(REQUEST_ID, key.parse().expect("hex digits and hyphens are a header value"));
        }
        request
    }
}

impl Engine<'_, '_> {
    fn call(&mut self, id: CallId) -> &mut Open {
        self.calls[id.0 as usize].as_mut().expect("an attempt's events come while its call is open")
    }

    /// A strategy sends a call; without a token it waits for one first.
    pub(super) fn leave(&mut self, id: CallId) {
        let now = self.now;
        let Some(call) = self.calls[id.0 as usize].as_mut() else { return };
        let instance = &mut self.instances[call.instance];
        let index = instance.purse_of[call.load];
        let Some(header) = instance.purses[index].header(now).cloned() else {
            let number = call.instance;
            instance.purses[index].waiting.push(id);
            self.need_login(number, index);
            return;
        };
        instance.strategy.left(mono(now), call.info.id, &mut self.orders);
        let body = &self.plan.load(call.load).body;
        call.request = Some(call.request(header, body));
        call.left = now;
        call.attempts += 1;
        self.outcome.attempts += 1;
        let way = self.network.one_way();
        self.queue.push(now + way, Event::Arrive(id));
    }

    pub(super) fn arrive(&mut self, id: CallId) {
        let call = self.calls[id.0 as usize].as_mut().expect("an attempt arrives while its call is open");
        let Some(request) = &call.request else { return };
        let arrival = self.world.arrive(request);
        call.world_id = arrival.id;
        self.queue.push(self.now + arrival.wait, Event::Decide(id));
    }

    pub(super) fn decide(&mut self, id: CallId) {
        let now = self.now;
        self.catch_up();
        let call = self.calls[id.0 as usize].as_mut().expect("an attempt is decided while its call is open");
        let Some(request) = &call.request else { return };
        let decision = self.world.decide(now, call.world_id, request);
        let response = match decision.reply {
            Reply::Answer(response) => Some(response),
            Reply::Close => None,
        };
        let status = response.as_ref().map_or(0, |response| response.status);
        call.response = response;
        call.share = match status {
            401 | 503 => None,
            _ => {
                let token = format!("instance-{}", call.instance);
                let method = call.info.route.method.as_str();
                let caller = Caller::new(&token, call.info.credential.as_str(), method, &call.info.path);
                self.outcome.tape.own(now, &caller, status == 429)
            }
        };
        if !matches!(status, 0 | 401 | 429 | 503) {
            self.outcome.admitted(now, self.recovers);
        }
        self.outcome.trace.note([now_nanos(now), call.serial, u64::from(status)]);
        self.queue.push(now + decision.wait, Event::Deliver(id));
    }

    pub(super) fn deliver(&mut self, id: CallId) {
        let now = self.now;
        let way = self.network.one_way();
        let call = self.call(id);
        let (world_id, share) = (call.world_id, call.share.take());
        self.world.depart(world_id);
        if let Some(share) = share {
            self.outcome.tape.freed(now, share);
        }
        self.queue.push(now + way, Event::Answer(id));
    }

    pub(super) fn answer(&mut self, id: CallId) {
        let call = self.calls[id.0 as usize].as_mut().expect("an answer comes while its call is open");
        let response = call.response.take();
        let number = call.instance;
        let instance = &mut self.instances[number];
        if response.as_ref().is_some_and(|response| response.status == 401) {
            let sent = call.request.as_ref().and_then(|sent| sent.headers.get(http::header::AUTHORIZATION));
            instance.purses[instance.purse_of[call.load]].discard(sent);
        }
        instance.strategy.answered(mono(self.now), &call.info, response.as_ref(), &mut self.orders);
        self.carry_out(number);
    }

    fn need_login(&mut self, instance: usize, purse: usize) {
        let state = &mut self.instances[instance].purses[purse];
        if state.login.is_none() {
            state.login = Some(crate::wallet::Login::default());
            let way = self.network.one_way();
            self.queue.push(self.now + way, Event::Login { instance, purse, step: login::Step::Arrive });
        }
    }
}

/// Nanoseconds of a run; 584 years fit.
fn now_nanos(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
