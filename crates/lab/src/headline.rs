//! The limit that the picture is about: the first one that counts the fleet's calls.

use std::collections::HashMap;

use tidegate_sim::model::concurrency::CapRule;
use tidegate_sim::model::limits::LimitRule;
use tidegate_sim::model::route::{Caller, Per};

use crate::plan::Plan;

/// One counted rule of the server.
#[derive(Debug, Clone)]
pub(crate) enum Headline {
    /// Units per window.
    Rate(LimitRule),
    /// Calls in progress.
    Cap(CapRule),
    /// The server limits nothing.
    None,
}

/// What a call takes from the headline limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Which of the limit's counts.
    pub(crate) part: u32,
    /// Units.
    pub(crate) cost: u32,
}

impl Headline {
    pub(crate) fn of(plan: &Plan<'_>) -> Self {
        let called = |matches: &dyn Fn(&str, &str) -> bool| {
            plan.routes.iter().flatten().any(|route| matches(route.method.as_str(), &route.path(0)))
        };
        let rate = plan
            .server
            .limit_rules()
            .into_iter()
            .find(|rule| called(&|method, path| counts(rule, method, path)));
        if let Some(rule) = rate {
            return Self::Rate(rule);
        }
        let caps = plan.server.cap_rules();
        let cap = caps.into_iter().find(|rule| called(&|method, path| rule.route.matches(method, path)));
        cap.map_or(Self::None, Self::Cap)
    }

    /// The limit of one count.
    pub(crate) fn quota(&self) -> u32 {
        match self {
            // A bucket's capacity is what it can hold at once; that is the line in the picture.
            Self::Rate(rule) => rule.quota.burst.unwrap_or(rule.quota.limit),
            Self::Cap(rule) => rule.limit,
            Self::None => 0,
        }
    }

    /// What is counted, for the axis.
    pub(crate) const fn unit(&self) -> &'static str {
        match self {
            Self::Rate(_) => "calls counted",
            Self::Cap(_) | Self::None => "calls at once",
        }
    }

    /// In words, for the legend.
    pub(crate) fn title(&self) -> String {
        use tidegate_sim::text::format_duration;
        match self {
            Self::Rate(rule) => {
                let rule = rule.quota;
                let name = serde_json::to_value(rule.rule).ok();
                let name = name.as_ref().and_then(|name| name.as_str()).unwrap_or_default();
                format!("{} per {}, {name}", rule.limit, format_duration(rule.window))
            }
            Self::Cap(rule) => format!("{} at once", rule.limit),
            Self::None => "no limit".to_owned(),
        }
    }
}

fn counts(rule: &LimitRule, method: &str, path: &str) -> bool {
    rule.route.matches(method, path) && !rule.except.iter().any(|route| route.matches(method, path))
}

/// Gives the counts of the headline limit numbers, as they appear.
#[derive(Debug)]
pub(crate) struct Parts {
    headline: Headline,
    numbers: HashMap<String, u32>,
}

impl Parts {
    pub(crate) fn new(headline: Headline) -> Self {
        Self { headline, numbers: HashMap::new() }
    }

    /// Whether places are given back.
    pub(crate) fn is_cap(&self) -> bool {
        matches!(self.headline, Headline::Cap(_))
    }

    /// What `caller` takes; `None` if the limit is not about it.
    pub(crate) fn share(&mut self, caller: &Caller) -> Option<Share> {
        let (per, cost) = match &self.headline {
            Headline::Rate(rule) if counts(rule, &caller.method, &caller.path) => {
                (&rule.per, rule.cost.get(&caller.method).copied().unwrap_or(1))
            }
            Headline::Cap(rule) if rule.route.matches(&caller.method, &caller.path) => (&rule.per, 1),
            _ => return None,
        };
        let key = per.iter().fold(String::new(), |key, per| {
            key + "\n"
                + match per {
                    Per::Token => &caller.token,
                    Per::Credential => &caller.credential,
                    Per::Family => &caller.family,
                    Per::Tenant => "",
                }
        });
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        Some(Share { part: *self.numbers.entry(key).or_insert(next), cost })
    }
}
