//! What the settings say of the outbox (`[outbox]`), and where events are told (`[[sink]]`).

use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use tidegate_core::outbox::Bounds;
use tidegate_core::profile::reader::Section;
use tidegate_core::push::TopicPattern;
use tidegate_gateway::{OutboxConfig, SinkConfig, SinkSecret, sink_url};

use super::Settings;
use super::keys::{OUTBOX_BYTES, OUTBOX_ENTRIES, OUTBOX_KEEP, OUTBOX_PATH, OUTBOX_SIZES, SIZES};
use super::sources::{last, secret_of_file};
use crate::environment::Environment;

/// Reads the table.
pub(super) fn read(section: &Section<'_>, settings: &mut Settings) {
    for key in [&OUTBOX_PATH, &OUTBOX_KEEP] {
        let text = section.parsed(last(key.name), |text| (key.check)(text).map(|()| text.to_owned()));
        settings.set(key, text);
    }
    for (key, range) in [(&OUTBOX_ENTRIES, &OUTBOX_SIZES), (&OUTBOX_BYTES, &SIZES)] {
        let number = section.integer(last(key.name), range);
        settings.set(key, number.map(|number: u64| number.to_string()));
    }
}

/// Reads the tables `[[sink]]`.
pub(super) fn read_sinks(file: &Section<'_>, env: &Environment) -> Vec<SinkConfig> {
    let mut sinks: Vec<SinkConfig> = Vec::new();
    for section in file.sections("sink") {
        let known: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
        let name = section.parsed("name", |text| match text {
            "" => Err("is empty (write a name, such as servicenow)".to_owned()),
            text if text.contains(char::is_whitespace) => {
                Err(format!("`{text}` has spaces (write one word)"))
            }
            text if known.contains(&text) => {
                Err(format!("`{text}` is the name of an earlier sink (choose another)"))
            }
            text => Ok(text.to_owned()),
        });
        let name = section.required("name", "name = \"servicenow\"", name);
        let url = section.parsed("url", sink_url);
        let url = section.required("url", "url = \"https://example.com/hook\"", url);
        let topics = section.each("topics", TopicPattern::parse);
        let topics = section.required("topics", "topics = [\"v2.users.*\"]", topics);
        let tenant = section.string("tenant");
        let max_entries = section.integer("max_entries", &(1..=1_000_000)).unwrap_or(1_000);
        let secret = read_secret(&section, env);
        if let (Some(name), Some(url), Some(topics), Some(secret)) = (name, url, topics, secret) {
            let max_entries = usize::try_from(max_entries).unwrap_or(usize::MAX);
            sinks.push(SinkConfig { name, url, topics, tenant, secret, max_entries });
        }
    }
    if !sinks.is_empty() && !file.has("outbox") && env.get(OUTBOX_PATH.env[0]).ok().flatten().is_none() {
        file.problem("sink", "needs an outbox, where events are kept (name its file as outbox.path)");
    }
    sinks
}

fn read_secret(section: &Section<'_>, env: &Environment) -> Option<SinkSecret> {
    section.refuse(
        "secret",
        "secrets do not belong into this file (name a secret_file, or a variable as secret_env)",
    );
    let by_file = section.string("secret_file");
    let by_env = section.string("secret_env");
    let (key, text) = match (by_file, by_env) {
        (Some(path), None) => ("secret_file", secret_of_file(&path)),
        (None, Some(variable)) => {
            let missing = || format!("{variable} is not set (set it, or name a secret_file)");
            let found = env.get(&variable).and_then(|found| found.ok_or_else(missing));
            ("secret_env", found.map(SecretString::from))
        }
        (Some(_), Some(_)) => {
            section.problem("secret_env", "stands beside a secret_file (keep one of them)");
            return None;
        }
        (None, None) => {
            section.required("secret_file", "secret_file = \"sink.secret\"", None::<String>);
            return None;
        }
    };
    let read = text.and_then(|text| SinkSecret::read(text.expose_secret()).map_err(str::to_owned));
    read.map_err(|what| section.problem(key, what)).ok()
}

impl Settings {
    /// Where writes are kept that are to be answered later, and how many; `None`: none are.
    pub(crate) fn outbox(&self) -> Option<OutboxConfig> {
        let path = self.get(&OUTBOX_PATH).map(PathBuf::from)?;
        let default = Bounds::default();
        let bounds = Bounds {
            entries: self.number(&OUTBOX_ENTRIES).map_or(default.entries, |entries| entries as usize),
            bytes: self.number(&OUTBOX_BYTES).map_or(default.bytes, u64::from),
            keep: self.duration(&OUTBOX_KEEP).unwrap_or(default.keep),
            ..default
        };
        Some(OutboxConfig { path, bounds, sinks: self.sinks.clone() })
    }
}
