//! How long traces and stages took: distributions of traces, of first tokens, of the gaps between
//! tokens, and a strip per stage.

use maud::{Markup, html};

use super::facts::Facts;
use super::plots::{self, Series};
use super::scale::{LogScale, sorted};
use super::units::{self, duration};
use crate::model::BreakdownRow;

/// The section.
pub(super) fn section(facts: &Facts<'_>) -> Markup {
    let strips = strips(facts);
    html! {
        @if !facts.latencies_ns.is_empty() || strips.is_some() {
            section id="latency" aria-labelledby="latency-h" {
                h2 id="latency-h" { "Latency" (super::tables::sql_link(facts, "latency")) }
                (traces(facts))
                (tokens(facts))
                @if let Some(strips) = strips { (strips) }
            }
        }
    }
}

fn traces(facts: &Facts<'_>) -> Markup {
    if facts.latencies_ns.is_empty() {
        return html! {};
    }
    let series = Series {
        title: "Duration of traces",
        noun: "trace",
        values_ns: &facts.latencies_ns,
        base_ns: &facts.base_latencies_ns,
    };
    html! {
        @if !facts.base_latencies_ns.is_empty() {
            p class="legend" {
                span {
                    span class="key ink" {} "this run, "
                    (units::plural(facts.latencies_ns.len() as u64, "trace"))
                }
                span {
                    span class="key dashed" {} "baseline, "
                    (units::plural(facts.base_latencies_ns.len() as u64, "trace"))
                }
            }
        }
        div class="charts" {
            figure {
                figcaption { b { "Duration of traces" } " share per bin, logarithmic axis" }
                (plots::histogram(series))
            }
            figure { figcaption { b { "Finished within" } " % of traces" } (plots::ecdf(series)) }
        }
    }
}

fn tokens(facts: &Facts<'_>) -> Markup {
    let gaps = sorted(facts.data.token_gaps_ns.iter().copied());
    let ttft = Series {
        title: "Time to first token",
        noun: "trace",
        values_ns: &facts.ttfts_ns,
        base_ns: &[],
    };
    let gap = Series { title: "Gap between tokens", noun: "gap", values_ns: &gaps, base_ns: &[] };
    html! {
        @if !facts.ttfts_ns.is_empty() || !gaps.is_empty() {
            div class="charts" {
                @if !facts.ttfts_ns.is_empty() {
                    figure {
                        figcaption { b { "Time to first token" } " from the start of the trace" }
                        (plots::histogram(ttft))
                    }
                }
                @if !gaps.is_empty() {
                    figure {
                        figcaption {
                            b { "Gap between tokens" } " "
                            (units::plural(gaps.len() as u64, "gap"))
                        }
                        (plots::histogram(gap))
                    }
                }
            }
        }
    }
}

/// A row per stage over one axis; `None` when no stage took any time.
fn strips(facts: &Facts<'_>) -> Option<Markup> {
    let mut stages = facts.stages_by_wall();
    stages.retain(|row| row.calls > 0);
    let percentiles = stages.iter().flat_map(|row| [row.p50_ns, row.p95_ns, row.p99_ns]);
    let durations = facts.data.durations.iter().flat_map(|(_, values)| values.iter().copied());
    let scale = LogScale::holding(percentiles.chain(durations))?;
    Some(html! {
        h3 { "Each call, by stage" }
        p class="legend" {
            span { span class="glyph dot" {} "p50" }
            span { span class="glyph ring" {} "p95" }
            span { span class="glyph tick" {} "p99" }
            span { span class="key light" {} "where the calls lie" }
        }
        div class="scroll" role="region" aria-label="Latency by stage" tabindex="0" {
            table class="strips" {
                thead { tr {
                    th scope="col" { "Stage" }
                    th scope="col" class="plot" { (plots::strip_axis(&scale)) }
                    th scope="col" class="num" { "p50" }
                    th scope="col" class="num" { "p95" }
                    th scope="col" class="num" { "p99" }
                    th scope="col" class="num" { "Calls" }
                } }
                tbody {
                    @for row in stages.iter().take(STRIPS_MAX) { (strip_row(facts, &scale, row)) }
                }
            }
        }
        @if stages.len() > STRIPS_MAX {
            p class="hint" {
                (units::plural((stages.len() - STRIPS_MAX) as u64, "more stage")) " not drawn."
            }
        }
    })
}

fn strip_row(facts: &Facts<'_>, scale: &LogScale, row: &BreakdownRow) -> Markup {
    let durations = facts.data.durations.iter().find(|(stage, _)| *stage == row.stage);
    let values: &[i64] = durations.map_or(&[], |(_, values)| values);
    let percentiles = [row.p50_ns, row.p95_ns, row.p99_ns];
    html! {
        tr {
            th scope="row" { (facts.palette.name(&row.stage)) }
            td class="plot" {
                (plots::strip(scale, facts.palette.class(&row.stage), values, percentiles))
            }
            td class="num" { (duration(row.p50_ns)) }
            td class="num" { (duration(row.p95_ns)) }
            td class="num" { (duration(row.p99_ns)) }
            td class="num" { (units::count(row.calls)) }
        }
    }
}

/// Stages with a strip.
const STRIPS_MAX: usize = 40;
