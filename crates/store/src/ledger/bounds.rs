//! What is thrown out of a ledger, and when.
//!
//! A ledger is bounded in age, entries and bytes. The bounds are kept when entries are made; where there are too many, those
//! go whose write was sent first, of what is answered before of what is unknown: an answer that is forgotten costs a
//! second execution only if its key is used again, and an unknown outcome is the one that is asked for.
//!
//! What is there grows older by the monotonic clock, and only at an opening by the wall clock: a machine that starts with a
//! wrong time and is set right by NTP does not forget every key in that moment.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use tidegate_core::time::Mono;

use super::error::LedgerProblem;
use super::writer::Writer;

/// For how long a key is remembered. The draft of the header leaves it to the server; a day is what payment APIs keep,
/// and what the upstreams' own keys last.
pub const KEEP: Duration = Duration::from_hours(24);

/// What a ledger holds at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Entries.
    pub(super) entries: u64,
    /// Bytes of kept bodies.
    pub(super) bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 100_000, bytes: 512 << 20 }
    }
}

/// How often logins are looked through for those that were not used for [`KEEP`].
pub(super) const LOGINS_EVERY: Duration = Duration::from_hours(1);

impl Writer {
    /// Drops what is too old, and the oldest of what is too much.
    pub(super) fn prune(&mut self, now: Mono) -> Result<(), LedgerProblem> {
        while let Some((end, id)) = self.ends.get(self.due).copied()
            && end < now
        {
            self.due += 1;
            self.drop_entry(id)?;
        }
        if self.entries >= self.bounds.entries {
            self.drop_oldest("done", self.entries + 1 - self.bounds.entries)?;
        }
        if self.entries >= self.bounds.entries {
            let gone = self.drop_oldest("unknown", self.entries + 1 - self.bounds.entries)?;
            if gone > 0 && !self.warned {
                self.warned = true;
                tracing::warn!(
                    target: "tidegate",
                    "more than {} keys are remembered, and none of them is answered: the oldest whose outcome is unknown are \
                     forgotten, and their writes are sent again if they are asked for",
                    self.bounds.entries
                );
            }
        }
        self.prune_logins(now)
    }

    fn prune_logins(&mut self, now: Mono) -> Result<(), LedgerProblem> {
        if now - self.logins_at < LOGINS_EVERY {
            return Ok(());
        }
        self.logins_at = now;
        let old = self.logins.extract_if(|_, seen| now - *seen > KEEP);
        for (digest, _) in old {
            self.connection.prepare_cached("DELETE FROM login WHERE digest = ?1")?.execute([digest])?;
        }
        Ok(())
    }

    /// Drops the oldest entries in a state, `most` of them. Returns how many there were.
    fn drop_oldest(&mut self, state: &str, most: u64) -> Result<usize, LedgerProblem> {
        let find = "SELECT id FROM entry WHERE state = ?1 ORDER BY first_sent_ms LIMIT ?2";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let ids: Vec<i64> = self
            .connection
            .prepare_cached(find)?
            .query_map(params![state, most], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in &ids {
            self.drop_entry(*id)?;
        }
        Ok(ids.len())
    }

    /// Drops an entry, if it is there.
    pub(super) fn drop_entry(&mut self, id: i64) -> Result<(), LedgerProblem> {
        let delete = "DELETE FROM entry WHERE id = ?1 RETURNING coalesce(length(body), 0)";
        let length = self.connection.prepare_cached(delete)?.query_row([id], |row| row.get::<_, i64>(0));
        if let Some(length) = length.optional()? {
            self.bytes = self.bytes.saturating_sub(length.unsigned_abs());
            self.entries = self.entries.saturating_sub(1);
        }
        Ok(())
    }

    /// Drops the answers of the oldest entries where bodies take too much room. The entries stay: their writes are done.
    pub(super) fn make_room(&mut self) -> Result<(), LedgerProblem> {
        while self.bytes > self.bounds.bytes {
            let oldest =
                "SELECT id, length(body) FROM entry WHERE length(body) > 0 ORDER BY first_sent_ms LIMIT 1";
            let oldest = self
                .connection
                .prepare_cached(oldest)?
                .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
                .optional()?;
            let Some((id, length)) = oldest else {
                self.bytes = 0;
                return Ok(());
            };
            let forget = "UPDATE entry SET status = NULL, headers = NULL, body = NULL WHERE id = ?1";
            self.connection.prepare_cached(forget)?.execute([id])?;
            self.bytes = self.bytes.saturating_sub(length.unsigned_abs());
        }
        Ok(())
    }
}
