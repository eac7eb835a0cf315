//! Reads an arbitrary answer: header lines `name: value`, an empty line, a body. The corpus is therefore readable.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use tidegate_core::glob::PathGlob;
use tidegate_core::observe::{
    BodyRule, HeaderRule, HeaderRules, MAX_DURATION, MAX_IGNORED, MAX_READINGS, ResetUnit, observe,
    observe_body, observe_told,
};
use tidegate_core::time::Wall;

fuzz_target!(|answer: &[u8]| {
    let end = answer.windows(2).position(|pair| pair == b"\n\n").unwrap_or(answer.len());
    let (head, body) = answer.split_at(end);
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            let _ = headers.try_append(name, value);
        }
    }
    let told = BodyRule {
        method: None,
        path: PathGlob::parse("/**").expect("valid"),
        name: "points".to_owned(),
        limit: "/limit".to_owned(),
        remaining: "/remaining".to_owned(),
        restore: Some("/restore".to_owned()),
        cost: Some("/cost".to_owned()),
    };
    for (_, reset_unit) in ResetUnit::NAMES {
        let own = Some(HeaderName::from_static("x-own"));
        let rule = HeaderRule {
            limit: own.clone(),
            reset: own.clone(),
            retry_after: own,
            reset_unit,
            ..HeaderRule::default()
        };
        let body_wait = Some("/error/wait".to_owned());
        let rules = HeaderRules { reset_unit, declared: vec![rule], body_wait, ..HeaderRules::default() };
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut seen = observe(&rules, status, &headers, Wall::from_unix_millis(1_700_000_000_000));
        observe_body(&rules, status, body, &mut seen);
        observe_told(&told, body, true, &mut seen);
        assert!(seen.readings.len() <= MAX_READINGS && seen.ignored.len() <= MAX_IGNORED);
        assert!(seen.readings.iter().filter(|reading| reading.name.is_none()).count() <= 1);
        assert!(seen.retry_after.is_none_or(|wait| wait <= MAX_DURATION));
        let resets = seen.readings.iter().filter_map(|reading| reading.reset);
        assert!(resets.into_iter().all(|reset| reset.after <= MAX_DURATION));
    }
});
