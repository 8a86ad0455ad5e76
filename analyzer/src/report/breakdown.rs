//! Where the time went: one bar that is the whole, one table with a row per stage.

use maud::{Markup, html};

use super::facts::Facts;
use super::scale::{decimal, percent_of};
use super::text;
use super::units::{self, count, duration, duration_or_absent, float, length, total, total_count};
use crate::model::{Breakdown, BreakdownRow};

/// The section.
pub(super) fn section(facts: &Facts<'_>) -> Markup {
    let rows = facts.stages_by_wall();
    if rows.is_empty() {
        return html! {};
    }
    html! {
        section id="stages" aria-labelledby="stages-h" {
            h2 id="stages-h" { "Where the time went" (super::tables::sql_link(facts, "stages")) }
            p class="hint" {
                "Wall time divides every instant of a trace among the spans at work then, so the "
                "shares add up to the whole. "
                "The critical path says where a speed-up would shorten the trace."
            }
            div class="stacks" { (stacks(facts, &rows)) }
            (table(facts, &rows))
            p class="hint" { (sums(facts)) }
        }
    }
}

/// The bars: wall time, critical path, and the baseline's wall time.
fn stacks(facts: &Facts<'_>, rows: &[&BreakdownRow]) -> Markup {
    let wall: Vec<i64> = rows.iter().map(|row| row.wall_ns.max(0)).collect();
    let tenths = units::shares_in_tenths(&wall);
    let all = float(total_count(wall.iter().map(|&ns| ns.unsigned_abs())).max(1));
    let wall_parts: Vec<Part<'_>> = rows
        .iter()
        .zip(wall.iter().zip(&tenths))
        .map(|(row, (&ns, &tenths))| {
            let share = float(ns.unsigned_abs()) / all;
            Part { stage: &row.stage, share, shown: units::tenths(tenths) }
        })
        .collect();
    let critical = critical_parts(rows);
    html! {
        span class="row-name" { "Wall time" }
        (stack(facts, "Share of wall time by stage", &wall_parts, Weight::Main))
        @if !critical.is_empty() {
            span class="row-name" { "Critical path" }
            (stack(facts, "Share of the critical path by stage", &critical, Weight::Thin))
        }
        @if let Some(base) = &facts.data.baseline {
            span class="row-name" { "Baseline, wall time" }
            @let parts = base_parts(facts, &base.breakdown);
            (stack(facts, "Share of the baseline's wall time by stage", &parts, Weight::Thin))
        }
    }
}

fn critical_parts<'a>(rows: &[&'a BreakdownRow]) -> Vec<Part<'a>> {
    let critical =
        rows.iter().filter(|row| row.critical_share > 0.0 && row.critical_share.is_finite());
    critical
        .map(|row| Part {
            stage: &row.stage,
            share: row.critical_share,
            shown: units::percent(row.critical_share),
        })
        .collect()
}

/// The baseline's stages in this run's order, so that equal colours stand in equal places.
fn base_parts<'a>(facts: &Facts<'_>, base: &'a Breakdown) -> Vec<Part<'a>> {
    let order = facts.stages_by_wall();
    let mut rows: Vec<&BreakdownRow> =
        base.rows.iter().filter(|row| row.wall_share.is_finite()).collect();
    rows.sort_by_key(|row| {
        order.iter().position(|known| known.stage == row.stage).unwrap_or(usize::MAX)
    });
    rows.into_iter()
        .map(|row| Part {
            stage: &row.stage,
            share: row.wall_share,
            shown: units::percent(row.wall_share),
        })
        .collect()
}

/// How much room a bar gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// High, with labels over it.
    Main,
    /// Low, for comparison with the main one.
    Thin,
}

/// One segment of a bar.
#[derive(Debug)]
struct Part<'a> {
    stage: &'a str,
    share: f64,
    shown: String,
}

fn stack(facts: &Facts<'_>, title: &str, parts: &[Part<'_>], weight: Weight) -> Markup {
    let (bar_top, height) = match weight {
        Weight::Main => (20.0, 26.0),
        Weight::Thin => (2.0, 10.0),
    };
    let said: Vec<String> = parts
        .iter()
        .take(12)
        .map(|part| format!("{} {}", text::label_or_unnamed(part.stage), part.shown))
        .collect();
    let placed = parts.iter().scan(0.0, |end, part| {
        let start = *end;
        *end += part.share;
        Some((start, part))
    });
    html! {
        svg class="stack" width="100%" height=(decimal(bar_top + height + 2.0)) role="img"
            aria-label=(title) {
            title { (title) }
            desc { (said.join(", ")) }
            @for (x, part) in placed {
                rect class=(facts.palette.class(part.stage)) x=(percent_of(x)) y=(decimal(bar_top))
                    width=(percent_of(part.share)) height=(decimal(height)) {
                    title { (text::label_or_unnamed(part.stage)) " " (part.shown) }
                }
                @if weight == Weight::Main { (segment_label(part, x)) }
            }
        }
    }
}

/// Name and share over a segment, or the share alone, or nothing: what fits on a narrow page too.
fn segment_label(part: &Part<'_>, x: f64) -> Markup {
    let name = text::label_or_unnamed(part.stage);
    let room = part.share * LABEL_CHARS_ACROSS;
    let share_chars = length(part.shown.chars().count() + 1);
    let has_share = share_chars <= room;
    let has_name = share_chars + length(name.chars().count() + 1) <= room;
    html! {
        @if has_share {
            text x=(percent_of(x)) dx="1" y="13" {
                @if has_name { (name) " " }
                tspan class="tick" { (part.shown) }
            }
        }
    }
}

fn table(facts: &Facts<'_>, rows: &[&BreakdownRow]) -> Markup {
    let has_queue = rows.iter().any(|row| row.queue_mean_ns.is_some());
    let has_batch = rows.iter().any(|row| row.batch_mean.is_some());
    let has_tokens =
        rows.iter().any(|row| row.input_tokens.is_some() || row.output_tokens.is_some());
    let has_cost = rows.iter().any(|row| row.cost_usd.is_some());
    let wall: Vec<i64> = rows.iter().map(|row| row.wall_ns).collect();
    let shares = units::shares_in_tenths(&wall);
    let widest = rows.iter().map(|row| row.wall_share.max(row.critical_share)).fold(0.01, f64::max);
    let columns = Columns { has_queue, has_batch, has_tokens, has_cost, widest };
    html! {
        div class="scroll" role="region" aria-label="Stages" tabindex="0" {
            table class="stages" {
                thead { tr {
                    th scope="col" { "Stage" }
                    th scope="col" class="wide" { "Wall time" }
                    th scope="col" class="num" { "Share" }
                    th scope="col" class="num" { "Time" }
                    th scope="col" class="num" title="Share of the critical path" { "Critical" }
                    th scope="col" class="num" title="Time not covered by children" { "Self" }
                    th scope="col" class="num" { "Calls" }
                    th scope="col" class="num" { "Errors" }
                    th scope="col" class="num" { "p50" }
                    th scope="col" class="num" { "p95" }
                    th scope="col" class="num" { "p99" }
                    @if has_queue {
                        th scope="col" class="num" title="Mean wait before the work began" {
                            "Queue"
                        }
                    }
                    @if has_batch {
                        th scope="col" class="num" title="Mean items per batch" { "Batch" }
                    }
                    @if has_tokens {
                        th scope="col" class="num"
                            title="Input and output tokens, and who counted them" {
                            "Tokens"
                        }
                    }
                    @if has_cost { th scope="col" class="num" { "Cost" } }
                } }
                tbody {
                    @for (row, share) in rows.iter().zip(&shares).take(ROWS_MAX) {
                        (table_row(facts, row, *share, &columns))
                    }
                    @if rows.len() > ROWS_MAX { (rest_row(rows, &shares, &columns)) }
                }
                tfoot { (sum_row(facts, rows, &columns)) }
            }
        }
    }
}

/// Which optional columns the table has: one that would be empty throughout is left out.
#[derive(Debug)]
struct Columns {
    has_queue: bool,
    has_batch: bool,
    has_tokens: bool,
    has_cost: bool,
    /// The share that fills a bar.
    widest: f64,
}

fn table_row(facts: &Facts<'_>, row: &BreakdownRow, share: i64, columns: &Columns) -> Markup {
    html! {
        tr {
            th scope="row" {
                (facts.palette.name(&row.stage))
                @if !row.kind.is_empty() && row.kind != row.stage {
                    " " span class="dim" { bdi { (text::label(&row.kind)) } }
                }
            }
            td class="wide" { (share_bar(facts.palette.class(&row.stage), row, columns.widest)) }
            td class="num strong" { (units::tenths(share)) }
            td class="num" { (duration(row.wall_ns)) }
            td class="num" { (units::percent(row.critical_share)) }
            td class="num" { (duration(row.self_ns)) }
            td class="num" { (count(row.calls)) }
            td class="num" {
                @if row.errors > 0 {
                    span class="bad" { "\u{2715}\u{a0}" (count(row.errors)) }
                } @else {
                    span class="dim" { "0" }
                }
            }
            td class="num" { (duration(row.p50_ns)) }
            td class="num" { (duration(row.p95_ns)) }
            td class="num" { (duration(row.p99_ns)) }
            @if columns.has_queue { td class="num" { (duration_or_absent(row.queue_mean_ns)) } }
            @if columns.has_batch {
                td class="num" {
                    (row.batch_mean.map_or_else(|| units::ABSENT.to_owned(), units::number))
                }
            }
            @if columns.has_tokens { (tokens_cell(row)) }
            @if columns.has_cost { td class="num" { (units::usd_or_absent(row.cost_usd)) } }
        }
    }
}

/// Tokens in and out with their source; exact counts are in the section on tokens.
fn tokens_cell(row: &BreakdownRow) -> Markup {
    let has_any = row.input_tokens.is_some() || row.output_tokens.is_some();
    html! {
        td class="num" {
            @if has_any {
                (units::short_count(row.input_tokens)) " \u{2192} "
                (units::short_count(row.output_tokens)) " "
                span class="dim" { bdi { (text::label(&row.tokens_source)) } }
            } @else { (units::ABSENT) }
        }
    }
}

/// The wall share as a bar, the critical share as a mark across it.
fn share_bar(class: &str, row: &BreakdownRow, widest: f64) -> Markup {
    let wall = (row.wall_share / widest).clamp(0.0, 1.0);
    let critical = (row.critical_share / widest).clamp(0.0, 1.0);
    html! {
        svg class="share" width="100%" height="14" aria-hidden="true" {
            rect class="track" y="3" width="100%" height="8" {}
            rect class=(class) y="3" width=(percent_of(wall)) height="8" {}
            @if critical > 0.0 {
                line class="needle" x1=(percent_of(critical)) x2=(percent_of(critical)) y1="0"
                    y2="14" {}
            }
        }
    }
}

/// The stages beyond the limit as one row, so that the sums below still hold.
fn rest_row(rows: &[&BreakdownRow], shares: &[i64], columns: &Columns) -> Markup {
    let rest = || rows.iter().skip(ROWS_MAX);
    html! {
        tr {
            th scope="row" {
                span class="sw sx" {} (units::plural(rest().count() as u64, "more stage"))
            }
            td class="wide" {}
            td class="num strong" { (units::tenths(shares.iter().skip(ROWS_MAX).sum())) }
            td class="num" { (duration(total(rest().map(|row| row.wall_ns)))) }
            td class="num" { (units::percent(rest().map(|row| row.critical_share).sum())) }
            td class="num" { (duration(total(rest().map(|row| row.self_ns)))) }
            td class="num" { (count(total_count(rest().map(|row| row.calls)))) }
            td class="num" { (count(total_count(rest().map(|row| row.errors)))) }
            (blank_cells(columns))
        }
    }
}

fn sum_row(facts: &Facts<'_>, rows: &[&BreakdownRow], columns: &Columns) -> Markup {
    let whole = if facts.data.breakdown.wall_ns == 0 { 0.0 } else { 1.0 };
    html! {
        tr {
            th scope="row" { "Sum" }
            td class="wide" {}
            td class="num strong" {
                @if facts.wall_mismatch_ns() == 0 { (units::percent(whole)) } @else {
                    span class="bad" { "\u{26a0}" }
                }
            }
            td class="num" { (duration(total(rows.iter().map(|row| row.wall_ns)))) }
            td class="num" { (units::percent(rows.iter().map(|row| row.critical_share).sum())) }
            td class="num" { (duration(total(rows.iter().map(|row| row.self_ns)))) }
            td class="num" { (count(total_count(rows.iter().map(|row| row.calls)))) }
            td class="num" { (count(total_count(rows.iter().map(|row| row.errors)))) }
            (blank_cells(columns))
        }
    }
}

/// The cells that do not add up: percentiles, means, and what the tokens section sums.
fn blank_cells(columns: &Columns) -> Markup {
    let optional = [columns.has_queue, columns.has_batch, columns.has_tokens, columns.has_cost];
    let cells = 3 + optional.into_iter().filter(|has| *has).count();
    html! { @for _ in 0..cells { td {} } }
}

/// States the sums, and whether they hold.
fn sums(facts: &Facts<'_>) -> Markup {
    let breakdown = &facts.data.breakdown;
    let rows = total(breakdown.rows.iter().map(|row| row.wall_ns));
    let busy = total(breakdown.rows.iter().map(|row| row.self_ns));
    let parallel = units::ns_float(busy) / units::ns_float(breakdown.wall_ns.max(1));
    html! {
        @if facts.wall_mismatch_ns() == 0 {
            "Checked: the wall times of " (units::plural(breakdown.rows.len() as u64, "row"))
            " sum to exactly " (duration(rows)) ", the wall time of "
            (units::plural(breakdown.traces, "trace")) ". "
        } @else {
            b class="bad" {
                "\u{26a0} The wall times of the stages sum to " (duration(rows))
                ", but the traces took "
                (duration(breakdown.wall_ns)) ": do not trust these shares."
            } " "
        }
        "Self times sum to " (duration(busy)) " of busy time"
        @if parallel > 1.005 {
            ", " (format!("{parallel:.2}")) " times the wall time, because spans ran in parallel"
        }
        ". In the bars, the mark is the share of the critical path."
    }
}

/// Stages in the table; `--by` can give thousands of groups.
const ROWS_MAX: usize = 60;
/// Characters of a label that fit over the whole bar at 700 pixels.
const LABEL_CHARS_ACROSS: f64 = 84.0;
