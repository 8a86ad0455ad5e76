//! The gate's answer for a terminal.

use retake_analyzer::check::shown;
use retake_analyzer::model::{BudgetVerdict, CheckReport, CheckVerdict, Finding};

use crate::cli::Format;
use crate::output::{inert, row, table};
use crate::units::change;

/// A check: what got worse, then the budgets, then the verdict.
pub(crate) fn check(report: &CheckReport) -> String {
    let mut text = format!("check of run {}", report.run_id);
    if report.runs.len() > 1 {
        text.push_str(&format!(" and {} more", report.runs.len() - 1));
    }
    match report.baseline.as_slice() {
        [] => {}
        [one] => text.push_str(&format!(" against {one}")),
        several => text.push_str(&format!(" against {} runs", several.len())),
    }
    text.push('\n');
    for finding in &report.regressions {
        text.push_str(&regression(finding));
    }
    if let Some(diff) = &report.comparison {
        text.push_str(&super::diff(diff, Format::Table));
    }
    if !report.budgets.is_empty() {
        let header = ["budget", "found", "allowed", "room", "samples", "verdict"];
        let mut shown = table(Format::Table, &header, 1);
        for budget in &report.budgets {
            row(&mut shown, cells(budget));
        }
        text.push_str(&format!("{shown}\n"));
        for budget in &report.budgets {
            text.push_str(&remark(budget));
        }
    }
    let verdict = match report.verdict {
        CheckVerdict::Pass => "pass",
        CheckVerdict::Warn => "pass, with warnings",
        CheckVerdict::Fail => "FAIL",
        CheckVerdict::Inconclusive => "inconclusive: the data cannot tell",
    };
    text.push_str(&format!("verdict: {verdict} (exit code {})\n", report.exit_code));
    text
}

/// A regression in words, with its cause and traces that show it.
pub(super) fn regression(finding: &Finding) -> String {
    let [low, high] = finding.effect_ci;
    let of = if finding.operation.is_empty() { "" } else { " of " };
    let mut text = format!(
        "REGRESSION: {}{of}{} {} (95 % interval {} to {}), {} -> {}\n",
        finding.metric,
        inert(&finding.operation),
        change(finding.effect),
        change(low),
        change(high),
        shown(finding.base, &finding.unit),
        shown(finding.candidate, &finding.unit),
    );
    if let Some(stage) = &finding.stage {
        let place = match (&finding.source_file, finding.source_line) {
            (Some(file), Some(line)) => format!(" at {}:{line}", inert(file)),
            (Some(file), None) => format!(" at {}", inert(file)),
            _ => String::new(),
        };
        text.push_str(&format!("  cause: {}{place}\n", inert(stage)));
    }
    let parts: Vec<String> = finding
        .contributions
        .iter()
        .filter(|part| part.share.abs() >= 0.005)
        .map(|part| format!("{} {}", inert(&part.stage), shown(part.change_ns, "ns")))
        .collect();
    if !parts.is_empty() {
        text.push_str(&format!("  of the mean's change: {}\n", parts.join(", ")));
    }
    for example in &finding.examples {
        text.push_str(&format!(
            "  see: retake trace {} --run {}   ({} there, {} in all)\n",
            inert(&example.trace_id),
            example.run_id,
            shown(example.stage_ns as f64, "ns"),
            shown(example.duration_ns as f64, "ns"),
        ));
    }
    text
}

fn cells(budget: &BudgetVerdict) -> Vec<String> {
    let number = |value: f64| match budget.is_relative {
        true => change(value),
        false => shown(value, &budget.unit),
    };
    let name = match &budget.group {
        Some(group) => format!("{} [{group}]", budget.budget),
        None => budget.budget.clone(),
    };
    let verdict = match budget.verdict {
        CheckVerdict::Pass => "pass",
        CheckVerdict::Warn => "warn",
        CheckVerdict::Fail => "FAIL",
        CheckVerdict::Inconclusive => "inconclusive",
    };
    let limit = budget.limit.map_or("-".to_owned(), |limit| {
        let sign = if budget.is_min { ">=" } else { "<=" };
        match budget.is_relative {
            true => format!("{sign} {}", change(if budget.is_min { -limit } else { limit })),
            false => format!("{sign} {}", number(limit)),
        }
    });
    vec![
        name,
        budget.actual.map_or("-".to_owned(), number),
        limit,
        budget.margin.map_or("-".to_owned(), change),
        budget.samples.to_string(),
        verdict.to_owned(),
    ]
}

fn remark(budget: &BudgetVerdict) -> String {
    let mut text = String::new();
    let group = budget.group.as_ref().map_or(String::new(), |group| format!(" [{group}]"));
    let name = inert(&format!("{}{group}", budget.budget));
    if let Some(note) = &budget.note {
        text.push_str(&format!("{name}: {}\n", inert(note)));
    }
    if let Some(run) = &budget.first_bad_run {
        text.push_str(&format!("{name}: crossed since run {run}\n"));
    }
    if matches!(budget.verdict, CheckVerdict::Fail | CheckVerdict::Warn) {
        for found in &budget.evidence {
            text.push_str(&format!(
                "  see: retake trace {} --run {}   ({})\n",
                inert(&found.trace_id),
                found.run_id,
                shown(found.value, &budget.unit)
            ));
        }
    }
    text
}
