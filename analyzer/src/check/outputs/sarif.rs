//! SARIF 2.1.0 (OASIS): findings at the line of source where the stage is instrumented.

use serde_json::{Value, json};

use super::words::{budget_sentence, finding_sentence};
use crate::model::{CheckReport, CheckVerdict, Finding};

/// The check as a SARIF log. `budgets_file` is where budgets are written, relative to the
/// repository.
#[must_use]
pub fn sarif(report: &CheckReport, budgets_file: Option<&str>) -> Value {
    let mut results: Vec<Value> = report.regressions.iter().map(regression).collect();
    for budget in &report.budgets {
        let level = match budget.verdict {
            CheckVerdict::Fail => "error",
            CheckVerdict::Warn => "warning",
            CheckVerdict::Inconclusive => "note",
            CheckVerdict::Pass => continue,
        };
        let locations: Vec<Value> = budgets_file
            .map(|file| location(file, i64::try_from(budget.line).ok()))
            .into_iter()
            .collect();
        results.push(json!({
            "ruleId": "retake/budget",
            "level": level,
            "message": { "text": budget_sentence(budget) },
            "locations": locations,
            "partialFingerprints": {
                "retake/v1": format!("budget/{}/{}", budget.budget, budget.group.as_deref().unwrap_or("")),
            },
            "properties": {
                "metric": budget.metric,
                "actual": budget.actual,
                "limit": budget.limit,
                "traces": budget.evidence.iter().map(|found| &found.trace_id).collect::<Vec<_>>(),
                "firstBadRun": budget.first_bad_run,
            },
        }));
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "retake",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": [
                    rule("retake/regression", "A stage got slower, dearer or less reliable than its baseline"),
                    rule("retake/budget", "A run crosses a budget of budgets.toml"),
                ],
            } },
            "automationDetails": { "id": format!("retake/{}", report.run_id) },
            "results": results,
        }],
    })
}

fn rule(id: &str, text: &str) -> Value {
    json!({ "id": id, "shortDescription": { "text": text } })
}

fn regression(finding: &Finding) -> Value {
    let locations: Vec<Value> = finding
        .source_file
        .as_deref()
        .map(|file| location(file, finding.source_line))
        .into_iter()
        .collect();
    json!({
        "ruleId": "retake/regression",
        "level": "error",
        "message": { "text": finding_sentence(finding) },
        "locations": locations,
        // The same cause is the same result in the next run, whatever its numbers are then.
        "partialFingerprints": {
            "retake/v1": format!(
                "regression/{}/{}",
                finding.operation,
                finding.stage.as_deref().unwrap_or(&finding.metric)
            ),
        },
        "properties": {
            "metric": finding.metric,
            "stage": finding.stage,
            "effect": finding.effect,
            "effectInterval": finding.effect_ci,
            "contributions": finding.contributions,
            "traces": finding.examples.iter().map(|found| &found.trace_id).collect::<Vec<_>>(),
        },
    })
}

fn location(file: &str, line: Option<i64>) -> Value {
    let mut physical = json!({ "artifactLocation": { "uri": uri(file) } });
    if let (Some(line), Some(object)) = (line.filter(|line| *line > 0), physical.as_object_mut()) {
        object.insert("region".to_owned(), json!({ "startLine": line }));
    }
    json!({ "physicalLocation": physical })
}

/// A path as a relative URI reference: bytes outside the unreserved ones are escaped (RFC 3986).
fn uri(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'\\' => text.push('/'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(byte));
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}
