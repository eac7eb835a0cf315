//! Near misses: what the user may have meant.

/// The candidate nearest to `word`, if it is near enough to be a slip of the finger: at most one edit in three
/// letters, letter case not counted.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let bound = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean ...?` or nothing, to be appended to a message.
pub(crate) fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |it| format!("; did you mean `{it}`?"))
}

/// Edits (insert, delete, replace, swap of neighbours) that turn `left` into `right`.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![(0..=right.len()).collect::<Vec<_>>()];
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(a != b);
            let mut best = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let skills = ["Support", "Billing", "Sales", "Spanish"];
        for slip in ["suport", "SUPPORT", "Spuport", "Supports"] {
            assert_eq!(nearest(slip, skills), Some("Support"), "{slip}");
        }
        assert_eq!(nearest("Sale", skills), Some("Sales"));
        assert_eq!(nearest("Fraud", skills), None);
        assert_eq!(nearest("", skills), None);
    }

    #[test]
    fn distance_counts_edits() {
        for (left, right, edits) in [("", "", 0), ("abc", "", 3), ("abc", "acb", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(left, right), edits, "{left} to {right}");
            assert_eq!(distance(right, left), edits, "{right} to {left}");
        }
    }
}
