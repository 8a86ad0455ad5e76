//! JUnit XML: one test case for each budget and each stage compared.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::words::{actual, budget_sentence, change, finding_sentence, limit, name};
use crate::error::AnalyzeError;
use crate::model::{CheckReport, CheckVerdict, Verdict};

/// The check as a JUnit report.
///
/// # Errors
/// The XML cannot be written.
pub fn junit(report: &CheckReport) -> Result<String, AnalyzeError> {
    let mut document = Report::new(format!("retake check {}", report.run_id));
    let mut budgets = TestSuite::new("budgets");
    for budget in &report.budgets {
        let status = match budget.verdict {
            CheckVerdict::Pass => TestCaseStatus::success(),
            CheckVerdict::Fail => failure("budget", &budget_sentence(budget)),
            // A warning fails nothing; the message is in the output of the case.
            CheckVerdict::Warn => TestCaseStatus::success(),
            CheckVerdict::Inconclusive => skipped(&budget_sentence(budget)),
        };
        let mut case = TestCase::new(name(budget), status);
        case.set_classname("retake.budgets");
        case.set_system_out(format!(
            "{}: {}, allowed {}",
            budget.metric,
            actual(budget),
            limit(budget)
        ));
        budgets.add_test_case(case);
    }
    document.add_test_suite(budgets);
    if let Some(diff) = &report.comparison {
        let mut stages = TestSuite::new("regressions");
        for row in &diff.rows {
            // A stage that got worse without a finding of its own explains one that has.
            let finding = report.regressions.iter().find(|finding| {
                let is_whole =
                    row.verdict == Verdict::Worse && finding.metric.starts_with(&row.metric);
                let is_cause =
                    finding.stage.as_ref().is_some_and(|stage| row.stage.ends_with(stage));
                is_whole || is_cause
            });
            let status = match (row.verdict, finding) {
                (Verdict::Worse, Some(finding)) => {
                    failure("regression", &finding_sentence(finding))
                }
                (Verdict::Inconclusive, _) => {
                    skipped(row.note.as_deref().unwrap_or("too few runs to decide"))
                }
                _ => TestCaseStatus::success(),
            };
            let mut case = TestCase::new(format!("{} {}", row.stage, row.metric), status);
            case.set_classname("retake.regressions");
            let [low, high] = row.effect_ci;
            case.set_system_out(format!(
                "{} (95 % interval {} to {})",
                change(row.effect),
                change(low),
                change(high)
            ));
            stages.add_test_case(case);
        }
        document.add_test_suite(stages);
    }
    document
        .to_string()
        .map_err(|error| AnalyzeError::Write { format: "JUnit XML", reason: error.to_string() })
}

fn failure(kind: &str, message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_type(kind).set_message(message).set_description(message);
    status
}

fn skipped(message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(message);
    status
}
