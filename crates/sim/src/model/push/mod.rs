//! Telling instead of being asked: notifications channels with their sockets, and outbound webhooks.
//!
//! # What the platform does
//!
//! A program creates a channel, subscribes it to topics and opens one WebSocket to the channel's `connectUri`. What happens to a topic
//! while no socket is open is lost; nothing is sent again. A channel lives a day unless topics are put again. The numbers (20
//! channels of a client, 1 000 topics of a channel, topics below 200 characters) are the vendor's published ones.
//!
//! # Shape
//!
//! Everything here is pure: sockets are numbers, and the shell asks [`Push::take`] what is due for one of them. [`Push::epoch`] changes
//! whenever there may be something new to take.

mod channels;

pub(crate) mod handle;

pub mod books;
pub mod faults;
pub mod hooks;
pub mod sockets;
pub mod topics;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{NotificationConfig, SimConfig};
use crate::model::fault::Faults;
use crate::model::{Stream, uuid_text};
use books::{HookStats, PushStats};
use channels::Channels;
use faults::{Fates, PushFaults, SocketFault};
use hooks::Hooks;
use sockets::{Due, End, Message, Socket};

/// Channels, sockets and webhooks of the organisation.
#[derive(Debug)]
pub struct Push {
    config: NotificationConfig,
    /// Where sockets are opened, such as `ws://127.0.0.1:8790`.
    origin: String,
    channels: Channels,
    sockets: BTreeMap<u64, Socket>,
    hooks: Hooks,
    faults: PushFaults,
    fates: Fates,
    stats: PushStats,
    epoch: u64,
    rng: fastrand::Rng,
}

/// Why there is no socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSocket {
    /// A fault refuses upgrades.
    Refused,
    /// There is no such channel.
    Unknown,
}

impl Push {
    /// Nothing subscribed yet.
    pub fn new(config: &SimConfig) -> Self {
        let mut push = Self {
            config: config.notifications.clone(),
            origin: config.notifications.connect.clone().unwrap_or_default(),
            channels: Channels::default(),
            sockets: BTreeMap::new(),
            hooks: Hooks::new(&config.webhooks, Stream::Hooks.rng(config.seed)),
            faults: PushFaults::default(),
            fates: Fates::new(Stream::Push.rng(config.seed)),
            stats: PushStats::default(),
            epoch: 0,
            rng: Stream::Channels.rng(config.seed),
        };
        push.set_faults(Duration::ZERO, &config.faults);
        push
    }

    /// Says where sockets are opened, unless that is configured.
    pub fn set_origin(&mut self, origin: &str) {
        if self.config.connect.is_none() {
            origin.clone_into(&mut self.origin);
        }
    }

    /// Changes whenever a socket or webhook may have something new to do.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The judge's books.
    pub fn stats(&mut self, now: Duration) -> (PushStats, HookStats) {
        self.expire(now);
        let stats = PushStats {
            channels_open: self.channels.iter().count() as u64,
            subscriptions: self.channels.iter().map(|channel| channel.subscribed() as u64).sum(),
            sockets_open: self.sockets.values().filter(|socket| socket.end.is_none()).count() as u64,
            ..self.stats.clone()
        };
        (stats, self.hooks.stats().clone())
    }

    /// Replaces the faults, and does to the open sockets what they say is done once.
    pub fn set_faults(&mut self, now: Duration, faults: &Faults) {
        self.faults = faults.push.clone();
        self.fates.for_sockets(&faults.push);
        self.hooks.set_faults(&faults.hooks);
        if let Some(fault) = faults.push.sockets {
            self.act(now, fault, None);
        }
        self.epoch += 1;
    }

    /// Does something to the open sockets, or to that of one channel; to how many.
    pub fn act(&mut self, now: Duration, fault: SocketFault, channel: Option<&str>) -> u64 {
        let mut done = 0;
        let meant = |socket: &&mut Socket| {
            socket.end.is_none() && channel.is_none_or(|channel| socket.channel == channel)
        };
        for socket in self.sockets.values_mut().filter(meant) {
            done += 1;
            match fault {
                SocketFault::Kill => {
                    self.stats.sockets_killed += 1;
                    socket.end = Some(End::Cut);
                }
                SocketFault::Closing => {
                    self.stats.sockets_closing += 1;
                    socket.closes = Some(now + self.config.closing_notice);
                    socket.write(now, sockets::closing());
                }
            }
        }
        self.epoch += 1;
        done
    }

    /// Something happened: tells every channel that has subscribed to `topic`, and the webhooks.
    pub fn emit(&mut self, now: Duration, topic: &str, body: &Value) {
        self.expire(now);
        let class = topics::class(topic);
        let correlation = uuid_text(&mut self.rng);
        let text = json!({
            "topicName": topic,
            "version": "2",
            "eventBody": body,
            "metadata": { "CorrelationId": correlation },
        })
        .to_string();
        self.stats.topic(class).emitted += 1;
        self.hooks.emit(now, topic, &text);
        for channel in self.channels.iter().filter(|channel| channel.hears(topic)) {
            let socket = channel.socket.and_then(|id| self.sockets.get_mut(&id));
            let Some(socket) = socket.filter(|socket| socket.end.is_none()) else {
                self.stats.topic(class).unheard += 1;
                continue;
            };
            if self.faults.silent {
                self.stats.topic(class).dropped += 1;
                continue;
            }
            let fault = self.fates.pick();
            if fault != faults::MessageFault::None {
                *self.stats.faults.entry(fault.name().to_owned()).or_insert(0) += 1;
            }
            self.stats.topic(class).dropped += u64::from(fault == faults::MessageFault::Drop);
            let due = now + self.fates.delay(self.faults.delay);
            socket.deliver(now, due, Message { text: text.clone(), class: Some(class) }, fault);
        }
        self.epoch += 1;
    }

    /// A WebSocket is to be opened for a channel; the socket's number. The channel's socket before it ends.
    pub fn connect(&mut self, now: Duration, channel: &str, id: u64) -> Result<(), NoSocket> {
        self.expire(now);
        let refusal = match self.channels.get_mut(channel) {
            _ if self.faults.refuse_upgrade => Some(NoSocket::Refused),
            None => Some(NoSocket::Unknown),
            Some(channel) => {
                let before = channel.socket.replace(id).and_then(|before| self.sockets.get_mut(&before));
                if let Some(before) = before.filter(|before| before.end.is_none()) {
                    self.stats.sockets_replaced += 1;
                    before.end = Some(End::Replaced);
                }
                None
            }
        };
        if let Some(refusal) = refusal {
            self.stats.upgrades_refused += 1;
            return Err(refusal);
        }
        self.stats.sockets_opened += 1;
        self.sockets.insert(id, Socket::new(channel, now + self.config.heartbeat));
        self.epoch += 1;
        Ok(())
    }

    /// The client sent a text. Everything but the ping is ignored, as on the platform.
    pub fn heard(&mut self, now: Duration, id: u64, text: &str) {
        let ping = serde_json::from_str::<Value>(text).is_ok_and(|message| message["message"] == "ping");
        if let Some(socket) = self.sockets.get_mut(&id).filter(|_| ping) {
            self.stats.pings += 1;
            socket.write(now, sockets::metadata("pong"));
            self.epoch += 1;
        }
    }

    /// What is due for a socket. One that is not known (any more) is to be cut.
    pub fn take(&mut self, now: Duration, id: u64) -> Due {
        self.expire(now);
        let Some(socket) = self.sockets.get_mut(&id) else {
            return Due { texts: Vec::new(), next: None, end: Some(End::Cut) };
        };
        let expires = self.channels.get_mut(&socket.channel).map_or(now, |channel| channel.expires);
        let notice = expires.saturating_sub(self.config.closing_notice);
        // Topics that were put again have moved the end of the channel.
        socket.told &= notice <= now;
        if notice <= now && !socket.told && socket.end.is_none() {
            socket.told = true;
            self.stats.sockets_closing += 1;
            socket.write(now, sockets::closing());
        }
        while socket.next_beat <= now {
            let beat = socket.next_beat;
            socket.next_beat += self.config.heartbeat;
            socket.write(beat, sockets::metadata("WebSocket Heartbeat"));
            self.stats.heartbeats += u64::from(!self.faults.silent);
        }
        if socket.closes.is_some_and(|closes| closes <= now) {
            socket.end.get_or_insert(End::Over);
        }
        let lost = self.faults.silent || socket.end == Some(End::Cut);
        let mut texts = Vec::new();
        for message in socket.take_due(now) {
            if let Some(class) = message.class {
                let book = self.stats.topic(class);
                *if lost { &mut book.dropped } else { &mut book.sent } += 1;
            }
            if !lost {
                texts.push(message.text);
            }
        }
        let end = socket.end;
        let times = [socket.next_message(), socket.closes, Some(expires), Some(socket.next_beat)];
        let told = Some(notice).filter(|_| !socket.told);
        let next = times.into_iter().chain([told]).flatten().min();
        if end.is_some() {
            self.closed(id);
        }
        Due { texts, next, end }
    }

    /// A socket is closed; what was not sent over it is lost.
    pub fn closed(&mut self, id: u64) {
        let Some(mut socket) = self.sockets.remove(&id) else { return };
        for class in socket.take_all().into_iter().filter_map(|message| message.class) {
            self.stats.topic(class).dropped += 1;
        }
        if let Some(channel) =
            self.channels.get_mut(&socket.channel).filter(|channel| channel.socket == Some(id))
        {
            channel.socket = None;
        }
    }

    /// Webhook deliveries that are due, and when the next one is.
    pub fn take_hooks(&mut self, now: Duration, wall: Duration) -> (Vec<hooks::Delivery>, Option<Duration>) {
        self.hooks.take(now, wall)
    }

    /// A delivery was answered with a status, or not at all.
    pub fn hook_answered(&mut self, status: Option<u16>) {
        self.hooks.answered(status);
    }

    /// Ends channels whose life is over.
    fn expire(&mut self, now: Duration) {
        for channel in self.channels.take_expired(now) {
            self.stats.channels_expired += 1;
            if let Some(socket) = channel.socket.and_then(|id| self.sockets.get_mut(&id)) {
                socket.end.get_or_insert(End::Over);
                self.epoch += 1;
            }
        }
    }
}
