//! The run in two or three sentences, and in a handful of figures.

use maud::{Markup, html};

use super::facts::{Facts, cost_of, is_end_to_end, is_idle, wholes};
use super::scale::percentile;
use super::text;
use super::units::{
    self, change, count, duration, duration_or_absent, float, length, percent_words, plural,
};
use crate::model::{BaselineData, CheckVerdict, DiffRow, ReportData, Verdict};

/// Bottleneck, latency, failures, and what the comparison says.
pub(super) fn section(facts: &Facts<'_>) -> Markup {
    html! {
        section class="verdict" aria-label="Summary" {
            p class="lede" {
                (bottleneck(facts)) " " (idleness(facts)) (latency(facts)) " " (failures(facts))
                (budgets(facts))
                @if let Some(base) = &facts.data.baseline { " " (comparison(facts, base)) }
            }
            @if !facts.data.traces.is_empty() { dl class="figures" { (figures(facts)) } }
        }
    }
}

fn bottleneck(facts: &Facts<'_>) -> Markup {
    let breakdown = &facts.data.breakdown;
    let mut stages =
        facts.stages_by_wall().into_iter().filter(|row| row.wall_ns > 0 && !is_idle(row));
    let Some(first) = stages.next() else { return nothing_recorded(facts.data) };
    let name = |stage: &str| html! { b { (facts.palette.name(stage)) } };
    let share = percent_words(first.wall_share);
    let of = html! {
        (duration(breakdown.wall_ns)) " of wall time in " (plural(breakdown.traces, "trace"))
    };
    match stages.next() {
        _ if first.wall_share >= MOST => {
            html! { (name(&first.stage)) " takes " b { (share) } " of the " (of) "." }
        }
        Some(second) if first.wall_share < FEW => html! {
            "No single stage dominates: " (name(&first.stage)) " takes " b { (share) } " and "
            (name(&second.stage))
            " " b { (percent_words(second.wall_share)) } " of the " (of) "."
        },
        Some(second) => html! {
            (name(&first.stage)) " is the bottleneck with " b { (share) } " of the " (of)
            ", followed by "
            (name(&second.stage)) " with " (percent_words(second.wall_share)) "."
        },
        None => html! { (name(&first.stage)) " takes " b { (share) } " of the " (of) "." },
    }
}

/// Says so when nobody recorded what a good part of the time went to.
fn idleness(facts: &Facts<'_>) -> Markup {
    let share = facts.idle_share();
    html! {
        @if share >= IDLE_WORTH_SAYING {
            "During " (percent_words(share)) " of it no span was active. "
        }
    }
}

fn nothing_recorded(data: &ReportData) -> Markup {
    html! {
        @if data.run.status == "recording" {
            "This run is still being recorded and holds no finished trace yet."
        }
        @else if data.sweep.as_ref().is_some_and(|sweep| sweep.run_id == data.run.run_id) {
            "This run is a sweep: it holds what was predicted and measured of the settings below."
        }
        @else if data.breakdown.spans == 0 { "This run holds no spans: nothing was recorded." }
        @else {
            "This run holds " (plural(data.breakdown.spans, "span"))
            ", none of which took any time."
        }
    }
}

fn latency(facts: &Facts<'_>) -> Markup {
    html! {
        @if let (Some(p50), Some(p95)) = (facts.latency(50), facts.latency(95)) {
            @if facts.latencies_ns.len() == 1 { "The one trace took " b { (duration(p50)) } "." }
            @else {
                "Half of the traces finish within " (duration(p50)) ", 95\u{a0}% within "
                b { (duration(p95)) } "."
            }
        }
    }
}

fn failures(facts: &Facts<'_>) -> Markup {
    let traces = facts.data.traces.len() as u64;
    let groups = facts.failures();
    html! {
        @if facts.failed > 0 {
            b { (plural(facts.failed, "trace")) " failed" } " ("
            (failed_share(facts)) ")"
            @if let Some(group) = groups.first() {
                ", " @if groups.len() > 1 { "most often " }
                "in " (facts.palette.name(&group.first.stage))
                @if !group.first.error_type.is_empty() {
                    " with " bdi { (text::label(&group.first.error_type)) }
                }
            }
            "."
        } @else if traces > 0 {
            @if groups.is_empty() { "None failed." } @else {
                "None failed as a whole, though some spans did."
            }
        }
    }
}

/// Budgets in words; nothing without any.
fn budgets(facts: &Facts<'_>) -> Markup {
    let budgets = &facts.data.budgets;
    let crossed = budgets.iter().filter(|budget| budget.verdict == CheckVerdict::Fail).count();
    html! {
        @if crossed > 0 {
            " " b class="bad" { (plural(crossed as u64, "budget")) " crossed" }
            " of " (count(budgets.len() as u64)) "."
        } @else if !budgets.is_empty() {
            " No budget of " (count(budgets.len() as u64)) " is crossed."
        }
    }
}

fn failed_share(facts: &Facts<'_>) -> String {
    percent_words(float(facts.failed) / length(facts.data.traces.len().max(1)))
}

fn comparison(facts: &Facts<'_>, base: &BaselineData) -> Markup {
    let mut wholes = wholes(base);
    let Some((_, first)) = wholes.next() else { return html! {} };
    let name = html! { bdi { (text::label_or_unnamed(&base.run.name)) } };
    html! {
        @match first.verdict {
            Verdict::Worse => {
                "Compared with " (name) " it is " (moved(first)) (cause(facts, &base.diff.rows)) "."
            }
            Verdict::Better => {
                "Compared with " (name) " it is " (moved(first)) (cause(facts, &base.diff.rows)) "."
            }
            Verdict::Same => { "It is " b { "as fast as" } " " (name) ": " (measured(first)) "." }
            Verdict::Inconclusive => {
                "Whether it is faster or slower than " (name) " " b { "cannot be told" } ": "
                (measured(first)) "."
            }
        }
        @for (kind, row) in wholes {
            " Of " bdi { (text::label_or_unnamed(kind)) } ": "
            @match row.verdict {
                Verdict::Worse | Verdict::Better => (moved(row)),
                Verdict::Same => { b { "as fast" } ", " (measured(row)) },
                Verdict::Inconclusive => { b { "cannot be told" } ", " (measured(row)) },
            }
            "."
        }
    }
}

/// The change of a whole that is one.
fn moved(row: &DiffRow) -> Markup {
    let (class, sign, word) = match row.verdict {
        Verdict::Worse => ("worse", "\u{25b2}", "slower"),
        _ => ("better", "\u{25bc}", "faster"),
    };
    html! {
        b class=(class) { (sign) "\u{a0}" (word) ": " (change(row.effect)) }
        " end to end (" (interval(row)) ")"
    }
}

/// The change of a whole that is none, or may be none.
fn measured(row: &DiffRow) -> Markup {
    html! { (change(row.effect)) " end to end (" (interval(row)) ")" }
}

fn interval(row: &DiffRow) -> Markup {
    let [low, high] = row.effect_ci;
    html! { "95\u{a0}% interval " (change(low)) " to " (change(high)) }
}

/// The stage that explains most of the change.
fn cause(facts: &Facts<'_>, rows: &[DiffRow]) -> Markup {
    let explained = rows.iter().filter(|row| !is_end_to_end(row));
    let explained = explained
        .filter_map(|row| Some((row, row.explains_share.filter(|share| share.is_finite())?)));
    let most = explained.max_by(|a, b| a.1.total_cmp(&b.1));
    html! {
        @if let Some((row, share)) = most.filter(|(_, share)| *share >= FEW) {
            @if share > 1.005 { ", more than all of it from " (facts.palette.name(&row.stage)) }
            @else {
                "; " (facts.palette.name(&row.stage)) " accounts for " (percent_words(share))
                " of the change"
            }
        }
    }
}

fn figures(facts: &Facts<'_>) -> Markup {
    let traces = facts.data.traces.len() as u64;
    let tokens = &facts.data.breakdown.tokens;
    let counted = units::total([tokens.llm_input, tokens.llm_output, tokens.embedding].into_iter());
    let estimated = tokens.estimated_input.saturating_add(tokens.estimated_output);
    let ttft = percentile(&facts.ttfts_ns, 50);
    let base_cost = facts.data.baseline.as_ref().and_then(|base| cost_of(&base.breakdown.rows));
    html! {
        (figure("Traces", &count(traces), Some(plural(facts.data.breakdown.spans, "span"))))
        @for (name, percent) in [("Median", 50), ("p95", 95), ("p99", 99)] {
            @let before = facts.base_latency(percent).map(duration).map(was);
            (figure(name, &duration_or_absent(facts.latency(percent)), before))
        }
        (figure("Failed", &count(facts.failed), Some(failed_share(facts))))
        @if ttft.is_some() { (figure("First token", &duration_or_absent(ttft), None)) }
        @if counted != 0 { (figure("Tokens", &units::signed_count(counted), None)) }
        @else if estimated != 0 {
            (figure("Tokens, estimated", &units::signed_count(estimated), None))
        }
        @if let Some(cost) = facts.cost_usd() {
            (figure("Cost", &units::usd(cost), base_cost.map(units::usd).map(was)))
        }
    }
}

fn was(value: String) -> String {
    format!("was {value}")
}

fn figure(name: &str, value: &str, beside: Option<String>) -> Markup {
    html! {
        div {
            dt { (name) }
            dd { (value) @if let Some(beside) = beside { span class="was" { (beside) } } }
        }
    }
}

/// From this share on a stage takes most of the time.
const MOST: f64 = 0.5;
/// Below this share a stage does not stand out.
const FEW: f64 = 0.3;
/// From this share on idleness is worth a sentence.
const IDLE_WORTH_SAYING: f64 = 0.05;
