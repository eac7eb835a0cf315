//! What an error means: whether it may pass by itself, and otherwise what somebody has to do.
//!
//! Servers word the same error differently (6.2 wraps what a script met in a sentence of its own), so the text is searched
//! for the codes of <https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors>.

use std::time::Duration;

use redis::{ErrorKind, RedisError};
use tidegate_quota::StoreError;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It may come back. `broken`: the connection is of no use any more.
    Away { why: String, broken: bool },
    /// Somebody has to change something.
    Unusable { why: String, hint: String },
}

/// What somebody has to do about a permission that is missing.
pub(crate) const ACL_HINT: &str =
    "give the ACL user what docs/fleet.md lists, for the keys under quota.prefix";

/// Codes and phrases of what somebody has to change, and how.
const UNUSABLE: &[(&str, &str)] = &[
    ("WRONGPASS", "check quota.user and quota.password_file, or TIDEGATE_QUOTA_PASSWORD"),
    ("invalid password", "check quota.password_file, or TIDEGATE_QUOTA_PASSWORD"),
    ("AUTH failed", "check quota.user and quota.password_file, or TIDEGATE_QUOTA_PASSWORD"),
    ("without any password", "the server has no password: leave out quota.password_file"),
    ("NOAUTH", "the server wants a password: set quota.password_file, or TIDEGATE_QUOTA_PASSWORD"),
    ("NOPERM", ACL_HINT),
    ("ACL failure", ACL_HINT),
    ("user executing the script can't", ACL_HINT),
    ("No permissions to access a key", ACL_HINT),
    ("WRONGTYPE", "another program has a key under quota.prefix: choose another prefix, or delete that key"),
    (
        "unknown command",
        "scripts are needed: Redis 6.2 or newer, or Valkey, with EVALSHA and EVAL not renamed",
    ),
    ("MOVED", "the server is a cluster: quota.store is redis+cluster://HOST,HOST"),
    ("cluster support disabled", "the server is no cluster: quota.store is redis://HOST"),
    ("DB index is out of range", "the server has fewer databases than the number in quota.store"),
    ("SELECT is not allowed", "a cluster has no databases: leave the number out of quota.store"),
    ("CROSSSLOT", "this is a mistake in Tidegate: please report it"),
    ("user_script", "this is a mistake in Tidegate: please report it"),
    ("running script", "this is a mistake in Tidegate: please report it"),
    ("certificate", "set quota.ca_file to the authority that signed the server's certificate"),
];

/// Codes of what passes, some of it sooner if somebody helps.
const PASSING: &[(&str, &str)] = &[
    ("LOADING", ""),
    ("READONLY", "the server is a replica: if it stays one, name its master in quota.store"),
    ("CLUSTERDOWN", ""),
    ("MASTERDOWN", ""),
    ("TRYAGAIN", ""),
    ("BUSY", ""),
    ("OOM", "give the server more maxmemory, or the quota a server of its own"),
    ("NOREPLICAS", ""),
    ("MISCONF", "the server cannot save its data: see its log"),
];

/// Those of a server that is there, and answers whoever only reads.
const NO_WRITES: [&str; 4] = ["READONLY", "OOM", "NOREPLICAS", "MISCONF"];

/// An error of many words, such as a page that a web server answered, is cut here.
const LONGEST: usize = 200;

impl Fault {
    /// What an error of the library means.
    pub(crate) fn of(error: &RedisError) -> Self {
        let text = match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => format!("{code} {detail}"),
            _ => error.to_string(),
        };
        let text = one_line(&text);
        if let Some((code, hint)) = PASSING.iter().find(|(code, _)| has_word(&text, code)) {
            let there = if NO_WRITES.contains(code) { "it answers, but takes no writes: " } else { "" };
            let why = if hint.is_empty() { text } else { format!("{text}; {hint}") };
            let why = format!("{there}{why}");
            // A server that has become a replica stays one: the next connection may find its successor.
            return Self::Away { why, broken: *code == "READONLY" };
        }
        if let Some(&(_, hint)) = UNUSABLE.iter().find(|(words, _)| text.contains(words)) {
            return Self::Unusable { why: text, hint: hint.to_owned() };
        }
        if error.kind() == ErrorKind::AuthenticationFailed {
            return Self::Unusable { why: text, hint: UNUSABLE[0].1.to_owned() };
        }
        let broken = error.is_unrecoverable_error() || error.kind() == ErrorKind::Io;
        let why = if error.kind() == ErrorKind::Parse {
            format!("{text}; is it a Redis server that listens there?")
        } else {
            text
        };
        Self::Away { why, broken }
    }

    /// The answer is not what this program expects.
    pub(crate) fn strange(why: impl std::fmt::Display) -> Self {
        Self::Unusable {
            why: format!("its answer is not understood: {why}"),
            hint: "is another version of Tidegate's scripts loaded, or another server at this address?"
                .to_owned(),
        }
    }

    /// There was no answer in time.
    pub(crate) fn late(patience: Duration) -> Self {
        Self::Away { why: format!("no answer within {} ms", patience.as_millis()), broken: false }
    }

    /// A connection could not be made. `tls`: it was to be encrypted.
    pub(crate) fn of_connecting(error: Option<&RedisError>, patience: Duration, tls: bool) -> Self {
        let fault = error.map_or_else(|| Self::late(patience), Self::of);
        let Self::Away { why, broken } = fault else { return fault };
        // A server without TLS waits for the rest of a command, hangs up, or answers in words.
        let silent = error.is_none_or(RedisError::is_connection_dropped);
        let silent = silent || tls && why.contains("InvalidContentType");
        let hint = match (silent, tls) {
            (true, true) => "does it speak TLS? without it, quota.store is redis://",
            (true, false) => "check quota.store; with TLS it is rediss://",
            (false, _) if error.is_some_and(|error| error.kind() == ErrorKind::Io) => {
                "check quota.store and the way there"
            }
            (false, _) => return Self::Away { why, broken },
        };
        Self::Away { why: format!("{why}; {hint}"), broken }
    }

    /// A user may not do what is needed.
    pub(crate) fn is_permission(&self) -> bool {
        matches!(self, Self::Unusable { hint, .. } if hint == ACL_HINT)
    }

    pub(crate) fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Unusable { why, .. } if why.contains("WRONGTYPE"))
    }

    /// For the caller.
    pub(crate) fn told(self, store: &str, retry_after: Option<Duration>) -> StoreError {
        let store = store.to_owned();
        match self {
            Self::Away { why, .. } => StoreError::Away { store, why, retry_after },
            Self::Unusable { why, hint } => StoreError::Unusable { store, why, hint },
        }
    }
}

/// What a log can take on one line.
fn one_line(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Whether a code stands in a text as a word of its own: `BUSY` is not `BUSYKEY`.
fn has_word(text: &str, code: &str) -> bool {
    text.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| word == code)
}
