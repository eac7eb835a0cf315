//! What changed, which topics tell of it, and how old an answer is.
//!
//! Everything that changes carries a `version`, and its `selfUri` is the path of the GET that shows it. So a change is a path and a version,
//! wherever it came from: a client's write, the passing of time, or the judge.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// At most this many changes are remembered; beyond it the oldest go first.
const CAPACITY: usize = 50_000;

/// Something has another version.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// When.
    pub at: Duration,
    /// The path of the GET that shows it.
    pub path: String,
    /// The version it has since then.
    pub version: u64,
    /// What that GET answers since then.
    pub body: Value,
}

impl Change {
    /// The changes that a write's answer tells of: its body, or the entities in it.
    pub(super) fn told(at: Duration, body: &Value) -> Vec<Self> {
        let one = |body: &Value| {
            let (path, version) = (body["selfUri"].as_str()?, body["version"].as_u64()?);
            Some(Self { at, path: path.to_owned(), version, body: body.clone() })
        };
        match body["entities"].as_array() {
            Some(entities) => entities.iter().filter_map(one).collect(),
            None => one(body).into_iter().collect(),
        }
    }

    /// The topics that tell of it, with what they say.
    pub fn topics(&self) -> Vec<(String, Value)> {
        let parts: Vec<&str> = self.path.split('/').skip(3).collect();
        let told = |topic: String| (topic, self.body.clone());
        match *parts {
            ["scripts", id] => vec![told(format!("v2.scripts.{id}.published"))],
            ["users", id, "presences", _] => vec![told(format!("v2.users.{id}.presence"))],
            ["users", id, "routingstatus"] => {
                let body = json!({
                    "id": id,
                    "routingStatus": { "userId": id, "status": self.body["status"] },
                    "version": self.version,
                    "selfUri": self.path,
                });
                vec![(format!("v2.users.{id}.routingStatus"), body)]
            }
            ["conversations", id] => {
                let agent = &self.body["participants"][0];
                let text = |key: &str| agent[key].as_str().unwrap_or_default();
                let what = match self.body["state"].as_str() {
                    Some("alerting") => "customer.start",
                    Some("connected") => "user.start",
                    _ => "user.end",
                };
                vec![
                    told(format!("v2.users.{}.conversations", text("userId"))),
                    told(format!("v2.routing.queues.{}.conversations", text("queueId"))),
                    told(format!("v2.detail.events.conversation.{id}.{what}")),
                ]
            }
            _ => Vec::new(),
        }
    }
}

/// One line of `GET /sim/changes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Seconds since the start or the last reset.
    pub at: f64,
    /// The path of the GET that shows it.
    pub path: String,
    /// The version it has since then.
    pub version: u64,
    /// What that GET answers since then.
    pub body: Value,
}

/// Every change, in order: the clock by which the age of an answer is told.
#[derive(Debug, Default)]
pub struct ChangeLog {
    list: VecDeque<Change>,
    /// When each version of a path began.
    began: HashMap<String, Vec<(u64, Duration)>>,
}

impl ChangeLog {
    pub(crate) fn add(&mut self, change: Change) {
        self.began.entry(change.path.clone()).or_default().push((change.version, change.at));
        self.list.push_back(change);
        if self.list.len() > CAPACITY
            && let Some(oldest) = self.list.pop_front()
            && let Some(began) = self.began.get_mut(&oldest.path)
        {
            began.remove(0);
        }
    }

    /// The changes of `path`, or all of them.
    pub fn records(&self, path: Option<&str>) -> Vec<ChangeRecord> {
        let wanted = self.list.iter().filter(|change| path.is_none_or(|path| change.path == path));
        wanted
            .map(|change| ChangeRecord {
                at: change.at.as_secs_f64(),
                path: change.path.clone(),
                version: change.version,
                body: change.body.clone(),
            })
            .collect()
    }

    /// For how long `version` of `path` had not been the current one at `at`; zero if it was.
    pub fn outdated(&self, at: Duration, path: &str, version: u64) -> Duration {
        let began = self.began.get(path).map_or(&[][..], Vec::as_slice);
        began
            .iter()
            .find(|(known, _)| *known > version)
            .map_or(Duration::ZERO, |(_, began)| at.saturating_sub(*began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn change(at: u64, version: u64) -> Change {
        let body = json!({ "selfUri": "/api/v2/scripts/7", "version": version });
        Change::told(s(at), &body).remove(0)
    }

    #[test]
    fn an_answer_is_outdated_since_the_next_version() {
        let mut log = ChangeLog::default();
        log.add(change(10, 2));
        log.add(change(30, 3));
        let outdated = |now, version| log.outdated(s(now), "/api/v2/scripts/7", version);
        assert_eq!((outdated(35, 1), outdated(35, 2), outdated(35, 3)), (s(25), s(5), s(0)));
        assert_eq!(log.outdated(s(35), "/api/v2/scripts/8", 1), s(0));
        assert_eq!(log.records(Some("/api/v2/scripts/7")).len(), 2);
        assert_eq!(log.records(Some("/api/v2/scripts/8")), []);
    }

    #[test]
    fn lists_tell_of_each_of_their_entities() {
        let entity = |id: u64| json!({ "selfUri": format!("/api/v2/users/{id}"), "version": 2 });
        let told = Change::told(s(1), &json!({ "entities": [entity(1), entity(2), { "id": 3 }] }));
        assert_eq!(
            told.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(),
            ["/api/v2/users/1", "/api/v2/users/2"]
        );
        assert_eq!(told[0].topics(), [], "the platform tells of no such thing");
    }

    #[test]
    fn a_conversation_is_told_to_its_agent_its_queue_and_its_watchers() {
        let body = json!({
            "selfUri": "/api/v2/conversations/c", "version": 4, "state": "connected",
            "participants": [{ "userId": "u", "queueId": "q" }],
        });
        let topics: Vec<String> =
            Change::told(s(1), &body)[0].topics().into_iter().map(|(topic, _)| topic).collect();
        assert_eq!(
            topics,
            [
                "v2.users.u.conversations",
                "v2.routing.queues.q.conversations",
                "v2.detail.events.conversation.c.user.start"
            ]
        );
    }
}
