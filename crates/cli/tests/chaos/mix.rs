//! What is applied: a seeded mixture of writes, each to an entity of its own, so that every outcome can be told apart.

use serde_json::{Value, json};
use tidegate_sim::model::org::skills;

/// Of so many renames one carries a version that is not the user's: it is refused by the upstream, and its journal knows
/// failures as well.
const STALE_EVERY: usize = 6;

/// What kind of write it is, and so what may become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// POST of a user with an email of its own.
    Create,
    /// PATCH of a user with its version.
    Rename,
    /// PATCH of a user with a version before its first.
    Stale,
    /// PATCH of a user's skills.
    Merge,
    /// PUT of a user's skills.
    Replace,
    /// DELETE of a user.
    Delete,
}

impl Kind {
    /// Whether executing it twice does harm, by its method.
    pub(crate) const fn is_repeatable(self) -> bool {
        matches!(self, Self::Replace | Self::Delete)
    }
}

/// One write.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    /// The user it is about; none exists before a [`Kind::Create`].
    pub(crate) user: Option<String>,
    method: &'static str,
    pub(crate) path: String,
    body: Option<Value>,
}

impl Write {
    fn new(number: usize, kind: Kind, rng: &mut fastrand::Rng) -> Self {
        let user = format!("00000000-0000-4000-8000-{number:012x}");
        let one = format!("/api/v2/users/{user}");
        let skill = |at: usize| json!({ "id": skills::id(at), "proficiency": (number + at) % 6 });
        let some = || json!([skill(number % 20), skill((number + 7) % 20)]);
        let title = format!("Title {}", rng.u32(..));
        let (method, path, body) = match kind {
            Kind::Create => {
                let body =
                    json!({ "name": format!("New {number}"), "email": format!("new{number}@example.com") });
                ("POST", "/api/v2/users".to_owned(), Some(body))
            }
            Kind::Rename => ("PATCH", one, Some(json!({ "title": title, "version": 1 }))),
            Kind::Stale => ("PATCH", one, Some(json!({ "title": title, "version": 0 }))),
            Kind::Merge => ("PATCH", format!("{one}/routingskills/bulk"), Some(some())),
            Kind::Replace => ("PUT", format!("{one}/routingskills/bulk"), Some(some())),
            Kind::Delete => ("DELETE", one, None),
        };
        let user = (kind != Kind::Create).then_some(user);
        Self { id: format!("w{number}"), kind, user, method, path, body }
    }

    fn line(&self) -> String {
        let mut line = json!({ "id": self.id, "method": self.method, "path": self.path });
        if let Some(body) = &self.body {
            line["body"] = body.clone();
        }
        line.to_string()
    }
}

/// All writes of a run: 30 % create users, 25 % rename, 25 % merge skills, 10 % replace skills, 10 % delete.
pub(crate) fn mix(seed: u64, count: usize) -> Vec<Write> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let kind = |number: usize| match number % 20 {
        0..6 => Kind::Create,
        6..11 if number.is_multiple_of(STALE_EVERY) => Kind::Stale,
        6..11 => Kind::Rename,
        11..16 => Kind::Merge,
        16 | 17 => Kind::Replace,
        _ => Kind::Delete,
    };
    let mut writes: Vec<Write> =
        (1..=count).map(|number| Write::new(number, kind(number), &mut rng)).collect();
    rng.shuffle(&mut writes);
    writes
}

/// The input of `tidegate bulk run`.
pub(crate) fn ndjson(writes: &[Write]) -> String {
    writes.iter().map(|write| write.line() + "\n").collect()
}
