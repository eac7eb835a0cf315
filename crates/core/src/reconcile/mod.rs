//! Finding out by a read whether a write was executed.
//!
//! A write whose connection broke may have been executed, and nobody but the upstream knows. Sending it again could
//! execute it twice, so the retry machine ends with *unknown* ([`crate::retry::Next::Unknown`]). For many writes there is
//! a question that settles it: is there a user of this email now, does the entity have the fields as they were written,
//! has its version moved? A [`Rule`] says which question to ask after which write, [`read_for`] words it, [`see`] reads
//! the answer and [`judge`] draws the conclusion. Asking is the shell's business.
//!
//! Rules:
//!
//! * **what is seen counts at once, what is not seen only later.** The effect of the write can be seen: it was executed.
//!   It cannot be seen: perhaps the attempt is still being executed, perhaps the read was answered by a replica that does
//!   not know yet. So an absence proves nothing before [`Rule::settle`] has passed since the last attempt ended, and
//!   after it only if the author of the rule says so ([`Absent`]); unless told otherwise the outcome stays unknown;
//! * **a version guards.** A write that carries the version of its entity can be executed once: of two equal ones the
//!   second is refused. So an entity that still has the version that was sent may be written again without a wait: if
//!   the first attempt is executed after all, the second is refused;
//! * **a natural key must be unique.** Several entities with the key, or one whose key differs only in case or blanks,
//!   tell nothing;
//! * **only what was written is compared, and all of it**: members that the request did not carry are of no account, numbers
//!   are compared by value, texts exactly. A request that carries more than its rule compares is never called executed for
//!   the part that is;
//! * **what others wrote is left alone.** After a crash nobody knows who has written since. [`Absent::Unchanged`] believes an
//!   absence only where the reads began with the loss and have shown the same ever since.
//!
//! A conclusion can be wrong where its rule is: where the upstream executes later than `settle`, where others write the
//! same entities without versions. That is why no rule is assumed, and why `absent` has a cautious default.

mod compare;
mod judge;
mod rule;
mod template;

use http::Method;
use serde_json::Value;

pub use self::judge::{Finding, Sight, Since, explain, judge, reapply, see};
pub use self::rule::{Absent, Conflict, Each, Find, Pair, Pointer, ReadBack, Rule, Same};
pub use self::template::{BodyTemplate, Template, Unfit};

/// A write as it was sent, as far as finding out depends on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The method.
    pub method: Method,
    /// The normalised path, without a query.
    pub path: String,
    /// The body; `None` if there was none, or it was no JSON.
    pub body: Option<Value>,
}

impl Written {
    /// A write with the body as it was sent.
    pub fn new(method: Method, path: impl Into<String>, body: &[u8]) -> Self {
        Self { method, path: path.into(), body: serde_json::from_slice(body).ok() }
    }

    /// What the body has at `pointer`; null counts as nothing.
    fn member(&self, pointer: &Pointer) -> Option<&Value> {
        pointer.of(self.body.as_ref()?).filter(|value| !value.is_null())
    }

    /// The version that was sent, which guards the write.
    fn version(&self, rule: &Rule) -> Option<u64> {
        self.member(rule.version.as_ref()?)?.as_u64()
    }
}

/// The read that shows what became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// GET, or POST for searches.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// JSON, for searches.
    pub body: Option<Vec<u8>>,
}

/// Words the question that `rule` asks about `write`.
///
/// ```
/// use http::Method;
/// use tidegate_core::profile::Profile;
/// use tidegate_core::reconcile::{Written, read_for};
///
/// let genesys = Profile::builtin("genesys").unwrap();
/// let path = "/api/v2/users/7/routingskills/bulk";
/// let write = Written::new(Method::PATCH, path, br#"[{"id":"a","proficiency":3}]"#);
/// let rule = genesys.reconcile_rule(&write.method, &write.path).unwrap();
/// assert_eq!(read_for(rule, &write).unwrap().target, "/api/v2/users/7/routingskills?pageSize=100");
/// ```
///
/// # Errors
/// [`Unfit`] if the write lacks what the question needs.
pub fn read_for(rule: &Rule, write: &Written) -> Result<ReadRequest, Unfit> {
    let segments = rule.path.stars(&write.path).unwrap_or_default();
    let target = match &rule.read.target {
        Some(template) => template.fill(&segments, write)?,
        None => write.path.clone(),
    };
    let body = rule.read.body.as_ref().map(|body| body.fill(&segments, write)).transpose()?;
    if let Find::In { key, .. } = &rule.find
        && let Some(pair) = key.iter().find(|pair| write.member(&pair.request).is_none())
    {
        return Err(Unfit::Missing(pair.request.to_string()));
    }
    Ok(ReadRequest { method: rule.read.method.clone(), target, body })
}
