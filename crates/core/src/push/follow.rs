//! Which paths are read so often that their events are worth a subscription.
//!
//! A subscription costs a call and a place of a thousand on a channel, and saves the calls of those who poll. So a path is followed
//! once it was read several times within a short time, and given up when nobody has read it for longer. What is remembered is
//! bounded: beyond the bound paths are not counted until others are forgotten.

use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::time::Mono;

/// When a path is followed, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowPace {
    /// So many reads ...
    pub reads: u32,
    /// ... within this time make a path followed.
    pub within: Duration,
    /// Who is not read for this long is given up.
    pub idle: Duration,
    /// Paths that are counted at once.
    pub most: usize,
}

impl Default for FollowPace {
    /// Three reads within a minute; given up after five minutes; 50 000 paths.
    fn default() -> Self {
        Self { reads: 3, within: Duration::from_mins(1), idle: Duration::from_mins(5), most: 50_000 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Reads {
    count: u32,
    since: Mono,
    last: Mono,
    followed: bool,
}

/// Counts reads of paths.
#[derive(Debug)]
pub struct Follow {
    pace: FollowPace,
    paths: HashMap<Arc<str>, Reads, FixedState>,
    /// When paths that are not read are looked for.
    sweep: Mono,
}

impl Follow {
    /// Nothing counted yet. Paths are hashed with `seed`, so that nobody can make names that collide.
    pub fn new(pace: FollowPace, seed: u64) -> Self {
        Self { pace, paths: HashMap::with_hasher(FixedState::with_seed(seed)), sweep: Mono::ZERO }
    }

    /// A path is read. Whether it is followed from now on.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate_core::push::{Follow, FollowPace};
    /// use tidegate_core::time::Mono;
    ///
    /// let mut follow = Follow::new(FollowPace { reads: 2, ..FollowPace::default() }, 7);
    /// assert!(!follow.read("/api/v2/users/7", Mono::ZERO));
    /// assert!(follow.read("/api/v2/users/7", Mono::ZERO + Duration::from_secs(2)));
    /// ```
    pub fn read(&mut self, path: &str, now: Mono) -> bool {
        let pace = self.pace;
        let Some(reads) = self.paths.get_mut(path) else {
            if self.paths.len() < pace.most {
                let followed = pace.reads <= 1;
                self.paths.insert(Arc::from(path), Reads { count: 1, since: now, last: now, followed });
                return followed;
            }
            return false;
        };
        reads.last = now;
        if reads.followed {
            return false;
        }
        if now.since(reads.since) > pace.within {
            (reads.count, reads.since) = (0, now);
        }
        reads.count += 1;
        reads.followed = reads.count >= pace.reads;
        reads.followed
    }

    /// A path could not be followed: its reads are counted anew.
    pub fn refuse(&mut self, path: &str, now: Mono) {
        if let Some(reads) = self.paths.get_mut(path) {
            *reads = Reads { count: 0, since: now, last: now, followed: false };
        }
    }

    /// When [`Follow::idle`] has something to do.
    pub fn wake(&self) -> Option<Mono> {
        (!self.paths.is_empty()).then_some(self.sweep)
    }

    /// Forgets what nobody reads any more, and gives what of it was followed.
    pub fn idle(&mut self, now: Mono) -> Vec<Arc<str>> {
        if now < self.sweep {
            return Vec::new();
        }
        let FollowPace { within, idle, .. } = self.pace;
        self.sweep = now + within;
        let mut given_up = Vec::new();
        self.paths.retain(|path, reads| {
            let unread = now.since(reads.last);
            if reads.followed && unread >= idle {
                given_up.push(Arc::clone(path));
            }
            unread < if reads.followed { idle } else { within }
        });
        given_up.sort_unstable();
        given_up
    }

    /// How many paths are followed.
    pub fn followed(&self) -> usize {
        self.paths.values().filter(|reads| reads.followed).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn follow() -> Follow {
        Follow::new(FollowPace { reads: 3, within: 10 * S, idle: 60 * S, most: 2 }, 1)
    }

    #[test]
    fn a_path_is_followed_with_the_read_that_makes_it_often_enough_and_once() {
        let mut follow = follow();
        let at = |seconds: u32| Mono::ZERO + seconds * S;
        assert!(!follow.read("/a", at(0)) && !follow.read("/a", at(4)));
        assert!(!follow.read("/a", at(20)), "reads that lie apart do not add up");
        assert!(!follow.read("/a", at(22)) && follow.read("/a", at(24)) && !follow.read("/a", at(26)));
        assert_eq!(follow.followed(), 1);
    }

    #[test]
    fn what_nobody_reads_is_given_up_and_makes_room() {
        let mut follow = follow();
        let at = |seconds: u32| Mono::ZERO + seconds * S;
        assert!(!follow.read("/a", at(0)) && !follow.read("/a", at(0)) && follow.read("/a", at(0)));
        follow.read("/b", at(0));
        assert!((0..3).all(|_| !follow.read("/c", at(1))), "there is no room to count it");
        assert!(follow.idle(at(59)).is_empty());
        assert_eq!(follow.idle(at(69)), [Arc::from("/a")]);
        assert_eq!(follow.wake(), None);
        assert!(!follow.read("/c", at(70)) && !follow.read("/c", at(70)) && follow.read("/c", at(70)));
    }
}
