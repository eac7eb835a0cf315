//! Writes that their callers left behind, and writes whose outcome is unknown: an identical request adopts them.
//!
//! A program that gives up on a write and sends it again wants it done once. Without a key nobody can tell that from
//! two writes that happen to be equal; so only what nobody waits for any more is adopted, by one caller, and only for a
//! while. An unknown outcome is told to everybody who asks, and so is a done write whose answer cannot be given again:
//! sending the write again is what must not happen.
//!
//! Only POST and PATCH are adopted: where a second execution does no harm, sending again tells more than an old answer
//! does. And a PATCH is adopted only while it is the last write to its path ([`order`](super::order)), since doing it
//! again after another one has an effect of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::time::Mono;

use super::answer::{Ended, Fate};
use super::flight::{Flight, Print};

/// For how long a write can be adopted after its end: longer than programs retry, shorter than people forget.
const ADOPTED_FOR: Duration = Duration::from_mins(10);

/// Orphans remembered. Each is a write whose caller hung up or was told that nobody knows: thousands are a bad day.
const MAX_ORPHANS: usize = 10_000;

/// Bytes of their answers.
const MAX_BYTES: usize = 64 << 20;

/// What is over is looked for after so many were left, and after an eighth of what is there: so it costs little of the
/// lock, and bounds are kept to about that.
const LOOK_AFTER: usize = 16;

/// The orphans of a gateway, by what they wrote.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    places: HashMap<Print, Vec<Arc<Flight>>>,
    /// Left since what is over was looked for.
    since: usize,
}

/// Whether an orphan is of no use any more at `now`: it was not executed, it is too long ago, or something else was
/// written to its entity since.
fn is_over(flight: &Flight, now: Mono) -> bool {
    let past = |(ended, at): (Ended, Mono)| ended.fate == Fate::Unsent || now - at >= ADOPTED_FOR;
    flight.ended().is_some_and(past) || !flight.exit.is_last()
}

impl Orphans {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.values().map(Vec::len).sum()
    }

    /// Leaves a write behind. It may be in flight still.
    pub(super) fn leave(&mut self, print: Print, flight: Arc<Flight>, now: Mono) {
        let here = self.places.entry(print).or_default();
        here.retain(|orphan| !is_over(orphan, now) && !Arc::ptr_eq(orphan, &flight));
        here.push(flight);
        self.since += 1;
        if self.since >= LOOK_AFTER && self.since * 8 >= self.len() {
            self.since = 0;
            self.make_room(now);
        }
    }

    /// Drops what is over, then the oldest of what is too much.
    fn make_room(&mut self, now: Mono) {
        self.retain(|orphan| !is_over(orphan, now));
        let all = self.places.values().flatten();
        let mut ended: Vec<(Mono, usize)> =
            all.filter_map(|orphan| orphan.ended()).map(|(ended, at)| (at, ended.size())).collect();
        ended.sort_unstable();
        let (mut count, mut bytes) = (self.len(), ended.iter().map(|(_, size)| size).sum::<usize>());
        let mut until = None;
        for (at, size) in ended {
            if count <= MAX_ORPHANS && bytes <= MAX_BYTES {
                break;
            }
            (count, bytes, until) = (count - 1, bytes - size, Some(at));
        }
        if let Some(until) = until {
            self.retain(|orphan| orphan.ended().is_none_or(|(_, at)| at > until));
        }
    }

    /// The write that an identical request adopts. `print` is asked for only if anything was left at all.
    pub(super) fn adopt(&mut self, print: impl FnOnce() -> Print, now: Mono) -> Option<Arc<Flight>> {
        if self.places.is_empty() {
            return None;
        }
        let print = print();
        let here = self.places.get_mut(&print)?;
        here.retain(|orphan| !is_over(orphan, now));
        let found = here.first().cloned();
        // What is in flight or can be told once is one adopter's.
        if found.as_ref().is_some_and(|found| found.ended().is_none_or(|(ended, _)| !ended.is_for_all())) {
            here.remove(0);
        }
        if here.is_empty() {
            self.places.remove(&print);
        }
        found
    }

    fn retain(&mut self, keep: impl Fn(&Flight) -> bool) {
        self.places.retain(|_, here| {
            here.retain(|orphan| keep(orphan));
            !here.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;
    use tidegate::ResponseBody;

    use super::super::door::Exit;
    use super::super::flight::hash;
    use super::super::order::{Order, Turn};
    use super::*;

    const AT: Mono = Mono::ZERO;
    const ANN: Print = [1; 32];
    const BOB: Print = [2; 32];

    fn flight(fate: Option<Fate>, at: Mono) -> Arc<Flight> {
        let turn = Turn::new(&Arc::default(), "/users", None);
        let flight = Flight::new(None, Exit::new(turn));
        if let Some(fate) = fate {
            flight.end(Ended::new(fate, Response::new(ResponseBody::from(Bytes::from_static(b"ok")))), at);
        }
        Arc::new(flight)
    }

    fn adopts(orphans: &mut Orphans, print: Print, now: Mono) -> bool {
        orphans.adopt(|| print, now).is_some()
    }

    #[test]
    fn what_is_done_is_adopted_once_and_what_is_unknown_is_told_to_all() {
        let mut orphans = Orphans::default();
        orphans.leave(ANN, flight(Some(Fate::Done), AT), AT);
        orphans.leave(BOB, flight(Some(Fate::Unknown), AT), AT);
        assert_eq!(
            [ANN, ANN, BOB, BOB].map(|print| adopts(&mut orphans, print, AT)),
            [true, false, true, true]
        );
        assert_eq!(orphans.len(), 1);
    }

    #[test]
    fn each_of_two_equal_orphans_has_an_adopter() {
        let mut orphans = Orphans::default();
        for _ in 0..2 {
            orphans.leave(ANN, flight(Some(Fate::Done), AT), AT);
        }
        assert_eq!([(); 3].map(|()| adopts(&mut orphans, ANN, AT)), [true, true, false]);
    }

    #[test]
    fn an_orphan_lives_for_ten_minutes_after_its_end() {
        let end = AT + ADOPTED_FOR;
        for fate in [Fate::Done, Fate::Unknown] {
            let mut orphans = Orphans::default();
            orphans.leave(ANN, flight(Some(fate), AT), AT);
            assert!(!adopts(&mut orphans, ANN, end));
            let mut orphans = Orphans::default();
            orphans.leave(ANN, flight(Some(fate), AT), AT);
            assert!(adopts(&mut orphans, ANN, Mono::from_nanos(599_999_999_999)));
        }
        let mut orphans = Orphans::default();
        orphans.leave(ANN, flight(None, AT), AT);
        assert!(adopts(&mut orphans, ANN, end), "one that runs is not over, however long it takes");
    }

    #[test]
    fn what_turned_out_not_to_be_executed_is_nobodys() {
        let mut orphans = Orphans::default();
        let left = flight(None, AT);
        orphans.leave(ANN, Arc::clone(&left), AT);
        left.end(Ended::new(Fate::Unsent, Response::new(ResponseBody::from(Bytes::new()))), AT);
        assert!(!adopts(&mut orphans, ANN, AT));
        assert_eq!(orphans.len(), 0);
    }

    #[test]
    fn a_patch_that_was_overtaken_is_nobodys_whenever_that_was() {
        for overtaken_before_it_is_left in [true, false] {
            let order: Arc<Order> = Arc::default();
            let turn = Turn::new(&order, "/users/7", Some(ANN));
            turn.leaves();
            let patch = Arc::new(Flight::new(None, Exit::new(turn)));
            let overtake = || Turn::new(&order, "/users/7", None).leaves();
            let mut orphans = Orphans::default();
            if overtaken_before_it_is_left {
                overtake();
            }
            orphans.leave(ANN, patch, AT);
            if !overtaken_before_it_is_left {
                overtake();
            }
            assert!(!adopts(&mut orphans, ANN, AT));
            assert_eq!(orphans.len(), 0);
        }
    }

    #[test]
    fn the_oldest_make_room() {
        let mut orphans = Orphans::default();
        let left = MAX_ORPHANS + MAX_ORPHANS / 4;
        let print = |number: usize| hash("test", &[&number.to_be_bytes()]);
        for number in 0..left {
            let at = AT + Duration::from_millis(number as u64);
            orphans.leave(print(number), flight(Some(Fate::Unknown), at), at);
        }
        assert!((MAX_ORPHANS..=MAX_ORPHANS * 9 / 8).contains(&orphans.len()), "{}", orphans.len());
        assert!(!adopts(&mut orphans, print(0), AT));
        assert!(adopts(&mut orphans, print(left - 1), AT));
    }
}
