//! Whether an entity shows what a request wrote.

use serde_json::Value;

use super::Written;
use super::rule::{Each, Pointer, Rule, Same};

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// Everything that was written is there.
    Equal,
    /// Something of it is not, or is otherwise.
    Differs,
    /// Nothing of it can be compared, or not all of the entity was shown.
    Unclear,
}

/// Compares what `rule` says is to be compared. An entity that ought to be gone is never equal.
pub(super) fn compare(rule: &Rule, write: &Written, entity: &Value) -> Compared {
    let Some(body) = &write.body else { return Compared::Unclear };
    match &rule.same {
        Same::Gone => Compared::Differs,
        Same::Members(members) => all(members
            .iter()
            .filter_map(|pair| Some(carried(pair.request.of(body)?, pair.entity.of(entity))))),
        Same::Body { except } => whole(rule, body, except, entity),
        Same::Each(each) => list(each, rule.total.as_ref(), body, entity),
    }
}

/// Equal if all are, and there is at least one.
fn all(parts: impl Iterator<Item = bool>) -> Compared {
    let mut seen = Compared::Unclear;
    for equal in parts {
        if !equal {
            return Compared::Differs;
        }
        seen = Compared::Equal;
    }
    seen
}

/// Whether an entity has what the request carries.
fn carried(sent: &Value, found: Option<&Value>) -> bool {
    found.map_or(sent.is_null(), |found| is_within(sent, found))
}

fn whole(rule: &Rule, body: &Value, except: &[Pointer], entity: &Value) -> Compared {
    let Value::Object(members) = body else { return Compared::Unclear };
    let left_out = |name: &str| {
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        except.iter().chain(&rule.version).any(|other| other.as_str() == pointer)
    };
    all(members
        .iter()
        .filter(|(name, _)| !left_out(name))
        .map(|(name, sent)| carried(sent, entity.get(name))))
}

fn list(each: &Each, total: Option<&Pointer>, body: &Value, entity: &Value) -> Compared {
    let (Some(Value::Array(sent)), Some(Value::Array(shown))) = (each.from.of(body), each.into.of(entity))
    else {
        return Compared::Unclear;
    };
    let complete = is_whole(total, entity, shown);
    let mut missing = false;
    for item in sent {
        let Some(id) = each.id.of(item) else { return Compared::Unclear };
        let Some(found) =
            shown.iter().find(|found| each.id.of(found).is_some_and(|other| is_within(id, other)))
        else {
            missing = true;
            continue;
        };
        let differs = |member: &Pointer| member.of(item).is_some_and(|sent| !carried(sent, member.of(found)));
        if each.members.iter().any(differs) {
            return Compared::Differs;
        }
    }
    match (missing, complete) {
        (true, true) => Compared::Differs,
        (true, false) => Compared::Unclear,
        (false, true) if each.exact => {
            if shown.len() == sent.len() {
                Compared::Equal
            } else {
                Compared::Differs
            }
        }
        (false, false) if each.exact => Compared::Unclear,
        (false, _) => {
            if sent.is_empty() {
                Compared::Unclear
            } else {
                Compared::Equal
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
