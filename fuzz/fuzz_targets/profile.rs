//! Reads arbitrary text as a profile: it must be read or told to be wrong, with lines that exist.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_core::profile::Profile;

fuzz_target!(|text: &str| {
    match Profile::parse(text, "f") {
        Ok(profile) => {
            assert!(!profile.name.is_empty());
            assert!(profile.backoff.base() <= profile.backoff.cap());
            assert!(profile.limits.iter().all(|limit| !limit.per.is_empty()));
        }
        Err(problems) => {
            let lines = text.split('\n').count();
            assert!(!problems.list.is_empty());
            assert!(problems.list.iter().all(|problem| (1..=lines).contains(&problem.line)), "{problems}");
        }
    }
});
