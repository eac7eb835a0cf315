//! Items about one thing leave one after the other, in the order of the input.
//!
//! Two changes of one user that are in flight together can arrive in either order, and then the file's last word is not
//! what stands. So an item that names its target (PUT, PATCH, DELETE) waits until the one before it with the same path has
//! ended. Where that one stays pending, because it was refused for now or is in doubt, the later one does too: sent after it,
//! the older write would overwrite the newer one. A POST makes something new and waits for nobody.
//!
//! Only what is in flight, or was left pending in this pass, is remembered, by the hash of its path: two paths of one hash
//! wait for each other, which is slower and not wrong.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use tidegate_store::Item;
use tokio::sync::oneshot;

/// The latest item of each target that has not ended.
#[derive(Debug, Default)]
pub(super) struct Order {
    last: HashMap<u64, Last>,
}

#[derive(Debug)]
struct Last {
    seq: u64,
    ended: oneshot::Receiver<()>,
}

/// An item's place in the row of those with its target.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Told that the item before has ended; dropped untold if that stays pending.
    before: Option<oneshot::Receiver<()>>,
    /// Tells the item behind.
    ended: Option<oneshot::Sender<()>>,
    target: Option<u64>,
    seq: u64,
}

impl Order {
    /// The next item in the order of the input.
    pub(super) fn turn(&mut self, item: &Item) -> Turn {
        let request = &item.request;
        let Some(target) = target(&request.method, &request.target) else { return Turn::default() };
        let (ended, heard) = oneshot::channel();
        let before = self.last.insert(target, Last { seq: request.seq, ended: heard });
        Turn { before: before.map(|it| it.ended), ended: Some(ended), target: Some(target), seq: request.seq }
    }

    /// An item has ended; nobody need wait for it any more.
    pub(super) fn forget(&mut self, Ended { target, seq }: Ended) {
        if let Some(target) = target
            && self.last.get(&target).is_some_and(|last| last.seq == seq)
        {
            self.last.remove(&target);
        }
    }
}

/// An item that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    target: Option<u64>,
    seq: u64,
}

impl Turn {
    /// Waits for the item before; false if that stays pending.
    pub(super) async fn comes(&mut self) -> bool {
        match self.before.take() {
            Some(before) => before.await.is_ok(),
            None => true,
        }
    }

    /// The item has ended. Dropped without this, it stays pending.
    pub(super) fn end(self) -> Ended {
        if let Some(ended) = self.ended {
            // Nobody behind it, or one that was let go.
            ended.send(()).ok();
        }
        Ended { target: self.target, seq: self.seq }
    }
}

/// What an item is about, if it names that.
fn target(method: &str, target: &str) -> Option<u64> {
    if !matches!(method, "PUT" | "PATCH" | "DELETE") {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    target.split('?').next().unwrap_or(target).hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tidegate_store::{NewItem, State};

    use super::*;

    fn item(seq: u64, method: &str, target: &str) -> Item {
        let request =
            NewItem { seq, method: method.to_owned(), target: target.to_owned(), ..NewItem::default() };
        Item {
            request,
            rev: 0,
            state: State::Planned,
            attempts: 0,
            http_status: None,
            error: None,
            first_sent: None,
            updated: None,
        }
    }

    #[test]
    fn items_of_one_target_come_one_after_the_other_and_others_at_once() {
        let mut order = Order::default();
        let mut first = order.turn(&item(1, "PATCH", "/users/7"));
        let mut second = order.turn(&item(2, "DELETE", "/users/7?force=true"));
        let mut other = order.turn(&item(3, "PATCH", "/users/8"));
        let mut new = order.turn(&item(4, "POST", "/users/7"));
        for turn in [&mut first, &mut other, &mut new] {
            assert_eq!(turn.comes().now_or_never(), Some(true));
        }
        let waiting = second.comes();
        tokio::pin!(waiting);
        assert_eq!(waiting.as_mut().now_or_never(), None);
        order.forget(first.end());
        assert_eq!(waiting.now_or_never(), Some(true));
    }

    #[test]
    fn what_stays_pending_keeps_all_behind_it_pending() {
        let mut order = Order::default();
        let mut first = order.turn(&item(1, "PUT", "/users/7"));
        let mut second = order.turn(&item(2, "PUT", "/users/7"));
        assert_eq!(first.comes().now_or_never(), Some(true));
        drop(first);
        assert_eq!(second.comes().now_or_never(), Some(false));
        drop(second);
        let mut third = order.turn(&item(3, "PUT", "/users/7"));
        assert_eq!(third.comes().now_or_never(), Some(false), "one of a later page, too");
    }

    #[test]
    fn what_has_ended_is_not_remembered() {
        let mut order = Order::default();
        for seq in 1..=1_000 {
            let turn = order.turn(&item(seq, "PATCH", &format!("/users/{seq}")));
            order.forget(turn.end());
        }
        assert!(order.last.is_empty());
        // One that ends while another waits behind it does not take that away.
        let first = order.turn(&item(1, "PUT", "/x"));
        let _second = order.turn(&item(2, "PUT", "/x"));
        order.forget(first.end());
        assert_eq!(order.last.len(), 1);
    }
}
