//! The simulator's page names every key of the configuration and every field of the books.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use tidegate_sim::config::{Client, Event, LimitConfig};
use tidegate_sim::model::fault::{BrownOut, Fault};
use tidegate_sim::model::ledger::{Second, Stats, WriteAttempt, WriteBook};
use tidegate_sim::model::push::books::TopicBook;
use tidegate_sim::model::push::faults::MessageFault;
use tidegate_sim::model::push::hooks::Target;
use tidegate_sim::model::push::topics;
use tidegate_sim::model::strangers::Stranger;
use tidegate_sim::{Scenario, SimConfig};

const PAGE: &str = include_str!("../../../docs/simulator.md");

fn keys(value: &impl Serialize) -> Vec<String> {
    match serde_json::to_value(value).unwrap() {
        Value::Object(keys) => keys.into_iter().map(|(key, _)| key).collect(),
        other => panic!("{other} has no keys"),
    }
}

/// Whether the page names `word` as code: `word`, or as part of a path such as `oauth.word` or a list `{ a, word }`.
fn named(word: &str) -> bool {
    PAGE.split('`')
        .skip(1)
        .step_by(2)
        .any(|code| code.split(|c: char| !(c.is_alphanumeric() || "_-".contains(c))).any(|part| part == word))
}

fn missing(keys: Vec<String>) -> Vec<String> {
    keys.into_iter().filter(|key| !named(key)).collect()
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let config = SimConfig::default();
    let all = [
        keys(&config),
        keys(&config.oauth),
        keys(&config.jobs),
        keys(&config.faults),
        keys(&config.faults.push),
        keys(&config.faults.hooks),
        keys(&config.live),
        keys(&config.notifications),
        keys(&Target::default()),
        keys(&LimitConfig::default()),
        keys(&Client::default()),
        keys(&Stranger::default()),
        keys(&BrownOut::default()),
        keys(&Event::default()),
        keys(&Scenario::default()),
    ];
    assert_eq!(missing(all.concat()), Vec::<String>::new());
}

#[test]
fn every_fault_and_every_field_of_the_books_is_documented() {
    let faults = [
        Fault::None,
        Fault::Throttle,
        Fault::Unavailable,
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::Late,
        Fault::TimeoutAfter,
        Fault::InternalError,
    ];
    assert_eq!(missing(faults.map(|fault| fault.name().to_owned()).to_vec()), Vec::<String>::new());
    let messages = [
        MessageFault::None,
        MessageFault::Drop,
        MessageFault::Duplicate,
        MessageFault::Reorder,
        MessageFault::BadSignature,
        MessageFault::Replay,
        MessageFault::Stale,
    ];
    assert_eq!(missing(messages.map(|fault| fault.name().to_owned()).to_vec()), Vec::<String>::new());
    let stats = Stats { users: Some(BTreeMap::new()), ..Stats::default() };
    assert_eq!(
        missing(
            [
                keys(&stats),
                keys(&stats.oauth),
                keys(&stats.push),
                keys(&stats.hooks),
                keys(&TopicBook::default()),
                keys(&Second::default())
            ]
            .concat()
        ),
        Vec::<String>::new()
    );
    assert_eq!(
        missing([keys(&WriteBook::default()), keys(&WriteAttempt::default())].concat()),
        Vec::<String>::new()
    );
}

#[test]
fn every_topic_is_documented() {
    for template in topics::TEMPLATES {
        assert!(PAGE.contains(&format!("| `{}` |", template.topic)), "{}", template.topic);
    }
}

#[test]
fn the_documented_scenario_can_be_read() {
    let example = PAGE.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let scenario = Scenario::from_toml(example).unwrap();
    assert_eq!((scenario.server.strangers.len(), scenario.server.events.len()), (1, 1));
}
