//! De-duplication of writes by request id, as the platform guide describes it.
//!
//! The first *successful* write under an id is remembered for a while (24 h in the guide). A later write with the same id gets
//! the remembered answer, whatever its body says, and is not executed: the guide's Edge Case 3. Whether real endpoints do this
//! is doubtful, so it can be switched off.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// At most this many answers are remembered; beyond it the oldest go first.
const CAPACITY: usize = 200_000;

/// The remembered part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Status of the original answer.
    pub status: u16,
    /// Body of the original answer.
    pub body: Vec<u8>,
}

/// Answers by credential and request id.
#[derive(Debug)]
pub struct Dedup {
    keep: Option<Duration>,
    answers: HashMap<String, (Duration, Remembered)>,
    order: VecDeque<(Duration, String)>,
}

impl Dedup {
    /// Remembers for `keep`; `None` switches the feature off.
    pub fn new(keep: Option<Duration>) -> Self {
        Self { keep, answers: HashMap::new(), order: VecDeque::new() }
    }

    /// The original answer, if this id has one.
    pub fn find(&mut self, now: Duration, credential: &str, id: &str) -> Option<Remembered> {
        let keep = self.keep?;
        while let Some((at, _)) = self.order.front()
            && (*at + keep <= now || self.order.len() > CAPACITY)
        {
            let (_, key) = self.order.pop_front().expect("a front was seen");
            self.answers.remove(&key);
        }
        self.answers.get(&key(credential, id)).map(|(_, answer)| answer.clone())
    }

    /// Remembers a successful answer; the first one under an id stays.
    pub fn remember(&mut self, now: Duration, credential: &str, id: &str, answer: Remembered) {
        if self.keep.is_none() {
            return;
        }
        let key = key(credential, id);
        if !self.answers.contains_key(&key) {
            self.order.push_back((now, key.clone()));
            self.answers.insert(key, (now, answer));
        }
    }
}

fn key(credential: &str, id: &str) -> String {
    format!("{credential}\n{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Remembered {
        Remembered { status: 200, body: text.as_bytes().to_vec() }
    }

    #[test]
    fn the_first_answer_stays_until_it_expires() {
        let h = |hours: u64| Duration::from_secs(hours * 3600);
        let mut dedup = Dedup::new(Some(h(24)));
        dedup.remember(h(0), "c", "id", answer("first"));
        dedup.remember(h(1), "c", "id", answer("second"));
        assert_eq!(dedup.find(h(23), "c", "id"), Some(answer("first")));
        assert_eq!(dedup.find(h(23), "other", "id"), None);
        assert_eq!(dedup.find(h(24), "c", "id"), None);
    }

    #[test]
    fn switched_off_it_remembers_nothing() {
        let mut dedup = Dedup::new(None);
        dedup.remember(Duration::ZERO, "c", "id", answer("first"));
        assert_eq!(dedup.find(Duration::ZERO, "c", "id"), None);
    }
}
