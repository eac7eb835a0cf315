//! One logical request: what its caller wants of it, what is known while it runs, what is reported at its end.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use tidegate_core::classify::Delivery;
use tidegate_core::key::Family;
use tidegate_core::pace::{CallerId, Class, Refusal};
use tidegate_core::time::Mono;
use tokio::sync::watch;

use crate::credential::Credential;
use crate::layer::{OnConflict, ReconcileBy};

/// What the caller wants of a call. Put it into the request's extensions, or let [`Client`](crate::Client) do it.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// Its class; `interactive` unless said otherwise.
    pub class: Option<Class>,
    /// Whose it is: callers of one class get equal shares of what they compete for. Unless said otherwise all calls made
    /// as one credential are one caller's.
    pub caller: Option<CallerId>,
    /// After this time the answer is worthless.
    pub deadline: Option<Duration>,
    /// The longest time from now until the last attempt has to have left, less what the upstream commonly takes.
    pub max_wait: Option<Duration>,
    /// The transaction this call belongs to. The same transaction and payload carry the same idempotency key on
    /// every attempt and after every restart.
    pub transaction: Option<String>,
    /// A key that was made and stored before, sent as it is.
    pub key: Option<String>,
    /// Overrides what the method says about executing twice.
    pub idempotent: Option<bool>,
    /// It changes nothing although its method could, as a search by POST: it has the time-out of a read, ends with its caller,
    /// and leaves no doubt. The profile's word for its route unless said here.
    pub safe: bool,
    /// How long before this call the same write was already sent with an outcome nobody knows, from a journal.
    pub sent_before: Option<Duration>,
    /// How long before this call the last of those sends had ended, at least: so long the upstream had time to show what it
    /// executed. None of it, unless said otherwise.
    pub lost_before: Option<Duration>,
    /// Whether what was [sent before](Self::sent_before) is looked for also where sending it again would do no harm by itself:
    /// others may have written since. Needs a rule with [`Absent::Unchanged`](tidegate_core::reconcile::Absent); false unless said otherwise.
    pub asks_first: bool,
    /// Becomes true when no further attempt is wanted. An attempt that has left is awaited, a wait for another one ends at
    /// once, with what is known of the earlier ones. A call that has not been sent at all is simply dropped instead.
    pub called_off: Option<watch::Receiver<bool>>,
    /// How to find out what became of the call where its outcome is unknown; it stays unknown unless said otherwise. Only for
    /// bodies in memory.
    pub reconcile: Option<ReconcileBy>,
    /// Applies the change to what its entity has become where the upstream refuses it for that; the refusal is delivered
    /// unless said otherwise. Needs a rule that says how to read the entity, and finds out by it as `reconcile` does.
    pub conflict: Option<OnConflict>,
    /// Who the call is made as; the client's own credential unless said otherwise.
    pub credential: Option<Credential>,
}

/// The shortest time that is called a wait.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// What became of a call. In the extensions of every response, and in every error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallReport {
    /// Attempts sent.
    pub attempts: u32,
    /// When the last of them left; `None` if none was sent. What an answer shows is not older than this.
    pub left_at: Option<Mono>,
    /// Time spent waiting for tickets and ordered pauses.
    pub waited: Duration,
    /// What explains the longest wait: a limit, or a pause between attempts. Of a call that was refused: the limit that
    /// refused it, or the family whose breaker did.
    pub limit: Option<Arc<str>>,
    /// The idempotency key that was sent.
    pub key: Option<String>,
    /// The latest status an attempt was answered with, also where that does not tell what became of the call.
    pub status: Option<u16>,
    /// What the end of the last attempt says about execution; `None` if none was sent. A 401 counts as refused: it was not
    /// executed.
    pub delivery: Option<Delivery>,
    /// An attempt may have been executed before the one that was answered.
    pub doubtful: bool,
    /// The answer settles that doubt though it is a conflict: the upstream recognises the key, and would have answered as it did
    /// then.
    pub settled: bool,
    /// The answer is a 401: another token of the credential did not help, or could not be tried.
    pub unauthorized: bool,
    /// The answer is a 403 that says so: the permissions its credential lacks, as the upstream names them, separated by
    /// commas. Every other call of the kind will be answered the same until the credential's role is given them.
    pub missing: Option<Arc<str>>,
}

/// Returns when `signal` says that no further attempt is wanted; never if nobody can say so.
pub(crate) async fn called_off(signal: Option<watch::Receiver<bool>>) {
    if let Some(mut signal) = signal
        && signal.wait_for(|off| *off).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// What is known of a call while it runs; shared by the layers through its attempts.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// The target for messages: path only, since queries can hold personal data.
    pub(crate) path: String,
    pub(crate) family: Family,
    pub(crate) class: Class,
    pub(crate) caller: CallerId,
    pub(crate) credential: Credential,
    pub(crate) started: Mono,
    /// The answer is worthless after this.
    pub(crate) deadline: Option<Mono>,
    /// The last attempt has to leave before this.
    pub(crate) give_up_at: Option<Mono>,
    pub(crate) key: Option<String>,
    pub(crate) idempotent: Option<bool>,
    /// It is known to change nothing, whatever its method.
    pub(crate) safe: bool,
    /// How long the upstream is trusted to recognise the key.
    pub(crate) dedup: Option<Duration>,
    /// How long before this call the same write was already sent, with an outcome nobody knows.
    pub(crate) sent_before: Option<Duration>,
    /// An earlier call has sent the same write.
    pub(crate) further: bool,
    /// Somebody finds out what became of it where its answer leaves doubt.
    pub(crate) looked_after: bool,
    /// For how long what it is about, which is new, may not be found.
    pub(crate) fresh_for: Option<Duration>,
    called_off: Option<watch::Receiver<bool>>,
    attempts: AtomicU32,
    left_at: Mutex<Option<Mono>>,
    /// 0 until there is one.
    status: AtomicU16,
    delivery: Mutex<Option<Delivery>>,
    doubtful: AtomicBool,
    settled: AtomicBool,
    unauthorized: AtomicBool,
    waited_nanos: AtomicU64,
    limit: Mutex<Option<(Duration, Arc<str>)>>,
    refused: OnceLock<Refusal>,
    missing: OnceLock<Arc<str>>,
}

impl Call {
    pub(crate) fn new(
        method: Method,
        path: String,
        family: Family,
        options: &CallOptions,
        credential: Credential,
        started: Mono,
        give_up_at: Option<Mono>,
    ) -> Self {
        Self {
            method,
            path,
            family,
            class: options.class.unwrap_or(Class::Interactive),
            caller: options.caller.unwrap_or_else(|| CallerId::named(credential.id())),
            credential,
            started,
            deadline: options.deadline.map(|after| started + after),
            give_up_at,
            key: options.key.clone(),
            idempotent: options.idempotent,
            safe: options.safe,
            dedup: None,
            sent_before: options.sent_before,
            further: false,
            looked_after: options.reconcile.is_some() || options.conflict.is_some(),
            fresh_for: None,
            called_off: options.called_off.clone(),
            attempts: AtomicU32::new(0),
            left_at: Mutex::new(None),
            status: AtomicU16::new(0),
            delivery: Mutex::new(None),
            doubtful: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            unauthorized: AtomicBool::new(false),
            waited_nanos: AtomicU64::new(0),
            limit: Mutex::new(None),
            refused: OnceLock::new(),
            missing: OnceLock::new(),
        }
    }

    /// Returns when no further attempt is wanted; never if nobody can say so.
    pub(crate) async fn called_off(&self) {
        called_off(self.called_off.clone()).await;
    }

    /// Whether it changes nothing: a safe method, or what is known to be a read, unless its caller calls it harmful.
    pub(crate) fn is_read(&self) -> bool {
        (self.safe || self.method.is_safe()) && self.idempotent != Some(false)
    }

    /// An attempt leaves.
    pub(crate) fn count_attempt(&self, now: Mono) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        *self.left_at.lock() = Some(now);
    }

    pub(crate) fn note_status(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    pub(crate) fn note_delivery(&self, delivery: Delivery) {
        *self.delivery.lock() = Some(delivery);
    }

    pub(crate) fn note_doubtful(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    pub(crate) fn note_settled(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn note_unauthorized(&self) {
        self.unauthorized.store(true, Ordering::Relaxed);
    }

    /// The answer says which permission is missing.
    pub(crate) fn note_missing(&self, missing: Arc<str>) {
        self.missing.get_or_init(|| missing);
    }

    /// An attempt was refused, which ends the call.
    pub(crate) fn note_refusal(&self, refusal: Refusal) {
        self.refused.get_or_init(|| refusal);
    }

    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.refused.get()
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Adds a wait and, if it is the longest yet, remembers the limit that explains it. What is shorter than
    /// [`LEAST_WAIT`] is the time a decision takes, which no limit explains.
    pub(crate) fn add_wait(&self, waited: Duration, limit: impl FnOnce() -> Arc<str>) {
        if waited < LEAST_WAIT {
            return;
        }
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.waited_nanos.fetch_add(nanos, Ordering::Relaxed);
        let mut longest = self.limit.lock();
        if longest.as_ref().is_none_or(|(length, _)| waited > *length) {
            *longest = Some((waited, limit()));
        }
    }

    pub(crate) fn report(&self) -> CallReport {
        CallReport {
            attempts: self.attempts(),
            left_at: *self.left_at.lock(),
            waited: Duration::from_nanos(self.waited_nanos.load(Ordering::Relaxed)),
            limit: match self.refusal() {
                Some(refusal) => Some(Arc::clone(&refusal.limit)),
                None => self.limit.lock().as_ref().map(|(_, limit)| Arc::clone(limit)),
            },
            key: self.key.clone(),
            status: Some(self.status.load(Ordering::Relaxed)).filter(|status| *status != 0),
            delivery: *self.delivery.lock(),
            doubtful: self.doubtful.load(Ordering::Relaxed),
            settled: self.settled.load(Ordering::Relaxed),
            unauthorized: self.unauthorized.load(Ordering::Relaxed),
            missing: self.missing.get().cloned(),
        }
    }
}
