//! Verdicts in words, the same everywhere.

use crate::model::{BudgetVerdict, CheckReport, CheckVerdict, Finding};

/// A number of a check in its unit: `82.4 ms`, `$0.0041`, `12.5 %`, `1,234`.
#[must_use]
pub fn shown(value: f64, unit: &str) -> String {
    match unit {
        "ns" => time(value),
        "usd" => format!("${value:.4}"),
        "share" => format!("{:.1} %", value * 100.0),
        _ if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}"),
        _ if value.abs() >= 100.0 => format!("{value:.1}"),
        _ if value.abs() >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn time(ns: f64) -> String {
    let (value, unit) = match ns.abs() {
        n if n < 1e3 => return format!("{ns:.0} ns"),
        n if n < 1e6 => (ns / 1e3, "us"),
        n if n < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let digits = if value.abs() < 9.995 { 2 } else { usize::from(value.abs() < 99.95) };
    format!("{value:.digits$} {unit}")
}

/// A relative change: `+12.3 %`.
pub(super) fn change(effect: f64) -> String {
    format!("{:+.1} %", effect * 100.0)
}

pub(super) fn verdict(verdict: CheckVerdict) -> &'static str {
    match verdict {
        CheckVerdict::Pass => "pass",
        CheckVerdict::Warn => "warn",
        CheckVerdict::Fail => "fail",
        CheckVerdict::Inconclusive => "inconclusive",
    }
}

/// A budget's name with its group.
pub(super) fn name(budget: &BudgetVerdict) -> String {
    match &budget.group {
        Some(group) => format!("{} [{group}]", budget.budget),
        None => budget.budget.clone(),
    }
}

/// What was found, in its unit.
pub(super) fn actual(budget: &BudgetVerdict) -> String {
    match budget.actual {
        None => "-".to_owned(),
        Some(actual) if budget.is_relative => change(actual),
        Some(actual) => shown(actual, &budget.unit),
    }
}

/// The limit, in its unit.
pub(super) fn limit(budget: &BudgetVerdict) -> String {
    let Some(limit) = budget.limit else { return "-".to_owned() };
    if budget.is_relative {
        return change(if budget.is_min { -limit } else { limit });
    }
    let sign = if budget.is_min { ">=" } else { "<=" };
    format!("{sign} {}", shown(limit, &budget.unit))
}

/// A budget that is not kept, in one sentence.
pub(super) fn budget_sentence(budget: &BudgetVerdict) -> String {
    let mut text = format!(
        "{}: {} is {}, allowed {}",
        name(budget),
        one_line(&budget.metric),
        actual(budget),
        limit(budget)
    );
    if let Some(note) = &budget.note {
        text.push_str(&format!(" ({note})"));
    }
    text
}

/// A regression in one sentence: what, by how much, where from.
pub(super) fn finding_sentence(finding: &Finding) -> String {
    let operation = match finding.operation.as_str() {
        "" => String::new(),
        operation => format!(" of {operation}"),
    };
    let [low, high] = finding.effect_ci;
    let how = match finding.unit.as_str() {
        "share" => format!(
            "from {} to {}",
            shown(finding.base, "share"),
            shown(finding.candidate, "share")
        ),
        unit => format!(
            "{} (95 % interval {} to {}; {} -> {})",
            change(finding.effect),
            change(low),
            change(high),
            shown(finding.base, unit),
            shown(finding.candidate, unit)
        ),
    };
    let mut text = format!("{}{operation} got worse: {how}", finding.metric);
    if let Some(stage) = &finding.stage {
        let part = finding.contributions.iter().find(|part| part.stage == *stage);
        match part {
            Some(part) => text.push_str(&format!(
                "; {stage} adds {} to the mean operation",
                shown(part.change_ns, "ns")
            )),
            None => text.push_str(&format!("; it comes from {stage}")),
        }
    }
    if let Some(file) = &finding.source_file {
        let line = finding.source_line.map_or(String::new(), |line| format!(":{line}"));
        text.push_str(&format!(" ({file}{line})"));
    }
    text
}

/// The whole check in one line.
pub(super) fn headline(report: &CheckReport) -> String {
    let count = |n: usize, one: &str, many: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    };
    let open =
        report.budgets.iter().filter(|budget| budget.verdict == CheckVerdict::Inconclusive).count();
    let mut parts = vec![
        count(report.regressions.len(), "regression", "regressions"),
        count(report.violations.len(), "budget crossed", "budgets crossed"),
    ];
    if open > 0 {
        parts.push(count(open, "budget undecided", "budgets undecided"));
    }
    format!("{}: {}", verdict(report.verdict), parts.join(", "))
}

/// Text without line breaks, for where one line is all there is.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
