//! The calls below `/api/v2/notifications`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::channels::Channel;
use super::{Push, topics};
use crate::model::org::Done;
use crate::model::uuid_text;
use crate::wire::errors::ApiError;
use crate::wire::iso::iso_date;
use crate::wire::message::ApiRequest;

/// Who asks.
pub(crate) struct Subscriber<'a> {
    /// The OAuth client.
    pub(crate) client: &'a str,
    /// Whether it has a permission.
    pub(crate) permits: &'a dyn Fn(&str) -> bool,
    /// The wall clock at `now`, since the epoch.
    pub(crate) wall: Duration,
}

impl Push {
    /// Answers a call; `path` is what follows `/api/v2/notifications`. HEAD arrives as GET.
    pub(in crate::model) fn handle(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        path: &[&str],
        who: &Subscriber<'_>,
    ) -> Option<Done> {
        self.expire(now);
        let wall_of = |at: Duration| who.wall + at.saturating_sub(now);
        Some(match (request.method.as_str(), path) {
            ("GET", ["availabletopics"]) => {
                Done::ok("GET /api/v2/notifications/availabletopics", topics::available())
            }
            ("GET", ["channels"]) => {
                let own = self.channels.of(who.client);
                let list: Vec<Value> =
                    own.map(|channel| self.entity(channel, wall_of(channel.expires))).collect();
                Done::ok("GET /api/v2/notifications/channels", json!({ "entities": list }))
            }
            ("POST", ["channels"]) => Done::of(
                "POST /api/v2/notifications/channels",
                self.create(now, who, wall_of(now + self.config.ttl)),
            ),
            ("GET", ["channels", id]) => {
                const ENDPOINT: &str = "HEAD /api/v2/notifications/channels/{id}";
                Done::of(ENDPOINT, self.own(id, who).map(|_| json!({})))
            }
            ("GET", ["channels", id, "subscriptions"]) => {
                Done::of("GET /api/v2/notifications/channels/{id}/subscriptions", self.listing(id, who))
            }
            ("DELETE", ["channels", id, "subscriptions"]) => Done::of(
                "DELETE /api/v2/notifications/channels/{id}/subscriptions",
                self.own(id, who).map(|channel| {
                    channel.unsubscribe_all();
                    json!({})
                }),
            ),
            (method @ ("PUT" | "POST"), ["channels", id, "subscriptions"]) => {
                let replace = method == "PUT";
                let endpoint = if replace {
                    "PUT /api/v2/notifications/channels/{id}/subscriptions"
                } else {
                    "POST /api/v2/notifications/channels/{id}/subscriptions"
                };
                Done::of(endpoint, self.subscribe(now, request, id, who, replace))
            }
            _ => return None,
        })
    }

    fn entity(&self, channel: &Channel, expires: Duration) -> Value {
        json!({
            "id": channel.id,
            "connectUri": format!("{}/channels/{}", self.origin, channel.id),
            "expires": iso_date(expires),
        })
    }

    fn create(&mut self, now: Duration, who: &Subscriber<'_>, expires: Duration) -> Result<Value, ApiError> {
        let max = self.config.max_channels as usize;
        if self.channels.of(who.client).count() >= max {
            if !self.channels.evict(who.client) {
                let message = format!("{max} channels are open, and each has a connection");
                return Err(ApiError::bad_request(message));
            }
            self.stats.channels_evicted += 1;
        }
        self.stats.channels_created += 1;
        let channel = Channel::new(uuid_text(&mut self.rng), who.client, now + self.config.ttl);
        let entity = self.entity(&channel, expires);
        self.channels.insert(channel);
        Ok(entity)
    }

    /// A channel of this caller; others' are not found.
    fn own(&mut self, id: &str, who: &Subscriber<'_>) -> Result<&mut Channel, ApiError> {
        self.channels
            .get_mut(id)
            .filter(|channel| channel.owner == who.client)
            .ok_or_else(|| ApiError::not_found(id))
    }

    fn listing(&mut self, id: &str, who: &Subscriber<'_>) -> Result<Value, ApiError> {
        let channel = self.own(id, who)?;
        let entities: Vec<Value> = channel.subscriptions().map(|text| permitted(text)).collect();
        Ok(json!({ "entities": entities }))
    }

    /// Adds topics, or replaces all by them: everything asked for, or nothing, unless errors are to be ignored. A channel whose topics
    /// are put again lives on.
    fn subscribe(
        &mut self,
        now: Duration,
        request: &ApiRequest,
        id: &str,
        who: &Subscriber<'_>,
        replace: bool,
    ) -> Result<Value, ApiError> {
        let Some(Value::Array(items)) = request.json() else {
            return Err(ApiError::bad_request("the body must be a JSON array of {id}"));
        };
        let ids: Option<Vec<&str>> = items.iter().map(|item| item["id"].as_str()).collect();
        let ids = ids.ok_or_else(|| ApiError::bad_request("each topic needs an id"))?;
        let mut accepted = BTreeMap::new();
        let mut entities = Vec::with_capacity(ids.len());
        let mut rejected = Vec::new();
        for text in ids {
            match self.judge(text, who) {
                Ok(topics) => {
                    entities.push(permitted(text));
                    accepted.insert(text.to_owned(), topics);
                }
                Err(reason) => {
                    entities.push(json!({ "id": text, "state": "Rejected", "rejectionReason": reason }));
                    rejected.push(format!("{text}: {reason}"));
                }
            }
        }
        let (max, lives) = (self.config.max_topics as usize, now + self.config.ttl);
        let channel = self.own(id, who)?;
        let count = if replace { accepted.len() } else { channel.subscribed_with(accepted.keys()) };
        if count > max {
            let message = format!("a channel has at most {max} topics, this one would have {count}");
            return Err(ApiError::bad_request(message));
        }
        if !rejected.is_empty() && request.query("ignoreErrors") != Some("true") {
            self.stats.topics_rejected += rejected.len() as u64;
            return Err(ApiError::new(403, "not.authorized", rejected.join("; ")));
        }
        if replace {
            channel.unsubscribe_all();
        }
        channel.subscribe(accepted);
        channel.expires = lives;
        self.stats.topics_rejected += rejected.len() as u64;
        self.stats.subscriptions_max = self.stats.subscriptions_max.max(count as u64);
        Ok(json!({ "entities": entities }))
    }

    /// The topics that `text` stands for, if this caller may hear them.
    fn judge(&self, text: &str, who: &Subscriber<'_>) -> Result<BTreeSet<String>, String> {
        let topics = topics::expand(text)?;
        let refused =
            |topic: &&String| self.faults.refuse_topics.iter().any(|pattern| topics::named(pattern, topic));
        if let Some(topic) = topics.iter().find(refused) {
            return Err(format!("{topic} may not be subscribed to"));
        }
        match topics::permissions(&topics).into_iter().find(|permission| !(who.permits)(permission)) {
            Some(permission) => Err(format!("the permission {permission} is missing")),
            None => Ok(topics),
        }
    }
}

fn permitted(text: &str) -> Value {
    json!({ "id": text, "state": "Permitted" })
}
