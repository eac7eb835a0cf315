//! A bulk call's answer, told to each of those whose rows it carried.

use serde_json::Value;

use super::rule::{AnswerAs, Item, MergeRule, Single};

/// What one write is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This, as the single call would have been.
    Answer {
        /// The status.
        status: u16,
        /// The body, JSON.
        body: Vec<u8>,
    },
    /// The bulk call's answer as it is.
    Whole,
    /// It is sent alone: nothing was executed, or doing it again changes nothing.
    Again,
    /// It was executed, and its answer cannot be told.
    Lost,
}

/// What the writes with these rows are told where the bulk call was answered so.
///
/// A refusal of the whole says nothing about one row, so each is sent alone and hears its own. Of a server's own failure nobody knows what
/// was executed: it is told to all as it is, as it would have been told to a single call.
pub fn split(rule: &MergeRule, seats: &[(usize, &[Item])], status: u16, body: &[u8]) -> Vec<Verdict> {
    let all = |verdict: Verdict| vec![verdict; seats.len()];
    match status {
        200..=299 => {}
        400..=499 => return all(Verdict::Again),
        _ => return all(Verdict::Whole),
    }
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    let items = answer.as_ref().and_then(|answer| rule.items.of(answer)).and_then(Value::as_array);
    let told = seats.iter().map(|(single, rows)| {
        let single = rule.from.get(*single)?;
        match single.answer {
            AnswerAs::Whole => answer.is_some().then_some(Verdict::Whole),
            AnswerAs::Item => rule.of_item(single, rows.first()?, items?, status),
            AnswerAs::Own => rule.of_own(single, rows, answer.as_ref()?, items?, status),
        }
    });
    let unsaid = if rule.idempotent { Verdict::Again } else { Verdict::Lost };
    told.map(|told| told.unwrap_or_else(|| unsaid.clone())).collect()
}

impl MergeRule {
    fn find<'i>(&self, row: &Item, items: &'i [Value]) -> Option<&'i Value> {
        let of = |item: &&Value| self.key_of(item) == Some(row.key.as_str());
        let mut found = items.iter().filter(of);
        // Of two with its name neither is certain to be its own.
        found.next().filter(|_| found.next().is_none())
    }

    fn key_of<'i>(&self, item: &'i Value) -> Option<&'i str> {
        let named = |item: &'i Value| item.get(&self.key).and_then(Value::as_str);
        named(item).or_else(|| self.entity.as_ref().and_then(|entity| entity.of(item)).and_then(named))
    }

    fn of_item(&self, single: &Single, row: &Item, items: &[Value], status: u16) -> Option<Verdict> {
        let item = self.find(row, items)?;
        let success = single.status.unwrap_or(status);
        let status = match &self.status {
            Some(own) => own.of(item)?.as_u64().and_then(|status| u16::try_from(status).ok())?,
            None => success,
        };
        let (status, at) = match status {
            200..=299 => (success, &self.entity),
            400..=599 => (status, &self.error),
            _ => return None,
        };
        let told = match at {
            Some(at) => at.of(item)?,
            None => item,
        };
        Some(Verdict::Answer { status, body: told.to_string().into_bytes() })
    }

    fn of_own(
        &self,
        single: &Single,
        rows: &[Item],
        answer: &Value,
        items: &[Value],
        status: u16,
    ) -> Option<Verdict> {
        let own = rows.iter().map(|row| self.find(row, items).cloned()).collect::<Option<Vec<Value>>>()?;
        let mut answer = answer.clone();
        if let Some(total) = &self.total {
            *answer.pointer_mut(total.as_str())? = Value::from(own.len());
        }
        *answer.pointer_mut(self.items.as_str())? = Value::Array(own);
        Some(Verdict::Answer {
            status: single.status.unwrap_or(status),
            body: answer.to_string().into_bytes(),
        })
    }
}
