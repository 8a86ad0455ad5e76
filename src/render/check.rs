//! The gate's answer for a terminal.

use retake_analyzer::check::shown;
use retake_analyzer::model::{BudgetVerdict, CheckReport, CheckVerdict, Finding};

use super::sheet::{Entry, Keep, Sheet};
use crate::cli::Format;
use crate::output::inert;
use crate::terminal::{Look, Tone};
use crate::units::change;

/// A check: what got worse, then the budgets, then the verdict.
pub(crate) fn check(report: &CheckReport, look: Look) -> String {
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
        text.push_str(&regression(finding, look));
    }
    if let Some(diff) = &report.comparison {
        text.push_str(&super::diff(diff, Format::Table, look));
    }
    if !report.budgets.is_empty() {
        let mut shown = Sheet::default()
            .text("budget", Keep::Always)
            .number("found", Keep::Always)
            .number("allowed", Keep::Always)
            .number("room", Keep::Rank(2))
            .number("samples", Keep::Rank(1))
            .text("verdict", Keep::Always);
        for budget in &report.budgets {
            shown.row(cells(budget));
        }
        text.push_str(&shown.render(Format::Table, look));
        for budget in &report.budgets {
            text.push_str(&remark(budget));
        }
    }
    let verdict = match report.verdict {
        CheckVerdict::Pass => look.paint("pass", Tone::Good),
        CheckVerdict::Warn => look.paint("pass, with warnings", Tone::Warn),
        CheckVerdict::Fail => look.paint("FAIL", Tone::Bad),
        CheckVerdict::Inconclusive => look.paint("inconclusive: the data cannot tell", Tone::Warn),
    };
    text.push_str(&format!("verdict: {verdict} (exit code {})\n", report.exit_code));
    text
}

/// A regression in words, with its cause and traces that show it.
pub(super) fn regression(finding: &Finding, look: Look) -> String {
    let [low, high] = finding.effect_ci;
    let of = if finding.operation.is_empty() { "" } else { " of " };
    let mut text = format!(
        "{} {}{of}{} {} (95 % interval {} to {}), {} -> {}\n",
        look.paint("REGRESSION:", Tone::Bad),
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

fn cells(budget: &BudgetVerdict) -> Vec<Entry> {
    let number = |value: f64| match budget.is_relative {
        true => change(value),
        false => shown(value, &budget.unit),
    };
    let name = match &budget.group {
        Some(group) => format!("{} [{group}]", budget.budget),
        None => budget.budget.clone(),
    };
    let (verdict, tone) = match budget.verdict {
        CheckVerdict::Pass => ("pass", Tone::Good),
        CheckVerdict::Warn => ("warn", Tone::Warn),
        CheckVerdict::Fail => ("FAIL", Tone::Bad),
        CheckVerdict::Inconclusive => ("inconclusive", Tone::Warn),
    };
    let limit = budget.limit.map_or("-".to_owned(), |limit| {
        let sign = if budget.is_min { ">=" } else { "<=" };
        match budget.is_relative {
            true => format!("{sign} {}", change(if budget.is_min { -limit } else { limit })),
            false => format!("{sign} {}", number(limit)),
        }
    });
    vec![
        name.into(),
        budget.actual.map_or("-".to_owned(), number).into(),
        limit.into(),
        budget.margin.map_or("-".to_owned(), change).into(),
        budget.samples.to_string().into(),
        Entry::toned(verdict, Some(tone)),
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
