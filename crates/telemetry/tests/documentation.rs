//! The gateway's page lists every metric, with its labels and its meaning.

use tidegate_telemetry::Metric;

#[test]
fn every_metric_is_documented_in_the_words_of_its_help() {
    let page = include_str!("../../../docs/gateway.md");
    for metric in Metric::ALL {
        let labels: Vec<String> = metric.labels().iter().map(|label| format!("`{label}`")).collect();
        let line = format!("| `{}` | {} | {} |", metric.name(), labels.join(", "), metric.help());
        assert!(page.lines().any(|known| known == line), "docs/gateway.md lacks the line\n{line}");
    }
}
