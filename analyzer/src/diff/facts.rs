//! What differs between two runs besides their times.

use std::collections::BTreeMap;

use retake_schemas::tables::RunRow;

/// Settings that differ: name, base value, candidate value; `(unset)` where a side lacks one.
pub(super) fn settings_diff(base: &str, candidate: &str) -> Vec<(String, String, String)> {
    let (base, candidate) = (settings(base), settings(candidate));
    let mut names: Vec<&String> = base.keys().chain(candidate.keys()).collect();
    names.sort();
    names.dedup();
    let shown = |side: &BTreeMap<String, String>, name: &String| {
        side.get(name).cloned().unwrap_or_else(|| "(unset)".to_owned())
    };
    names
        .into_iter()
        .filter(|name| base.get(*name) != candidate.get(*name))
        .map(|name| (name.clone(), shown(&base, name), shown(&candidate, name)))
        .collect()
}

fn settings(json: &str) -> BTreeMap<String, String> {
    let read: BTreeMap<String, serde_json::Value> = serde_json::from_str(json).unwrap_or_default();
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    read.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// Why the numbers of two runs may not be comparable.
pub(super) fn warnings(base: &RunRow, candidate: &RunRow) -> Vec<String> {
    let mut warnings = Vec::new();
    if base.machine_key != candidate.machine_key {
        warnings.push(format!(
            "the machines differ ({} with {} processors, {} with {}): times are not comparable",
            base.cpu, base.cpus, candidate.cpu, candidate.cpus
        ));
    }
    for run in [base, candidate] {
        warnings.extend(run_warnings(run));
    }
    warnings
}

/// Why the numbers of one run may not be what they seem.
pub(super) fn run_warnings(run: &RunRow) -> Vec<String> {
    let mut warnings = Vec::new();
    if run.events_dropped > 0 {
        warnings.push(format!(
            "run {}: the recorder had to drop {} events, so times may lack spans",
            run.run_id, run.events_dropped
        ));
    }
    if run.status != "finished" {
        warnings.push(format!("run {} is {}", run.run_id, run.status));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_compared_by_name() {
        let base = r#"{"embed.batch":16,"llm.model":"a","same":[1]}"#;
        let candidate = r#"{"embed.batch":64,"llm.model":"a","same":[1],"new":true}"#;
        let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            settings_diff(base, candidate),
            [owned("embed.batch", "16", "64"), owned("new", "(unset)", "true")]
        );
        assert!(settings_diff("broken", "{}").is_empty());
    }
}
