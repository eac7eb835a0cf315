//! What a server leaves out of its refusals: which key has the wrong type, which command or key the user may not use.

use redis::Cmd;

use crate::fault::{ACL_HINT, Fault};
use crate::target::Wire;

/// The same fault, with what is wrong named. `keys`: what was to be touched, with the type that each has.
pub(crate) async fn name(wire: &mut Wire, keys: &[(String, &str)], fault: Fault) -> Fault {
    let named = if fault.is_wrong_type() {
        foreign_key(wire, keys).await
    } else if fault.is_permission() {
        missing_permission(wire, keys).await
    } else {
        None
    };
    named.unwrap_or(fault)
}

async fn foreign_key(wire: &mut Wire, keys: &[(String, &str)]) -> Option<Fault> {
    for (key, expected) in keys {
        let found: String = wire.query(redis::cmd("TYPE").arg(key)).await.ok()?;
        if found != "none" && found != *expected {
            return Some(Fault::Unusable {
                why: format!("WRONGTYPE: the key {key} is a {found}"),
                hint:
                    "another program has a key under quota.prefix: choose another prefix, or delete that key"
                        .to_owned(),
            });
        }
    }
    None
}

/// Tries each command that is needed, on a key that is not there and in a form that changes nothing. A server looks at
/// permissions before it runs a command.
async fn missing_permission(wire: &mut Wire, keys: &[(String, &str)]) -> Option<Fault> {
    let (key, _) = keys.first()?;
    let nothing = format!("{key}:none");
    let mut missing = Vec::new();
    for (words, has_key) in NEEDED {
        let mut words = words.split(' ');
        let name = words.next().unwrap_or_default();
        let mut command = redis::cmd(name);
        if *has_key {
            command.arg(&nothing);
        }
        for word in words {
            command.arg(word);
        }
        match refusal(wire, &command).await {
            Some(told) if told.contains("access") => {
                return Some(Fault::Unusable {
                    why: format!("NOPERM: the user may not use the key {key}"),
                    hint: ACL_HINT.to_owned(),
                });
            }
            Some(_) => missing.push(name),
            None => {}
        }
    }
    (!missing.is_empty()).then(|| Fault::Unusable {
        why: format!("NOPERM: the user may not run {}", missing.join(", ")),
        hint: ACL_HINT.to_owned(),
    })
}

/// Every command of the scripts and around them, and whether a key comes first. `HSET` lacks a value and `ZADD` adds to nothing,
/// so both leave nothing behind.
const NEEDED: &[(&str, bool)] = &[
    ("HLEN", true),
    ("HKEYS", true),
    ("HGET x", true),
    ("HMGET x", true),
    ("HSET x 1 y", true),
    ("HDEL x", true),
    ("ZADD XX 1 x", true),
    ("ZCARD", true),
    ("ZCOUNT 0 0", true),
    ("ZRANGEBYSCORE 0 0", true),
    ("ZREVRANGE 0 0", true),
    ("ZREM x", true),
    ("PEXPIREAT 1", true),
    ("DEL", true),
    ("TYPE", true),
    ("TIME", false),
    ("EVALSHA 0000000000000000000000000000000000000000 0", false),
    ("EVAL return 0", false),
];

/// What the server says where the user lacks a permission.
async fn refusal(wire: &mut Wire, command: &Cmd) -> Option<String> {
    let error = wire.query::<redis::Value>(command).await.err()?;
    (error.code() == Some("NOPERM")).then(|| error.detail().unwrap_or_default().to_owned())
}
