//! The budgets: what was measured, what is allowed, and how much room is left.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::facts::Facts;
use super::scale::percent_of;
use super::text;
use super::units;
use crate::model::{BudgetVerdict, CheckVerdict};

/// The section; empty without a budget file.
pub(super) fn section(facts: &Facts<'_>, drawn: &BTreeMap<&str, usize>) -> Markup {
    let mut budgets: Vec<&BudgetVerdict> = facts.data.budgets.iter().collect();
    // What needs a reader comes first; within it the order of the file.
    budgets.sort_by_key(|budget| match budget.verdict {
        CheckVerdict::Fail => 0,
        CheckVerdict::Warn => 1,
        CheckVerdict::Inconclusive => 2,
        CheckVerdict::Pass => 3,
    });
    html! {
        @if !budgets.is_empty() {
            section id="budgets" aria-labelledby="budgets-h" {
                h2 id="budgets-h" { "Budgets" (super::tables::sql_link(facts, "budgets")) }
                p class="hint" { (summary(&budgets)) }
                div class="scroll" role="region" aria-label="Budgets" tabindex="0" {
                    table {
                        thead { tr {
                            th scope="col" { "Budget" }
                            th scope="col" { "Verdict" }
                            th scope="col" class="num" { "Measured" }
                            th scope="col" class="num" { "95\u{a0}% interval" }
                            th scope="col" class="num" { "Limit" }
                            th scope="col" class="wide" { "Used" }
                            th scope="col" class="num" { "n" }
                            th scope="col" { "Traces" }
                        } }
                        tbody {
                            @for budget in budgets.iter().take(ROWS_MAX) { (row(facts, budget, drawn)) }
                        }
                    }
                }
                @if budgets.len() > ROWS_MAX {
                    p class="hint" {
                        (units::plural((budgets.len() - ROWS_MAX) as u64, "more budget"))
                        " not shown; these are kept, or cannot be decided."
                    }
                }
            }
        }
    }
}

fn summary(budgets: &[&BudgetVerdict]) -> Markup {
    let of = |verdict: CheckVerdict| {
        budgets.iter().filter(|budget| budget.verdict == verdict).count() as u64
    };
    let (failed, warned) = (of(CheckVerdict::Fail), of(CheckVerdict::Warn));
    let open = of(CheckVerdict::Inconclusive);
    html! {
        (units::count(of(CheckVerdict::Pass))) " of " (units::plural(budgets.len() as u64, "budget")) " kept"
        @if failed > 0 { ", " b class="bad" { (units::count(failed)) " crossed" } }
        @if warned > 0 { ", " (units::count(warned)) " crossed with a warning" }
        @if open > 0 { ", " (units::count(open)) " not decided" }
        ". As " span class="mono" { "retake check" } " decides them."
    }
}

fn row(facts: &Facts<'_>, budget: &BudgetVerdict, drawn: &BTreeMap<&str, usize>) -> Markup {
    let shown = |value: f64| value_text(value, budget);
    let (class, sign, word) = verdict(budget.verdict);
    html! {
        tr {
            th scope="row" {
                bdi { (text::label_or_unnamed(&budget.budget)) }
                @if let Some(group) = &budget.group {
                    " " span class="dim" { bdi { (text::label(group)) } }
                }
            }
            td class=(class) {
                span class="nowrap" { (sign) " " (word) }
                @if let Some(note) = &budget.note {
                    span class="note" { bdi { (text::message(note)) } }
                }
            }
            td class="num strong" { (budget.actual.map_or_else(absent, shown)) }
            td class="num" {
                @if let Some([low, high]) = budget.interval {
                    (value_text(low, budget)) " to " (value_text(high, budget))
                } @else { (units::ABSENT) }
            }
            td class="num" {
                @if let Some(limit) = budget.limit {
                    @if budget.is_min { "\u{2265}\u{a0}" } @else { "\u{2264}\u{a0}" }
                    (value_text(limit, budget))
                } @else { (units::ABSENT) }
            }
            td class="wide" { (used(budget, class)) }
            td class="num" { (units::count(budget.samples)) }
            td class="mono dim" {
                @for one in budget.evidence.iter().take(EVIDENCE_MAX) {
                    @let id = text::id_start(&one.trace_id, ID_CHARS);
                    @match facts.trace_href(&one.trace_id, drawn) {
                        Some(href) => a href=(href) { (id) },
                        None => span { (id) },
                    }
                    " "
                }
            }
        }
    }
}

/// How much of the limit is used: the bar's end is twice the limit, the line the limit.
fn used(budget: &BudgetVerdict, class: &str) -> Markup {
    let Some(margin) = budget.margin.filter(|margin| margin.is_finite()) else { return html! {} };
    let share = ((1.0 - margin) / 2.0).clamp(0.0, 1.0);
    let said = if margin >= 0.0 {
        format!("{} of the limit is left", units::percent(margin))
    } else {
        format!("{} beyond the limit", units::percent(-margin))
    };
    html! {
        svg class={ "share " (class) } width="100%" height="14" role="img" aria-label=(said) {
            title { (said) }
            rect class="track" y="3" width="100%" height="8" {}
            rect class="used" y="3" width=(percent_of(share)) height="8" {}
            line class="needle" x1="50%" x2="50%" y1="0" y2="14" {}
        }
    }
}

fn value_text(value: f64, budget: &BudgetVerdict) -> String {
    if budget.is_relative {
        return units::change(value);
    }
    match budget.unit.as_str() {
        "ns" => units::duration(units::signed_whole(value)),
        "usd" => units::usd(value),
        "share" => units::percent(value),
        _ => units::number(value),
    }
}

fn absent() -> String {
    units::ABSENT.to_owned()
}

fn verdict(verdict: CheckVerdict) -> (&'static str, &'static str, &'static str) {
    match verdict {
        CheckVerdict::Pass => ("better", "\u{2713}", "kept"),
        CheckVerdict::Warn => ("worse", "\u{26a0}", "warning"),
        CheckVerdict::Fail => ("worse", "\u{2715}", "crossed"),
        CheckVerdict::Inconclusive => ("open", "\u{25cb}", "cannot tell"),
    }
}

/// Budgets in the table.
const ROWS_MAX: usize = 60;
/// Traces named for a budget.
const EVIDENCE_MAX: usize = 3;
/// Characters of a trace's id.
const ID_CHARS: usize = 12;
