//! Writes that their callers left behind, and writes whose outcome is unknown: an identical request adopts them.
//!
//! A program that gives up on a write and sends it again wants it done once. Without a key nobody can tell that from
//! two writes that happen to be equal; so only what nobody waits for any more is adopted, by one caller, and only for a
//! while. An unknown outcome is told to everybody who asks: sending the write again is what must not happen.
//!
//! Only POST and PATCH are adopted: where a second execution does no harm, sending again tells more than an old answer
//! does. And a PATCH is adopted only while it is the last write to its target, since doing it again after another one has
//! an effect of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tidegate_core::time::Mono;

use super::answer::Fate;
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

/// The orphans of a gateway.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    places: HashMap<Place, Vec<Orphan>>,
    /// Left since what is over was looked for.
    since: usize,
}

/// Where an orphan is looked for, so that few lie in one place: a PATCH at its target, whatever it writes, and anything
/// else where only its equals are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Patched(String),
    Equal(Print),
}

impl Place {
    fn of(method: &Method, target: &str, print: Print) -> Self {
        if method == Method::PATCH { Self::Patched(target.to_owned()) } else { Self::Equal(print) }
    }
}

#[derive(Debug)]
struct Orphan {
    print: Print,
    flight: Arc<Flight>,
}

impl Orphan {
    /// Whether it is of no use any more at `now`.
    fn is_over(&self, now: Mono) -> bool {
        self.flight.ended().is_some_and(|(ended, at)| ended.fate == Fate::Unsent || now - at >= ADOPTED_FOR)
    }

    fn ended_at(&self) -> Option<Mono> {
        self.flight.ended().map(|(_, at)| at)
    }
}

impl Orphans {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.values().map(Vec::len).sum()
    }

    /// Leaves a write behind. It may be in flight still.
    pub(super) fn leave(&mut self, target: &str, print: Print, flight: Arc<Flight>, now: Mono) {
        if flight.is_superseded() {
            return;
        }
        let here = self.places.entry(Place::of(flight.method(), target, print)).or_default();
        here.retain(|orphan| !orphan.is_over(now) && !Arc::ptr_eq(&orphan.flight, &flight));
        here.push(Orphan { print, flight });
        self.since += 1;
        if self.since >= LOOK_AFTER && self.since * 8 >= self.len() {
            self.since = 0;
            self.make_room(now);
        }
    }

    /// Drops what is over, then the oldest of what is too much.
    fn make_room(&mut self, now: Mono) {
        self.retain(|orphan| !orphan.is_over(now));
        let all = self.places.values().flatten();
        let mut ended: Vec<(Mono, usize)> =
            all.filter_map(|orphan| orphan.flight.ended()).map(|(ended, at)| (at, ended.size())).collect();
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
            self.retain(|orphan| orphan.ended_at().is_none_or(|at| at > until));
        }
    }

    /// The write that an identical request adopts. `print` is asked for only if anything was left at all.
    pub(super) fn adopt(
        &mut self,
        method: &Method,
        target: &str,
        print: impl FnOnce() -> Print,
        now: Mono,
    ) -> Option<Arc<Flight>> {
        if self.places.is_empty() {
            return None;
        }
        let print = print();
        self.supersede(target, Some(print));
        self.look(&Place::of(method, target, print), |here| {
            here.retain(|orphan| !orphan.is_over(now));
            let at = here.iter().position(|orphan| orphan.print == print)?;
            let unknown = here[at].flight.ended().is_some_and(|(ended, _)| ended.fate == Fate::Unknown);
            Some(if unknown { Arc::clone(&here[at].flight) } else { here.remove(at).flight })
        })
        .flatten()
    }

    /// A write to `target` is about to be sent: what was done to the same entity before is not the last write to it any
    /// more, except for one that is identical.
    pub(super) fn supersede(&mut self, target: &str, except: Option<Print>) {
        if self.places.is_empty() {
            return;
        }
        self.look(&Place::Patched(target.to_owned()), |here| {
            here.retain(|orphan| {
                let identical = Some(orphan.print) == except;
                if !identical {
                    orphan.flight.supersede();
                }
                identical
            });
        });
    }

    /// Does something with the orphans of a place; one without any is not kept.
    fn look<T>(&mut self, place: &Place, act: impl FnOnce(&mut Vec<Orphan>) -> T) -> Option<T> {
        let here = self.places.get_mut(place)?;
        let done = act(here);
        if here.is_empty() {
            self.places.remove(place);
        }
        Some(done)
    }

    fn retain(&mut self, keep: impl Fn(&Orphan) -> bool) {
        self.places.retain(|_, here| {
            here.retain(&keep);
            !here.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;
    use tidegate::ResponseBody;
    use tidegate_core::idempotency::digest;

    use super::super::answer::Ended;
    use super::super::door::Exit;
    use super::*;

    const AT: Mono = Mono::ZERO;
    const ANN: Print = [1; 32];
    const BOB: Print = [2; 32];

    fn flight(method: Method, fate: Option<Fate>, at: Mono) -> Arc<Flight> {
        let flight = Flight::new(method, None, Exit::default());
        if let Some(fate) = fate {
            flight.end(Ended::new(fate, Response::new(ResponseBody::from(Bytes::from_static(b"ok")))), at);
        }
        Arc::new(flight)
    }

    fn adopts(orphans: &mut Orphans, print: Print, now: Mono) -> bool {
        orphans.adopt(&Method::POST, "/users", || print, now).is_some()
    }

    #[test]
    fn what_is_done_is_adopted_once_and_what_is_unknown_is_told_to_all() {
        let mut orphans = Orphans::default();
        orphans.leave("/users", ANN, flight(Method::POST, Some(Fate::Done), AT), AT);
        orphans.leave("/users", BOB, flight(Method::POST, Some(Fate::Unknown), AT), AT);
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
            orphans.leave("/users", ANN, flight(Method::POST, Some(Fate::Done), AT), AT);
        }
        assert_eq!([(); 3].map(|()| adopts(&mut orphans, ANN, AT)), [true, true, false]);
    }

    #[test]
    fn an_orphan_lives_for_ten_minutes_after_its_end() {
        let end = AT + ADOPTED_FOR;
        for fate in [Fate::Done, Fate::Unknown] {
            let mut orphans = Orphans::default();
            orphans.leave("/users", ANN, flight(Method::POST, Some(fate), AT), AT);
            assert!(!adopts(&mut orphans, ANN, end));
            let mut orphans = Orphans::default();
            orphans.leave("/users", ANN, flight(Method::POST, Some(fate), AT), AT);
            assert!(adopts(&mut orphans, ANN, Mono::from_nanos(599_999_999_999)));
        }
        let mut orphans = Orphans::default();
        orphans.leave("/users", ANN, flight(Method::POST, None, AT), AT);
        assert!(adopts(&mut orphans, ANN, end), "one that runs is not over, however long it takes");
    }

    #[test]
    fn what_turned_out_not_to_be_executed_is_nobodys() {
        let mut orphans = Orphans::default();
        let left = flight(Method::POST, None, AT);
        orphans.leave("/users", ANN, Arc::clone(&left), AT);
        left.end(Ended::new(Fate::Unsent, Response::new(ResponseBody::from(Bytes::new()))), AT);
        assert!(!adopts(&mut orphans, ANN, AT));
        assert_eq!(orphans.len(), 0);
    }

    #[test]
    fn another_write_to_its_target_ends_a_patch_and_not_a_post() {
        for (method, survives) in [(Method::PATCH, false), (Method::POST, true)] {
            let mut orphans = Orphans::default();
            orphans.leave("/users", ANN, flight(method.clone(), Some(Fate::Unknown), AT), AT);
            assert!(orphans.adopt(&Method::PUT, "/users", || BOB, AT).is_none());
            assert_eq!(orphans.adopt(&method, "/users", || ANN, AT).is_some(), survives, "{method}");
        }
    }

    #[test]
    fn a_patch_that_was_overtaken_in_flight_is_not_left_again_at_its_end() {
        let mut orphans = Orphans::default();
        let running = flight(Method::PATCH, None, AT);
        orphans.leave("/users", ANN, Arc::clone(&running), AT);
        orphans.supersede("/users/1", None);
        assert_eq!(orphans.len(), 1, "another target");
        orphans.supersede("/users", None);
        orphans.leave("/users", ANN, running, AT);
        assert_eq!(orphans.len(), 0);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut orphans = Orphans::default();
        let left = MAX_ORPHANS + MAX_ORPHANS / 4;
        let print = |number: usize| digest("test", &[&number.to_be_bytes()]);
        for number in 0..left {
            let at = AT + Duration::from_millis(number as u64);
            orphans.leave("/users", print(number), flight(Method::POST, Some(Fate::Unknown), at), at);
        }
        assert!((MAX_ORPHANS..=MAX_ORPHANS * 9 / 8).contains(&orphans.len()), "{}", orphans.len());
        assert!(!adopts(&mut orphans, print(0), AT));
        assert!(adopts(&mut orphans, print(left - 1), AT));
    }
}
