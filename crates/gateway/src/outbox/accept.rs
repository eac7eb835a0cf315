//! Takes writes in, and keeps places for those whose callers wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use tidegate::{Class, Credential, ResponseBody};
use tidegate_core::key::normalise;
use tidegate_core::outbox::{Full, New, Seat, Seq};
use tidegate_core::time::Wall;
use tidegate_store::outbox::{Keyed, Kind, Letter};

use super::prefer::{Prefers, applied};
use super::{Outbox, group_of, status};
use crate::hygiene::Refused;
use crate::once::{Write, transaction_of};
use crate::respond;
use crate::tenants::Started;

/// Puts writes to several targets into one order.
const ORDER_KEY: HeaderName = HeaderName::from_static("tidegate-order-key");

/// The longest of them.
const MAX_ORDER_KEY: usize = 255;

/// The longest that a caller who prefers an answer later waits for it now.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// Fields that are secrets of a caller. They are never written down, so a write with one is answered at once.
const SECRETS: [HeaderName; 5] = [
    AUTHORIZATION,
    COOKIE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-auth-token"),
];

/// What a write asks of the outbox.
#[derive(Debug)]
pub(crate) struct Asked {
    /// It may be answered later.
    pub(crate) prefers: Option<Prefers>,
    /// Its caller's name for an order ([`ORDER_KEY`]).
    pub(crate) order_key: Option<String>,
    /// Who may look at it: the caller's name; empty for those who have none.
    pub(crate) owner: String,
    /// What its path began with, and its status URL has to begin with.
    pub(crate) prefix: String,
    /// Whether it came with a token of its own.
    pub(crate) has_token: bool,
}

impl Asked {
    /// The order key of a request.
    pub(crate) fn order_key(headers: &HeaderMap) -> Result<Option<String>, Refused> {
        let Some(value) = headers.get(&ORDER_KEY) else { return Ok(None) };
        let text = value.to_str().map(str::trim).unwrap_or_default();
        if text.is_empty() || text.len() > MAX_ORDER_KEY {
            return Err(Refused {
                status: StatusCode::BAD_REQUEST,
                reason: "invalid-request",
                message: format!("{ORDER_KEY}: expected 1 to {MAX_ORDER_KEY} characters of ASCII"),
            });
        }
        Ok(Some(text.to_owned()))
    }
}

/// The place of a write whose caller waits; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct SeatHeld {
    outbox: Arc<Outbox>,
    seat: Seat,
}

impl Drop for SeatHeld {
    fn drop(&mut self) {
        self.outbox.machine.lock().rise(&self.seat);
        self.outbox.changed();
    }
}

impl Outbox {
    /// Answers a write from the outbox, or gives it back to be sent now, with its place behind what is before it.
    pub(crate) async fn take(
        self: &Arc<Self>,
        served: &Started,
        mut write: Write,
        asked: &Asked,
    ) -> Result<Response<ResponseBody>, Write> {
        let shape = served.tenant.shape();
        if let Some(key) = write.key.clone() {
            let one_at_a_time = self.lock_of(&key).lock().await;
            let new = served.once.entry(&write, write.caller.clone(), key);
            match self.file.find_key(new.scope, new.key.clone()).await {
                Ok(Some((_, _, payload))) if payload != new.payload => return Ok(respond::key_reused(shape)),
                Ok(Some((seq, id, _))) => {
                    drop(one_at_a_time);
                    return Ok(self.again(served, seq, &id, asked).await);
                }
                Ok(None) => {}
                Err(error) => return Ok(status::not_stored(shape, &error)),
            }
            // What was begun without the outbox goes on without it.
            let known = match served.once.knows(&new).await {
                Ok(known) => known,
                Err(error) => return Ok(respond::ledger_failed(shape, &error)),
            };
            if !known && let Some((class, credential)) = may_wait(served, &write, asked) {
                let keyed = Keyed { scope: new.scope, key: new.key.clone(), payload: new.payload };
                let transaction = transaction_of(&new);
                let letter =
                    self.letter(served, &write, asked, class, credential, Some(keyed), Some(transaction));
                return Ok(match self.put(shape, letter).await {
                    Ok((seq, id)) => {
                        drop(one_at_a_time);
                        self.accepted(served, seq, &id, asked).await
                    }
                    Err(refused) => refused,
                });
            }
        } else if let Some((class, credential)) = may_wait(served, &write, asked) {
            let letter = self.letter(served, &write, asked, class, credential, None, None);
            return Ok(match self.put(shape, letter).await {
                Ok((seq, id)) => self.accepted(served, seq, &id, asked).await,
                Err(refused) => refused,
            });
        }
        let lines = lines(served, &write, asked);
        match self.behind(lines, write.options.deadline).await {
            Ok(seat) => {
                write.seat = seat;
                Err(write)
            }
            Err(wait) => Ok(respond::too_many_requests(shape, wait, "behind-outbox")),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is one field of what is stored")]
    fn letter(
        &self,
        served: &Started,
        write: &Write,
        asked: &Asked,
        class: Class,
        credential: String,
        keyed: Option<Keyed>,
        transaction: Option<String>,
    ) -> Letter {
        let tenant = served.tenant.upstream.tenant().to_string();
        let wall = self.clock.wall();
        let later = |after: Duration| {
            let after = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
            Wall::from_unix_millis(wall.unix_millis().saturating_add(after))
        };
        // The last one orders; where it is not the target's, the target is marked.
        let mut lines = lines(served, write, asked);
        let line = lines.pop().unwrap_or_default();
        let mark = lines.pop();
        let mut headers = write.request.headers().clone();
        applied(&mut headers);
        let target = write.request.uri().path_and_query().map_or("/", |target| target.as_str());
        Letter {
            seq: 0,
            id: String::new(),
            kind: Kind::Write,
            group: group_of(&tenant),
            line,
            mark,
            keyed,
            method: write.request.method().to_string(),
            target: target.to_owned(),
            headers: status::as_text(&headers),
            body: write.request.body().bytes().map(|body| body.to_vec()).unwrap_or_default(),
            class: class.name().to_owned(),
            credential,
            transaction: transaction.unwrap_or_else(|| format!("outbox {:032x}", self.clock.random_id())),
            deadline: write.options.deadline.map(later),
            since: wall,
            owner: asked.owner.clone(),
            tenant,
        }
    }

    /// Writes an entry down and takes it in. Returns its number and name.
    pub(super) async fn put(
        self: &Arc<Self>,
        shape: tidegate_core::profile::ErrorShape,
        letter: Letter,
    ) -> Result<(Seq, String), Response<ResponseBody>> {
        // Of several tenants none takes more than half of what all have.
        let own = (self.tenants.len() > 1).then_some((letter.group.clone(), self.bounds.entries / 2));
        self.store(letter, own).await.map_err(|why| match why {
            NotStored::Full(full) => status::full(shape, full, self.file.path()),
            NotStored::Disk(error) => status::not_stored(shape, &error),
        })
    }

    /// The same; `own`: a group, and how many that are not delivered it may have.
    pub(super) async fn store(
        self: &Arc<Self>,
        mut letter: Letter,
        own: Option<(String, usize)>,
    ) -> Result<(Seq, String), NotStored> {
        let bytes = (letter.body.len() + letter.headers.len()) as u64;
        let own = own.as_ref().map(|(group, most)| (group.as_str(), *most));
        let gone = self.machine.lock().admit(bytes, own).map_err(NotStored::Full)?;
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        letter.seq = seq;
        letter.id = self.id(seq, &letter.tenant, &letter.owner);
        let now = self.clock.now();
        let new = New {
            seq,
            group: letter.group.as_str().into(),
            lines: vec![letter.line.as_str().into()],
            marks: letter.mark.iter().map(|mark| mark.as_str().into()).collect(),
            bytes,
            deadline: letter.deadline.map(|deadline| now + deadline.since(letter.since).unwrap_or_default()),
            since: now,
        };
        let id = letter.id.clone();
        // In a task of its own: a caller that hangs up leaves nothing on disk that nobody knows of.
        let this = Arc::clone(self);
        let stored = tokio::spawn(async move {
            let stored = this.file.put(letter, gone).await;
            match &stored {
                Ok(()) => this.machine.lock().add(new),
                Err(_) => this.machine.lock().give_up(bytes),
            }
            this.changed();
            stored
        });
        stored.await.expect("storing does not panic").map_err(NotStored::Disk)?;
        Ok((seq, id))
    }

    /// Waits until no entry is before a write; `None` if none was. Nothing was sent if it takes too long; then when to ask again.
    async fn behind(
        self: &Arc<Self>,
        lines: Vec<String>,
        deadline: Option<Duration>,
    ) -> Result<Option<SeatHeld>, Duration> {
        let lines: Vec<Arc<str>> = lines.into_iter().map(Arc::from).collect();
        let Some(seat) = self.machine.lock().seat(&lines) else { return Ok(None) };
        let held = SeatHeld { outbox: Arc::clone(self), seat };
        let mut changed = self.changed.subscribe();
        let free = async {
            while !self.machine.lock().may_go(&held.seat) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let patience = deadline.map_or(self.max_wait, |deadline| deadline.min(self.max_wait));
        match tokio::time::timeout(patience, free).await {
            Ok(()) => Ok(Some(held)),
            Err(_) => Err(Duration::from_secs(5)),
        }
    }

    /// Answers who sent a write that is here: now, if it is over as soon as the caller waits for it.
    async fn accepted(
        self: &Arc<Self>,
        served: &Started,
        seq: Seq,
        id: &str,
        asked: &Asked,
    ) -> Response<ResponseBody> {
        let shape = served.tenant.shape();
        let wait = asked.prefers.and_then(|prefers| prefers.wait).map(|wait| wait.min(MAX_WAIT));
        if let Some(wait) = wait
            && self.over(seq, self.clock.now() + wait).await
            && let Some(answer) = self.answer(shape, seq).await
        {
            return status::preference_applied(answer, false, Some(wait));
        }
        status::preference_applied(self.told(shape, seq, id, asked, true).await, true, wait)
    }

    /// Answers who sent a write again under its key.
    async fn again(
        self: &Arc<Self>,
        served: &Started,
        seq: Seq,
        id: &str,
        asked: &Asked,
    ) -> Response<ResponseBody> {
        if asked.prefers.is_some() {
            return self.accepted(served, seq, id, asked).await;
        }
        let shape = served.tenant.shape();
        if self.over(seq, self.clock.now() + self.max_wait).await
            && let Some(answer) = self.answer(shape, seq).await
        {
            return respond::replayed(answer);
        }
        respond::in_flight(shape)
    }
}

/// The lines of a write: that of its target, and that of its caller's order.
fn lines(served: &Started, write: &Write, asked: &Asked) -> Vec<String> {
    let tenant = served.tenant.upstream.tenant();
    let path = write.request.uri().path();
    let path = normalise(path).map_or_else(|_| path.to_owned(), std::borrow::Cow::into_owned);
    let target = format!("path {tenant} {}", path.trim_end_matches('/'));
    let ordered = asked.order_key.as_ref().map(|key| format!("key {tenant} {} {key}", asked.owner));
    [target].into_iter().chain(ordered).collect()
}

/// Why an entry is not taken in.
#[derive(Debug)]
pub(super) enum NotStored {
    Full(Full),
    Disk(tidegate_store::outbox::OutboxError),
}

/// Whether a write can be sent later, and then in which class and as whom. Only with a configured credential: any other dies
/// with the process, or is the caller's own and must not be written down. A preference that cannot be honoured is ignored
/// (RFC 7240, section 2).
fn may_wait(served: &Started, write: &Write, asked: &Asked) -> Option<(Class, String)> {
    asked.prefers?;
    let has_secret = SECRETS.iter().any(|name| write.request.headers().contains_key(name));
    if asked.has_token || has_secret {
        return None;
    }
    // Who does not wait and does not say how urgent it is, is in no hurry.
    let class = write.options.class.unwrap_or(Class::Bulk);
    match served.tenant.upstream.credential_for(class) {
        Credential::Managed(manager) => Some((class, manager.id().to_string())),
        _ => None,
    }
}
