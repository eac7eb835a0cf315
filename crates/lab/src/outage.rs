//! What a scenario's timed faults mean on the run's own clock: brown-outs as absolute stretches, latency by time.

use std::time::Duration;

use tidegate_sim::SimConfig;
use tidegate_sim::model::fault::Faults;
use tidegate_sim::model::route::RouteMatch;
use tidegate_sim::text::Spread;

/// A brown-out in the run's own time.
#[derive(Debug, Clone)]
pub(crate) struct Outage {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) route: RouteMatch,
}

/// The faults in force over time: each with its beginning and, if another set replaces it, its end.
fn phases(config: &SimConfig) -> Vec<(Duration, Duration, &Faults)> {
    let mut events: Vec<_> = config.events.iter().map(|event| (event.at, &event.faults)).collect();
    events.sort_by_key(|(at, _)| *at);
    let mut starts = vec![(Duration::ZERO, &config.faults)];
    starts.extend(events);
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([Duration::MAX]).collect::<Vec<_>>();
    starts.into_iter().zip(ends).map(|((from, faults), to)| (from, to, faults)).collect()
}

/// All brown-outs of a server.
pub(crate) fn outages(config: &SimConfig) -> Vec<Outage> {
    let mut outages = Vec::new();
    for (since, until, faults) in phases(config) {
        for brown_out in &faults.brown_outs {
            let from = since + brown_out.from;
            let to = until.min(since + brown_out.to);
            if from < to {
                outages.push(Outage { from, to, route: brown_out.route.clone() });
            }
        }
    }
    outages
}

/// The server's latency over time.
#[derive(Debug)]
pub(crate) struct Latency(Vec<(Duration, Spread)>);

impl Latency {
    pub(crate) fn of(config: &SimConfig) -> Self {
        let at = |(from, _, faults): (Duration, Duration, &Faults)| {
            (from, faults.latency.unwrap_or(config.latency))
        };
        Self(phases(config).into_iter().map(at).collect())
    }

    pub(crate) fn at(&self, now: Duration) -> Spread {
        self.0.iter().rev().find(|(from, _)| *from <= now).map_or_else(Spread::default, |(_, spread)| *spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_ends_the_brown_outs_before_it_and_shifts_its_own() {
        let config = SimConfig::from_toml(
            "latency = \"10ms\"\n[[faults.brown_outs]]\nfrom = \"1s\"\nto = \"9s\"\n[[events]]\nat = \"5s\"\n[events.faults]\nlatency = \"1s\"\nbrown_outs = [{ from = \"1s\", to = \"2s\" }]\n",
        )
        .unwrap();
        let s = Duration::from_secs;
        let found: Vec<_> = outages(&config).into_iter().map(|outage| (outage.from, outage.to)).collect();
        assert_eq!(found, [(s(1), s(5)), (s(6), s(7))]);
        let latency = Latency::of(&config);
        assert_eq!((latency.at(s(4)).min, latency.at(s(5)).min), (Duration::from_millis(10), s(1)));
    }
}
