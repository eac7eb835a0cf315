//! Routing languages: a fixed catalogue.

/// The languages every simulated organisation has, in this order.
pub const NAMES: [&str; 10] = [
    "English",
    "Spanish",
    "French",
    "German",
    "Italian",
    "Portuguese",
    "Dutch",
    "Polish",
    "Japanese",
    "Arabic",
];

/// The id of the n-th language (from 0).
pub fn id(index: usize) -> String {
    format!("60000000-0000-4000-8000-{:012x}", index + 1)
}

/// The name of a language, if the id is known.
pub fn name(language: &str) -> Option<&'static str> {
    (0..NAMES.len()).find(|index| id(*index) == language).map(|index| NAMES[index])
}
