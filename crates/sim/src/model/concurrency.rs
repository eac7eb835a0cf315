//! Caps on calls in progress. A cap refuses with quota left, which is how a client tells it from a rate limit.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::limits::Refusal;
use crate::model::route::{Caller, Per, RouteMatch, partition};

/// What a refused caller is told to wait: nobody knows when a call in progress ends, so it is the smallest honest hint.
const HINT: Duration = Duration::from_secs(1);

/// One cap.
#[derive(Debug, Clone)]
pub struct CapRule {
    /// Names the cap in statistics and 429 bodies.
    pub key: String,
    /// The namespace shown beside the key.
    pub namespace: String,
    /// How many calls may be in progress at once.
    pub limit: u32,
    /// By what it is counted separately.
    pub per: Vec<Per>,
    /// Which calls it counts.
    pub route: RouteMatch,
}

/// Places taken by one call; give it back with [`Caps::release`].
#[derive(Debug, Default)]
#[must_use = "a place that is not given back is taken for ever"]
pub struct Held(Vec<(usize, String)>);

/// All caps with their state.
#[derive(Debug)]
pub struct Caps {
    rules: Vec<CapRule>,
    taken: HashMap<(usize, String), u32>,
}

impl Caps {
    /// Nothing in progress.
    pub fn new(rules: Vec<CapRule>) -> Self {
        Self { rules, taken: HashMap::new() }
    }

    /// Takes a place under every cap that matches, or none.
    pub fn acquire(&mut self, caller: &Caller) -> Result<Held, Refusal> {
        let mut places = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            if !rule.route.matches(&caller.method, &caller.path) {
                continue;
            }
            let place = (index, partition(&rule.per, caller));
            if self.taken.get(&place).copied().unwrap_or(0) >= rule.limit {
                return Err(Refusal {
                    key: rule.key.clone(),
                    namespace: rule.namespace.clone(),
                    value: rule.limit,
                    retry_after: HINT,
                });
            }
            places.push(place);
        }
        for place in &places {
            *self.taken.entry(place.clone()).or_insert(0) += 1;
        }
        Ok(Held(places))
    }

    /// Gives the places back.
    pub fn release(&mut self, held: Held) {
        for place in held.0 {
            if let Some(taken) = self.taken.get_mut(&place) {
                *taken -= 1;
                if *taken == 0 {
                    self.taken.remove(&place);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_place_can_be_taken_again() {
        let rule = CapRule {
            key: "org".to_owned(),
            namespace: "conversation".to_owned(),
            limit: 1,
            per: vec![Per::Tenant],
            route: "/api/v2/conversations/**".parse().unwrap(),
        };
        let mut caps = Caps::new(vec![rule]);
        let call = Caller::new("t", "c", "POST", "/api/v2/conversations/messages");
        let held = caps.acquire(&call).unwrap();
        assert_eq!(caps.acquire(&call).unwrap_err().key, "org");
        let other = Caller::new("t", "c", "GET", "/api/v2/users");
        let free = caps.acquire(&other).unwrap();
        caps.release(held);
        caps.release(free);
        let again = caps.acquire(&call).unwrap();
        caps.release(again);
        assert!(caps.taken.is_empty());
    }
}
