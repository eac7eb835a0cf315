//! Tells events that are new from those that came before.
//!
//! While one channel takes another's place both may bring the same event, and an upstream may send one twice or in another order
//! than things happened. Here it is only told which: whoever keeps answers asks again for anything but a certain duplicate, because
//! a read brings the present whatever the order of events was.
//!
//! An event that the upstream gives a name is a duplicate if name, topic and text were there before. One without is only where
//! it says the same as the one before it about the same thing: that somebody goes away, comes back and goes away again is
//! three events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What an event's place in the order of things is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Order {
    /// A number that grows with each change.
    Version(u64),
    /// When it changed, in milliseconds since 1970.
    At(i64),
}

impl Order {
    /// Reads a version (a number, or a text of digits) or a time (RFC 3339).
    ///
    /// ```
    /// use serde_json::json;
    /// use tidegate_core::push::Order;
    ///
    /// assert_eq!(Order::read(&json!(7)), Some(Order::Version(7)));
    /// assert_eq!(Order::read(&json!("1970-01-01T00:00:01.5Z")), Some(Order::At(1500)));
    /// assert_eq!(Order::read(&json!("soon")), None);
    /// ```
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_u64().map(Self::Version),
            Value::String(text) => match text.parse::<u64>() {
                Ok(number) => Some(Self::Version(number)),
                Err(_) => text.parse::<Timestamp>().ok().map(|at| Self::At(at.as_millisecond())),
            },
            _ => None,
        }
    }

    /// Whether it lies before another. A version and a time cannot be compared.
    fn is_before(self, other: Self) -> bool {
        match (self, other) {
            (Self::Version(one), Self::Version(other)) => one < other,
            (Self::At(one), Self::At(other)) => one < other,
            _ => false,
        }
    }
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// New.
    New,
    /// New here, but something later was told before.
    Late,
    /// Told before.
    Duplicate,
}

type Print = [u8; 16];

#[derive(Clone, Copy, Debug)]
struct Last {
    print: Print,
    order: Option<Order>,
}

/// A bounded memory of events.
#[derive(Debug)]
pub struct Seen {
    most: usize,
    prints: BTreeSet<Print>,
    line: VecDeque<Print>,
    last: BTreeMap<Print, Last>,
    last_line: VecDeque<Print>,
}

impl Seen {
    /// Remembers so many events, and of so many things the last one.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            prints: BTreeSet::new(),
            line: VecDeque::new(),
            last: BTreeMap::new(),
            last_line: VecDeque::new(),
        }
    }

    /// Looks at an event on `topic` about `about` (an entity, where the topic has several). `id` is the upstream's name for it, and
    /// `body` what it says.
    pub fn judge(
        &mut self,
        topic: &str,
        about: &str,
        id: Option<&str>,
        order: Option<Order>,
        body: &[u8],
    ) -> Verdict {
        let thing = print(&[topic.as_bytes(), about.as_bytes()]);
        let event = print(&[topic.as_bytes(), id.unwrap_or_default().as_bytes(), body]);
        if id.is_some() && !self.remember(event) {
            return Verdict::Duplicate;
        }
        let last = self.last.get(&thing).copied();
        if id.is_none() && last.is_some_and(|last| last.print == event) {
            return Verdict::Duplicate;
        }
        let before = last.and_then(|last| last.order);
        if let (Some(order), Some(before)) = (order, before)
            && order.is_before(before)
        {
            return Verdict::Late;
        }
        self.keep(thing, Last { print: event, order: order.or(before) });
        Verdict::New
    }

    /// Whether it was not there.
    fn remember(&mut self, event: Print) -> bool {
        if !self.prints.insert(event) {
            return false;
        }
        self.line.push_back(event);
        if self.line.len() > self.most
            && let Some(oldest) = self.line.pop_front()
        {
            self.prints.remove(&oldest);
        }
        true
    }

    fn keep(&mut self, thing: Print, last: Last) {
        if self.last.insert(thing, last).is_none() {
            self.last_line.push_back(thing);
        }
        if self.last_line.len() > self.most
            && let Some(oldest) = self.last_line.pop_front()
        {
            self.last.remove(&oldest);
        }
    }

    /// How many events and things it remembers.
    pub fn len(&self) -> (usize, usize) {
        (self.prints.len(), self.last.len())
    }

    /// Whether it remembers nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }
}

fn print(parts: &[&[u8]]) -> Print {
    let mut digest = Sha256::new();
    for part in parts {
        // A length before each part, so that no two lists of parts read alike.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let whole: [u8; 32] = digest.finalize().into();
    *whole.first_chunk().expect("sixteen of thirty-two")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_with_a_name_is_told_once() {
        let mut seen = Seen::new(10);
        let mut tell = |id, body: &str| seen.judge("t", "", Some(id), None, body.as_bytes());
        assert_eq!(
            [tell("1", "a"), tell("2", "b"), tell("1", "a")],
            [Verdict::New, Verdict::New, Verdict::Duplicate]
        );
        assert_eq!(tell("1", "c"), Verdict::New, "one request may cause several events, which bear its name");
        assert_eq!(seen.judge("u", "", Some("1"), None, b"a"), Verdict::New);
    }

    #[test]
    fn an_event_without_a_name_is_a_duplicate_only_right_behind_its_like() {
        let mut seen = Seen::new(10);
        let mut tell = |body: &str| seen.judge("t", "", None, None, body.as_bytes());
        let told = [tell("away"), tell("away"), tell("back"), tell("away")];
        assert_eq!(told, [Verdict::New, Verdict::Duplicate, Verdict::New, Verdict::New]);
    }

    #[test]
    fn what_happened_before_something_told_is_late() {
        let mut seen = Seen::new(10);
        let mut tell =
            |about: &str, version, id| seen.judge("t", about, Some(id), Some(Order::Version(version)), b"");
        assert_eq!(
            [tell("a", 2, "x"), tell("a", 1, "y"), tell("a", 2, "z")],
            [Verdict::New, Verdict::Late, Verdict::New]
        );
        assert_eq!(tell("b", 1, "w"), Verdict::New, "another thing has versions of its own");
        assert_eq!(
            seen.judge("t", "a", None, Some(Order::At(0)), b"!"),
            Verdict::New,
            "a time is no version"
        );
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut seen = Seen::new(3);
        for number in 0..100 {
            let id = number.to_string();
            seen.judge("t", &id, Some(&id), None, b"");
        }
        assert_eq!(seen.len(), (3, 3));
    }
}
