//! Near misses: what somebody may have meant by a word that is not known.

/// The candidate nearest to `word`, if it is near enough to be meant: a third of its letters may differ, three at most;
/// case does not count.
///
/// ```
/// use tidegate_core::profile::nearest;
///
/// assert_eq!(nearest("qouta", ["quota", "window"]), Some("quota"));
/// assert_eq!(nearest("concurrent", ["quota", "window"]), None);
/// ```
pub fn nearest<'k>(word: &str, candidates: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let bound = (word.chars().count() / 3).clamp(1, 3);
    let near = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    near.filter(|(distance, _)| *distance <= bound).min().map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other (optimal string
/// alignment). Dashes and underscores count as the same letter, because that is the commonest mistake in keys.
fn distance(a: &str, b: &str) -> usize {
    let letters = |word: &str| -> Vec<char> { word.to_lowercase().replace('-', "_").chars().collect() };
    let (a, b) = (letters(a), letters(b));
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits_and_swaps() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("quota", "quota", 0),
            ("qouta", "quota", 1),
            ("limits", "limit", 1),
            ("kitten", "sitting", 3),
            ("token-path", "token_path", 0),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (edits, edits), "{a} {b}");
        }
    }

    #[test]
    fn only_near_words_are_offered() {
        let keys = ["quota", "window", "match", "per"];
        assert_eq!(nearest("qouta", keys), Some("quota"));
        assert_eq!(nearest("windows", keys), Some("window"));
        assert_eq!(nearest("concurrent", keys), None);
    }
}
