//! Sends what is due, and notes how that ended.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::outbox::{Due, Ended, Seq, Verdict};
use tidegate_core::time::Wall;
use tidegate_store::ledger::Kept;
use tidegate_store::outbox::{Kind, Settle};
use tokio::task::JoinSet;

use super::Outbox;

/// How long an outcome that could not be written is kept before it is tried again.
const NOTE_AGAIN: Duration = Duration::from_secs(2);

/// How one delivery ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ended: Ended,
    pub(super) answer: Option<Kept>,
    /// Attempts that left.
    pub(super) attempts: u32,
}

impl Outcome {
    /// Nothing left, and nobody answered.
    pub(super) fn unsent(ended: Ended) -> Self {
        Self { ended, answer: None, attempts: 0 }
    }
}

impl Outbox {
    /// Runs until it is told to [stop](Self::stop), then waits for what has left.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        let mut changed = self.changed.subscribe();
        let mut sending = JoinSet::new();
        let events = self.events.lock().take();
        let events = events.map(|events| tokio::spawn(Arc::clone(&self).keep_events(events)));
        while !*stopping.borrow() {
            changed.borrow_and_update();
            let (due, expired, wakes_at) = self.look();
            for due in due {
                sending.spawn(Arc::clone(&self).carry_out(due));
            }
            if !expired.is_empty()
                && let Err(error) = self.file.remove(expired).await
            {
                tracing::warn!(target: "tidegate", "what was delivered long ago is not removed: {error}");
            }
            let wake = async {
                match wakes_at {
                    Some(at) => tokio::time::sleep_until(self.clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = stopping.changed() => {}
                _ = changed.changed() => {}
                () = wake => {}
                Some(ended) = sending.join_next(), if !sending.is_empty() => told(ended),
            }
        }
        // What has not left never will; what has is awaited and noted.
        for later in self.under_way.lock().values() {
            later.call_off();
        }
        while let Some(ended) = sending.join_next().await {
            told(ended);
        }
        if let Some(events) = events {
            told(events.await);
        }
    }

    /// Sends nothing more.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    fn look(&self) -> (Vec<Due>, Vec<Seq>, Option<tidegate_core::time::Mono>) {
        let now = self.clock.now();
        let mut machine = self.machine.lock();
        let expired = machine.expired(now);
        let due = std::iter::from_fn(|| machine.next(now)).collect();
        let wakes_at = machine.wakes_at().into_iter().chain(machine.expires_at()).min();
        (due, expired, wakes_at)
    }

    async fn carry_out(self: Arc<Self>, due: Due) {
        match due {
            Due::TooLate(seq, why) => self.settle(seq, Verdict::Dead(why), None, 0, None).await,
            Due::Send(seq) => {
                let (outcome, kind) = self.deliver(seq).await;
                let Some(kind) = kind else {
                    // Its row is gone; nothing is owed.
                    let mut machine = self.machine.lock();
                    let now = self.clock.now();
                    machine.settled(seq, Verdict::Done, 0, now);
                    machine.drop_over(seq);
                    return;
                };
                let waits = self.waits_of(kind);
                let (verdict, failed) = {
                    let mut machine = self.machine.lock();
                    let verdict = machine.ended(seq, outcome.ended, waits, self.clock.now());
                    (verdict, machine.failed_after(seq, outcome.ended))
                };
                self.settle(seq, verdict, outcome.answer, outcome.attempts, Some(failed)).await;
            }
        }
    }

    async fn deliver(self: &Arc<Self>, seq: Seq) -> (Outcome, Option<Kind>) {
        let again = |wait| Ended::Unsent { retry_after: Some(wait), ordered: true };
        match self.file.load(seq).await {
            Ok(Some((letter, course))) => {
                let kind = letter.kind;
                let outcome = match kind {
                    Kind::Write => self.write(letter, &course).await,
                    Kind::Event => self.post(&letter).await,
                };
                (outcome, Some(kind))
            }
            Ok(None) => (Outcome::unsent(Ended::Answered), None),
            Err(error) => {
                tracing::warn!(target: "tidegate", "an entry cannot be read: {error}");
                (Outcome::unsent(again(NOTE_AGAIN)), Some(Kind::Write))
            }
        }
    }

    fn waits_of(&self, kind: Kind) -> &tidegate_core::outbox::Waits {
        match kind {
            Kind::Write => &self.waits,
            Kind::Event => &self.event_waits,
        }
    }

    /// Notes what becomes of an entry; then it is so. What cannot be noted is tried again: until then the entry counts as being
    /// sent, and if the process ends before, its outcome is found out as that of any other that was under way.
    async fn settle(
        &self,
        seq: Seq,
        verdict: Verdict,
        answer: Option<Kept>,
        attempts: u32,
        failed: Option<u32>,
    ) {
        let failed = failed.unwrap_or_else(|| self.machine.lock().tries_failed(seq));
        let bytes = answer.as_ref().map_or(0, |kept| (kept.body.len() + kept.headers.len()) as u64);
        let wall = self.clock.wall();
        let settle = match verdict {
            Verdict::Done => Settle::Done(answer.unwrap_or_default()),
            Verdict::Dead(why) => Settle::Dead(why, answer),
            Verdict::Again(wait) => {
                let doubtful = self.machine.lock().is_doubtful(seq);
                Settle::Again { at: after(wall, wait), failed, doubtful }
            }
        };
        let mut told = false;
        while let Err(error) = self.file.settle(seq, settle.clone(), attempts, wall).await {
            if !told {
                tracing::warn!(target: "tidegate", "what became of an entry is not noted yet: {error}");
                told = true;
            }
            if self.is_stopping() {
                return;
            }
            tokio::time::sleep(NOTE_AGAIN).await;
        }
        if let Verdict::Dead(why) = verdict {
            // What is unknown may have been executed: somebody has to look.
            tracing::warn!(target: "tidegate", entry = seq, "an entry of the outbox is a dead letter: {}", why.name());
        }
        self.count(seq, verdict);
        self.under_way.lock().remove(&seq);
        {
            let mut machine = self.machine.lock();
            machine.failed(seq, failed);
            machine.settled(seq, verdict, bytes, self.clock.now());
        }
        self.changed();
    }
}

impl Outbox {
    /// Counts an end.
    fn count(&self, seq: Seq, verdict: Verdict) {
        let ending = match verdict {
            Verdict::Again(_) => return,
            Verdict::Done => "delivered",
            Verdict::Dead(_) => "dead",
        };
        let Some(group) = self.machine.lock().group(seq) else { return };
        if let Some(tenant) = group.strip_prefix("tenant ") {
            self.metrics.tenant(tenant).outbox_ended(ending);
        } else if let Some((sink, tenant)) = group.strip_prefix("sink ").and_then(|rest| rest.split_once(' '))
        {
            self.metrics.tenant(tenant).sink_ended(sink, ending);
        }
    }
}

/// An instant so much after another.
fn after(wall: Wall, wait: Duration) -> Wall {
    let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    Wall::from_unix_millis(wall.unix_millis().saturating_add(wait))
}

fn told(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(target: "tidegate", "a delivery ended badly: {error}");
    }
}
