//! Quota servers, written without the core: the independent judge of its pacing. Times in seconds.

use std::collections::VecDeque;

const EPS: f64 = 1e-9;

/// How a server counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A window opened by its first request.
    Fixed,
    /// Windows at multiples of their length on the server's clock.
    Aligned,
    /// Sliding log; its reset is when the oldest entry expires.
    LogOldest,
    /// Sliding log; its reset is when the newest entry expires.
    LogNewest,
    /// Two windows weighted by overlap; its reset is the next edge.
    Counter,
    /// The same; its reset is when all is back, at the edge after the next.
    CounterFull,
    /// Token bucket; its reset is when it is full.
    BucketFull,
    /// Token bucket; its reset is the next whole token.
    BucketNext,
}

/// One quota on one server. `phase` is the server's wall clock at the origin.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) rule: Rule,
    pub(crate) quota: f64,
    pub(crate) window: f64,
    pub(crate) phase: f64,
    log: VecDeque<f64>,
    start: Option<f64>,
    current: f64,
    previous: f64,
    tokens: f64,
    last: f64,
}

impl Server {
    pub(crate) fn new(rule: Rule, quota: u32, window: f64, phase: f64) -> Self {
        let quota = f64::from(quota);
        Self {
            rule,
            quota,
            window,
            phase,
            log: VecDeque::new(),
            start: None,
            current: 0.0,
            previous: 0.0,
            tokens: quota,
            last: 0.0,
        }
    }

    fn roll(&mut self, now: f64) {
        match self.rule {
            Rule::Fixed => {
                if self.start.is_some_and(|start| now >= start + self.window - EPS) {
                    self.start = None;
                    self.current = 0.0;
                }
            }
            Rule::Aligned | Rule::Counter | Rule::CounterFull => {
                let slot = ((now + self.phase) / self.window + EPS).floor() * self.window - self.phase;
                if self.start.is_none_or(|start| slot > start + EPS) {
                    let next_to = self.start.is_some_and(|start| slot < start + self.window + 1e-6);
                    self.previous = if next_to { self.current } else { 0.0 };
                    self.start = Some(slot);
                    self.current = 0.0;
                }
            }
            Rule::LogOldest | Rule::LogNewest => {
                while self.log.front().is_some_and(|&at| at <= now - self.window + EPS) {
                    self.log.pop_front();
                }
            }
            Rule::BucketFull | Rule::BucketNext => {
                self.tokens = (self.tokens + (now - self.last) * self.quota / self.window).min(self.quota);
                self.last = now;
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    fn used(&mut self, now: f64) -> f64 {
        self.roll(now);
        match self.rule {
            Rule::LogOldest | Rule::LogNewest => self.log.len() as f64,
            Rule::Counter | Rule::CounterFull => {
                let start = self.start.expect("rolled");
                self.previous * (1.0 - (now - start) / self.window) + self.current
            }
            Rule::BucketFull | Rule::BucketNext => self.quota - self.tokens,
            Rule::Fixed | Rule::Aligned => self.current,
        }
    }

    pub(crate) fn fits(&mut self, now: f64) -> bool {
        self.used(now) + 1.0 <= self.quota + 1e-7
    }

    pub(crate) fn charge(&mut self, now: f64) {
        self.roll(now);
        match self.rule {
            Rule::LogOldest | Rule::LogNewest => self.log.push_back(now),
            Rule::BucketFull | Rule::BucketNext => self.tokens -= 1.0,
            _ => {
                self.start = self.start.or(Some(now));
                self.current += 1.0;
            }
        }
    }

    pub(crate) fn remaining(&mut self, now: f64) -> f64 {
        (self.quota - self.used(now) + 1e-7).floor().max(0.0)
    }

    /// The instant a header would tell.
    pub(crate) fn reset_at(&mut self, now: f64) -> f64 {
        let used = self.used(now);
        let per_token = self.window / self.quota;
        match self.rule {
            Rule::LogOldest => self.log.front().map_or(now, |&at| at) + self.window,
            Rule::LogNewest => self.log.back().map_or(now, |&at| at) + self.window,
            Rule::BucketFull => now + used * per_token,
            Rule::BucketNext => now + (self.tokens.floor() + 1.0 - self.tokens) * per_token,
            Rule::CounterFull => {
                let windows = if self.current > 0.0 { 2.0 } else { 1.0 };
                self.start.map_or(now, |start| start + windows * self.window)
            }
            _ => self.start.map_or(now, |start| start) + self.window,
        }
    }

    /// When one more request would be accepted.
    pub(crate) fn retry_at(&mut self, now: f64) -> f64 {
        if self.fits(now) {
            return now;
        }
        let per_token = self.window / self.quota;
        match self.rule {
            Rule::LogOldest | Rule::LogNewest => {
                let over = self.log.iter().rev().nth(self.quota as usize - 1);
                over.map_or(now, |&at| at + self.window)
            }
            Rule::BucketFull | Rule::BucketNext => now + (1.0 - self.tokens) * per_token,
            Rule::Counter | Rule::CounterFull => {
                let start = self.start.expect("rolled");
                if self.current + 1.0 <= self.quota {
                    start + self.window * (1.0 - (self.quota - 1.0 - self.current) / self.previous)
                } else {
                    start + self.window * (2.0 - (self.quota - 1.0) / self.current)
                }
            }
            _ => self.start.map_or(now, |start| start + self.window),
        }
    }
}
