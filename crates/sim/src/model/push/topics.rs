//! Topics: which exist, what a subscription's text asks for, and to what class a topic belongs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// The longest topic string the platform takes, in characters.
const MAX_LENGTH: usize = 200;

/// A topic that can be subscribed to.
#[derive(Debug)]
pub struct Template {
    /// The topic with `{id}` in place of an id.
    pub topic: &'static str,
    /// The GET whose answers its events make superfluous.
    pub path: &'static str,
    /// What the subscriber must be allowed to do.
    pub permission: &'static str,
}

/// Every topic the simulated organisation tells of. All but `v2.scripts.{id}.published`, which is the simulator's own, are the
/// platform's.
pub const TEMPLATES: [Template; 8] = [
    Template {
        topic: "v2.users.{id}.presence",
        path: "/api/v2/users/{id}/presences/purecloud",
        permission: "view:users",
    },
    Template {
        topic: "v2.users.{id}.routingStatus",
        path: "/api/v2/users/{id}/routingstatus",
        permission: "view:users",
    },
    Template {
        topic: "v2.users.{id}.conversations",
        path: "/api/v2/conversations",
        permission: "view:conversations",
    },
    Template {
        topic: "v2.routing.queues.{id}.conversations",
        path: "/api/v2/conversations",
        permission: "view:conversations",
    },
    Template {
        topic: "v2.detail.events.conversation.{id}.customer.start",
        path: "/api/v2/conversations/{id}",
        permission: "view:conversations",
    },
    Template {
        topic: "v2.detail.events.conversation.{id}.user.start",
        path: "/api/v2/conversations/{id}",
        permission: "view:conversations",
    },
    Template {
        topic: "v2.detail.events.conversation.{id}.user.end",
        path: "/api/v2/conversations/{id}",
        permission: "view:conversations",
    },
    Template { topic: "v2.scripts.{id}.published", path: "/api/v2/scripts/{id}", permission: "view:scripts" },
];

/// The answer of `GET /api/v2/notifications/availabletopics`.
pub(super) fn available() -> Value {
    let entity = |template: &Template| {
        json!({
            "id": template.topic,
            "transports": ["Websocket"],
            "topicParameters": ["id"],
            "publicApiTemplateUriPaths": [template.path],
            "requiresPermissions": [template.permission],
        })
    };
    json!({ "entities": TEMPLATES.iter().map(entity).collect::<Vec<_>>() })
}

/// The template a topic is made from.
fn template(topic: &str) -> Option<&'static Template> {
    TEMPLATES.iter().find(|template| {
        let (before, after) = template.topic.split_once("{id}").unwrap_or((template.topic, ""));
        topic
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|id| !id.is_empty() && !id.contains('.'))
    })
}

/// The topic with `{id}` in place of its id, under which the books count it; `other` if there is no such template.
pub fn class(topic: &str) -> &'static str {
    template(topic).map_or("other", |template| template.topic)
}

/// The topics a subscription's text stands for: itself, or in the combined form `v2.users.{id}?presence&routingStatus` one for
/// each name. An error says why there can be no such subscription.
pub fn expand(text: &str) -> Result<BTreeSet<String>, String> {
    if text.chars().count() >= MAX_LENGTH {
        return Err(format!("a topic has fewer than {MAX_LENGTH} characters"));
    }
    let topics: BTreeSet<String> = match text.split_once('?') {
        Some((base, names)) => names.split('&').map(|name| format!("{base}.{name}")).collect(),
        None => BTreeSet::from([text.to_owned()]),
    };
    match topics.iter().find(|topic| template(topic).is_none()) {
        Some(unknown) => Err(format!("there is no topic {unknown}")),
        None => Ok(topics),
    }
}

/// What a caller must be allowed to do to hear these topics.
pub(super) fn permissions(topics: &BTreeSet<String>) -> BTreeSet<&'static str> {
    topics.iter().filter_map(|topic| template(topic)).map(|template| template.permission).collect()
}

/// Whether `pattern` names `topic`: exactly, or with a `*` at its end by what is before that.
pub fn named(pattern: &str, topic: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => topic.starts_with(start),
        None => pattern == topic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_combined_form_stands_for_each_of_its_names() {
        let topics = expand("v2.users.7?presence&routingStatus").unwrap();
        assert_eq!(Vec::from_iter(&topics), ["v2.users.7.presence", "v2.users.7.routingStatus"]);
        assert_eq!(Vec::from_iter(permissions(&topics)), ["view:users"]);
        assert!(expand("v2.users.7?presence&shoeSize").unwrap_err().contains("v2.users.7.shoeSize"));
    }

    #[test]
    fn wildcards_empty_ids_and_long_texts_are_no_topics() {
        for text in ["v2.users..presence", "v2.users.a.b.presence", "presence", "", "v2.users.*"] {
            assert!(expand(text).is_err(), "{text}");
        }
        let fits = format!("v2.users.{}.presence", "x".repeat(199 - 18));
        assert_eq!(fits.len(), 199);
        assert!(expand(&fits).is_ok());
        assert!(expand(&fits.replace("users.", "users.x")).unwrap_err().contains("200"));
    }

    #[test]
    fn classes_have_no_ids() {
        assert_eq!(
            class("v2.detail.events.conversation.9.user.end"),
            "v2.detail.events.conversation.{id}.user.end"
        );
        assert_eq!(class("v2.something"), "other");
    }

    #[test]
    fn a_star_at_the_end_names_what_starts_alike() {
        assert!(named("v2.users.*", "v2.users.7.presence"));
        assert!(named("v2.users.7.presence", "v2.users.7.presence"));
        assert!(!named("v2.users.7", "v2.users.7.presence"));
    }
}
