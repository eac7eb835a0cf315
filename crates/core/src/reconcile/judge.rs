//! From what a read showed to what became of the write.

use std::time::Duration;

use serde_json::Value;

use super::Written;
use super::compare::{Compared, compare, is_near, is_whole, is_within};
use super::rule::{Absent, Find, Pair, Rule, Same};
use crate::idempotency::canonical_json;

/// What a read showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sight<'a> {
    /// The entity.
    Found(&'a Value),
    /// That there is none.
    Absent,
    /// Nothing that could be told from; why.
    Unclear(&'static str),
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It was executed: what it wrote is there.
    Applied,
    /// It was not executed. Sending it again cannot execute it twice.
    NotApplied,
    /// Another write was executed in its place, and its version guards it: it never will be.
    Superseded,
    /// What it wrote is not there, but it is too early for that to mean anything: look again later.
    TooEarly,
    /// Nobody can tell.
    CannotTell,
}

/// A deleted entity has nothing to show.
const NOTHING: Value = Value::Null;

/// Reads the answer to the question of `rule`: its status, and its body if that is JSON.
pub fn see<'a>(rule: &Rule, write: &Written, status: u16, body: Option<&'a Value>) -> Sight<'a> {
    match (&rule.find, status, body) {
        (Find::Entity, 404 | 410, _) => Sight::Absent,
        (Find::Entity, 200..=299, Some(entity)) => Sight::Found(entity),
        (Find::Entity, 200..=299, None) if rule.same == Same::Gone => Sight::Found(&NOTHING),
        (Find::In { items, key }, 200..=299, Some(answer)) => match items.of(answer) {
            Some(Value::Array(shown)) => {
                pick(key, write, shown, is_whole(rule.total.as_ref(), answer, shown))
            }
            _ => Sight::Unclear("the answer has no list where the rule says"),
        },
        (_, 200..=299, None) => Sight::Unclear("the answer is no JSON"),
        _ => Sight::Unclear("the read was refused"),
    }
}

/// The one entry with the natural key of the request.
fn pick<'a>(key: &[Pair], write: &Written, shown: &'a [Value], whole: bool) -> Sight<'a> {
    let fits = |entry: &Value, equal: fn(&Value, &Value) -> bool| {
        key.iter().all(|pair| match (write.member(&pair.request), pair.entity.of(entry)) {
            (Some(sent), Some(found)) => equal(sent, found),
            _ => false,
        })
    };
    let mut exact = shown.iter().filter(|entry| fits(entry, is_within));
    match (exact.next(), exact.next()) {
        (Some(entity), None) => Sight::Found(entity),
        (Some(_), Some(_)) => Sight::Unclear("several entities have this key"),
        (None, _) if shown.iter().any(|entry| fits(entry, is_near)) => {
            Sight::Unclear("an entity's key differs only in case or blanks")
        }
        (None, _) if !whole => Sight::Unclear("the answer shows only some of the entities"),
        (None, _) => Sight::Absent,
    }
}

/// What is known of the time since the last attempt that may have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// How long ago it had ended, at least.
    pub quiet: Duration,
    /// The reads began when it had ended, and have all shown the same. False of what an earlier process sent: what others
    /// have written since then is not known.
    pub watched: bool,
}

impl Since {
    /// An attempt that has been followed by reads since its end, which have shown no change.
    pub const fn watched(quiet: Duration) -> Self {
        Self { quiet, watched: true }
    }

    /// An attempt after which nobody has looked for some time.
    pub const fn unwatched(quiet: Duration) -> Self {
        Self { quiet, watched: false }
    }
}

/// What became of `write`.
///
/// ```
/// use std::time::Duration;
/// use http::Method;
/// use tidegate_core::profile::Profile;
/// use tidegate_core::reconcile::{Finding, Since, Written, judge, see};
///
/// let genesys = Profile::builtin("genesys").unwrap();
/// let write = Written::new(Method::PATCH, "/api/v2/users/7", br#"{"title":"Lead","version":4}"#);
/// let rule = genesys.reconcile_rule(&write.method, &write.path).unwrap();
/// let finding = |entity: &str| {
///     let entity = serde_json::from_str(entity).unwrap();
///     judge(rule, &write, see(rule, &write, 200, Some(&entity)), Since::watched(Duration::ZERO))
/// };
/// assert_eq!(finding(r#"{"title":"Lead","version":5}"#), Finding::Applied);
/// assert_eq!(finding(r#"{"title":"Agent","version":4}"#), Finding::NotApplied);
/// assert_eq!(finding(r#"{"title":"Boss","version":5}"#), Finding::Superseded);
/// ```
pub fn judge(rule: &Rule, write: &Written, sight: Sight<'_>, since: Since) -> Finding {
    match (sight, &rule.same) {
        (Sight::Unclear(_), _) => undecided(rule, since),
        (Sight::Absent, Same::Gone) => Finding::Applied,
        (Sight::Absent, _) => unseen(rule, since),
        (Sight::Found(entity), _) => match write.version(rule) {
            Some(sent) => guarded(rule, write, sent, entity, since),
            None => unguarded(rule, write, entity, since),
        },
    }
}

/// Why a read does not tell what became of `write`, for [`Finding::CannotTell`].
pub fn explain(rule: &Rule, write: &Written, sight: Sight<'_>) -> &'static str {
    let entity = match sight {
        Sight::Unclear(why) => return why,
        Sight::Absent => return "there is no such entity",
        Sight::Found(entity) => entity,
    };
    match compare(rule, write, entity) {
        _ if rule.same == Same::Gone => "the entity is still there",
        Compared::Differs => "the entity is not as it was written",
        Compared::Unclear => "not all that was written can be compared with what is there",
        Compared::Equal => "the entity is as it was written, and may have been there before",
    }
}

/// At most one write of a version is executed, so the version tells more than the fields.
fn guarded(rule: &Rule, write: &Written, sent: u64, entity: &Value, since: Since) -> Finding {
    let Some(current) = rule.version.as_ref().and_then(|version| version.of(entity)?.as_u64()) else {
        return undecided(rule, since);
    };
    let Some(raised) = current.checked_sub(sent) else {
        // A replica that lags behind; or the writer had it from elsewhere, and the upstream will refuse it.
        return if since.quiet < rule.settle { Finding::TooEarly } else { Finding::NotApplied };
    };
    match (raised, compare(rule, write, entity)) {
        (0, _) => Finding::NotApplied,
        (_, Compared::Equal) => Finding::Applied,
        (1, Compared::Differs) => Finding::Superseded,
        _ => Finding::CannotTell,
    }
}

fn unguarded(rule: &Rule, write: &Written, entity: &Value, since: Since) -> Finding {
    match (compare(rule, write, entity), &rule.find) {
        (Compared::Equal, Find::In { .. }) if !is_new(rule, entity) => undecided(rule, since),
        (Compared::Equal, _) => Finding::Applied,
        (Compared::Differs, Find::Entity) => unseen(rule, since),
        // There is one with this key. Whoever made it, another one would be too many.
        (Compared::Differs, Find::In { .. }) | (Compared::Unclear, _) => undecided(rule, since),
    }
}

/// Whether an entity can be the one that was just created: it has the version of a new one, where that is known.
fn is_new(rule: &Rule, entity: &Value) -> bool {
    let (Some(pointer), Some(first)) = (&rule.version, rule.first) else { return true };
    pointer.of(entity).and_then(Value::as_u64) == Some(first)
}

/// The change cannot be seen.
fn unseen(rule: &Rule, since: Since) -> Finding {
    match rule.absent {
        _ if since.quiet < rule.settle => Finding::TooEarly,
        Absent::NotApplied => Finding::NotApplied,
        Absent::Unchanged if since.watched => Finding::NotApplied,
        Absent::Unchanged | Absent::Unknown => Finding::CannotTell,
    }
}

/// What was shown tells nothing; what is shown later may.
fn undecided(rule: &Rule, since: Since) -> Finding {
    if since.quiet < rule.settle { Finding::TooEarly } else { Finding::CannotTell }
}

/// The same change on what the entity has become: `body` with the version of `current`. `None` where that is no answer to
/// a refusal: the request carries no version, or the very one the entity has, or its JSON has values that reading and
/// writing would change (see [`canonical_json`]).
///
/// Members that another writer has changed meanwhile are overwritten like any others: the request says what they ought
/// to be.
pub fn reapply(rule: &Rule, body: &[u8], current: &Value) -> Option<Vec<u8>> {
    let pointer = rule.version.as_ref()?;
    let version = pointer.of(current)?.as_u64()?;
    canonical_json(body)?;
    let mut changed: Value = serde_json::from_slice(body).ok()?;
    let sent = changed.pointer_mut(pointer.as_str())?;
    if sent.as_u64()? == version {
        return None;
    }
    *sent = Value::from(version);
    serde_json::to_vec(&changed).ok()
}
