//! What an operator can tell a client about the server's limits: the truth of the scenario, in the client's words.

use std::time::Duration;

use tidegate_core::pace::{LimitKind, LimitSpec, Observes, Partition};
use tidegate_core::profile::parse_place;
use tidegate_sim::SimConfig;
use tidegate_sim::model::route::{Per, RouteMatch};

use super::Briefing;

/// An instance's share of the true limits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Told {
    /// Between two attempts, so that the tightest quota is spread evenly over its window.
    pub(super) interval: Option<Duration>,
    /// Attempts at once.
    pub(super) cap: Option<u32>,
}

impl Told {
    /// The tightest rate and the tightest cap that count any of the instance's calls, each divided by the instances that
    /// share it. Where a method costs more, every call is taken to cost that.
    pub(super) fn share(briefing: &Briefing<'_, '_>) -> Self {
        let plan = briefing.plan;
        let routes: Vec<_> = plan.routes.iter().flatten().collect();
        let called = |matches: &dyn Fn(&str, &str) -> bool| {
            routes.iter().any(|route| matches(route.method.as_str(), &route.path(0)))
        };
        let mut told = Self::default();
        for rule in plan.server.limit_rules() {
            let counts = |method: &str, path: &str| {
                rule.route.matches(method, path)
                    && !rule.except.iter().any(|route| route.matches(method, path))
            };
            if called(&counts) {
                let cost = rule.cost.values().copied().max().unwrap_or(1).max(1);
                let each = rule.quota.window * cost * sharers(briefing, &rule.per) / rule.quota.limit;
                told.interval = told.interval.max(Some(each));
            }
        }
        for rule in plan.server.cap_rules() {
            if called(&|method, path| rule.route.matches(method, path)) {
                let share = (rule.limit / sharers(briefing, &rule.per)).max(1);
                told.cap = Some(told.cap.map_or(share, |cap| cap.min(share)));
            }
        }
        told
    }
}

/// How many instances draw from the same count as this one.
fn sharers(briefing: &Briefing<'_, '_>, per: &[Per]) -> u32 {
    let fleet = briefing.plan.fleet();
    if per.contains(&Per::Token) {
        1
    } else if per.contains(&Per::Credential) {
        let clients = u32::try_from(fleet.credentials.len()).unwrap_or(u32::MAX).max(1);
        fleet.instances.div_ceil(clients)
    } else {
        fleet.instances
    }
}

/// The server's limits as an operator declares them with `[[limit]]`.
pub(crate) fn declared(server: &SimConfig) -> Vec<LimitSpec> {
    let rates = server.limit_rules().into_iter().filter_map(|rule| {
        let kind = LimitKind::Rate { quota: u64::from(rule.quota.limit), window: rule.quota.window };
        spec(rule.key, &rule.route, kind, &rule.per)
    });
    let caps = server
        .cap_rules()
        .into_iter()
        .filter_map(|rule| spec(rule.key, &rule.route, LimitKind::Concurrent { cap: rule.limit }, &rule.per));
    rates.chain(caps).collect()
}

fn spec(key: String, route: &RouteMatch, kind: LimitKind, per: &[Per]) -> Option<LimitSpec> {
    let (method, path) = parse_place(&route.to_string()).ok()?;
    let per = per.iter().map(|per| match per {
        Per::Token => Partition::Token,
        Per::Credential => Partition::Credential,
        Per::Family => Partition::Family,
        Per::Tenant => Partition::Tenant,
    });
    Some(LimitSpec {
        key,
        aliases: Vec::new(),
        method,
        path,
        kind,
        per: per.collect(),
        pin: false,
        assumed: false,
        observes: Observes::OwnName,
    })
}
