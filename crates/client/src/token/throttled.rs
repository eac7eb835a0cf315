//! Which clients a token endpoint throttles: ten logins of one client run into it once, not each for itself.
//!
//! Token endpoints count logins by client, and a gateway may hold many lines of tokens of one client, one for each login that
//! was made through it. What one of them is told holds for all. When the wait is over one goes first, to see; the others
//! follow when it has a token, or after [`AHEAD`]. Logins of a client that is not throttled are concurrent: waiting for each
//! other, ten of them could not keep up with tokens that live for seconds.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_core::backoff::HINT_FLOOR;
use tidegate_core::time::Mono;

/// The wait where the endpoint names none; it doubles with each throttle in a row, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// How much later than the first the others go, if nothing is heard of it.
const AHEAD: Duration = Duration::from_secs(1);

/// How long after its end a wait still counts for the next one.
const MEMORY: Duration = Duration::from_mins(5);

/// The clients that were told to wait, by client id. As many as there were throttled in [`MEMORY`].
#[derive(Debug, Default)]
pub(super) struct Throttled(Mutex<HashMap<String, Wait>>);

#[derive(Clone, Copy, Debug)]
struct Wait {
    until: Mono,
    /// Throttles in a row.
    row: u32,
}

impl Throttled {
    /// How long a login of `client` has to wait; `None` if it may be made, and is then expected to be made.
    pub(super) fn left(&self, now: Mono, client: &str) -> Option<Duration> {
        let mut waits = self.0.lock();
        let wait = waits.get_mut(client)?;
        if now < wait.until {
            return Some(wait.until - now);
        }
        wait.until = now + AHEAD;
        None
    }

    /// The endpoint said that logins of `client` come too fast, and perhaps for how long.
    pub(super) fn throttled(&self, now: Mono, client: &str, hint: Option<Duration>) {
        let mut waits = self.0.lock();
        waits.retain(|_, wait| now < wait.until + MEMORY);
        let wait = waits.entry(client.to_owned()).or_insert(Wait { until: now, row: 0 });
        let factor = 1_u32.checked_shl(wait.row).unwrap_or(u32::MAX);
        let backoff = FIRST.saturating_mul(factor).min(LONGEST);
        wait.row = wait.row.saturating_add(1);
        // A login that left before another was told to wait may be told less.
        wait.until = wait.until.max(now + hint.map_or(backoff, |hint| hint.max(HINT_FLOOR)));
    }

    /// The endpoint gave a token to `client`.
    pub(super) fn served(&self, client: &str) {
        self.0.lock().remove(client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn what_one_login_is_told_holds_for_all_of_its_client_and_for_no_other() {
        let throttled = Throttled::default();
        assert_eq!(throttled.left(at(0), "a"), None);
        throttled.throttled(at(0), "a", Some(5 * S));
        assert_eq!((throttled.left(at(2), "a"), throttled.left(at(2), "b")), (Some(3 * S), None));
        throttled.throttled(at(2), "a", Some(S));
        assert_eq!(throttled.left(at(4), "a"), Some(S), "a shorter wait does not cut a longer one");
    }

    #[test]
    fn after_the_wait_one_goes_first_and_its_token_lets_the_others_go() {
        let throttled = Throttled::default();
        throttled.throttled(at(0), "a", Some(5 * S));
        assert_eq!(throttled.left(at(5), "a"), None);
        assert_eq!(throttled.left(at(5), "a"), Some(AHEAD));
        throttled.served("a");
        assert_eq!((throttled.left(at(5), "a"), throttled.left(at(5), "a")), (None, None));
        throttled.throttled(at(5), "a", Some(S));
        assert_eq!(throttled.left(at(6), "a"), None);
        assert_eq!(throttled.left(at(7), "a"), None, "nothing was heard of the first");
    }

    #[test]
    fn a_wait_without_a_hint_doubles_up_to_its_bound_and_a_token_ends_the_row() {
        let throttled = Throttled::default();
        let mut now = at(0);
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            throttled.throttled(now, "a", None);
            assert_eq!(throttled.left(now, "a"), Some(expected * S));
            now += expected * S;
        }
        throttled.served("a");
        throttled.throttled(now, "a", None);
        assert_eq!(throttled.left(now, "a"), Some(S));
        throttled.throttled(now, "b", Some(Duration::ZERO));
        assert_eq!(throttled.left(now, "b"), Some(HINT_FLOOR));
    }

    #[test]
    fn clients_that_were_throttled_long_ago_are_forgotten() {
        let throttled = Throttled::default();
        for client in 0..1_000 {
            throttled.throttled(at(0), &client.to_string(), Some(S));
        }
        throttled.throttled(at(302), "a", Some(S));
        assert_eq!(throttled.0.lock().len(), 1);
    }
}
