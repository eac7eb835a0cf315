//! Near misses: what the user may have meant.

use tidegate_core::profile::nearest;

/// `; did you mean ...?` or nothing, to be appended to a message.
pub(crate) fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |it| format!("; did you mean `{it}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let skills = ["Support", "Billing", "Sales", "Spanish", "Größe"];
        for slip in ["suport", "SUPPORT", "Spuport", "Supports"] {
            assert_eq!(hint(slip, skills), "; did you mean `Support`?", "{slip}");
        }
        assert_eq!(hint("Sale", skills), "; did you mean `Sales`?");
        assert_eq!(hint("GRÖßE", skills), "; did you mean `Größe`?");
        assert_eq!((hint("Fraud", skills), hint("", skills)), (String::new(), String::new()));
    }
}
