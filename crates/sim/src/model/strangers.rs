//! Other programs that draw from the same quota: the reason why "remaining" is not only what one did oneself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::route::Caller;

/// One stranger: bursts of calls at a steady rate, from one time to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stranger {
    /// Calls per second on average; above zero.
    pub rate: f64,
    /// Calls made at the same instant; `rate = 2, burst = 10` makes ten calls every five seconds.
    pub burst: u32,
    /// Spreads each burst uniformly over its interval instead of placing it at the start.
    pub irregular: bool,
    /// When the stranger appears.
    #[serde(with = "crate::text::duration")]
    pub from: Duration,
    /// When it is gone again; stays if absent.
    #[serde(with = "crate::text::maybe_duration")]
    pub to: Option<Duration>,
    /// The OAuth client it shares with the program under test.
    pub credential: String,
    /// The method it calls with.
    pub method: String,
    /// The path it calls.
    pub path: String,
}

impl Default for Stranger {
    fn default() -> Self {
        Self {
            rate: 1.0,
            burst: 1,
            irregular: false,
            from: Duration::ZERO,
            to: None,
            credential: "demo-client".to_owned(),
            method: "GET".to_owned(),
            path: "/api/v2/users".to_owned(),
        }
    }
}

#[derive(Debug)]
struct Presence {
    config: Stranger,
    caller: Caller,
    /// Calls made so far.
    made: u64,
    /// Time of the next call.
    next: Duration,
    rng: fastrand::Rng,
}

impl Presence {
    fn schedule(&mut self) {
        let burst = u64::from(self.config.burst);
        if !self.made.is_multiple_of(burst) {
            return;
        }
        let interval = f64::from(self.config.burst) / self.config.rate;
        #[expect(clippy::cast_precision_loss, reason = "2^53 bursts are never reached")]
        let start = interval * (self.made / burst) as f64;
        let shift = if self.config.irregular { interval * self.rng.f64() } else { 0.0 };
        self.next = self.config.from + Duration::from_secs_f64(start + shift);
    }

    fn gone(&self) -> bool {
        self.config.to.is_some_and(|to| self.next >= to)
    }
}

/// All strangers of a simulation.
#[derive(Debug)]
pub struct Strangers(Vec<Presence>);

impl Strangers {
    /// The strangers of a configuration, none of whose calls has been made.
    pub fn new(configs: &[Stranger], rng: &mut fastrand::Rng) -> Self {
        Self(
            configs
                .iter()
                .enumerate()
                .map(|(index, config)| {
                    let token = format!("stranger-{index}");
                    let mut presence = Presence {
                        caller: Caller::new(&token, &config.credential, &config.method, &config.path),
                        config: config.clone(),
                        made: 0,
                        next: config.from,
                        rng: rng.fork(),
                    };
                    presence.schedule();
                    presence
                })
                .collect(),
        )
    }

    /// The next call that was due at or before `now`, in order of time; call until it returns `None`.
    pub fn next_due(&mut self, now: Duration) -> Option<(Duration, Caller)> {
        let due = self.0.iter_mut().filter(|presence| presence.next <= now && !presence.gone());
        let first = due.min_by_key(|presence| presence.next)?;
        let at = first.next;
        first.made += 1;
        first.schedule();
        Some((at, first.caller.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(config: Stranger, until: u64) -> Vec<Duration> {
        let mut strangers = Strangers::new(&[config], &mut fastrand::Rng::with_seed(7));
        let until = Duration::from_secs(until);
        std::iter::from_fn(|| strangers.next_due(until).map(|(at, _)| at)).collect()
    }

    #[test]
    fn a_steady_stranger_keeps_its_rate() {
        let config = Stranger { rate: 4.0, from: Duration::from_secs(2), ..Stranger::default() };
        let made = calls(config, 12);
        assert_eq!(made.len(), 41);
        assert_eq!(made[1].saturating_sub(made[0]), Duration::from_millis(250));
    }

    #[test]
    fn a_burst_comes_at_one_instant_and_ends_in_time() {
        let config =
            Stranger { rate: 2.0, burst: 10, to: Some(Duration::from_secs(10)), ..Stranger::default() };
        let made = calls(config, 60);
        assert_eq!(made.len(), 20);
        assert_eq!(made[0], made[9]);
        assert_eq!(made[10], Duration::from_secs(5));
    }

    #[test]
    fn irregular_strangers_are_seeded() {
        let config = Stranger { rate: 5.0, irregular: true, ..Stranger::default() };
        assert_eq!(calls(config.clone(), 20), calls(config, 20));
    }
}
