//! The server whose quota it is, with the laws of each refill rule written out. It shares no code with the ledger.

use std::collections::VecDeque;

/// Microseconds of the world's one true time.
pub(crate) type Us = u64;

/// When the quota comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Law {
    /// All of it, at multiples of the window after this offset.
    Aligned(Us),
    /// All of it, one window after the first request of a window.
    Anchored,
    /// Each request one window later.
    Log,
    /// At `limit / window`, up to the limit.
    Bucket,
}

/// What headers say of when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// Nothing.
    Silent,
    /// When the next permit comes back.
    Next,
    /// When all of them are back.
    Full,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) accepted: bool,
    pub(crate) remaining: u32,
    /// From when it was handled.
    pub(crate) reset: Option<Us>,
    /// What a throttle says of when.
    pub(crate) retry_after: Us,
}

#[derive(Clone, Debug)]
pub(crate) struct Server {
    law: Law,
    reset: Reset,
    pub(crate) limit: u32,
    pub(crate) window: Us,
    log: VecDeque<Us>,
    opened: Option<Us>,
    count: u32,
    /// Millionths of permits.
    level: u64,
    filled: Us,
}

impl Server {
    pub(crate) fn new(law: Law, reset: Reset, limit: u32, window: Us) -> Self {
        let level = u64::from(limit) * 1_000_000;
        Self { law, reset, limit, window, log: VecDeque::new(), opened: None, count: 0, level, filled: 0 }
    }

    /// How many more it would accept.
    pub(crate) fn room(&mut self, now: Us) -> u32 {
        self.limit.saturating_sub(self.used(now))
    }

    pub(crate) fn handle(&mut self, now: Us) -> Answer {
        self.handle_if(now, true)
    }

    /// One request, which is counted only if nothing else refuses it.
    pub(crate) fn handle_if(&mut self, now: Us, counts: bool) -> Answer {
        let accepted = self.room(now) > 0;
        if accepted && counts {
            match self.law {
                Law::Log => self.log.push_back(now),
                Law::Bucket => self.level -= 1_000_000,
                Law::Aligned(_) | Law::Anchored => self.count += 1,
            }
            if self.law == Law::Anchored {
                self.opened.get_or_insert(now);
            }
        }
        let used = self.used(now);
        let reset = match self.reset {
            Reset::Silent => None,
            Reset::Next => Some(self.next(now, 1)),
            Reset::Full => Some(self.next(now, used)),
        };
        let retry_after = self.next(now, 1);
        Answer { accepted, remaining: self.limit.saturating_sub(used), reset, retry_after }
    }

    /// What is used of the limit.
    fn used(&mut self, now: Us) -> u32 {
        match self.law {
            Law::Aligned(offset) => {
                // A window later than it is, so that the first window has a beginning.
                let now = now + self.window;
                let start = now - (now - offset % self.window) % self.window;
                if self.opened.is_none_or(|opened| opened < start) {
                    (self.opened, self.count) = (Some(start), 0);
                }
                self.count
            }
            Law::Anchored => {
                if self.opened.is_some_and(|opened| opened + self.window <= now) {
                    (self.opened, self.count) = (None, 0);
                }
                self.count
            }
            Law::Log => {
                while self.log.front().is_some_and(|&at| at + self.window <= now) {
                    self.log.pop_front();
                }
                u32::try_from(self.log.len()).unwrap()
            }
            Law::Bucket => {
                let full = u64::from(self.limit) * 1_000_000;
                let gained = (now - self.filled) * u64::from(self.limit) * 1_000_000 / self.window;
                self.level = (self.level + gained).min(full);
                self.filled = now;
                u32::try_from((full - self.level).div_ceil(1_000_000)).unwrap()
            }
        }
    }

    /// How long until `count` permits have come back.
    fn next(&self, now: Us, count: u32) -> Us {
        match self.law {
            Law::Aligned(_) => self.opened.map_or(0, |opened| opened.saturating_sub(now)),
            Law::Anchored => self.opened.map_or(0, |opened| (opened + self.window).saturating_sub(now)),
            Law::Log => {
                let place = usize::try_from(count.max(1)).unwrap() - 1;
                self.log.get(place).map_or(0, |at| at + self.window - now)
            }
            Law::Bucket => self.window * u64::from(count) / u64::from(self.limit),
        }
    }
}
