//! Read, apply, write on condition, and again where somebody was faster.
//!
//! The condition is the version that was read. A write that loses brings the item as it is now, so what follows is one more
//! write and no read. Who loses waits a little by chance, longer each time, so that many do not lose to each other again.
//!
//! A write whose answer is lost may have happened. It is not repeated blindly: whoever asks again applies the change to what
//! is there, and both kinds of change know themselves again (an exchange by its number, a lock by who holds it).
//!
//! **The last item seen is kept.** While nobody else writes it, it need not be read: a change is one write. Once somebody else
//! has, it is read first, because a write that loses costs as much as one that wins and five times a read; and it is kept
//! again when a read has found it unchanged.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_core::share::{At, Unanswered};
use tidegate_quota::StoreError;
use tokio::time::Instant;

use crate::clock::Reading;
use crate::config::DynamoConfig;
use crate::fault::Fault;
use crate::item::{Attributes, KEY, Seen, VERSION};
use crate::table::{self, Failed};
use crate::wire::{Sent, Until, Wire};

/// The longest wait after a write that lost, at first; twice as long each time, up to a limit.
const PAUSE: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(64));
/// Items kept: a process has a bank for each tenant.
const KEPT: usize = 256;

/// What becomes of an item.
pub(crate) enum Act<T, R> {
    /// It is written, may be deleted from then on, and this is the answer.
    Write(T, At, R),
    /// It stays as it is, and this is the answer.
    Leave(R),
}

/// What was last seen of an item.
#[derive(Debug)]
struct Known {
    seen: Option<Seen>,
    /// Nobody else wrote it between the last two looks.
    alone: bool,
}

/// What a change begins with.
struct Begun {
    seen: Option<Seen>,
    /// It is this process's alone, as far as one can tell.
    alone: bool,
    /// It was there a moment ago, and not only when it was last written.
    looked: bool,
}

/// What became of a write.
enum Written {
    Done,
    /// Somebody else has written; this is there now.
    Lost(Option<Seen>),
}

/// The items of a table.
#[derive(Debug)]
pub(crate) struct Items {
    pub(crate) wire: Wire,
    pub(crate) config: DynamoConfig,
    known: Mutex<HashMap<String, Known>>,
}

impl Items {
    pub(crate) fn new(config: DynamoConfig, aws: Option<SdkConfig>) -> Self {
        Self { wire: Wire::new(config.clone(), aws), config, known: Mutex::default() }
    }

    /// Applies `act` to the state of an item and writes it, until nobody else has written meanwhile. `act` is called again
    /// after a write that lost, and gets no state where there is none or its life is over.
    pub(crate) async fn change<T, R>(
        &self,
        id: &str,
        act: impl FnMut(Option<T>, Reading) -> Result<Act<T, R>, Unanswered>,
    ) -> Result<R, StoreError>
    where
        T: Serialize + DeserializeOwned,
    {
        let until = Until::after(self.config.timeout);
        match self.try_change(id, until, act).await {
            Ok(answer) => Ok(answer),
            Err(failed) => Err(self.told(failed).await),
        }
    }

    async fn try_change<T, R>(
        &self,
        id: &str,
        until: Until,
        mut act: impl FnMut(Option<T>, Reading) -> Result<Act<T, R>, Unanswered>,
    ) -> Result<R, Failed>
    where
        T: Serialize + DeserializeOwned,
    {
        let Begun { mut seen, mut alone, mut looked } = self.begin(id, until).await?;
        let mut pause = PAUSE.0;
        let mut lost = 0;
        loop {
            let now = self.time(id, seen.as_ref())?;
            let state = seen.as_ref().map(Seen::state).transpose();
            let state = state.map_err(|strange| (Fault::of_item(id, strange), None))?;
            let (state, expires, answer) = match act(state, now) {
                Ok(Act::Write(state, expires, answer)) => (state, expires, answer),
                // What changes nothing is not checked by a write, so it must not rest on what was there once.
                Ok(Act::Leave(_)) | Err(_) if !looked => {
                    (seen, looked) = (self.read(id, until).await?, true);
                    continue;
                }
                Ok(Act::Leave(answer)) => {
                    self.keep(id, seen, alone);
                    return Ok(answer);
                }
                Err(why) => return Err((Fault::Unanswered(why), None)),
            };
            let next = Seen::next(seen.as_ref(), now.now, &state);
            let next = next.map_err(|strange| (Fault::of_item(id, strange), None))?;
            match self.write(id, until, seen.as_ref(), &next, expires).await? {
                Written::Done => {
                    self.keep(id, Some(next), alone);
                    return Ok(answer);
                }
                Written::Lost(there) => (seen, alone, looked) = (there, false, true),
            }
            lost += 1;
            let wait = pause.mul_f64(fastrand::f64());
            if Instant::now() + wait >= until.at {
                let why = format!(
                    "other processes were faster {lost} times within {} ms",
                    self.config.timeout.as_millis()
                );
                return Err((Fault::Away { why, broken: false }, None));
            }
            tokio::time::sleep(wait).await;
            pause = (2 * pause).min(PAUSE.1);
        }
    }

    /// The item to begin with: the one that is kept, or the one that is there.
    async fn begin(&self, id: &str, until: Until) -> Result<Begun, Failed> {
        // It is taken out: a write whose outcome is not known must not leave it behind.
        let known = self.known.lock().remove(id);
        if let Some(Known { seen, alone: true }) = known {
            return Ok(Begun { seen, alone: true, looked: false });
        }
        let seen = self.read(id, until).await?;
        let version = |seen: &Option<Seen>| seen.as_ref().map(|seen| seen.version);
        let alone = match known {
            Some(known) => version(&known.seen) == version(&seen),
            None => seen.is_none(),
        };
        Ok(Begun { seen, alone, looked: true })
    }

    fn keep(&self, id: &str, seen: Option<Seen>, alone: bool) {
        let mut known = self.known.lock();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(id.to_owned(), Known { seen, alone });
    }

    /// The time, given what the item says that it was.
    pub(crate) fn time(&self, id: &str, seen: Option<&Seen>) -> Result<Reading, Failed> {
        let state = seen.map_or(0, |seen| seen.at);
        match self.wire.clock.read(state, Instant::now()) {
            Some(Ok(reading)) => Ok(reading),
            Some(Err(ahead)) => Err((Fault::of_future(id, ahead), None)),
            None => Err((Fault::strange("it has no Date, so the time is not known"), None)),
        }
    }

    /// Reads an item as it is now.
    pub(crate) async fn read(&self, id: &str, until: Until) -> Result<Option<Seen>, Failed> {
        let (table, key, ear) =
            (self.config.table.clone(), AttributeValue::S(id.to_owned()), self.wire.ear());
        let answer = self
            .wire
            .send(until, move |client| async move {
                let request = client.get_item().table_name(table).key(KEY, key).consistent_read(true);
                request.customize().interceptor(ear).send().await
            })
            .await?;
        seen(id, answer.item())
    }

    async fn write(
        &self,
        id: &str,
        until: Until,
        before: Option<&Seen>,
        next: &Seen,
        expires: At,
    ) -> Result<Written, Failed> {
        let (table, ear) = (self.config.table.clone(), self.wire.ear());
        let (item, before) = (next.attributes(id, expires), before.map(|seen| seen.version));
        let sent = self
            .wire
            .try_send(until, move |client| async move {
                let request = client
                    .put_item()
                    .table_name(table)
                    .set_item(Some(item))
                    .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
                let request = match before {
                    // `version` is no reserved word; it is named through a place holder all the same, as all names should be.
                    Some(version) => request
                        .condition_expression("#version = :seen")
                        .expression_attribute_names("#version", VERSION)
                        .expression_attribute_values(":seen", AttributeValue::N(version.to_string())),
                    None => request
                        .condition_expression("attribute_not_exists(#id)")
                        .expression_attribute_names("#id", KEY),
                };
                request.customize().interceptor(ear).send().await
            })
            .await?;
        match sent {
            Sent::Answered(_) => Ok(Written::Done),
            Sent::Late => Err((until.late(), None)),
            Sent::Refused(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(lost)) => {
                    Ok(Written::Lost(seen(id, lost.item())?))
                }
                _ => Err((Fault::of(&error), None)),
            },
        }
    }

    /// For the caller. A table that does not take an item is looked at, so that what is wrong with it can be told.
    pub(crate) async fn told(&self, failed: Failed) -> StoreError {
        let (mut fault, retry_after) = failed;
        if let Fault::NotItsKey(_) = fault
            && let Ok(found) =
                table::look(&self.wire, &self.config.table, Until::after(self.config.timeout)).await
            && let Err(wrong) = found.fits()
        {
            fault = wrong;
        }
        fault.told(&self.config.name(), retry_after)
    }
}

fn seen(id: &str, item: Option<&Attributes>) -> Result<Option<Seen>, Failed> {
    item.map(Seen::of).transpose().map_err(|strange| (Fault::of_item(id, strange), None))
}
