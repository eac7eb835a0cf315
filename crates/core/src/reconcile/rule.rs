//! What a rule says.

use std::fmt;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::template::{BodyTemplate, Template};
use crate::glob::PathGlob;

/// How to find out what became of a write.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The method of the writes it is about.
    pub method: Method,
    /// Their path.
    pub path: PathGlob,
    /// What is asked.
    pub read: ReadBack,
    /// Where in the answer the entity is.
    pub find: Find,
    /// What the entity has to have in common with the request.
    pub same: Same,
    /// Where a list in the answer tells how many entries there are in all. An answer with fewer shows only some of them.
    /// Without it every list is taken to be whole.
    pub total: Option<Pointer>,
    /// Where request and entity carry the entity's version, a number that every write raises by one and that a write
    /// has to name.
    pub version: Option<Pointer>,
    /// The version of an entity that has just been created. One that is found by its key and has another was changed since,
    /// and may have been there before.
    pub first: Option<u64>,
    /// What it means that the change cannot be seen.
    pub absent: Absent,
    /// How long after the end of the last attempt it means that: longer than the upstream goes on executing what it did
    /// not answer and its reads lag behind, together.
    pub settle: Duration,
    /// When a refused write is applied to what the entity has become; never, unless told.
    pub conflict: Option<Conflict>,
}

impl Rule {
    /// How long an absence proves nothing, unless a rule says otherwise. Half a minute is what gateways commonly wait for
    /// a service behind them before they answer 504, and what is not executed by then is rarely executed at all.
    pub const SETTLE: Duration = Duration::from_secs(30);

    /// Whether it is about this write. The path is normalised.
    pub fn applies(&self, method: &Method, path: &str) -> bool {
        self.method == *method && self.path.matches(path)
    }
}

/// The read that shows an entity.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadBack {
    /// GET, or POST for searches.
    pub method: Method,
    /// Path and query; absent if it is the path of the write.
    pub target: Option<Template>,
    /// What a search sends.
    pub body: Option<BodyTemplate>,
}

/// Where in the answer the entity is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Find {
    /// The answer is the entity; a 404 or 410 says that there is none.
    Entity,
    /// The answer has a list, and the entity is the one entry with the natural key of the request.
    In {
        /// The list.
        items: Pointer,
        /// What makes the natural key.
        key: Vec<Pair>,
    },
}

/// A member that entity and request have in common: one part of a natural key, or of what is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Where the entity has it.
    pub entity: Pointer,
    /// Where the request has it.
    pub request: Pointer,
}

/// What shows that the write was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Same {
    /// These members, as far as the request carries them, are equal. A request that carries others as well is not shown by
    /// them.
    Members(Vec<Pair>),
    /// All members of the request but these, and but the version, are equal.
    Body {
        /// What is not compared: what the upstream does not give back, or not as it was written.
        except: Vec<Pointer>,
    },
    /// The request is a list, and every item of it is found in a list of the entity.
    Each(Each),
    /// The entity is gone.
    Gone,
}

/// A list that was written, and the one that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Each {
    /// The list in the request.
    pub from: Pointer,
    /// The list in the answer.
    pub into: Pointer,
    /// What names an item, in both.
    pub id: Pointer,
    /// What has to be equal, as far as the item carries it. An item that carries others as well is not shown by them.
    pub members: Vec<Pointer>,
    /// The write replaces the list, so nothing else may be in it.
    pub exact: bool,
}

/// What it means that the change cannot be seen after [`Rule::settle`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Absent {
    /// Nothing: it may have been executed and undone, or may yet be executed.
    #[default]
    Unknown,
    /// That the write was not executed, if its end was watched: the reads began with it and have all shown the same since.
    /// Of what an earlier process sent, nothing: others may have written since.
    Unchanged,
    /// That the write was not executed and will not be, whoever else writes. The word of who wrote the rule.
    NotApplied,
}

impl Absent {
    /// Every meaning with its name in rules.
    pub const NAMES: [(&'static str, Self); 3] =
        [("unknown", Self::Unknown), ("unchanged", Self::Unchanged), ("not-applied", Self::NotApplied)];
}

/// When a write that was refused because its entity has changed is applied to what that has become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The statuses that say so.
    pub statuses: Vec<u16>,
    /// How often at most, for one write.
    pub most: u32,
}

impl Default for Conflict {
    fn default() -> Self {
        Self { statuses: vec![409], most: 3 }
    }
}

/// A JSON pointer (RFC 6901). The empty one is the whole document.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pointer(String);

impl Pointer {
    /// Reads a pointer. The error says what is wrong and what to write.
    ///
    /// ```
    /// use tidegate_core::reconcile::Pointer;
    ///
    /// assert!(Pointer::parse("").is_ok() && Pointer::parse("/address/city").is_ok());
    /// assert!(Pointer::parse("email").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, String> {
        let tildes =
            text.match_indices('~').all(|(at, _)| matches!(text.as_bytes().get(at + 1), Some(b'0' | b'1')));
        if (text.is_empty() || text.starts_with('/')) && tildes {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{text}` is no JSON pointer (begin with a slash, such as \"/email\")"))
        }
    }

    /// What `value` has there.
    pub fn of<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        value.pointer(&self.0)
    }

    /// The pointer as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
