//! Outbound webhooks: events posted to configured addresses, signed.
//!
//! # Signatures
//!
//! Both schemes are HMAC-SHA-256 (RFC 2104) with the shared secret, written in lower-case hex.
//!
//! * `github`, as documented under "Validating webhook deliveries": `X-Hub-Signature-256: sha256=` over the body; `X-GitHub-Delivery` is
//!   the delivery's id and `X-GitHub-Event` the topic. Nothing in it says when it was signed.
//! * `timestamped`: `X-Webhook-Signature: sha256=` over the value of `X-Webhook-Timestamp` (seconds since the epoch), a full
//!   stop and the body; `X-Webhook-Id` is the delivery's id. Several vendors sign that string, under various header names.
//!
//! Deliveries to one address go out one after the other. Nothing is tried again: an event that was not taken is lost.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::books::HookStats;
use super::faults::{Fates, HookFaults, MessageFault};
use super::topics;
use crate::model::uuid_text;

/// How old the timestamp of [`MessageFault::Stale`] is.
const STALE: Duration = Duration::from_mins(10);

/// How long a message that is to come after the next one waits for that.
const REORDER_WAIT: Duration = Duration::from_secs(1);

/// How a delivery is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Over the body alone.
    Github,
    /// Over timestamp and body.
    #[default]
    Timestamped,
}

/// Where events are posted; an entry of `webhooks`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    /// The address, `http://...`.
    pub url: String,
    /// The shared secret. Simulated programs have no real secrets, so it is not masked.
    pub secret: String,
    /// How it is signed.
    pub scheme: Scheme,
    /// Which topics are posted: exact, or with a `*` at the end; everything if empty.
    pub topics: Vec<String>,
}

impl Target {
    /// Everything that is wrong with it, one line each, keys prefixed with `prefix`.
    pub(crate) fn problems(&self, prefix: &str) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.url.starts_with("http://") || self.url.parse::<http::Uri>().is_err() {
            problems.push(format!(
                "{prefix}.url: \"{}\" is not an address like http://127.0.0.1:8787/hook",
                self.url
            ));
        }
        if self.secret.is_empty() {
            problems.push(format!("{prefix}.secret: a secret is needed to sign with"));
        }
        problems
    }

    fn wants(&self, topic: &str) -> bool {
        self.topics.is_empty() || self.topics.iter().any(|pattern| topics::named(pattern, topic))
    }
}

/// One POST to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where to.
    pub url: String,
    /// Names and values, in order.
    pub headers: Vec<(&'static str, String)>,
    /// The event.
    pub body: String,
}

/// An event on its way to a target; what it looks like is decided when it goes out.
#[derive(Debug, Clone)]
struct Parcel {
    target: usize,
    topic: String,
    id: String,
    body: String,
    fault: MessageFault,
}

/// The webhooks of the organisation.
#[derive(Debug)]
pub(super) struct Hooks {
    targets: Vec<Target>,
    queue: VecDeque<Parcel>,
    /// Parcels that wait for the next one to the same target, and until when.
    held: Vec<(Duration, Parcel)>,
    fates: Fates,
    stats: HookStats,
    rng: fastrand::Rng,
}

impl Hooks {
    pub(super) fn new(targets: &[Target], mut rng: fastrand::Rng) -> Self {
        Self {
            targets: targets.to_vec(),
            queue: VecDeque::new(),
            held: Vec::new(),
            fates: Fates::new(rng.fork()),
            stats: HookStats::default(),
            rng,
        }
    }

    pub(super) fn stats(&self) -> &HookStats {
        &self.stats
    }

    pub(super) fn set_faults(&mut self, faults: &HookFaults) {
        self.fates.for_hooks(faults);
    }

    /// Puts an event on its way to every target that wants it.
    pub(super) fn emit(&mut self, now: Duration, topic: &str, body: &str) {
        for target in 0..self.targets.len() {
            if !self.targets[target].wants(topic) {
                continue;
            }
            let fault = self.fates.pick();
            if fault != MessageFault::None {
                *self.stats.faults.entry(fault.name().to_owned()).or_insert(0) += 1;
            }
            let id = uuid_text(&mut self.rng);
            let parcel = Parcel { target, topic: topic.to_owned(), id, body: body.to_owned(), fault };
            match fault {
                MessageFault::Drop => continue,
                MessageFault::Reorder if !self.held.iter().any(|(_, held)| held.target == target) => {
                    self.held.push((now + REORDER_WAIT, parcel));
                    continue;
                }
                MessageFault::Duplicate => {
                    let id = uuid_text(&mut self.rng);
                    self.queue.push_back(Parcel { id, ..parcel.clone() });
                }
                _ => {}
            }
            self.queue.push_back(parcel);
            let overtaken = self.held.extract_if(.., |(_, held)| held.target == target);
            self.queue.extend(overtaken.map(|(_, held)| held));
        }
    }

    /// What is to be posted now, signed, and when to ask again.
    pub(super) fn take(&mut self, now: Duration, wall: Duration) -> (Vec<Delivery>, Option<Duration>) {
        let due = self.held.extract_if(.., |(until, _)| *until <= now);
        self.queue.extend(due.map(|(_, parcel)| parcel));
        let mut deliveries = Vec::new();
        for parcel in std::mem::take(&mut self.queue) {
            let delivery = self.deliver(&parcel, wall);
            if parcel.fault == MessageFault::Replay {
                deliveries.push(delivery.clone());
            }
            deliveries.push(delivery);
            let copies = 1 + u64::from(parcel.fault == MessageFault::Replay);
            self.stats.sent += copies;
            *self.stats.topics.entry(topics::class(&parcel.topic).to_owned()).or_insert(0) += copies;
        }
        (deliveries, self.held.iter().map(|(until, _)| *until).min())
    }

    fn deliver(&self, parcel: &Parcel, wall: Duration) -> Delivery {
        let target = &self.targets[parcel.target];
        let age = if parcel.fault == MessageFault::Stale { STALE } else { Duration::ZERO };
        let timestamp = wall.saturating_sub(age).as_secs().to_string();
        let signed = match target.scheme {
            Scheme::Github => parcel.body.clone(),
            Scheme::Timestamped => format!("{timestamp}.{}", parcel.body),
        };
        let forged = parcel.fault == MessageFault::BadSignature;
        let secret = if forged { format!("not {}", target.secret) } else { target.secret.clone() };
        let signature = format!("sha256={}", sign(&secret, &signed));
        let mut headers = vec![("Content-Type", "application/json".to_owned())];
        headers.extend(match target.scheme {
            Scheme::Github => [
                ("X-GitHub-Delivery", parcel.id.clone()),
                ("X-GitHub-Event", parcel.topic.clone()),
                ("X-Hub-Signature-256", signature),
            ],
            Scheme::Timestamped => [
                ("X-Webhook-Id", parcel.id.clone()),
                ("X-Webhook-Timestamp", timestamp),
                ("X-Webhook-Signature", signature),
            ],
        });
        Delivery { url: target.url.clone(), headers, body: parcel.body.clone() }
    }

    pub(super) fn answered(&mut self, status: Option<u16>) {
        match status {
            Some(status) => *self.stats.answers.entry(status).or_insert(0) += 1,
            None => self.stats.unanswered += 1,
        }
    }
}

/// HMAC-SHA-256 in lower-case hex.
fn sign(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of every length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes everything");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn hooks(scheme: Scheme, topics: &[&str], script: &[MessageFault]) -> Hooks {
        let target = Target {
            url: "http://127.0.0.1:9/hook".to_owned(),
            secret: "s3cret".to_owned(),
            scheme,
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        };
        let mut hooks = Hooks::new(&[target], fastrand::Rng::with_seed(1));
        hooks.set_faults(&HookFaults { script: script.to_vec(), ..HookFaults::default() });
        hooks
    }

    fn bodies(deliveries: &[Delivery]) -> Vec<&str> {
        deliveries.iter().map(|delivery| delivery.body.as_str()).collect()
    }

    #[test]
    fn the_signature_is_the_one_github_documents() {
        // The example of "Validating webhook deliveries".
        assert_eq!(
            sign("It's a Secret to Everybody", "Hello, World!"),
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }

    #[test]
    fn a_timestamped_delivery_signs_its_timestamp_too() {
        let mut hooks = hooks(Scheme::Timestamped, &[], &[MessageFault::None, MessageFault::Stale]);
        hooks.emit(s(0), "v2.x", "{}");
        hooks.emit(s(0), "v2.x", "{}");
        let (sent, _) = hooks.take(s(0), s(1_700_000_000));
        let header =
            |index: usize, name| &sent[index].headers.iter().find(|(known, _)| *known == name).unwrap().1;
        for (index, timestamp) in [(0, "1700000000"), (1, "1699999400")] {
            assert_eq!(header(index, "X-Webhook-Timestamp"), timestamp);
            let expected = format!("sha256={}", sign("s3cret", &format!("{timestamp}.{{}}")));
            assert_eq!(header(index, "X-Webhook-Signature"), &expected);
        }
    }

    #[test]
    fn faults_make_bad_signatures_replays_duplicates_and_another_order() {
        use MessageFault::{BadSignature, Drop, Duplicate, None, Reorder, Replay};
        let script = [BadSignature, Replay, Duplicate, Reorder, None, Drop];
        let mut hooks = hooks(Scheme::Github, &["v2.a*"], &script);
        for body in ["bad", "replayed", "twice", "second", "first", "lost"] {
            hooks.emit(s(0), "v2.a.b", body);
        }
        hooks.emit(s(0), "v2.b", "not asked for");
        let (sent, _) = hooks.take(s(0), s(0));
        assert_eq!(bodies(&sent), ["bad", "replayed", "replayed", "twice", "twice", "first", "second"]);
        assert!(!sent[0].headers[3].1.contains(&sign("s3cret", "bad")));
        assert_eq!(sent[1], sent[2], "the same bytes again");
        assert_ne!(sent[3].headers, sent[4].headers, "a delivery id of its own");
        assert_eq!((hooks.stats.sent, hooks.stats.faults.len()), (7, 5));
    }

    #[test]
    fn a_message_held_back_goes_out_by_itself_in_the_end() {
        let mut hooks = hooks(Scheme::Github, &[], &[MessageFault::Reorder]);
        hooks.emit(s(0), "v2.x", "alone");
        assert_eq!(hooks.take(s(0), s(0)), (Vec::new(), Some(s(1))));
        assert_eq!(bodies(&hooks.take(s(1), s(1)).0), ["alone"]);
    }
}
