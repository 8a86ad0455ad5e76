//! The comparison with a baseline: a forest plot inside a table, so that every interval is both
//! drawn and written, and the settings that changed.

use maud::{Markup, html};

use super::facts::{Facts, is_end_to_end};
use super::plots::anchor;
use super::scale::percent_of;
use super::text;
use super::units::{self, change};
use crate::model::{BaselineData, Diff, DiffRow, Verdict};

/// The section; empty without a baseline.
pub(super) fn section(facts: &Facts<'_>) -> Markup {
    let Some(base) = &facts.data.baseline else { return html! {} };
    let diff = &base.diff;
    html! {
        section id="comparison" aria-labelledby="comparison-h" {
            h2 id="comparison-h" {
                "Against the baseline" (super::tables::sql_link(facts, "comparison"))
            }
            p class="hint" { (basis(base)) }
            @if !diff.warnings.is_empty() {
                div class="notice loud" {
                    p { b { "\u{26a0} These runs may not be comparable." } }
                    ul {
                        @for warning in diff.warnings.iter().take(WARNINGS_MAX) {
                            li { bdi { (text::message(warning)) } }
                        }
                    }
                }
            }
            @if diff.rows.is_empty() { p { "There is nothing to compare." } } @else {
                (forest(facts, diff))
            }
            (settings(diff))
        }
    }
}

/// What is compared with what, and how.
fn basis(base: &BaselineData) -> Markup {
    let diff = &base.diff;
    html! {
        "Baseline is " b { bdi { (text::label_or_unnamed(&base.run.name)) } } " ("
        span class="mono" { (text::label(&base.run.run_id)) } ", "
        (units::utc(base.run.started_unix_ns)) " UTC). "
        @if diff.paired {
            "Both runs executed the same operations, so "
            (units::plural(diff.pairs, "pair")) " are compared one by one. "
        } @else {
            "The runs executed different operations, so their distributions are compared. "
        }
        @if !diff.note.is_empty() { bdi { (text::message(&diff.note)) } }
    }
}

fn forest(facts: &Facts<'_>, diff: &Diff) -> Markup {
    let reach = reach(&diff.rows);
    let columns = Columns {
        has_p: diff.rows.iter().any(|row| row.p_adjusted.is_some()),
        has_share: diff.rows.iter().any(|row| row.explains_share.is_some()),
    };
    html! {
        p class="legend" {
            span { span class="glyph worse" { "\u{25b2}" } "worse" }
            span { span class="glyph better" { "\u{25bc}" } "better" }
            span { span class="glyph same" { "\u{25cf}" } "same" }
            span { span class="glyph open" { "\u{25cb}" } "cannot tell" }
            span { span class="key band" {} "within \u{b1}5\u{a0}%, too small to matter" }
            span { "line: 95\u{a0}% confidence interval" }
        }
        div class="scroll" role="region" aria-label="Comparison by stage" tabindex="0" {
            table class="forest" {
                thead { tr {
                    th scope="col" { "Stage" }
                    th scope="col" { "Verdict" }
                    th scope="col" class="plot" { (forest_axis(reach)) }
                    th scope="col" class="num" { "Change" }
                    th scope="col" class="num" { "95\u{a0}% interval" }
                    th scope="col" class="num" { "Baseline" }
                    th scope="col" class="num" { "This run" }
                    @if columns.has_share {
                        th scope="col" class="num" title="Share of the end-to-end change" {
                            "Explains"
                        }
                    }
                    @if columns.has_p {
                        th scope="col" class="num"
                            title="p-value, corrected for the number of stages" {
                            "p"
                        }
                    }
                    th scope="col" class="num" title="Operations in the baseline and in this run" {
                        "n"
                    }
                } }
                tbody {
                    @for row in diff.rows.iter().take(ROWS_MAX) {
                        (forest_row(facts, row, reach, &columns))
                    }
                }
            }
        }
        @if diff.rows.len() > ROWS_MAX {
            p class="hint" {
                (units::plural((diff.rows.len() - ROWS_MAX) as u64, "more row")) " not shown."
            }
        }
    }
}

/// Which optional columns the table has.
#[derive(Debug)]
struct Columns {
    has_p: bool,
    has_share: bool,
}

fn forest_row(facts: &Facts<'_>, row: &DiffRow, reach: f64, columns: &Columns) -> Markup {
    let whole = is_end_to_end(row);
    let shown = |value: f64| value_text(value, &row.unit);
    let [low, high] = row.effect_ci;
    html! {
        tr class=[whole.then_some("whole")] {
            th scope="row" {
                @if whole { "End to end" } @else { (facts.palette.name(&row.stage)) }
                @if row.metric != "latency" {
                    " " span class="dim" { bdi { (text::label(&row.metric)) } }
                }
            }
            td class=(verdict_class(row.verdict)) {
                span class="nowrap" { (verdict_sign(row.verdict)) " " (verdict_word(row.verdict)) }
                @if let Some(note) = &row.note {
                    span class="note" { bdi { (text::message(note)) } }
                }
            }
            td class="plot" { (interval(row, reach)) }
            td class="num strong" { (change(row.effect)) }
            td class="num" {
                @if low.is_finite() && high.is_finite() {
                    (change(low)) " to " (change(high))
                } @else {
                    (units::ABSENT)
                }
            }
            td class="num" { (shown(row.base)) }
            td class="num" { (shown(row.candidate)) }
            @if columns.has_share {
                td class="num" {
                    (row.explains_share.map_or_else(|| units::ABSENT.to_owned(), units::percent))
                }
            }
            @if columns.has_p {
                td class="num" { (row.p_adjusted.map_or_else(|| units::ABSENT.to_owned(), p_text)) }
            }
            td class="num" {
                @if row.n_base == row.n_candidate { (units::count(row.n_base)) }
                @else { (units::count(row.n_base)) " / " (units::count(row.n_candidate)) }
            }
        }
    }
}

/// One interval on the shared axis; arrows stand where it leaves the axis.
fn interval(row: &DiffRow, reach: f64) -> Markup {
    let at = |effect: f64| percent_of(position(effect, reach));
    let [low, high] = row.effect_ci;
    let is_drawable = row.effect.is_finite() && low.is_finite() && high.is_finite();
    let said = format!("{}, interval {} to {}", change(row.effect), change(low), change(high));
    html! {
        svg role="img" aria-label=(said) {
            title { (said) }
            (backdrop(reach))
            @if is_drawable {
                g class=(verdict_class(row.verdict)) {
                    line class="whisker" x1=(at(low)) x2=(at(high)) y1="50%" y2="50%" {}
                    @if low < -reach { text class="arrow" x="0" y="50%" dy="4" { "\u{25c2}" } }
                    @if high > reach {
                        text class="arrow" x="100%" y="50%" dy="4" text-anchor="end" { "\u{25b8}" }
                    }
                    svg class="at" x=(at(row.effect)) y="50%" {
                        path class="sign" d=(verdict_shape(row.verdict)) {}
                    }
                }
            }
        }
    }
}

/// The band of changes too small to matter, and the line of no change.
fn backdrop(reach: f64) -> Markup {
    let at = |effect: f64| percent_of(position(effect, reach));
    html! {
        rect class="band" x=(at(-PRACTICAL_EFFECT)) width=(percent_of(PRACTICAL_EFFECT / reach))
            height="100%" {}
        line class="zero" x1="50%" x2="50%" y2="100%" {}
    }
}

fn forest_axis(reach: f64) -> Markup {
    html! {
        svg height="18" aria-hidden="true" {
            @for effect in [-reach, -reach / 2.0, 0.0, reach / 2.0, reach] {
                @let share = position(effect, reach);
                text class="tick" x=(percent_of(share)) y="13" text-anchor=(anchor(share)) {
                    (axis_text(effect))
                }
            }
        }
    }
}

fn axis_text(effect: f64) -> String {
    let percent = units::signed_whole(effect * 100.0);
    let sign = if percent > 0 { "+" } else { "" };
    format!("{sign}{}\u{a0}%", units::signed_count(percent))
}

fn position(effect: f64, reach: f64) -> f64 {
    (0.5 + effect / reach / 2.0).clamp(0.0, 1.0)
}

/// How far the axis goes to either side: the smallest round figure that holds every interval, but
/// no more than 200 %, beyond which one wild interval would flatten all others.
fn reach(rows: &[DiffRow]) -> f64 {
    let ends = rows.iter().flat_map(|row| [row.effect, row.effect_ci[0], row.effect_ci[1]]);
    let farthest = ends.filter(|end| end.is_finite()).map(f64::abs).fold(0.0, f64::max);
    REACHES.into_iter().find(|&reach| farthest * 1.04 <= reach).unwrap_or(REACH_MAX)
}

fn settings(diff: &Diff) -> Markup {
    let changed = &diff.settings_diff;
    html! {
        @if changed.is_empty() {
            p class="hint" { "The settings of both runs are the same." }
        } @else {
            h3 { "Settings that changed" }
            div class="scroll" role="region" aria-label="Settings that changed" tabindex="0" {
                table class="plain" {
                    thead {
                        tr {
                            th scope="col" { "Setting" }
                            th scope="col" { "Baseline" }
                            th scope="col" { "This run" }
                        }
                    }
                    tbody {
                        @for (name, base, candidate) in changed.iter().take(SETTINGS_MAX) {
                            tr {
                                th scope="row" class="mono" { bdi { (text::label(name)) } }
                                td class="mono" { bdi { (text::label(base)) } }
                                td class="mono" { bdi { (text::label(candidate)) } }
                            }
                        }
                    }
                }
            }
            @if changed.len() > SETTINGS_MAX {
                p class="hint" {
                    (units::plural((changed.len() - SETTINGS_MAX) as u64, "more setting"))
                    " changed."
                }
            }
        }
    }
}

fn value_text(value: f64, unit: &str) -> String {
    match unit {
        _ if !value.is_finite() => units::ABSENT.to_owned(),
        "ns" => units::duration(units::signed_whole(value)),
        "usd" | "USD" => units::usd(value),
        "" | "1" | "tokens" => units::number(value),
        unit => format!("{}\u{a0}{}", units::number(value), text::label(unit)),
    }
}

fn p_text(p: f64) -> String {
    if !p.is_finite() {
        units::ABSENT.to_owned()
    } else if p < 0.001 {
        "<\u{a0}0.001".to_owned()
    } else {
        format!("{p:.3}")
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Same => "same",
        Verdict::Inconclusive => "cannot tell",
    }
}

fn verdict_sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "\u{25bc}",
        Verdict::Worse => "\u{25b2}",
        Verdict::Same => "\u{25cf}",
        Verdict::Inconclusive => "\u{25cb}",
    }
}

/// The same sign as a shape around the origin, since glyphs sit at different heights.
fn verdict_shape(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "M0 6L6-4.5H-6z",
        Verdict::Worse => "M0-6L6 4.5H-6z",
        Verdict::Same | Verdict::Inconclusive => "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    }
}

fn verdict_class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Same => "same",
        Verdict::Inconclusive => "open",
    }
}

/// Changes below this are too small to matter, whatever their certainty.
const PRACTICAL_EFFECT: f64 = 0.05;
/// Axis ends to choose from.
const REACHES: [f64; 5] = [0.1, 0.2, 0.5, 1.0, REACH_MAX];
/// Farthest axis end.
const REACH_MAX: f64 = 2.0;
/// Rows in the table.
const ROWS_MAX: usize = 60;
/// Warnings shown.
const WARNINGS_MAX: usize = 12;
/// Changed settings shown.
const SETTINGS_MAX: usize = 60;
