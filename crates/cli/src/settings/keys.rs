//! The keys that a setting can have, with their environment forms and what their text has to be.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use tidegate::transport::Http2;
use tidegate_core::pace::{Class, Taking};
use tidegate_core::profile::parse_duration;
use tidegate_core::share::OnStoreLoss;

/// Names the configuration file where no flag does.
pub(super) const CONFIG_ENV: &str = "TIDEGATE_CONFIG";

/// One key of the configuration that has an environment form.
pub(super) struct Key {
    /// As in the file; a dot separates the table.
    pub(super) name: &'static str,
    /// Environment variables, first wins. The first is the key's own form, the others are Genesys'.
    pub(super) env: &'static [&'static str],
    /// What its text has to be, wherever it stands: what is wrong with it, and in parentheses what to write.
    pub(super) check: fn(&str) -> Result<(), String>,
}

pub(super) const PROFILE: Key = Key { name: "profile", env: &["TIDEGATE_PROFILE"], check: some };
pub(super) const REGION: Key =
    Key { name: "region", env: &["TIDEGATE_REGION", "GENESYSCLOUD_REGION"], check: some };
pub(super) const API: Key = Key { name: "api", env: &["TIDEGATE_API"], check: some };
pub(super) const LOGIN: Key = Key { name: "login", env: &["TIDEGATE_LOGIN"], check: some };
pub(super) const TENANT: Key = Key { name: "tenant", env: &["TIDEGATE_TENANT"], check: some };
pub(super) const LISTEN: Key = Key { name: "listen", env: &["TIDEGATE_LISTEN"], check: address };
pub(super) const ADMIN: Key = Key { name: "admin", env: &["TIDEGATE_ADMIN"], check: address };
pub(super) const MAX_WAIT: Key = Key { name: "max_wait", env: &["TIDEGATE_MAX_WAIT"], check: some_wait };
pub(super) const FETCH_LIMITS: Key =
    Key { name: "fetch_limits", env: &["TIDEGATE_FETCH_LIMITS"], check: on_or_off };
pub(super) const CREDENTIAL_NAME: Key =
    Key { name: "credential.name", env: &["TIDEGATE_CREDENTIAL_NAME"], check: some };
pub(super) const CLIENT_ID: Key = Key {
    name: "credential.client_id",
    env: &["TIDEGATE_CREDENTIAL_CLIENT_ID", "GENESYSCLOUD_OAUTHCLIENT_ID"],
    check: some,
};
pub(super) const CLIENT_SECRET_FILE: Key = Key {
    name: "credential.client_secret_file",
    env: &["TIDEGATE_CREDENTIAL_CLIENT_SECRET_FILE"],
    check: some,
};
pub(super) const HOSTS: Key = Key { name: "gateway.hosts", env: &["TIDEGATE_GATEWAY_HOSTS"], check: some };
pub(super) const ORIGINS: Key =
    Key { name: "gateway.origins", env: &["TIDEGATE_GATEWAY_ORIGINS"], check: some };
pub(super) const ANONYMOUS: Key =
    Key { name: "gateway.anonymous", env: &["TIDEGATE_GATEWAY_ANONYMOUS"], check: on_or_off };
pub(super) const INTERACTIVE_POLICY: Key =
    Key { name: "class.interactive.policy", env: &["TIDEGATE_CLASS_INTERACTIVE_POLICY"], check: policy };
pub(super) const INTERACTIVE_RESERVE: Key =
    Key { name: "class.interactive.reserve", env: &["TIDEGATE_CLASS_INTERACTIVE_RESERVE"], check: permits };
pub(super) const SYNC_POLICY: Key =
    Key { name: "class.sync.policy", env: &["TIDEGATE_CLASS_SYNC_POLICY"], check: policy };
pub(super) const SYNC_RESERVE: Key =
    Key { name: "class.sync.reserve", env: &["TIDEGATE_CLASS_SYNC_RESERVE"], check: permits };
pub(super) const BULK_POLICY: Key =
    Key { name: "class.bulk.policy", env: &["TIDEGATE_CLASS_BULK_POLICY"], check: policy };
pub(super) const BULK_RESERVE: Key =
    Key { name: "class.bulk.reserve", env: &["TIDEGATE_CLASS_BULK_RESERVE"], check: permits };
pub(super) const POLL_POLICY: Key =
    Key { name: "class.poll.policy", env: &["TIDEGATE_CLASS_POLL_POLICY"], check: policy };
pub(super) const POLL_RESERVE: Key =
    Key { name: "class.poll.reserve", env: &["TIDEGATE_CLASS_POLL_RESERVE"], check: permits };

/// The policy of each class, and what it always leaves, by [`Class::ALL`].
pub(super) const CLASSES: [(&Key, &Key); Class::COUNT] = [
    (&INTERACTIVE_POLICY, &INTERACTIVE_RESERVE),
    (&SYNC_POLICY, &SYNC_RESERVE),
    (&BULK_POLICY, &BULK_RESERVE),
    (&POLL_POLICY, &POLL_RESERVE),
];

pub(super) const STATE_DIR: Key = Key { name: "state.dir", env: &["TIDEGATE_STATE_DIR"], check: some };
pub(super) const STATE_UNKNOWN: Key =
    Key { name: "state.unknown", env: &["TIDEGATE_STATE_UNKNOWN"], check: fresh_or_spent };

pub(super) const CONNECT_TIMEOUT: Key =
    Key { name: "timeouts.connect", env: &["TIDEGATE_TIMEOUTS_CONNECT"], check: some_wait };
pub(super) const READ_TIMEOUT: Key =
    Key { name: "timeouts.read", env: &["TIDEGATE_TIMEOUTS_READ"], check: some_wait };
pub(super) const WRITE_TIMEOUT: Key =
    Key { name: "timeouts.write", env: &["TIDEGATE_TIMEOUTS_WRITE"], check: some_wait };
pub(super) const BULK_TIMEOUT: Key =
    Key { name: "timeouts.bulk", env: &["TIDEGATE_TIMEOUTS_BULK"], check: some_wait };
pub(super) const HTTP2: Key =
    Key { name: "upstream.http2", env: &["TIDEGATE_UPSTREAM_HTTP2"], check: |text| http2(text).map(drop) };
pub(super) const MAX_RETRIES: Key =
    Key { name: "retries.max", env: &["TIDEGATE_RETRIES_MAX"], check: |text| within(text, &RETRIES) };
pub(super) const RETRY_BUDGET: Key =
    Key { name: "retries.budget", env: &["TIDEGATE_RETRIES_BUDGET"], check: |text| within(text, &BUDGET) };
pub(super) const CACHE_BYTES: Key =
    Key { name: "cache.max_bytes", env: &["TIDEGATE_CACHE_MAX_BYTES"], check: |text| within(text, &SIZES) };
pub(super) const CACHE_ANSWER: Key = Key {
    name: "cache.max_answer_bytes",
    env: &["TIDEGATE_CACHE_MAX_ANSWER_BYTES"],
    check: |text| within(text, &SIZES),
};
pub(super) const MERGE_ENABLED: Key =
    Key { name: "merge.enabled", env: &["TIDEGATE_MERGE_ENABLED"], check: on_or_off };
pub(super) const MERGE_WINDOW: Key = Key {
    name: "merge.window",
    env: &["TIDEGATE_MERGE_WINDOW"],
    check: |text| super::merging::window(text).map(drop),
};
pub(super) const MERGE_OFF: Key = Key { name: "merge.off", env: &["TIDEGATE_MERGE_OFF"], check: some };
pub(super) const BREAKER_THRESHOLD: Key = Key {
    name: "breaker.threshold",
    env: &["TIDEGATE_BREAKER_THRESHOLD"],
    check: |text| within(text, &THRESHOLD),
};
pub(super) const COOL_DOWN: Key =
    Key { name: "breaker.cool_down", env: &["TIDEGATE_BREAKER_COOL_DOWN"], check: some_wait };
pub(super) const LONGEST_COOL_DOWN: Key =
    Key { name: "breaker.longest_cool_down", env: &["TIDEGATE_BREAKER_LONGEST_COOL_DOWN"], check: some_wait };

pub(super) const INSTANCE: Key = Key { name: "instance", env: &["TIDEGATE_INSTANCE"], check: some };
pub(super) const WINDOWS: Key = Key {
    name: "window",
    env: &["TIDEGATE_WINDOW"],
    check: |text| super::calendar::from_text(text).map(drop),
};

pub(super) const PUSH_TOPICS: Key =
    Key { name: "push.topics", env: &["TIDEGATE_PUSH_TOPICS"], check: topics };
pub(super) const PUSH_FOLLOW: Key =
    Key { name: "push.follow", env: &["TIDEGATE_PUSH_FOLLOW"], check: on_or_off };
pub(super) const PUSH_READS: Key =
    Key { name: "push.reads", env: &["TIDEGATE_PUSH_READS"], check: |text| within(text, &READS) };
pub(super) const PUSH_WITHIN: Key =
    Key { name: "push.within", env: &["TIDEGATE_PUSH_WITHIN"], check: some_wait };
pub(super) const PUSH_IDLE: Key = Key { name: "push.idle", env: &["TIDEGATE_PUSH_IDLE"], check: some_wait };
pub(super) const PUSH_SILENT: Key =
    Key { name: "push.silent", env: &["TIDEGATE_PUSH_SILENT"], check: |text| within(text, &SILENT) };

/// Reads that make a path followed.
pub(super) const READS: RangeInclusive<u64> = 1..=1000;

/// Heartbeats without a word.
pub(super) const SILENT: RangeInclusive<u64> = 2..=10;

/// Retries of one call.
pub(super) const RETRIES: RangeInclusive<u64> = 0..=100;

/// Tokens of the retry budget; none means no retry but those that the upstream orders.
pub(super) const BUDGET: RangeInclusive<u64> = 0..=1_000_000;

/// Bytes of kept answers; 4 GB is more than a number of 32 bits holds.
pub(super) const SIZES: RangeInclusive<u64> = 0..=4_000_000_000;

/// Failures in a row that open a breaker.
pub(super) const THRESHOLD: RangeInclusive<u64> = 1..=100;

pub(super) const STATE_FILE: Key = Key { name: "state.file", env: &["TIDEGATE_STATE_FILE"], check: some };

pub(super) const OUTBOX_PATH: Key = Key { name: "outbox.path", env: &["TIDEGATE_OUTBOX_PATH"], check: some };
pub(super) const OUTBOX_ENTRIES: Key = Key {
    name: "outbox.max_entries",
    env: &["TIDEGATE_OUTBOX_MAX_ENTRIES"],
    check: |text| within(text, &OUTBOX_SIZES),
};
pub(super) const OUTBOX_BYTES: Key =
    Key { name: "outbox.max_bytes", env: &["TIDEGATE_OUTBOX_MAX_BYTES"], check: |text| within(text, &SIZES) };
pub(super) const OUTBOX_KEEP: Key =
    Key { name: "outbox.keep", env: &["TIDEGATE_OUTBOX_KEEP"], check: some_wait };

/// Entries of an outbox: all of them are known in memory, by some hundred bytes each.
pub(super) const OUTBOX_SIZES: RangeInclusive<u64> = 1..=1_000_000;

pub(super) const QUOTA_STORE: Key = Key { name: "quota.store", env: &["TIDEGATE_QUOTA_STORE"], check: store };
pub(super) const QUOTA_PREFIX: Key =
    Key { name: "quota.prefix", env: &["TIDEGATE_QUOTA_PREFIX"], check: prefix };
pub(super) const ON_STORE_LOSS: Key =
    Key { name: "quota.on_store_loss", env: &["TIDEGATE_QUOTA_ON_STORE_LOSS"], check: on_loss };
pub(super) const MAX_INSTANCES: Key = Key {
    name: "quota.max_instances",
    env: &["TIDEGATE_QUOTA_MAX_INSTANCES"],
    check: |text| within(text, &INSTANCES),
};
pub(super) const QUOTA_TIMEOUT: Key =
    Key { name: "quota.timeout", env: &["TIDEGATE_QUOTA_TIMEOUT"], check: |text| patience(text).map(drop) };
pub(super) const STAGGER: Key =
    Key { name: "quota.stagger", env: &["TIDEGATE_QUOTA_STAGGER"], check: |text| stagger(text).map(drop) };
pub(super) const QUOTA_USER: Key = Key { name: "quota.user", env: &["TIDEGATE_QUOTA_USER"], check: some };
pub(super) const QUOTA_PASSWORD_FILE: Key =
    Key { name: "quota.password_file", env: &["TIDEGATE_QUOTA_PASSWORD_FILE"], check: some };
pub(super) const QUOTA_CA_FILE: Key =
    Key { name: "quota.ca_file", env: &["TIDEGATE_QUOTA_CA_FILE"], check: some };
pub(super) const TOKEN_KEY_FILE: Key =
    Key { name: "quota.token_key_file", env: &["TIDEGATE_QUOTA_TOKEN_KEY_FILE"], check: some };

/// What stands in the table `quota` as text.
pub(super) const QUOTA_TEXTS: [&Key; 9] = [
    &QUOTA_STORE,
    &QUOTA_PREFIX,
    &ON_STORE_LOSS,
    &QUOTA_TIMEOUT,
    &STAGGER,
    &QUOTA_USER,
    &QUOTA_PASSWORD_FILE,
    &QUOTA_CA_FILE,
    &TOKEN_KEY_FILE,
];

/// Processes that may share one quota.
pub(super) const INSTANCES: RangeInclusive<u64> = 1..=10_000;

/// An exchange that takes longer brings permits whose lease is nearly over.
const LONGEST_EXCHANGE: Duration = Duration::from_secs(2);

/// All keys with an environment form, in the order they are documented.
pub(super) const KEYS: [&Key; 63] = [
    &PROFILE,
    &REGION,
    &API,
    &LOGIN,
    &TENANT,
    &LISTEN,
    &ADMIN,
    &MAX_WAIT,
    &FETCH_LIMITS,
    &CREDENTIAL_NAME,
    &CLIENT_ID,
    &CLIENT_SECRET_FILE,
    &HOSTS,
    &ORIGINS,
    &ANONYMOUS,
    &INTERACTIVE_POLICY,
    &INTERACTIVE_RESERVE,
    &SYNC_POLICY,
    &SYNC_RESERVE,
    &BULK_POLICY,
    &BULK_RESERVE,
    &POLL_POLICY,
    &POLL_RESERVE,
    &CONNECT_TIMEOUT,
    &READ_TIMEOUT,
    &WRITE_TIMEOUT,
    &BULK_TIMEOUT,
    &HTTP2,
    &MAX_RETRIES,
    &RETRY_BUDGET,
    &CACHE_BYTES,
    &CACHE_ANSWER,
    &MERGE_ENABLED,
    &MERGE_WINDOW,
    &MERGE_OFF,
    &BREAKER_THRESHOLD,
    &COOL_DOWN,
    &LONGEST_COOL_DOWN,
    &STATE_DIR,
    &STATE_UNKNOWN,
    &STATE_FILE,
    &OUTBOX_PATH,
    &OUTBOX_ENTRIES,
    &OUTBOX_BYTES,
    &OUTBOX_KEEP,
    &QUOTA_STORE,
    &QUOTA_PREFIX,
    &ON_STORE_LOSS,
    &MAX_INSTANCES,
    &QUOTA_TIMEOUT,
    &STAGGER,
    &QUOTA_USER,
    &QUOTA_PASSWORD_FILE,
    &QUOTA_CA_FILE,
    &TOKEN_KEY_FILE,
    &PUSH_TOPICS,
    &PUSH_FOLLOW,
    &PUSH_READS,
    &PUSH_WITHIN,
    &PUSH_IDLE,
    &PUSH_SILENT,
    &INSTANCE,
    &WINDOWS,
];

/// The client secret has no key in the file: a file with a secret in it ends up in a repository.
pub(super) const SECRET_ENV: [&str; 2] =
    ["TIDEGATE_CREDENTIAL_CLIENT_SECRET", "GENESYSCLOUD_OAUTHCLIENT_SECRET"];

/// The password of the store has no key in the file either.
pub(super) const QUOTA_PASSWORD_ENV: &str = "TIDEGATE_QUOTA_PASSWORD";

/// The key of this program at a gateway that it calls through has none either.
pub(crate) const KEY_ENV: &str = "TIDEGATE_KEY";

/// Nor has the secret that seals tokens.
pub(super) const TOKEN_KEY_ENV: &str = "TIDEGATE_QUOTA_TOKEN_KEY";

/// Variables that are no key: where the file is, what is logged, and which program the tools of the project drive.
pub(super) const OTHER_ENV: [&str; 4] = [CONFIG_ENV, KEY_ENV, "TIDEGATE_LOG", "TIDEGATE_TEST_BINARY"];

pub(super) fn some(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        Err("is empty (write a value, or leave the key out)".to_owned())
    } else {
        Ok(())
    }
}

fn topics(text: &str) -> Result<(), String> {
    text.split(',').try_for_each(|text| tidegate_core::push::topic(text.trim()).map(drop))
}

pub(super) fn address(text: &str) -> Result<(), String> {
    let parsed: Result<SocketAddr, _> = text.parse();
    parsed.map(drop).map_err(|_| format!("`{text}` is not an address (write it like 127.0.0.1:8787)"))
}

/// The longest wait of a call, wherever it is set.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("is zero (write a duration above zero, such as \"14s\")".to_owned()),
        wait => Ok(wait),
    }
}

pub(super) fn some_wait(text: &str) -> Result<(), String> {
    wait(text).map(drop)
}

pub(super) fn policy(text: &str) -> Result<(), String> {
    if text == "reserve" {
        return Err(
            "`reserve` is not a policy (write greedy or fair; `reserve` is a key of its own, such as reserve = 80)"
                .to_owned(),
        );
    }
    text.parse().map(|_: Taking| ()).map_err(|what| format!("`{text}` {what}"))
}

pub(super) fn permits(text: &str) -> Result<(), String> {
    let parsed: Result<u64, _> = text.parse();
    parsed
        .map(drop)
        .map_err(|_| format!("`{text}` is no number of permits (write a whole number, such as 80)"))
}

fn within(text: &str, range: &RangeInclusive<u64>) -> Result<(), String> {
    let (least, most) = (range.start(), range.end());
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(()),
        _ => Err(format!("`{text}` is no whole number from {least} to {most}")),
    }
}

/// Where a quota can be shared, by the beginning of the address.
pub(super) fn store(text: &str) -> Result<(), String> {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme {
        "" if text == "memory" => Ok(()),
        "redis" | "rediss" | "redis+cluster" | "rediss+cluster" => Ok(()),
        DYNAMODB => with_dynamodb(cfg!(feature = "dynamodb")),
        // The rest of the address is not repeated: a password may stand in it.
        "" => Err(format!("is no address of a store ({STORES})")),
        scheme => Err(format!("`{scheme}://` is not a store ({STORES})")),
    }
}

const STORES: &str = "write redis://HOST:PORT, rediss://HOST:PORT with TLS, redis+cluster://HOST,HOST, \
                      dynamodb://TABLE?region=REGION, or memory for a quota that is this process's alone";

/// The scheme of a DynamoDB table.
pub(super) const DYNAMODB: &str = "dynamodb";

/// Whether this program knows DynamoDB, and otherwise how to get one that does.
fn with_dynamodb(built: bool) -> Result<(), String> {
    let why = "`dynamodb://` needs a tidegate that is built with DynamoDB, and this one is not (build it with \
               `cargo install --path crates/cli --features dynamodb`)";
    built.then_some(()).ok_or_else(|| why.to_owned())
}

/// As `store`, for the file: a password in it would end up in a repository.
pub(super) fn store_without_password(text: &str) -> Result<(), String> {
    store(text)?;
    let authority = text.split_once("://").map_or("", |(_, rest)| rest);
    match authority.rsplit_once('@') {
        Some((login, _)) if login.contains(':') => Err(format!(
            "carries a password, which does not belong into this file (set {QUOTA_PASSWORD_ENV}, or name a quota.password_file)"
        )),
        _ => Ok(()),
    }
}

pub(super) fn prefix(text: &str) -> Result<(), String> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_./:".contains(letter);
    if !text.is_empty() && text.chars().all(allowed) {
        return Ok(());
    }
    Err(format!("`{text}` is no prefix (write letters, digits and -_./: only, such as tidegate)"))
}

pub(super) fn on_loss(text: &str) -> Result<(), String> {
    loss(text).map(drop)
}

/// What to do while the store is away.
pub(super) fn loss(text: &str) -> Result<OnStoreLoss, String> {
    match text {
        "share" => Ok(OnStoreLoss::Share),
        "closed" => Ok(OnStoreLoss::Closed),
        "open" => Ok(OnStoreLoss::Open),
        _ => Err(format!("`{text}` is none of share, closed and open")),
    }
}

/// How long an exchange is waited for.
pub(super) fn patience(text: &str) -> Result<Duration, String> {
    let patience = wait(text)?;
    if patience > LONGEST_EXCHANGE {
        return Err(format!(
            "{text} is longer than {LONGEST_EXCHANGE:?}, and permits do not live long enough for that"
        ));
    }
    Ok(patience)
}

/// By how much starts are spread; `None`: they are not.
pub(super) fn stagger(text: &str) -> Result<Option<(Duration, Duration)>, String> {
    if text == "off" {
        return Ok(None);
    }
    let (least, most) = text
        .split_once("..")
        .ok_or_else(|| format!("`{text}` is no range (write it like \"1s..5s\", or \"off\")"))?;
    let (least, most) = (parse_duration(least)?, parse_duration(most)?);
    if least > most {
        return Err(format!("`{text}` ends before it begins (write the shorter one first)"));
    }
    Ok(Some((least, most)))
}

/// Whether HTTP/2 is spoken to upstreams.
pub(super) fn http2(text: &str) -> Result<Http2, String> {
    let found = Http2::ALL.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, http2)| http2).ok_or_else(|| format!("`{text}` is none of auto, off and prior-knowledge"))
}

pub(super) fn fresh_or_spent(text: &str) -> Result<(), String> {
    match text {
        "fresh" | "spent" => Ok(()),
        _ => Err(format!("`{text}` is neither fresh nor spent")),
    }
}

pub(super) fn on_or_off(text: &str) -> Result<(), String> {
    match text {
        "true" | "false" => Ok(()),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}
