//! What goes over one WebSocket, and when. The shell asks for what is due and sends it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::faults::MessageFault;

/// How long a message that is to come after the next one waits for that.
const REORDER_WAIT: Duration = Duration::from_secs(1);

/// Why a socket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Another socket was opened for the channel: closed in an orderly way.
    Replaced,
    /// The channel is over, or a closing was announced: closed in an orderly way.
    Over,
    /// The connection is cut without a word.
    Cut,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) text: String,
    /// The class of the topic, for the books; none for what is about the socket itself.
    pub(super) class: Option<&'static str>,
}

/// What the shell is to do for a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Texts to send, in order.
    pub texts: Vec<String>,
    /// When to ask again, if nothing happens before.
    pub next: Option<Duration>,
    /// Whether the socket ends after that.
    pub end: Option<End>,
}

/// One open socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) channel: String,
    /// By due time, then in the order in which they were written.
    queue: BTreeMap<(Duration, u64), Message>,
    written: u64,
    /// A message that waits for the next one, and until when.
    held: Option<(Duration, Message)>,
    pub(super) next_beat: Duration,
    /// When the socket closes, once that was announced for itself (not for its channel).
    pub(super) closes: Option<Duration>,
    /// Whether the end of the channel was announced.
    pub(super) told: bool,
    pub(super) end: Option<End>,
}

impl Socket {
    pub(super) fn new(channel: &str, first_beat: Duration) -> Self {
        Self {
            channel: channel.to_owned(),
            queue: BTreeMap::new(),
            written: 0,
            held: None,
            next_beat: first_beat,
            closes: None,
            told: false,
            end: None,
        }
    }

    /// Puts a message on its way, to be sent at `due`.
    pub(super) fn write(&mut self, due: Duration, message: Message) {
        self.queue.insert((due, self.written), message);
        self.written += 1;
    }

    /// Puts an event on its way and lets `fault` happen to it; how many messages that lost.
    pub(super) fn deliver(&mut self, now: Duration, due: Duration, message: Message, fault: MessageFault) {
        match fault {
            MessageFault::Drop => {}
            MessageFault::Reorder if self.held.is_none() => self.held = Some((due + REORDER_WAIT, message)),
            fault => {
                if fault == MessageFault::Duplicate {
                    self.write(due, message.clone());
                }
                self.write(due, message);
                if let Some((_, held)) = self.held.take() {
                    self.write(due.max(now), held);
                }
            }
        }
    }

    /// Takes what is due, in order.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<Message> {
        if let Some((until, held)) = self.held.take() {
            if until <= now {
                self.write(until, held);
            } else {
                self.held = Some((until, held));
            }
        }
        let later = self.queue.split_off(&(now + Duration::from_nanos(1), 0));
        std::mem::replace(&mut self.queue, later).into_values().collect()
    }

    /// Everything that was not sent, when the socket ends.
    pub(super) fn take_all(&mut self) -> Vec<Message> {
        let held = self.held.take().map(|(_, message)| message);
        std::mem::take(&mut self.queue).into_values().chain(held).collect()
    }

    /// When the first of its messages is due.
    pub(super) fn next_message(&self) -> Option<Duration> {
        let queued = self.queue.keys().next().map(|(due, _)| *due);
        queued.into_iter().chain(self.held.as_ref().map(|(until, _)| *until)).min()
    }
}

/// A message of the channel about itself.
pub(super) fn metadata(text: &str) -> Message {
    let text = json!({ "topicName": "channel.metadata", "eventBody": { "message": text } }).to_string();
    Message { text, class: None }
}

/// The announcement that a socket will be closed.
pub(super) fn closing() -> Message {
    let body =
        json!({ "topicName": "v2.system.socket_closing", "eventBody": { "message": "socket closing" } });
    Message { text: body.to_string(), class: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn message(text: &str) -> Message {
        Message { text: text.to_owned(), class: Some("c") }
    }

    fn texts(messages: Vec<Message>) -> Vec<String> {
        messages.into_iter().map(|message| message.text).collect()
    }

    #[test]
    fn messages_go_out_when_due_in_the_order_written() {
        let mut socket = Socket::new("c", s(30));
        socket.deliver(s(0), s(2), message("late"), MessageFault::None);
        socket.deliver(s(0), s(1), message("a"), MessageFault::Duplicate);
        socket.deliver(s(0), s(1), message("lost"), MessageFault::Drop);
        socket.deliver(s(0), s(1), message("b"), MessageFault::None);
        assert_eq!(socket.next_message(), Some(s(1)));
        assert_eq!(texts(socket.take_due(s(1))), ["a", "a", "b"]);
        assert_eq!(texts(socket.take_due(s(2))), ["late"]);
    }

    #[test]
    fn a_reordered_message_comes_after_the_next_or_after_a_second() {
        let mut socket = Socket::new("c", s(30));
        socket.deliver(s(0), s(0), message("a"), MessageFault::Reorder);
        assert_eq!(texts(socket.take_due(s(0))), [""; 0]);
        socket.deliver(s(0), s(0), message("b"), MessageFault::None);
        assert_eq!(texts(socket.take_due(s(0))), ["b", "a"]);
        socket.deliver(s(5), s(5), message("c"), MessageFault::Reorder);
        assert_eq!(socket.next_message(), Some(s(6)));
        assert_eq!(texts(socket.take_due(s(6))), ["c"]);
    }

    #[test]
    fn what_was_not_sent_is_told_when_the_socket_ends() {
        let mut socket = Socket::new("c", s(30));
        socket.deliver(s(0), s(9), message("queued"), MessageFault::None);
        socket.deliver(s(0), s(0), message("held"), MessageFault::Reorder);
        assert_eq!(texts(socket.take_all()), ["queued", "held"]);
        assert_eq!(socket.next_message(), None);
    }
}
