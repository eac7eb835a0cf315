//! The files of `scenarios/`, compiled in.

/// Name (the file's stem) and text.
const FILES: &[(&str, &str)] = &[];

/// The names, in alphabetical order.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The text of one.
pub fn text(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
