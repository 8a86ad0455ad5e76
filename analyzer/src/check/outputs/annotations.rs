//! Workflow commands of GitHub Actions: each shows its message at a line of a file.

use super::words::{budget_sentence, finding_sentence};
use crate::model::{CheckReport, CheckVerdict};

/// One command a line, for the standard output of a step. `budgets_file` is where budgets are
/// written, relative to the repository.
///
/// Format: "Workflow commands for GitHub Actions", with the escapes of its toolkit
/// (`@actions/core`): `%`, carriage return and line feed, and in properties `:` and `,` too.
#[must_use]
pub fn annotations(report: &CheckReport, budgets_file: Option<&str>) -> String {
    let mut text = String::new();
    for finding in &report.regressions {
        let place = finding.source_file.as_deref().map(|file| (file, finding.source_line));
        command(&mut text, "error", place, "retake: regression", &finding_sentence(finding));
    }
    for budget in &report.budgets {
        let level = match budget.verdict {
            CheckVerdict::Fail => "error",
            CheckVerdict::Warn => "warning",
            CheckVerdict::Inconclusive => "notice",
            CheckVerdict::Pass => continue,
        };
        let place = budgets_file.map(|file| (file, i64::try_from(budget.line).ok()));
        command(&mut text, level, place, "retake: budget", &budget_sentence(budget));
    }
    text
}

fn command(
    text: &mut String,
    level: &str,
    place: Option<(&str, Option<i64>)>,
    title: &str,
    message: &str,
) {
    let mut properties = Vec::new();
    if let Some((file, line)) = place {
        properties.push(format!("file={}", property(file)));
        properties.extend(line.map(|line| format!("line={line}")));
    }
    properties.push(format!("title={}", property(title)));
    text.push_str(&format!("::{level} {}::{}\n", properties.join(","), data(message)));
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
