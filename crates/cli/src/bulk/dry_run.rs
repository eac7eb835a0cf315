//! What a run would send, and how long it would take.

use std::time::Duration;

use tidegate::Profile;
use tidegate_bulk::{Lookups, PlannedRequest};
use tidegate_core::pace::LimitKind;

use super::input::Input;
use crate::failure::Failure;
use crate::output;

/// Requests shown.
const SHOWN: usize = 5;

/// Shows what would be sent, and how long it would take.
pub(super) fn dry_run(input: &Input, lookups: &Lookups, profile: &Profile) -> Result<(), Failure> {
    let mut shown = Vec::new();
    let summary = input
        .planner()
        .plan(input.open()?, &input.survey, lookups, |request| {
            if shown.len() < SHOWN {
                shown.push(request);
            }
            Ok::<_, std::convert::Infallible>(())
        })
        .map_err(Failure::usage)?;
    output::data(&format!("{} rows become {} requests; nothing was sent.\n", summary.rows, summary.requests));
    for note in &summary.notes {
        output::data(&format!("{note}\n"));
    }
    for request in &shown {
        let body = request.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        output::data(&format!("\n{} {}\n{body}\n", request.method, request.target));
    }
    if summary.requests > shown.len() as u64 {
        output::data(&format!("\n… and {} more.\n", summary.requests - shown.len() as u64));
    }
    output::data(&format!("\nForecast: {}\n", forecast(profile, shown.first(), summary.requests)));
    Ok(())
}

/// How long `requests` take at the declared limits that apply to the first of them.
fn forecast(profile: &Profile, first: Option<&PlannedRequest>, requests: u64) -> String {
    let Some(first) = first else { return "there is nothing to do.".to_owned() };
    let slowest = profile
        .limits
        .iter()
        .filter(|limit| limit.matches(&first.method, &first.target))
        .filter_map(|limit| match limit.kind {
            LimitKind::Rate { quota, window } => {
                let windows = requests.saturating_sub(1) / quota;
                Some((window.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX)), limit))
            }
            LimitKind::Concurrent { .. } => None,
        })
        .max_by_key(|(time, _)| *time);
    match slowest {
        None => format!(
            "profile `{}` declares no limit for this; it goes as fast as the upstream's answers allow.",
            profile.name
        ),
        Some((time, limit)) => format!(
            "about {} at limit {} if nobody else draws from it, less where the upstream's answers allow more.",
            spell(time.max(Duration::from_secs(1))),
            limit.key
        ),
    }
}

fn spell(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forecast_is_that_of_the_tightest_limit_that_applies() {
        let request = PlannedRequest {
            seq: 2,
            id: "u1".to_owned(),
            transaction: uuid::Uuid::nil(),
            method: http::Method::PATCH,
            target: "/api/v2/users/u1/routingskills/bulk".to_owned(),
            body: None,
            lines: vec![2],
        };
        let genesys = Profile::builtin("genesys").unwrap();
        let told = |requests| forecast(&genesys, Some(&request), requests);
        assert!(told(300).starts_with("about 1 s at limit "), "{}", told(300));
        assert!(
            told(301).starts_with("about 60 s at limit client.credentials.token.rate.per.minute "),
            "{}",
            told(301)
        );
        assert!(
            told(8_000).starts_with("about 26 min at limit client.credentials.token.rate.per.minute "),
            "{}",
            told(8_000)
        );
        let guide = Profile::builtin("genesys-guide").unwrap();
        assert!(forecast(&guide, Some(&request), 500).contains("declares no limit"));
        assert_eq!(forecast(&guide, None, 0), "there is nothing to do.");
    }
}
