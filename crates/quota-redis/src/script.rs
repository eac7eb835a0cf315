//! Running a script by its digest, and sending it where the server has lost it.
//!
//! A server forgets scripts when it is restarted, failed over or told to, so the digest alone is never relied on:
//! <https://redis.io/docs/latest/develop/programmability/eval-intro/#evalsha-in-the-context-of-pipelining>.

use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, ServerErrorKind};

use crate::target::Wire;

/// One exchange. Its sections share their names, so they are one script.
const EXCHANGE: &str = concat!(
    include_str!("exchange/numbers.lua"),
    include_str!("exchange/log.lua"),
    include_str!("exchange/certificate.lua"),
    include_str!("exchange/foreign.lua"),
    include_str!("exchange/limit.lua"),
    include_str!("exchange/hear.lua"),
    include_str!("exchange/grant.lua"),
    include_str!("exchange/door.lua"),
    include_str!("exchange/ledger.lua"),
);
const LOCKS: &str = include_str!("locks.lua");

/// A script with its digest.
#[derive(Debug)]
pub(crate) struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, digest: redis::Script::new(text).get_hash().to_owned() }
    }
}

/// The scripts.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) exchange: Script,
    pub(crate) locks: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self { exchange: Script::new(EXCHANGE), locks: Script::new(LOCKS) }
    }

    /// The same, in the time that stands under the key `now`.
    #[cfg(test)]
    pub(crate) fn in_made_time() -> Self {
        let made = |text: &str| {
            let made = text.replace("call('TIME')", "{ 0, 1000 * call('GET', 'now') }");
            assert_ne!(made, text);
            Script::new(made.leak())
        };
        Self { exchange: made(EXCHANGE), locks: made(LOCKS) }
    }
}

/// Runs a script once.
pub(crate) async fn run<T: FromRedisValue>(
    wire: &mut Wire,
    script: &Script,
    keys: &[String],
    args: &[&[u8]],
) -> RedisResult<T> {
    let by_digest = command("EVALSHA", &script.digest, keys, args);
    match wire.query(&by_digest).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            wire.query(&command("EVAL", script.text, keys, args)).await
        }
        answer => answer,
    }
}

fn command(verb: &str, script: &str, keys: &[String], args: &[&[u8]]) -> Cmd {
    let mut command = redis::cmd(verb);
    command.arg(script).arg(keys.len()).arg(keys);
    for arg in args {
        command.arg(*arg);
    }
    command
}
