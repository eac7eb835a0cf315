//! Where settings stand besides flags: the environment and the file.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use tidegate_core::cache::read_fresh;
use tidegate_core::calendar::read_windows;
use tidegate_core::pace::Class;
use tidegate_core::profile::read_limits;
use tidegate_core::profile::reader::{self, Section};

use super::credential::{Secrets, read_classes};
use super::keys::{
    ADMIN, ANONYMOUS, API, BREAKER_THRESHOLD, BUDGET, BULK_TIMEOUT, CACHE_ANSWER, CACHE_BYTES, CLASSES,
    CLIENT_ID, CLIENT_SECRET_FILE, CONFIG_ENV, CONNECT_TIMEOUT, COOL_DOWN, CREDENTIAL_NAME, FETCH_LIMITS,
    HOSTS, HTTP2, INSTANCE, KEYS, Key, LISTEN, LOGIN, LONGEST_COOL_DOWN, MAX_RETRIES, MAX_WAIT, ORIGINS,
    OTHER_ENV, PROFILE, QUOTA_PASSWORD_ENV, READ_TIMEOUT, REGION, RETRIES, RETRY_BUDGET, SECRET_ENV, SIZES,
    STATE_DIR, STATE_FILE, STATE_UNKNOWN, TENANT, THRESHOLD, TOKEN_KEY_ENV, WRITE_TIMEOUT,
};
use super::{Settings, callers, merging, outbox, push, quota, tenants};
use crate::args::Connection;
use crate::environment::Environment;
use crate::failure::Failure;

/// The file that is read if it is there.
const DEFAULT_FILE: &str = "tidegate.toml";

/// Every variable that the program, or a tool of its own, reads.
pub(super) fn known_variables() -> impl Iterator<Item = &'static str> + Clone {
    let of_keys = KEYS.into_iter().flat_map(|key| key.env).copied();
    of_keys.chain(SECRET_ENV).chain([QUOTA_PASSWORD_ENV, TOKEN_KEY_ENV]).chain(OTHER_ENV)
}

pub(super) fn from_env(env: &Environment) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    let mut problems = env.unknown(&known_variables());
    for key in KEYS {
        match env.first(key.env) {
            Err(problem) => problems.push(problem),
            Ok(None) => {}
            Ok(Some((name, text))) => match (key.check)(&text) {
                Ok(()) => settings.set(key, Some(text)),
                Err(what) => problems.push(format!("{name}: {what}")),
            },
        }
    }
    let mut secret = |names: &[&'static str]| match env.first(names) {
        Err(problem) => {
            problems.push(problem);
            None
        }
        Ok(secret) => secret.map(|(_, secret)| SecretString::from(secret)),
    };
    settings.secret = secret(&SECRET_ENV);
    settings.quota_password = secret(&[QUOTA_PASSWORD_ENV]);
    settings.token_key = secret(&[TOKEN_KEY_ENV]);
    if problems.is_empty() { Ok(settings) } else { Err(Failure::usage(problems.join("\n"))) }
}

pub(super) fn from_config(connection: &Connection, env: &Environment) -> Result<Settings, Failure> {
    let named = match &connection.config {
        Some(path) => Some(path.clone()),
        None => env.get(CONFIG_ENV).map_err(Failure::usage)?.map(PathBuf::from),
    };
    let path = match named {
        Some(path) => path,
        None if Path::new(DEFAULT_FILE).exists() => PathBuf::from(DEFAULT_FILE),
        None => return Ok(Settings::default()),
    };
    let asked = match &connection.tenant {
        Some(tenant) => Some(tenant.clone()),
        None => env.first(TENANT.env).map_err(Failure::usage)?.map(|(_, tenant)| tenant),
    };
    let from_file = |file: &Section<'_>| from_file(file, env, asked.as_deref());
    reader::read(&read(&path)?, &path.display().to_string(), from_file).map_err(Failure::usage)
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

/// The secret in a file, without the line break that editors put behind it.
pub(super) fn secret_in(path: &str, whose: &str) -> Result<SecretString, Failure> {
    secret_of_file(path).map_err(|what| Failure::usage(format!("{whose}: {what}")))
}

/// The same, for those who say whose it is themselves.
pub(super) fn secret_of_file(path: &str) -> Result<SecretString, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{path} is empty (write the secret into it)")),
        text => Ok(SecretString::from(text)),
    }
}

/// `asked`: the tenant that the command is about, if one is named.
fn from_file(file: &Section<'_>, env: &Environment, asked: Option<&str>) -> Settings {
    let mut settings = Settings::default();
    let text = |section: &Section<'_>, key: &Key| {
        section.parsed(last(key.name), |text| (key.check)(text).map(|()| text.to_owned()))
    };
    for key in [&PROFILE, &REGION, &API, &LOGIN, &LISTEN, &ADMIN, &MAX_WAIT, &INSTANCE] {
        settings.set(key, text(file, key));
    }
    // A name of the only tenant, or a table for each.
    if file.is_string(TENANT.name) {
        settings.set(&TENANT, text(file, &TENANT));
    } else {
        settings.tenants = tenants::read(file, env, asked);
    }
    let names: Vec<&str> = settings.tenants.iter().map(|table| table.name.as_str()).collect();
    settings.callers = callers::read_callers(file, &names);
    settings.routes = callers::read_routes(file, &names);
    settings.hooks = push::read_hooks(file, &names, env);
    settings.set(&FETCH_LIMITS, file.boolean(FETCH_LIMITS.name).map(|fetch| fetch.to_string()));
    if let Some(credential) = file.section("credential") {
        for key in [&CREDENTIAL_NAME, &CLIENT_ID, &CLIENT_SECRET_FILE] {
            settings.set(key, text(&credential, key));
        }
        let secrets = Secrets { env, wanted: true };
        settings.class_credentials = read_classes(&credential, secrets, settings.get(&CLIENT_ID));
        credential.refuse(
            "client_secret",
            "secrets do not belong into this file (set it in the environment, or name a client_secret_file)",
        );
        if !settings.tenants.is_empty() {
            file.problem("credential", "belongs to no tenant (move it into the [[tenant]] it is of)");
        }
    }
    if let Some(gateway) = file.section("gateway") {
        for key in [&HOSTS, &ORIGINS] {
            let listed = gateway.each(last(key.name), |text| Ok::<_, String>(text.to_owned()));
            settings.set(key, listed.map(|listed| listed.join(",")));
        }
        let anonymous = gateway.boolean(last(ANONYMOUS.name));
        settings.set(&ANONYMOUS, anonymous.map(|anonymous| anonymous.to_string()));
    }
    if let Some(classes) = file.section("class") {
        for (class, (policy, reserve)) in Class::ALL.into_iter().zip(CLASSES) {
            let Some(section) = classes.section(class.name()) else { continue };
            settings.set(policy, text(&section, policy));
            let permits = section.integer(last(reserve.name), &(0..=u64::MAX));
            settings.set(reserve, permits.map(|permits| permits.to_string()));
        }
    }
    if let Some(timeouts) = file.section("timeouts") {
        for key in [&CONNECT_TIMEOUT, &READ_TIMEOUT, &WRITE_TIMEOUT, &BULK_TIMEOUT] {
            settings.set(key, text(&timeouts, key));
        }
    }
    if let Some(upstream) = file.section("upstream") {
        settings.set(&HTTP2, text(&upstream, &HTTP2));
    }
    let number = |section: &Section<'_>, key: &Key, range| {
        section.integer(last(key.name), range).map(|number: u64| number.to_string())
    };
    if let Some(retries) = file.section("retries") {
        settings.set(&MAX_RETRIES, number(&retries, &MAX_RETRIES, &RETRIES));
        settings.set(&RETRY_BUDGET, number(&retries, &RETRY_BUDGET, &BUDGET));
    }
    if let Some(breaker) = file.section("breaker") {
        settings.set(&BREAKER_THRESHOLD, number(&breaker, &BREAKER_THRESHOLD, &THRESHOLD));
        for key in [&COOL_DOWN, &LONGEST_COOL_DOWN] {
            settings.set(key, text(&breaker, key));
        }
    }
    if let Some(state) = file.section("state") {
        for key in [&STATE_DIR, &STATE_UNKNOWN, &STATE_FILE] {
            settings.set(key, text(&state, key));
        }
    }
    if let Some(section) = file.section("quota") {
        quota::read(&section, &mut settings);
    }
    if let Some(section) = file.section("outbox") {
        outbox::read(&section, &mut settings);
    }
    settings.sinks = outbox::read_sinks(file, env);
    if let Some(section) = file.section("push") {
        push::read(&section, &mut settings.texts);
    }
    if let Some(cache) = file.section("cache") {
        for key in [&CACHE_BYTES, &CACHE_ANSWER] {
            settings.set(key, number(&cache, key, &SIZES));
        }
    }
    if let Some(section) = file.section("merge") {
        merging::read(&section, &mut settings);
    }
    settings.limits = read_limits(file);
    settings.fresh = read_fresh(file);
    settings.windows = read_windows(file);
    settings
}

pub(super) fn last(name: &'static str) -> &'static str {
    name.rsplit('.').next().unwrap_or(name)
}
