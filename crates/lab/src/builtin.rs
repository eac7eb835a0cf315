//! The files of `scenarios/`, compiled in.

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../scenarios/", $name, ".toml")))),+]
    };
}

/// Name (the file's stem) and text.
const FILES: &[(&str, &str)] = files![
    "brown-out-hinted",
    "brown-out-silent",
    "brown-out-unavailable",
    "concurrency-cap",
    "fleet-1000",
    "fleet-1000-alone",
    "fleet-1000-scarce",
    "fleet-1000-scarce-alone",
    "fleet-10000",
    "fleet-32",
    "fleet-32-alone",
    "fleet-8",
    "four-processes",
    "late-or-never",
    "late-or-never-beside-bulk",
    "no-headers-declared",
    "no-headers-undeclared",
    "publish-window",
    "retry-after-mismatch",
    "share-mode",
    "share-mode-1000",
    "share-mode-turns",
    "silent-bucket-shift",
    "steady-fixed",
    "steady-fixed-aligned",
    "steady-sliding-counter",
    "steady-sliding-log",
    "steady-token-bucket",
    "store-lost-empty",
    "store-lost-kept",
    "thundering-herd",
    "token-expiry",
    "weekly-publish",
];

/// The names, in alphabetical order.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The text of one.
///
/// ```
/// let text = tidegate_lab::builtin::text("thundering-herd").unwrap();
/// assert_eq!(tidegate_lab::Scenario::from_toml(text)?.name, "thundering-herd");
/// # Ok::<(), tidegate_lab::LabError>(())
/// ```
pub fn text(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
