//! `[push]`, of the top level or of a tenant, and `[[hook]]`.

use std::sync::Arc;

use http::HeaderName;
use secrecy::SecretString;
use tidegate_core::profile::reader::Section;
use tidegate_core::push::{FollowPace, topic};
use tidegate_gateway::{Encoding, HookConfig, HookTemplate, PushConfig, Scheme, Signed};

use super::credential::secret_of_variable;
use super::keys::{
    PUSH_FOLLOW, PUSH_IDLE, PUSH_READS, PUSH_SILENT, PUSH_TOPICS, PUSH_WITHIN, READS, SILENT, some,
};
use super::sources::{last, secret_of_file};
use super::{Settings, Texts};
use crate::environment::Environment;

/// Reads a table `push` into texts.
pub(super) fn read(section: &Section<'_>, texts: &mut Texts) {
    let topics = section.each(last(PUSH_TOPICS.name), |text| topic(text).map(str::to_owned));
    let follow = section.boolean(last(PUSH_FOLLOW.name)).map(|follow| follow.to_string());
    let number =
        |key: &super::Key, range| section.integer(last(key.name), range).map(|it: u64| it.to_string());
    let wait =
        |key: &super::Key| section.parsed(last(key.name), |text| (key.check)(text).map(|()| text.to_owned()));
    let read = [
        (&PUSH_TOPICS, topics.map(|topics| topics.join(","))),
        (&PUSH_FOLLOW, follow),
        (&PUSH_READS, number(&PUSH_READS, &READS)),
        (&PUSH_WITHIN, wait(&PUSH_WITHIN)),
        (&PUSH_IDLE, wait(&PUSH_IDLE)),
        (&PUSH_SILENT, number(&PUSH_SILENT, &SILENT)),
    ];
    texts.extend(read.into_iter().filter_map(|(key, text)| Some((key.name, text?))));
}

impl Settings {
    /// What is wanted of push; nothing unless a topic is named or paths are followed.
    pub(crate) fn push(&self) -> PushConfig {
        let default = FollowPace::default();
        let topics = self.get(&PUSH_TOPICS).unwrap_or_default().split(',').map(str::trim);
        let follow = FollowPace {
            reads: self.number(&PUSH_READS).unwrap_or(default.reads),
            within: self.duration(&PUSH_WITHIN).unwrap_or(default.within),
            idle: self.duration(&PUSH_IDLE).unwrap_or(default.idle),
            ..default
        };
        PushConfig {
            topics: topics.filter(|topic| !topic.is_empty()).map(Arc::from).collect(),
            follow: (self.get(&PUSH_FOLLOW) == Some("true")).then_some(follow),
            silent: self.number(&PUSH_SILENT).unwrap_or(PushConfig::SILENT),
        }
    }

    /// Webhooks that are taken.
    pub(crate) fn hooks(&self) -> Vec<HookConfig> {
        self.hooks.clone()
    }
}

/// Reads all webhooks. `tenants`: the names of those that have tables.
pub(super) fn read_hooks(file: &Section<'_>, tenants: &[&str], env: &Environment) -> Vec<HookConfig> {
    let mut hooks: Vec<HookConfig> = Vec::new();
    for section in file.sections("hook") {
        let Some(hook) = read_hook(&section, tenants, env) else { continue };
        if hooks.iter().any(|known| known.name == hook.name) {
            let what = format!("`{}` is the name of an earlier hook (choose another)", hook.name);
            section.problem("name", what);
        }
        hooks.push(hook);
    }
    hooks
}

fn read_hook(section: &Section<'_>, tenants: &[&str], env: &Environment) -> Option<HookConfig> {
    let name = section.required("name", "name = \"github\"", section.parsed("name", name));
    let secret = read_secret(section, env);
    let scheme = read_scheme(section);
    let template = |text: &str| HookTemplate::parse(text);
    let topic = section.parsed("topic", template);
    let topic = section.required("topic", "topic = \"github.{X-GitHub-Event}\"", topic);
    let closes = section.each("closes", |text| {
        if text.starts_with('/') {
            HookTemplate::parse(text)
        } else {
            Err(format!("`{text}` is no path (begin with a slash)"))
        }
    });
    let tolerance = section.duration_above_zero("tolerance").unwrap_or(HookConfig::TOLERANCE);
    let max_body = section.integer("max_body_bytes", &(1..=64_000_000));
    let tenant = super::callers::read_tenant(section, tenants);
    Some(HookConfig {
        name: name?,
        tenant,
        secret: secret?,
        scheme: scheme?,
        tolerance,
        max_body: max_body.and_then(|bytes| bytes.try_into().ok()).unwrap_or(HookConfig::MAX_BODY),
        topic: topic?,
        closes: closes.unwrap_or_default(),
    })
}

/// The last part of a path.
fn name(text: &str) -> Result<String, String> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    if !text.is_empty() && text.len() <= 64 && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err(format!("`{}` cannot name a hook (write up to 64 letters, digits, - and _)", text.escape_default()))
}

fn read_secret(section: &Section<'_>, env: &Environment) -> Option<SecretString> {
    section.refuse(
        "secret",
        "secrets do not belong into this file (name a secret_file, or a variable as secret_env)",
    );
    let text = |key| section.parsed(key, |text| some(text).map(|()| text.to_owned()));
    let (file, variable) = (text("secret_file"), text("secret_env"));
    let told = |key: &str, secret: Result<SecretString, String>| {
        secret.map_err(|what| section.problem(key, what)).ok()
    };
    match (file, variable) {
        (Some(_), Some(_)) => {
            section.problem("secret_env", "stands beside a secret_file (keep one of them)");
            None
        }
        (Some(file), None) => told("secret_file", secret_of_file(&file)),
        (None, Some(variable)) => told("secret_env", secret_of_variable(env, &variable)),
        (None, None) => {
            if !section.has("secret_file") && !section.has("secret_env") {
                section.problem(
                    "secret_file",
                    "is missing (name the file of the secret, or a variable as secret_env)",
                );
            }
            None
        }
    }
}

/// A scheme by its name, or one that is described.
fn read_scheme(section: &Section<'_>) -> Option<Scheme> {
    let named = section.parsed("scheme", |text| {
        Scheme::named(text).ok_or_else(|| {
            format!(
                "`{text}` is none of github, genesys and standard (describe another one by signature_header)"
            )
        })
    });
    let header = |key| {
        section.parsed(key, |text| {
            let name = text.to_ascii_lowercase().parse::<HeaderName>();
            name.map_err(|_| format!("`{text}` is no name of a header"))
        })
    };
    let signature = header("signature_header");
    let prefix = section.string("signature_prefix").unwrap_or_default();
    let encoding = section.one_of("encoding", &Encoding::NAMES).unwrap_or(Encoding::Hex);
    let (timestamp, id) = (header("timestamp_header"), header("id_header"));
    if id.is_some() && timestamp.is_none() {
        section
            .problem("id_header", "stands without a timestamp_header (what is signed is ID.TIMESTAMP.BODY)");
    }
    if section.has("scheme") {
        let own = ["signature_header", "signature_prefix", "encoding", "timestamp_header", "id_header"];
        for key in own.into_iter().filter(|key| section.has(key)) {
            section.problem(key, "stands beside a scheme (keep one of them)");
        }
        return named;
    }
    let example = "scheme = \"github\", or signature_header = \"X-Signature\"";
    if !section.has("signature_header") {
        section.problem("scheme", format_args!("is missing (write {example})"));
    }
    let header = signature?;
    let signed = match (timestamp, id) {
        (None, _) => Signed::Body,
        (Some(at), None) => Signed::Dated(at),
        (Some(at), Some(id)) => Signed::Named(id, at),
    };
    Some(Scheme { header, prefix, encoding, signed, whsec: false })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_gateway::Signed;

    use super::super::tests::{connection, env, file};
    use super::*;

    fn load(text: &str, pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let (_folder, connection) = file(text);
        Settings::load_all(&connection, &env(pairs)).map_err(|failure| failure.message)
    }

    #[test]
    fn what_a_tenant_does_not_say_of_push_the_top_level_does() {
        let text = "[push]\nfollow = true\nidle = \"10m\"\n\
            [[tenant]]\nname = \"a\"\n[tenant.push]\ntopics = [\"v2.users.7.presence\"]\nreads = 5\n\
            [[tenant]]\nname = \"b\"\n[tenant.push]\nfollow = false\n";
        let each: Vec<PushConfig> =
            load(text, &[]).unwrap().of_each().unwrap().iter().map(Settings::push).collect();
        let follow = FollowPace { reads: 5, idle: Duration::from_mins(10), ..FollowPace::default() };
        assert_eq!(each[0].follow, Some(follow));
        assert_eq!(each[0].topics, [Arc::from("v2.users.7.presence")]);
        assert_eq!((each[1].follow, each[1].topics.len(), each[1].silent), (None, 0, PushConfig::SILENT));
        let set = [("TIDEGATE_PUSH_TOPICS", "a.b, c"), ("TIDEGATE_PUSH_SILENT", "4")];
        let push = Settings::load(&connection(), &env(&set)).unwrap().push();
        assert_eq!((push.topics.len(), push.silent), (2, 4));
    }

    #[test]
    fn hooks_have_a_scheme_by_name_or_one_that_is_described() {
        let text = "[[hook]]\nname = \"a\"\nscheme = \"github\"\nsecret_env = \"S\"\ntopic = \"github.{X-GitHub-Event}\"\n\
            [[hook]]\nname = \"b\"\nsignature_header = \"X-Sig\"\nencoding = \"base64\"\ntimestamp_header = \"X-At\"\n\
            secret_env = \"S\"\ntopic = \"b\"\ncloses = [\"/api/{/id}\"]\ntolerance = \"1m\"\n";
        let hooks = load(text, &[("S", "s3cret")]).unwrap().hooks();
        assert_eq!(Some(&hooks[0].scheme), Scheme::named("github").as_ref());
        assert_eq!(hooks[1].scheme.signed, Signed::Dated(HeaderName::from_static("x-at")));
        assert_eq!((hooks[1].tolerance, hooks[1].closes.len()), (Duration::from_mins(1), 1));
        assert!(!format!("{hooks:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_wrong_is_told_at_once_with_its_line() {
        let text = "[push]\ntopics = [\"v2.users.*\"]\nreads = 0\nfolow = true\n\
            [[hook]]\nname = \"a/b\"\nsecret = \"x\"\nscheme = \"gitlab\"\ntopic = \"a.{\"\ncloses = [\"api\"]\n\
            [[hook]]\nscheme = \"github\"\nencoding = \"hex\"\nsecret_env = \"NONE\"\ntopic = \"t\"\n\
            [[hook]]\nname = \"c\"\nid_header = \"X-Id\"\n";
        let told = load(text, &[]).unwrap_err();
        for (line, what) in [
            (2, "push.topics: `v2.users.*` has a `*`"),
            (3, "push.reads"),
            (4, "push.folow: is not a known key (did you mean `follow`?)"),
            (6, "cannot name a hook"),
            (7, "secrets do not belong into this file"),
            (8, "`gitlab` is none of github, genesys and standard"),
            (9, "is never closed"),
            (10, "`api` is no path"),
            (11, "name: is missing"),
            (13, "stands beside a scheme"),
            (14, "the variable NONE is not set"),
            (16, "secret_file: is missing"),
            (16, "scheme: is missing"),
            (16, "topic: is missing"),
            (18, "stands without a timestamp_header"),
        ] {
            let found = told.lines().any(|told| told.contains(&format!(":{line}: ")) && told.contains(what));
            assert!(found, "{line} {what}:\n{told}");
        }
    }
}
