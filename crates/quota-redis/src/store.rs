//! The store: each operation is one script on one connection, within the caller's patience.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use redis::{FromRedisValue, Value};
use tidegate_core::share::{BankKey, Exchange, HolderId, LimitKey, LimitView, Reply, Unanswered};
use tidegate_quota::{About, Kept, Lock, Name, Store, StoreError};

use crate::cause;
use crate::config::RedisConfig;
use crate::fault::Fault;
use crate::keys::Keys;
use crate::link::{Lent, Link};
use crate::script::{self, Script, Scripts};
use crate::target::{Target, Wire};

/// A store in Redis or Valkey.
#[derive(Debug)]
pub struct RedisStore {
    link: Link,
    scripts: Scripts,
    prefix: String,
    timeout: Duration,
}

/// A check may take as long as a connection takes, and a little.
const CHECK: Duration = Duration::from_millis(1_500);
/// The oldest server that is known to do all.
const OLDEST: (u32, u32) = (6, 2);
/// No lock and no value lives longer: 10 years, which keeps instants exact in the script.
const LONGEST_MS: u128 = 315_360_000_000;

impl RedisStore {
    /// A store that connects when it is first asked.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] where the configuration is wrong; nothing is asked of the server yet.
    pub fn new(config: RedisConfig) -> Result<Self, StoreError> {
        let target = Target::new(&config)?;
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_./:".contains(letter);
        if config.prefix.is_empty() || !config.prefix.chars().all(allowed) {
            return Err(StoreError::Unusable {
                store: target.name().to_owned(),
                why: format!("the prefix `{}` has other letters", config.prefix),
                hint: "quota.prefix has letters, digits and -_./: only".to_owned(),
            });
        }
        let RedisConfig { prefix, timeout, .. } = config;
        Ok(Self { link: Link::new(target), scripts: Scripts::new(), prefix, timeout })
    }

    /// The same store in the time that stands under the key `now`.
    #[cfg(test)]
    pub(crate) fn in_made_time(self) -> Self {
        Self { scripts: Scripts::in_made_time(), ..self }
    }

    /// Does something on the connection, within `patience` in all.
    async fn within<T, F>(&self, patience: Duration, action: F) -> Result<T, StoreError>
    where
        F: AsyncFnOnce(&mut Wire) -> Result<T, Fault>,
    {
        let begun = tokio::time::Instant::now();
        let mut lent = self
            .link
            .lend(patience)
            .await
            .map_err(|refused| refused.fault.told(self.link.name(), refused.retry_after))?;
        let rest = patience.saturating_sub(begun.elapsed());
        let answer = tokio::time::timeout(rest, action(&mut lent.wire)).await;
        self.judge(&lent, answer.ok(), patience)
    }

    /// What became of it, for the connection and for the caller.
    fn judge<T>(
        &self,
        lent: &Lent,
        answer: Option<Result<T, Fault>>,
        patience: Duration,
    ) -> Result<T, StoreError> {
        let fault = match answer {
            Some(Ok(value)) => {
                self.link.answered(lent);
                return Ok(value);
            }
            Some(Err(fault)) => {
                match &fault {
                    Fault::Away { broken: true, .. } => self.link.broke(lent, &fault),
                    _ => self.link.answered(lent),
                }
                fault
            }
            None => {
                self.link.was_late(lent, patience);
                Fault::late(patience)
            }
        };
        Err(fault.told(self.link.name(), None))
    }

    async fn run_locks<T: FromRedisValue>(&self, name: &Name, args: &[&[u8]]) -> Result<T, StoreError> {
        let keys = [Keys::slot(&self.prefix, name)];
        self.within(self.timeout, async |wire| run(wire, &self.scripts.locks, &keys, args).await).await
    }

    async fn exchange_now(&self, bank: BankKey, said: &Exchange) -> Result<Reply, StoreError> {
        let typed = Keys::new(&self.prefix, bank).of_exchange(said);
        let keys: Vec<String> = typed.iter().map(|(key, _)| key.clone()).collect();
        let text = serde_json::to_vec(said).expect("an exchange is plain data");
        let answer: String = self
            .within(self.timeout, async |wire| {
                match run(wire, &self.scripts.exchange, &keys, &[&text]).await {
                    Err(fault) => Err(cause::name(wire, &typed, fault).await),
                    answer => answer,
                }
            })
            .await?;
        let reply: Result<Reply, Unanswered> = self.parse(&answer)?;
        Ok(reply?)
    }

    async fn view_now(&self, bank: BankKey) -> Result<Vec<LimitView>, StoreError> {
        let keys = Keys::new(&self.prefix, bank);
        let answer: String = self
            .within(CHECK, async |wire| {
                let fields: Vec<String> = match wire.query(redis::cmd("HKEYS").arg(keys.bank())).await {
                    Ok(fields) => fields,
                    Err(error) => return Err(cause::name(wire, &keys.of(&[]), Fault::of(&error)).await),
                };
                let mut limits: Vec<LimitKey> = fields.iter().filter_map(|field| limit_of(field)).collect();
                limits.sort_unstable();
                let typed = keys.of(&limits);
                let names: Vec<String> = typed.iter().map(|(key, _)| key.clone()).collect();
                let words: Vec<String> = limits.iter().map(LimitKey::to_string).collect();
                let mut args: Vec<&[u8]> = vec![b"view"];
                args.extend(words.iter().map(String::as_bytes));
                match run(wire, &self.scripts.exchange, &names, &args).await {
                    Err(fault) => Err(cause::name(wire, &typed, fault).await),
                    answer => answer,
                }
            })
            .await?;
        let views: Result<Vec<LimitView>, Unanswered> = self.parse(&answer)?;
        Ok(views?)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, text: &str) -> Result<T, StoreError> {
        serde_json::from_str(text).map_err(|error| Fault::strange(error).told(self.link.name(), None))
    }

    async fn lock_now(&self, name: &Name, who: HolderId, life: Duration) -> Result<Lock, StoreError> {
        let (who, life) = (who.to_string(), millis(life));
        let (yours, fence, left): (u8, u64, u64) =
            self.run_locks(name, &[b"lock", who.as_bytes(), life.as_bytes()]).await?;
        Ok(match yours {
            1 => Lock::Yours { fence },
            _ => Lock::Held { fence, left: Duration::from_millis(left) },
        })
    }

    async fn put_now(
        &self,
        name: &Name,
        fence: u64,
        bytes: &[u8],
        life: Duration,
    ) -> Result<bool, StoreError> {
        let (fence, life) = (fence.to_string(), millis(life));
        self.run_locks(name, &[b"put", fence.as_bytes(), bytes, life.as_bytes()]).await
    }

    async fn get_now(&self, name: &Name) -> Result<Option<Kept>, StoreError> {
        let found: Option<(u64, Vec<u8>, u64)> = self.run_locks(name, &[b"get"]).await?;
        Ok(found.map(|(fence, bytes, left)| Kept { fence, bytes, left: Duration::from_millis(left) }))
    }

    async fn check_now(&self) -> Result<About, StoreError> {
        // A bank of its own: each command that an exchange uses is tried on keys like those of any bank, and nothing stays.
        let typed = Keys::new(&self.prefix, BankKey::of("tidegate", "check")).of(&[LimitKey([0; 8])]);
        let keys: Vec<String> = typed.iter().map(|(key, _)| key.clone()).collect();
        let said = self
            .within(CHECK, async |wire| {
                let said: Value =
                    wire.query(redis::cmd("INFO").arg("server")).await.map_err(|error| Fault::of(&error))?;
                // What only some paths need: scripts that the server has lost, `quota show`, a key of another type.
                let some = &keys[0];
                for command in [
                    redis::cmd("EVAL").arg("return 1").arg(1).arg(some),
                    redis::cmd("HKEYS").arg(some),
                    redis::cmd("TYPE").arg(some),
                ] {
                    if let Err(error) = wire.query::<Value>(command).await {
                        return Err(cause::name(wire, &typed, Fault::of(&error)).await);
                    }
                }
                match run::<String>(wire, &self.scripts.exchange, &keys, &[b"check"]).await {
                    Err(fault) => Err(cause::name(wire, &typed, fault).await),
                    Ok(_) => Ok(said),
                }
            })
            .await?;
        let server = Server::of(&said);
        if server.number < OLDEST {
            let fault = Fault::Unusable {
                why: format!("it is {} {}", server.kind, server.version),
                hint: format!("Redis {}.{} or newer, or Valkey, is needed", OLDEST.0, OLDEST.1),
            };
            return Err(fault.told(self.link.name(), None));
        }
        let place = self.link.name().trim_start_matches("redis ");
        let what = format!("{} {} {place}", server.kind, server.version);
        Ok(About { what, protocol: None })
    }
}

async fn run<T: FromRedisValue>(
    wire: &mut Wire,
    script: &Script,
    keys: &[String],
    args: &[&[u8]],
) -> Result<T, Fault> {
    script::run(wire, script, keys, args).await.map_err(|error| Fault::of(&error))
}

/// The limit that a field of a bank is about.
fn limit_of(field: &str) -> Option<LimitKey> {
    let text = serde_json::Value::String(field.strip_prefix("l:")?.to_owned());
    serde_json::from_value(text).ok()
}

/// Whole milliseconds, rounded up: nothing ends before its time.
fn millis(duration: Duration) -> String {
    duration.as_nanos().div_ceil(1_000_000).min(LONGEST_MS).to_string()
}

/// What `INFO server` says.
struct Server {
    kind: &'static str,
    version: String,
    number: (u32, u32),
}

impl Server {
    /// A cluster answers with a map from node to text; the first stands for all.
    fn of(said: &Value) -> Self {
        let text = match said {
            Value::Map(nodes) => nodes.first().map(|(_, text)| text),
            other => Some(other),
        };
        let text = text.and_then(|text| String::from_redis_value_ref(text).ok()).unwrap_or_default();
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let (kind, version) = match (field("valkey_version"), field("redis_version")) {
            (Some(version), _) => ("valkey", version),
            (None, Some(version)) => ("redis", version),
            (None, None) => ("a server without a version", ""),
        };
        let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
        let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Self { kind, version: version.to_owned(), number }
    }
}

impl Store for RedisStore {
    fn exchange<'a>(&'a self, bank: BankKey, said: &'a Exchange) -> BoxFuture<'a, Result<Reply, StoreError>> {
        self.exchange_now(bank, said).boxed()
    }

    fn lock<'a>(
        &'a self,
        name: &'a Name,
        who: HolderId,
        life: Duration,
    ) -> BoxFuture<'a, Result<Lock, StoreError>> {
        self.lock_now(name, who, life).boxed()
    }

    fn put<'a>(
        &'a self,
        name: &'a Name,
        fence: u64,
        bytes: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.put_now(name, fence, bytes, life).boxed()
    }

    fn get<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Kept>, StoreError>> {
        self.get_now(name).boxed()
    }

    fn unlock<'a>(&'a self, name: &'a Name, fence: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let _: u8 = self.run_locks(name, &[b"unlock", fence.to_string().as_bytes()]).await?;
            Ok(())
        }
        .boxed()
    }

    fn view(&self, bank: BankKey) -> BoxFuture<'_, Result<Vec<LimitView>, StoreError>> {
        self.view_now(bank).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<About, StoreError>> {
        self.check_now().boxed()
    }

    fn name(&self) -> &str {
        self.link.name()
    }

    fn patience(&self) -> Duration {
        self.timeout
    }
}
