//! Which single write is a row of which bulk call.

use http::Method;
use serde_json::Value;

use crate::glob::PathGlob;
use crate::idempotency::canonical_json;
use crate::reconcile::Pointer;
use crate::template::Piece;

/// One bulk call, and the single writes that it can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeRule {
    /// What it is called in settings and books.
    pub name: String,
    /// The method of the bulk call.
    pub method: Method,
    /// Its path; a hole is what that `*` of the single write stands for, from 0.
    pub(super) into: Vec<Piece<usize>>,
    /// The member of the body that holds the rows; the body is the array of rows itself if absent.
    pub wrap: Option<String>,
    /// The most rows of one call.
    pub max: usize,
    /// The member that names a row's item.
    pub key: String,
    /// What else a row may have. A write that carries more is sent alone.
    pub members: Vec<String>,
    /// Where the answer has its items.
    pub items: Pointer,
    /// Where an item of the answer has its status; absent if the call is done as a whole or not at all.
    pub status: Option<Pointer>,
    /// Where an item of the answer has the entity; the item is the entity if absent.
    pub entity: Option<Pointer>,
    /// Where an item of the answer has its error; the whole item is told if absent.
    pub error: Option<Pointer>,
    /// Where the answer counts its items.
    pub total: Option<Pointer>,
    /// The call sets values: executing it twice is executing it once.
    pub idempotent: bool,
    /// The writes it can carry; the first that matches decides.
    pub from: Vec<Single>,
    /// Writes to these paths and below keep their place among those that are merged.
    pub order: Vec<PathGlob>,
}

/// One kind of single write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Single {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: PathGlob,
    /// What of it is a row.
    pub row: Row,
    /// What it is answered with.
    pub answer: AnswerAs,
    /// The status of its success; that of the bulk call if absent.
    pub status: Option<u16>,
}

/// What of a single write is a row of the bulk call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Its body. The number is that of the `*` of its path which names the item; the body names it if absent.
    Body(Option<usize>),
    /// It is the bulk call itself, with few rows.
    Rows,
}

/// What a single write is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerAs {
    /// The entity of its item.
    Item,
    /// The bulk call's answer as it is: it shows the entity that the rows belong to, whoever wrote them.
    Whole,
    /// The bulk call's answer with its own items only.
    Own,
}

impl AnswerAs {
    /// Every way with its name in rules.
    pub const NAMES: [(&'static str, Self); 3] =
        [("item", Self::Item), ("whole", Self::Whole), ("own", Self::Own)];
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it names.
    pub key: String,
    /// The row as JSON.
    pub json: String,
}

/// Why a write is not merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// Its body is no row of the bulk call: no JSON, or it has more or less than a row.
    Body,
    /// It has more rows than a call takes, or none, or one twice.
    Rows,
    /// Too many groups wait already, or it is too large.
    Bound,
}

/// Where a write belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The rule's number.
    pub rule: usize,
    /// The path of the bulk call.
    pub into: String,
    /// The kind of single write, by number, and the segment of its path that names its item; `None` if it only keeps its place.
    pub single: Option<(usize, Option<String>)>,
}

/// Where a write to `path` (normalised) belongs; `None` if no rule concerns it.
pub fn find(rules: &[MergeRule], method: &Method, path: &str) -> Option<Placed> {
    let path = path.trim_end_matches('/');
    rules.iter().enumerate().find_map(|(at, rule)| rule.place(at, method, path))
}

impl MergeRule {
    /// The method and path of the bulk call with each hole as `*`, for messages.
    pub fn into_text(&self) -> String {
        let path: String = self
            .into
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Hole(_) => "*",
            })
            .collect();
        format!("{} {path}", self.method)
    }

    fn place(&self, number: usize, method: &Method, path: &str) -> Option<Placed> {
        for (at, single) in self.from.iter().enumerate().filter(|(_, single)| single.method == *method) {
            let Some(stars) = single.path.stars(path) else { continue };
            let into = self.fill(&stars)?;
            let named = match single.row {
                // The bulk call's own path is no item's, though it looks like one.
                Row::Body(_) if into == path => continue,
                Row::Body(star) => star.and_then(|star| stars.get(star)).map(|id| (*id).to_owned()),
                Row::Rows => None,
            };
            return Some(Placed { rule: number, into, single: Some((at, named)) });
        }
        let stars = self.order.iter().find_map(|place| stars_of_prefix(place, path))?;
        Some(Placed { rule: number, into: self.fill(&stars)?, single: None })
    }

    fn fill(&self, stars: &[&str]) -> Option<String> {
        let mut path = String::new();
        for piece in &self.into {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Hole(at) => path.push_str(stars.get(*at)?),
            }
        }
        Some(path)
    }

    /// The rows of a single write's body; `named` is what its path says of the item.
    ///
    /// # Errors
    /// Why it has to be sent alone.
    pub fn rows(&self, single: usize, named: Option<&str>, body: &[u8]) -> Result<Vec<Item>, Alone> {
        // Numbers that would lose digits and names given twice mean something to the upstream that a copy would not say.
        canonical_json(body).ok_or(Alone::Body)?;
        let mut value: Value = serde_json::from_slice(body).map_err(|_| Alone::Body)?;
        let rows = match self.from.get(single).map(|single| single.row).ok_or(Alone::Body)? {
            Row::Body(_) => vec![self.row(value, named)?],
            Row::Rows => {
                if let Some(wrap) = &self.wrap {
                    let Value::Object(mut members) = value else { return Err(Alone::Body) };
                    value = members.remove(wrap).filter(|_| members.is_empty()).ok_or(Alone::Body)?;
                }
                let Value::Array(rows) = value else { return Err(Alone::Body) };
                rows.into_iter().map(|row| self.row(row, None)).collect::<Result<_, _>>()?
            }
        };
        let again = |(at, row): (usize, &Item)| rows[..at].iter().any(|earlier| earlier.key == row.key);
        if rows.is_empty() || rows.len() > self.max || rows.iter().enumerate().any(again) {
            return Err(Alone::Rows);
        }
        Ok(rows)
    }

    fn row(&self, value: Value, named: Option<&str>) -> Result<Item, Alone> {
        let Value::Object(mut row) = value else { return Err(Alone::Body) };
        if let Some(named) = named {
            // A segment that is encoded might be read in more than one way.
            if named.contains('%') {
                return Err(Alone::Body);
            }
            match row.get(&self.key) {
                None => drop(row.insert(self.key.clone(), Value::from(named))),
                Some(own) if own == named => {}
                Some(_) => return Err(Alone::Body),
            }
        }
        let known = |name: &String| *name == self.key || self.members.contains(name);
        if row.len() < 2 || !row.keys().all(known) {
            return Err(Alone::Body);
        }
        let key = row.get(&self.key).and_then(Value::as_str).filter(|key| !key.is_empty());
        let key = key.ok_or(Alone::Body)?.to_owned();
        Ok(Item { key, json: Value::Object(row).to_string() })
    }

    /// The body of a bulk call with these rows.
    pub fn body<'i>(&self, rows: impl IntoIterator<Item = &'i Item>) -> String {
        let rows: Vec<&str> = rows.into_iter().map(|row| row.json.as_str()).collect();
        let list = format!("[{}]", rows.join(","));
        match &self.wrap {
            Some(member) => format!("{{{}:{list}}}", Value::from(member.as_str())),
            None => list,
        }
    }
}

/// What the `*` of `place` stand for where `path` is at or below it.
fn stars_of_prefix<'p>(place: &PathGlob, path: &'p str) -> Option<Vec<&'p str>> {
    let segments = place.as_str().split('/').filter(|segment| !segment.is_empty()).count();
    let end = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
    place.stars(&path[..end])
}
