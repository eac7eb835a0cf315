//! Whether an entity shows what a request wrote.

use serde_json::Value;

use super::Written;
use super::rule::{Each, Find, Pair, Pointer, Rule, Same};

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// Everything that was written is there.
    Equal,
    /// Something of it is not, or is otherwise.
    Differs,
    /// What can be compared is there, and it is not all that was written; or nothing can be.
    Unclear,
}

impl Compared {
    /// `self`, if nothing else was written.
    fn if_all(self, compared: bool) -> Self {
        if self == Self::Equal && !compared { Self::Unclear } else { self }
    }
}

/// Compares what `rule` says is to be compared. An entity that ought to be gone is never equal, and neither is one of which
/// only a part is compared: a write that changes something else besides would be called executed for what was there before.
pub(super) fn compare(rule: &Rule, write: &Written, entity: &Value) -> Compared {
    if rule.same == Same::Gone {
        return Compared::Differs;
    }
    let Some(body) = &write.body else { return Compared::Unclear };
    let key = match &rule.find {
        Find::In { key, .. } => key.as_slice(),
        Find::Entity => &[],
    };
    let elsewhere = key.iter().map(|pair| &pair.request).chain(&rule.version);
    match &rule.same {
        Same::Gone => Compared::Differs,
        Same::Members(members) => {
            let named: Vec<&Pointer> = members.iter().map(|pair| &pair.request).chain(elsewhere).collect();
            all(members.iter().filter_map(|pair| carried(body, pair, entity)))
                .if_all(covers(&named, body, ""))
        }
        Same::Body { except } => whole(rule, body, except, entity),
        Same::Each(each) => {
            let named: Vec<&Pointer> = elsewhere.chain([&each.from]).collect();
            list(each, rule.total.as_ref(), body, entity).if_all(covers(&named, body, ""))
        }
    }
}

/// Whether every member of `sent`, which is at `place` of the request, is named, or within what is.
fn covers(named: &[&Pointer], sent: &Value, place: &str) -> bool {
    if named.iter().any(|name| name.as_str() == place) {
        return true;
    }
    let leads_on =
        |name: &&Pointer| name.as_str().strip_prefix(place).is_some_and(|rest| rest.starts_with('/'));
    match sent {
        Value::Object(members) if named.iter().any(leads_on) => {
            members.iter().all(|(name, sent)| covers(named, sent, &format!("{place}{}", pointer_to(name))))
        }
        _ => false,
    }
}

/// The JSON pointer to a member of the document.
fn pointer_to(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Equal if all are, and there is at least one. One that differs decides.
fn all(parts: impl Iterator<Item = Compared>) -> Compared {
    let mut seen = None;
    for part in parts {
        match part {
            Compared::Differs => return Compared::Differs,
            Compared::Unclear => seen = Some(Compared::Unclear),
            Compared::Equal => seen = seen.or(Some(Compared::Equal)),
        }
    }
    seen.unwrap_or(Compared::Unclear)
}

/// What was sent, against what is there; null and nothing are the same. A text that differs only in case and blanks may be
/// the upstream's spelling of it, or what was there before.
fn one(sent: &Value, found: Option<&Value>) -> Compared {
    match found {
        None if sent.is_null() => Compared::Equal,
        Some(found) if is_within(sent, found) => Compared::Equal,
        Some(found) if is_near(sent, found) => Compared::Unclear,
        _ => Compared::Differs,
    }
}

/// A member that the request carries; `None` if it does not carry it.
fn carried(request: &Value, pair: &Pair, entity: &Value) -> Option<Compared> {
    Some(one(pair.request.of(request)?, pair.entity.of(entity)))
}

fn whole(rule: &Rule, body: &Value, except: &[Pointer], entity: &Value) -> Compared {
    let Value::Object(members) = body else { return Compared::Unclear };
    let left_out = |name: &str| {
        let pointer = pointer_to(name);
        except.iter().chain(&rule.version).any(|other| other.as_str() == pointer)
    };
    let compared = members.iter().filter(|(name, _)| !left_out(name));
    all(compared.map(|(name, sent)| one(sent, entity.get(name))))
}

fn list(each: &Each, total: Option<&Pointer>, body: &Value, entity: &Value) -> Compared {
    let (Some(Value::Array(sent)), Some(Value::Array(shown))) = (each.from.of(body), each.into.of(entity))
    else {
        return Compared::Unclear;
    };
    let complete = is_whole(total, entity, shown);
    let named: Vec<&Pointer> = each.members.iter().chain([&each.id]).collect();
    let (mut missing, mut clear) = (false, true);
    for item in sent {
        let Some(id) = each.id.of(item) else { return Compared::Unclear };
        let Some(found) =
            shown.iter().find(|found| each.id.of(found).is_some_and(|other| is_within(id, other)))
        else {
            missing = true;
            continue;
        };
        clear &= covers(&named, item, "");
        let compared = |member: &Pointer| Some(one(member.of(item)?, member.of(found)));
        // An item may be nothing but its id: that it is there is what was written.
        match all(each.members.iter().filter_map(compared).chain([Compared::Equal])) {
            Compared::Differs => return Compared::Differs,
            Compared::Unclear => clear = false,
            Compared::Equal => {}
        }
    }
    match (missing, complete) {
        (true, true) => Compared::Differs,
        (true, false) => Compared::Unclear,
        (false, true) if each.exact => {
            if shown.len() == sent.len() {
                Compared::Equal.if_all(clear)
            } else {
                Compared::Differs
            }
        }
        (false, false) if each.exact => Compared::Unclear,
        (false, _) => {
            if sent.is_empty() {
                Compared::Unclear
            } else {
                Compared::Equal.if_all(clear)
            }
        }
    }
}

/// Whether a list in an answer is all there is.
pub(super) fn is_whole(total: Option<&Pointer>, answer: &Value, shown: &[Value]) -> bool {
    total.is_none_or(|total| {
        total.of(answer).and_then(Value::as_u64).is_some_and(|all| all <= shown.len() as u64)
    })
}

/// Whether `found` is what was sent: numbers by value, texts exactly, lists item by item, and of objects the members
/// that were sent. Upstreams add members of their own.
pub(super) fn is_within(sent: &Value, found: &Value) -> bool {
    match (sent, found) {
        (Value::Number(sent), Value::Number(found)) => {
            sent == found || (sent.is_f64() || found.is_f64()) && sent.as_f64() == found.as_f64()
        }
        (Value::Array(sent), Value::Array(found)) => {
            sent.len() == found.len() && sent.iter().zip(found).all(|(sent, found)| is_within(sent, found))
        }
        (Value::Object(sent), Value::Object(found)) => sent
            .iter()
            .all(|(name, sent)| found.get(name).map_or(sent.is_null(), |found| is_within(sent, found))),
        (sent, found) => sent == found,
    }
}

/// Equal but for case and blanks around: an upstream may have stored it like that.
pub(super) fn is_near(sent: &Value, found: &Value) -> bool {
    match (sent, found) {
        (Value::String(sent), Value::String(found)) => {
            sent.trim().to_lowercase() == found.trim().to_lowercase()
        }
        (sent, found) => is_within(sent, found),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_count_by_value_texts_exactly_and_added_members_not_at_all() {
        for (sent, found, within) in [
            (json!(4), json!(4.0), true),
            (json!(4), json!("4"), false),
            (json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64), false),
            (json!("Ann"), json!("ann"), false),
            (json!({"a": 1}), json!({"a": 1, "b": 2}), true),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), false),
            (json!({"a": null}), json!({}), true),
            (json!([{"a": 1}]), json!([{"a": 1, "b": 2}]), true),
            (json!([1, 2]), json!([2, 1]), false),
            (json!([1]), json!([1, 2]), false),
        ] {
            assert_eq!(is_within(&sent, &found), within, "{sent} {found}");
        }
    }
}
