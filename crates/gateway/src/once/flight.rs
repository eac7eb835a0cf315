//! One write on its way, and everybody who waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sha2::{Digest, Sha256};
use tidegate_core::idempotency::BodyDigest;
use tidegate_core::time::Mono;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::answer::Ended;
use super::door::Exit;

/// What makes two requests the same write: a hash over caller, method, target, body and the write's own name.
pub(super) type Print = [u8; 32];

/// A hash over `parts` with their lengths, so that no two lists of parts give the same bytes.
pub(super) fn hash(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in std::iter::once(&label.as_bytes()).chain(parts) {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// A write on its way.
#[derive(Debug)]
pub(super) struct Flight {
    /// What is written, of a keyed write.
    pub(super) payload: Option<BodyDigest>,
    pub(super) exit: Exit,
    /// True while nobody waits for it: no further attempt is made.
    off: watch::Sender<bool>,
    ended: watch::Sender<Option<(Ended, Mono)>>,
    /// Changed only under the table's lock.
    waiters: AtomicUsize,
    task: parking_lot::Mutex<Option<AbortHandle>>,
    /// Everybody who waited for it has gone once.
    abandoned: AtomicBool,
}

impl Flight {
    pub(super) fn new(payload: Option<BodyDigest>, exit: Exit) -> Self {
        Self {
            payload,
            exit,
            off: watch::Sender::new(false),
            ended: watch::Sender::new(None),
            waiters: AtomicUsize::new(0),
            task: parking_lot::Mutex::default(),
            abandoned: AtomicBool::new(false),
        }
    }

    /// What tells the call that nobody waits for it.
    pub(super) fn called_off(&self) -> watch::Receiver<bool> {
        self.off.subscribe()
    }

    pub(super) fn runs_in(&self, task: AbortHandle) {
        *self.task.lock() = Some(task);
    }

    /// How it ended, and when.
    pub(super) fn ended(&self) -> Option<(Ended, Mono)> {
        self.ended.borrow().clone()
    }

    /// Tells everybody how it ended. What was told first stays.
    pub(super) fn end(&self, ended: Ended, now: Mono) {
        self.ended.send_if_modified(|told| {
            let first = told.is_none();
            if first {
                *told = Some((ended, now));
            }
            first
        });
    }

    /// Waits for its end.
    pub(super) async fn end_of(self: &Arc<Self>) -> Ended {
        let mut ended = self.ended.subscribe();
        let told = ended.wait_for(Option::is_some).await;
        let told = told.expect("the flight that sends it is held");
        told.as_ref().expect("it was waited for").0.clone()
    }

    /// Whether there was a time at which nobody waited for it.
    pub(super) fn was_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// One more waits, so that it is worth trying again. Under the table's lock.
    pub(super) fn join(&self) {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        self.off.send_if_modified(|off| std::mem::take(off));
    }

    /// One less waits; true if it was the last. Under the table's lock.
    pub(super) fn part(&self) -> bool {
        self.waiters.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Stops it if it has not left: true if nothing was sent and nothing will be. Otherwise no further attempt is made
    /// until somebody [joins](Self::join).
    pub(super) fn call_off(&self) -> bool {
        self.abandoned.store(true, Ordering::Relaxed);
        if self.exit.hold() {
            if let Some(task) = self.task.lock().take() {
                task.abort();
            }
            return true;
        }
        self.off.send_replace(true);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(hash("x", &[b"ab", b"c"]), hash("x", &[b"a", b"bc"]));
        assert_ne!(hash("x", &[b"a", b""]), hash("x", &[b"a"]));
        assert_ne!(hash("x", &[b"a"]), hash("y", &[b"a"]));
    }
}
