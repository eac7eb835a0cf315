//! The judge: what really happened, written down by the server itself.
//!
//! # Rules
//!
//! * *accepted* calls drew quota; *throttled* ones were refused as too fast (429, by a limit, a cap, a brown-out or a fault).
//! * A *write* is an executed call of POST, PUT, PATCH or DELETE with a 2xx answer, whether or not the answer arrived.
//! * A *duplicate* is a POST or PATCH executed again with the same content under the same `X-Genesys-Request-Id`, or a user created
//!   with an email that another user has. PUT and DELETE executed again are *repeats*: harmless by the method's definition.
//! * Programs that name no request, or name every attempt anew, hide their duplicates from that count. For them there is
//!   *repeated content*: a POST or PATCH executed again with the same path and content, under whatever id. It is a fair
//!   measure only of a job that means to send nothing twice.
//! * A write transaction is *lost* if its `X-Genesys-Request-Id` was seen but it was neither executed nor finally refused (an answer
//!   other than 401, 408, 429 and 5xx). While calls are in flight the number is of course not final.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::push::books::{HookStats, PushStats};

/// Accepted and throttled calls of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Drew quota.
    pub accepted: u64,
    /// Refused as too fast.
    pub throttled: u64,
}

/// One second of the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Second {
    /// Seconds since the start.
    pub t: u64,
    /// Calls of the program under test that drew quota.
    pub accepted: u64,
    /// Calls of it that were throttled.
    pub throttled: u64,
    /// Strangers' calls that drew quota.
    pub strangers: u64,
    /// Strangers' calls that were throttled.
    pub strangers_throttled: u64,
}

/// The token endpoint's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OauthStats {
    /// All token calls.
    pub calls: u64,
    /// Those throttled.
    pub throttled: u64,
    /// Those refused for wrong credentials or grants.
    pub refused: u64,
    /// The most token calls of one client that were in progress at once; 1 proves single flight.
    pub overlap_max: u64,
}

/// Everything the judge knows; the answer of `GET /sim/stats`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Seed of the run.
    pub seed: u64,
    /// Seconds since the start or the last reset.
    pub elapsed: f64,
    /// Calls that drew quota.
    pub accepted: u64,
    /// Calls that were refused as too fast.
    pub throttled: u64,
    /// Throttles by the limit that refused; `brown-out` and `fault` are not limits but refuse too.
    pub throttled_per_limit: BTreeMap<String, u64>,
    /// Strangers' calls that drew quota.
    pub strangers: u64,
    /// Strangers' calls that were throttled.
    pub strangers_throttled: u64,
    /// Executed writes by endpoint.
    pub writes: BTreeMap<String, u64>,
    /// Writes executed twice that must not be; see the module's rules.
    pub duplicates: u64,
    /// The part of `duplicates` that are users created with an email that another user has.
    pub duplicate_emails: u64,
    /// POST and PATCH executed again with the same path and content, under whatever id or none.
    pub repeated_content: u64,
    /// PUT and DELETE executed again under the same id.
    pub repeats: u64,
    /// Answers replayed by de-duplication, not executed.
    pub replayed: u64,
    /// Writes under an id that had been used for other content.
    pub key_reuse: u64,
    /// Writes without an id.
    pub unkeyed: u64,
    /// Attempts under an id that had been seen before.
    pub retried: u64,
    /// Write transactions that were seen but never executed; see the module's rules.
    pub lost: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// 401 answers of the API.
    pub unauthorized: u64,
    /// Faults injected, by name.
    pub faults: BTreeMap<String, u64>,
    /// The token endpoint.
    pub oauth: OauthStats,
    /// The most API calls in progress at once.
    pub max_in_flight: u64,
    /// By resource family.
    pub by_family: BTreeMap<String, Tally>,
    /// By method.
    pub by_method: BTreeMap<String, Tally>,
    /// Asynchronous jobs by kind.
    #[serde(default)]
    pub jobs: BTreeMap<String, super::org::jobs::JobStats>,
    /// Notifications channels and their sockets.
    #[serde(default)]
    pub push: PushStats,
    /// Outbound webhooks.
    #[serde(default)]
    pub hooks: HookStats,
    /// What happened in each second in which anything happened.
    pub timeline: Vec<Second>,
    /// How many users exist.
    pub users_total: u64,
    /// Hash over every user's skills; equal hashes mean equal final states.
    pub users_hash: String,
    /// Every user's skills (skill id to proficiency); only with `?users=1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<BTreeMap<String, BTreeMap<String, f64>>>,
}

/// One attempt at a write, as the server saw it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WriteAttempt {
    /// Seconds since the start or the last reset at which it was decided.
    pub at: f64,
    /// Whether this attempt changed something. A replayed answer did not.
    pub executed: bool,
    /// The status that was answered; absent where the connection was closed instead. Whether the answer arrived is not known here.
    pub status: Option<u16>,
    /// What was done to it on purpose, by the name of the fault.
    pub fault: Option<String>,
}

/// Everything known about the writes under one `X-Genesys-Request-Id`, or about those of one method and path that had none; an
/// element of the answer of `GET /sim/writes`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WriteBook {
    /// The id, if there was one.
    pub id: Option<String>,
    /// The method of the first attempt.
    pub method: String,
    /// The path of the first attempt.
    pub path: String,
    /// How often something was executed.
    pub executed: u64,
    /// Its attempts, in the order in which they were decided.
    pub attempts: Vec<WriteAttempt>,
}

/// What became of one write transaction.
#[derive(Debug, Default)]
struct Transaction {
    /// Digests of the contents executed under this id.
    executed: Vec<u64>,
    /// Whether it is settled without execution.
    refused: bool,
    /// How often something was executed, also late, when another attempt was being decided.
    executions: u64,
    /// Its place in the order of first arrivals.
    place: usize,
    method: String,
    path: String,
    attempts: Vec<WriteAttempt>,
}

/// The running books.
#[derive(Debug, Default)]
pub struct Ledger {
    stats: Stats,
    timeline: BTreeMap<u64, Second>,
    transactions: HashMap<String, Transaction>,
    /// The writes that had no id, by method and path.
    unnamed: HashMap<(String, String), Transaction>,
    /// Digests of everything POST and PATCH have executed.
    contents: HashSet<u64>,
    in_flight: u64,
    logins: HashMap<String, u64>,
}

impl Ledger {
    /// Empty books.
    pub fn new(seed: u64) -> Self {
        Self { stats: Stats { seed, ..Stats::default() }, ..Self::default() }
    }

    /// An API call arrived.
    pub fn arrived(&mut self) {
        self.in_flight += 1;
        self.stats.max_in_flight = self.stats.max_in_flight.max(self.in_flight);
    }

    /// An API call has been answered or given up.
    pub fn departed(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A token call of `client` arrived.
    pub fn login_arrived(&mut self, client: &str) {
        let running = self.logins.entry(client.to_owned()).or_insert(0);
        *running += 1;
        self.stats.oauth.overlap_max = self.stats.oauth.overlap_max.max(*running);
    }

    /// A token call of `client` has been answered.
    pub fn login_departed(&mut self, client: &str) {
        if let Some(running) = self.logins.get_mut(client) {
            *running = running.saturating_sub(1);
        }
    }

    /// What became of a token call.
    pub fn login(&mut self, login: super::oauth::Login) {
        let oauth = &mut self.stats.oauth;
        oauth.calls += 1;
        match login {
            super::oauth::Login::Issued => {}
            super::oauth::Login::Throttled => oauth.throttled += 1,
            super::oauth::Login::Refused => oauth.refused += 1,
        }
    }

    fn second(&mut self, now: Duration) -> &mut Second {
        let t = now.as_secs();
        self.timeline.entry(t).or_insert_with(|| Second { t, ..Second::default() })
    }

    fn tallies(&mut self, method: &str, family: &str) -> [&mut Tally; 2] {
        [
            self.stats.by_method.entry(method.to_owned()).or_default(),
            self.stats.by_family.entry(family.to_owned()).or_default(),
        ]
    }

    /// A call drew quota.
    pub fn accepted(&mut self, now: Duration, method: &str, family: &str) {
        self.stats.accepted += 1;
        self.second(now).accepted += 1;
        for tally in self.tallies(method, family) {
            tally.accepted += 1;
        }
    }

    /// A call was refused as too fast, by `limit`.
    pub fn throttled(&mut self, now: Duration, method: &str, family: &str, limit: &str) {
        self.stats.throttled += 1;
        *self.stats.throttled_per_limit.entry(limit.to_owned()).or_insert(0) += 1;
        self.second(now).throttled += 1;
        for tally in self.tallies(method, family) {
            tally.throttled += 1;
        }
    }

    /// A stranger called.
    pub fn stranger(&mut self, at: Duration, admitted: bool) {
        let second = self.second(at);
        if admitted {
            second.strangers += 1;
            self.stats.strangers += 1;
        } else {
            second.strangers_throttled += 1;
            self.stats.strangers_throttled += 1;
        }
    }

    /// A fault was injected, into an attempt at `write` if it is one.
    pub fn fault(&mut self, name: &str, write: Option<&WriteContent<'_>>) {
        *self.stats.faults.entry(name.to_owned()).or_insert(0) += 1;
        if let Some(attempt) = self.latest(write) {
            attempt.fault = Some(name.to_owned());
        }
    }

    /// An attempt at a write is about to be decided.
    pub fn write_seen(&mut self, now: Duration, write: &WriteContent<'_>) {
        let first = Transaction {
            place: self.transactions.len() + self.unnamed.len(),
            method: write.method.to_owned(),
            path: write.path.to_owned(),
            ..Transaction::default()
        };
        let transaction = if let Some(id) = write.id {
            let transaction = self.transactions.entry(id.to_owned()).or_insert(first);
            self.stats.retried += u64::from(!transaction.attempts.is_empty());
            transaction
        } else {
            self.stats.unkeyed += 1;
            self.unnamed.entry((write.method.to_owned(), write.path.to_owned())).or_insert(first)
        };
        transaction.attempts.push(WriteAttempt { at: now.as_secs_f64(), ..WriteAttempt::default() });
    }

    /// What is written down of `write`.
    fn transaction(&mut self, write: &WriteContent<'_>) -> Option<&mut Transaction> {
        match write.id {
            Some(id) => self.transactions.get_mut(id),
            None => self.unnamed.get_mut(&(write.method.to_owned(), write.path.to_owned())),
        }
    }

    /// The attempt that is being decided, if it is at a write.
    fn latest(&mut self, write: Option<&WriteContent<'_>>) -> Option<&mut WriteAttempt> {
        self.transaction(write?)?.attempts.last_mut()
    }

    /// A write was executed with success. `same_emails` is how many users it created with an email that another user has.
    pub fn write_executed(&mut self, endpoint: &str, write: &WriteContent<'_>, same_emails: u32) {
        *self.stats.writes.entry(endpoint.to_owned()).or_insert(0) += 1;
        if matches!(write.method, "POST" | "PATCH") && !self.contents.insert(write.digest()) {
            self.stats.repeated_content += 1;
        }
        if let Some(transaction) = self.transaction(write) {
            transaction.executions += 1;
            if let Some(attempt) = transaction.attempts.last_mut() {
                attempt.executed = true;
            }
        }
        let same_emails = u64::from(same_emails);
        self.stats.duplicate_emails += same_emails;
        // A POST repeated under its key usually repeats the email as well: one mistake, counted once.
        self.stats.duplicates += same_emails.max(u64::from(self.is_duplicate(write)));
    }

    /// Notes an execution under its id; whether it must not have happened.
    fn is_duplicate(&mut self, write: &WriteContent<'_>) -> bool {
        let Some(id) = write.id else { return false };
        let transaction = self.transactions.entry(id.to_owned()).or_default();
        let digest = write.digest();
        let again = transaction.executed.contains(&digest);
        let reused = !again && !transaction.executed.is_empty();
        transaction.executed.push(digest);
        let harmful = again && matches!(write.method, "POST" | "PATCH");
        self.stats.repeats += u64::from(again && !harmful);
        self.stats.key_reuse += u64::from(reused);
        harmful
    }

    /// A write was answered from memory.
    pub fn replayed(&mut self) {
        self.stats.replayed += 1;
    }

    /// An API call was answered with `status`.
    pub fn answered(&mut self, status: u16, write: Option<&WriteContent<'_>>) {
        *self.stats.statuses.entry(status).or_insert(0) += 1;
        if status == 401 {
            self.stats.unauthorized += 1;
        }
        if let Some(attempt) = self.latest(write) {
            attempt.status = Some(status);
        }
        let is_final = !matches!(status, 401 | 408 | 429 | 500..=599);
        let id = write.and_then(|write| write.id);
        if is_final && let Some(transaction) = id.and_then(|id| self.transactions.get_mut(id)) {
            transaction.refused |= transaction.executed.is_empty();
        }
    }

    /// Every write in the order of first arrivals; those without an id are one per method and path.
    pub fn writes(&self) -> Vec<WriteBook> {
        let named = self.transactions.iter().map(|(id, transaction)| (Some(id), transaction));
        let mut all: Vec<_> =
            named.chain(self.unnamed.values().map(|transaction| (None, transaction))).collect();
        all.sort_by_key(|(_, transaction)| transaction.place);
        let book = |(id, transaction): (Option<&String>, &Transaction)| WriteBook {
            id: id.cloned(),
            method: transaction.method.clone(),
            path: transaction.path.clone(),
            executed: transaction.executions,
            attempts: transaction.attempts.clone(),
        };
        all.into_iter().map(book).collect()
    }

    /// A copy of the books. The users are filled in by the world.
    pub fn stats(&self, now: Duration) -> Stats {
        let open = |transaction: &&Transaction| transaction.executed.is_empty() && !transaction.refused;
        Stats {
            elapsed: now.as_secs_f64(),
            timeline: self.timeline.values().copied().collect(),
            lost: self.transactions.values().filter(open).count() as u64,
            ..self.stats.clone()
        }
    }
}

/// What identifies a write.
#[derive(Debug, Clone, Copy)]
pub struct WriteContent<'a> {
    /// `X-Genesys-Request-Id`.
    pub id: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The body.
    pub body: &'a [u8],
}

impl WriteContent<'_> {
    /// A digest that is only compared within one process.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.method, self.path, self.body).hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write<'a>(id: &'a str, method: &'a str, body: &'a [u8]) -> WriteContent<'a> {
        WriteContent { id: Some(id), method, path: "/api/v2/users", body }
    }

    #[test]
    fn the_same_post_twice_is_a_duplicate_and_the_same_put_a_repeat() {
        let mut ledger = Ledger::new(1);
        for _ in 0..2 {
            ledger.write_executed("POST /api/v2/users", &write("a", "POST", b"x"), 0);
            ledger.write_executed("PUT /api/v2/users", &write("b", "PUT", b"x"), 0);
        }
        let stats = ledger.stats(Duration::ZERO);
        assert_eq!((stats.duplicates, stats.repeats, stats.key_reuse), (1, 1, 0));
    }

    #[test]
    fn other_content_under_the_same_id_is_key_reuse() {
        let mut ledger = Ledger::new(1);
        ledger.write_executed("POST /x", &write("a", "POST", b"x"), 0);
        ledger.write_executed("POST /x", &write("a", "POST", b"y"), 0);
        let stats = ledger.stats(Duration::ZERO);
        assert_eq!((stats.duplicates, stats.key_reuse), (0, 1));
    }

    #[test]
    fn content_executed_again_is_seen_under_new_ids_and_under_none() {
        let mut ledger = Ledger::new(1);
        let unnamed = WriteContent { id: None, ..write("", "PATCH", b"x") };
        ledger.write_executed("PATCH /x", &write("a", "PATCH", b"x"), 0);
        ledger.write_executed("PATCH /x", &write("b", "PATCH", b"x"), 0);
        ledger.write_executed("PATCH /x", &unnamed, 0);
        ledger.write_executed("PATCH /x", &write("c", "PATCH", b"y"), 0);
        for _ in 0..2 {
            ledger.write_executed("PUT /x", &write("d", "PUT", b"x"), 0);
        }
        let stats = ledger.stats(Duration::ZERO);
        assert_eq!((stats.repeated_content, stats.duplicates), (2, 0));
    }

    #[test]
    fn a_write_is_lost_until_it_is_executed_or_finally_refused() {
        let mut ledger = Ledger::new(1);
        for id in ["throttled", "refused", "done"] {
            ledger.write_seen(Duration::ZERO, &write(id, "POST", b""));
        }
        ledger.answered(429, Some(&write("throttled", "POST", b"")));
        ledger.answered(409, Some(&write("refused", "POST", b"")));
        ledger.write_executed("POST /x", &write("done", "POST", b""), 0);
        assert_eq!(ledger.stats(Duration::ZERO).lost, 1);
        ledger.write_seen(Duration::ZERO, &write("throttled", "POST", b""));
        ledger.write_executed("POST /x", &write("throttled", "POST", b""), 0);
        let stats = ledger.stats(Duration::ZERO);
        assert_eq!((stats.lost, stats.retried), (0, 1));
    }

    #[test]
    fn every_attempt_at_a_write_is_told_with_what_became_of_it() {
        let mut ledger = Ledger::new(1);
        let (first, second) = (write("b", "POST", b"x"), write("a", "DELETE", b""));
        ledger.write_seen(Duration::from_secs(1), &first);
        ledger.write_executed("POST /x", &first, 0);
        ledger.fault("drop-after", Some(&first));
        ledger.write_seen(Duration::from_secs(2), &second);
        ledger.answered(404, Some(&second));
        ledger.write_seen(Duration::from_secs(3), &first);
        ledger.replayed();
        ledger.answered(200, Some(&first));
        let unnamed = WriteContent { id: None, ..first };
        ledger.write_seen(Duration::from_secs(4), &unnamed);
        ledger.write_executed("POST /x", &unnamed, 0);
        let attempt = |at, executed, status, fault: Option<&str>| WriteAttempt {
            at,
            executed,
            status,
            fault: fault.map(str::to_owned),
        };
        let books = ledger.writes();
        let ids: Vec<_> = books.iter().map(|book| book.id.as_deref()).collect();
        assert_eq!(ids, [Some("b"), Some("a"), None], "in order of arrival");
        assert_eq!(books.iter().map(|book| book.executed).collect::<Vec<_>>(), [1, 0, 1]);
        let first = [attempt(1.0, true, None, Some("drop-after")), attempt(3.0, false, Some(200), None)];
        assert_eq!(books[0].attempts, first);
        assert_eq!(books[1].attempts, [attempt(2.0, false, Some(404), None)]);
        assert_eq!(books[2].attempts, [attempt(4.0, true, None, None)]);
        assert_eq!((&*books[1].method, ledger.stats(Duration::ZERO).unkeyed), ("DELETE", 1));
    }

    #[test]
    fn overlapping_token_calls_are_counted_per_client() {
        let mut ledger = Ledger::new(1);
        ledger.login_arrived("a");
        ledger.login_arrived("b");
        assert_eq!(ledger.stats(Duration::ZERO).oauth.overlap_max, 1);
        ledger.login_arrived("a");
        ledger.login_departed("a");
        ledger.login_departed("a");
        ledger.login_arrived("a");
        assert_eq!(ledger.stats(Duration::ZERO).oauth.overlap_max, 2);
    }
}
