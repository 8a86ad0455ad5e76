//! Waterfalls: one trace each, a row per span, in time.
//!
//! A bar is solid where the span worked itself and pale where it waited for its children, so a
//! wrapper looks as light as it is. The critical path is underlined. A failure carries a cross
//! beside its name, not only a colour.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use maud::{Markup, html};
use retake_schemas::tables::SpanRow;

use super::details::{self, Extent, Known};
use super::facts::{Facts, is_idle};
use super::palette::Palette;
use super::plots::anchor;
use super::scale::{decimal, linear_ticks, percent_of};
use super::tree::{Row, rows};
use super::units::{self, duration, float, length, ns_float, whole};
use super::{text, tree};
use crate::model::{BreakdownRow, TraceSummary, TraceTree};

/// The section, and which traces it draws.
#[derive(Debug)]
pub(super) struct Waterfalls<'a> {
    /// The section.
    pub(super) markup: Markup,
    /// Number of the drawing by trace id, for links.
    pub(super) drawn: BTreeMap<&'a str, usize>,
}

/// Draws the trees in their order until the budget of bytes is spent.
pub(super) fn section<'a>(facts: &Facts<'a>) -> Waterfalls<'a> {
    let trees = &facts.data.trees;
    let summaries: BTreeMap<&str, &TraceSummary> =
        facts.data.traces.iter().map(|trace| (trace.trace_id.as_str(), trace)).collect();
    let (mut drawings, mut drawn, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
    let mut text_bytes_left = TEXT_BYTES_MAX;
    for (number, tree) in trees.iter().enumerate() {
        if bytes > BYTES_MAX {
            break;
        }
        let summary = summaries.get(tree.trace_id.as_str()).copied();
        let drawing = fold(facts, tree, summary, number, &mut text_bytes_left);
        bytes += drawing.0.len();
        drawings.push(drawing);
        drawn.entry(tree.trace_id.as_str()).or_insert(number);
    }
    let left_out = trees.len() - drawings.len();
    let markup = html! {
        @if !drawings.is_empty() {
            section id="waterfalls" aria-labelledby="waterfalls-h" {
                h2 id="waterfalls-h" { "Waterfalls" (super::tables::sql_link(facts, "waterfalls")) }
                p class="hint" {
                    "The slowest traces, and failed ones. Point at a row for its details."
                }
                (legend(&facts.palette, &facts.data.breakdown.rows))
                @for drawing in &drawings { (drawing) }
                @if left_out > 0 {
                    p class="hint" {
                        (units::plural(left_out as u64, "more trace"))
                        " not drawn, to keep this file small."
                    }
                }
            }
        }
    };
    Waterfalls { markup, drawn }
}

/// One trace on a page of its own.
pub(super) fn single(palette: &Palette<'_>, tree: &TraceTree) -> Markup {
    let rows = rows(tree, WHOLE_ROWS_MAX);
    let root = tree.nodes.first().map_or("", |node| node.span.name.as_str());
    let folded = rows.iter().map(|row| row.wrappers.len()).sum::<usize>();
    let hidden = tree.nodes.len().saturating_sub(rows.len() + folded) as u64;
    html! {
        figure class="wf" {
            (drawing(palette, tree, &rows, root))
            @if hidden > 0 {
                figcaption {
                    (units::plural(hidden, "more span"))
                    " not drawn: those with the least time of their own."
                }
            }
        }
    }
}

/// One trace, folded away except for the first.
fn fold(
    facts: &Facts<'_>,
    tree: &TraceTree,
    summary: Option<&TraceSummary>,
    number: usize,
    text_bytes_left: &mut usize,
) -> Markup {
    let no_documents = BTreeMap::new();
    let known = Known { texts: &facts.data.texts, documents: &no_documents };
    let rows = rows(tree, ROWS_MAX);
    // The tree may come cut already; the trace knows how many spans it had.
    let spans = summary.map_or(0, |summary| summary.spans).max(tree.nodes.len() as u64);
    let folded = rows.iter().map(|row| row.wrappers.len() as u64).sum::<u64>();
    let hidden = spans.saturating_sub(rows.len() as u64 + folded);
    let root = tree.nodes.first().map_or("", |node| node.span.name.as_str());
    let name = summary.map_or(root, |summary| summary.name.as_str());
    let error = summary.and_then(|summary| summary.error.as_deref());
    html! {
        details class="fold" open[number == 0] {
            summary {
                span class="t-name" { bdi { (text::label_or_unnamed(name)) } }
                @if let Some(request) = summary.and_then(|summary| summary.request_id.as_deref()) {
                    span class="mono dim" { bdi { (text::label(request)) } }
                }
                span class="num" { (duration(tree.duration_ns)) }
                span class="dim" { (units::plural(spans, "span")) }
                @if let Some(error) = error {
                    span class="bad" { "\u{2715} " bdi { (text::label(error)) } }
                }
            }
            figure class="wf" id={ "t" (number) } tabindex="-1" {
                (drawing(&facts.palette, tree, &rows, name))
                figcaption {
                    @if hidden > 0 {
                        b { (units::plural(hidden, "more span")) }
                        " not drawn: those with the least time of their own. "
                    }
                    @if folded > 0 {
                        (units::plural(folded, "wrapper"))
                        " folded into the call it only passes on. "
                    }
                    "Trace " span class="mono" { (text::label(&tree.trace_id)) }
                    ", started " (units::utc(tree.start_unix_ns)) " UTC."
                }
                @if !facts.data.texts.is_empty() {
                    (details::spans(&facts.palette, tree, known, Extent::Texts, text_bytes_left))
                }
            }
        }
    }
}

fn drawing(palette: &Palette<'_>, tree: &TraceTree, rows: &[Row<'_>], name: &str) -> Markup {
    let height = AXIS_HEIGHT + ROW_HEIGHT * length(rows.len()) + 4.0;
    let across = |share: f64| percent_of(LABELS_SHARE + share * BARS_SHARE);
    html! {
        svg class="waterfall" data-ns=(tree.duration_ns.max(0)) width="100%"
            height=(decimal(height)) role="img"
            aria-label={ "Waterfall of " (text::label_or_unnamed(name)) } {
            title { "Waterfall of " (text::label_or_unnamed(name)) }
            desc { (description(tree, rows)) }
            @for (share, ns) in linear_ticks(tree.duration_ns, 6) {
                @if share < 0.97 {
                    line class="grid" x1=(across(share)) x2=(across(share)) y1="20"
                        y2=(decimal(height)) {}
                    text class="tick" x=(across(share)) y="13" text-anchor=(anchor(share)) {
                        @if ns == 0 { "0" } @else { (units::tick(ns)) }
                    }
                }
            }
            // Clips the names, which SVG cannot shorten by itself.
            svg width=(percent_of(LABELS_SHARE - 0.01)) height=(decimal(height)) {
                @for (at, row) in rows.iter().enumerate() { (row_name(row, at)) }
            }
            svg class="bars" x=(across(0.0)) width=(percent_of(BARS_SHARE)) height=(decimal(height))
                preserveAspectRatio="none" viewBox={ "0 0 " (BAR_UNITS) " " (decimal(height)) } {
                @for (at, row) in rows.iter().enumerate() {
                    (bar(palette.class(&row.node.span.stage), row, at, tree.duration_ns))
                }
                path class="critical" d=(critical_path(rows, tree.duration_ns)) {}
            }
            @for (at, row) in rows.iter().enumerate() {
                text class="dur" x="100%" y=(decimal(row_top(at) + 14.0)) {
                    (duration(row.node.span.duration_ns))
                }
                rect class="hit" y=(decimal(row_top(at))) width="100%" height=(ROW_HEIGHT) {
                    title { (tooltip(row)) }
                }
            }
        }
    }
}

fn row_name(row: &Row<'_>, at: usize) -> Markup {
    let span = &row.node.span;
    let indent = 10.0 * length(row.depth.min(DEPTH_MAX));
    let mark = mark(span);
    html! {
        text x=(decimal(indent)) y=(decimal(row_top(at) + 14.0)) class=[mark.map(|_| "bad")] {
            @if let Some(mark) = mark { (mark) " " }
            (text::named(&span.name, NAME_CHARS_MAX))
        }
    }
}

/// The sign of a span that did not end well: where a failure began, where it passed through,
/// what was cancelled, and what never ended.
fn mark(span: &SpanRow) -> Option<&'static str> {
    match span.status.as_str() {
        "error" if span.is_error_origin => Some("\u{2715}"),
        "error" => Some("\u{2191}"),
        "cancelled" => Some("\u{2298}"),
        "unfinished" => Some("\u{2026}"),
        _ => None,
    }
}

/// Pale over the whole extent, solid over own time, and a notch at the first token.
fn bar(class: &str, row: &Row<'_>, at: usize, whole_ns: i64) -> Markup {
    let top = row_top(at) + BAR_INSET;
    let (from, to) = row.extent;
    let failed = row.node.span.status == "error";
    let ttft = row.node.span.ttft_ns.filter(|&ns| ns > 0 && ns < to - from);
    html! {
        @if row.own != [row.extent] {
            path class={ (class) " pale" } d=(boxes(&[row.extent], whole_ns, top, BAR_HEIGHT)) {}
        }
        @if !row.own.is_empty() {
            path class=(class) d=(boxes(&row.own, whole_ns, top, BAR_HEIGHT)) {}
        }
        @if failed { path class="failed" d=(boxes(&[row.extent], whole_ns, top, BAR_HEIGHT)) {} }
        @if let Some(ns) = ttft {
            @let x = units_of(from + ns, whole_ns);
            path class="notch" d={ "M" (x) " " (decimal(top)) "v" (BAR_HEIGHT) } {}
        }
    }
}

/// Boxes as path data. Neighbours less than a pixel apart are joined, for size.
fn boxes(extents: &[(i64, i64)], whole_ns: i64, top: f64, height: f64) -> String {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for &(from, to) in extents {
        let from = units_of(from, whole_ns).min(BAR_UNITS - BAR_UNITS_MIN);
        let to = units_of(to, whole_ns).max(from + BAR_UNITS_MIN);
        match joined.last_mut() {
            Some(last) if from < last.1 + BAR_UNITS_MIN => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    let mut path = String::new();
    for (from, to) in joined {
        let width = to - from;
        // Writing to a string cannot fail.
        let _ = write!(path, "M{from} {}h{width}v{}h-{width}z", decimal(top), decimal(height));
    }
    path
}

/// The critical path runs through the own time of the spans on it, so the lines form stairs.
fn critical_path(rows: &[Row<'_>], whole_ns: i64) -> String {
    let critical = rows.iter().enumerate().filter(|(_, row)| row.node.is_critical);
    critical
        .map(|(at, row)| boxes(&row.own, whole_ns, row_top(at) + BAR_INSET + BAR_HEIGHT + 1.0, 2.0))
        .collect()
}

fn units_of(ns: i64, whole_ns: i64) -> u64 {
    if whole_ns <= 0 {
        return 0;
    }
    whole(ns_float(ns) / ns_float(whole_ns) * float(BAR_UNITS)).min(BAR_UNITS)
}

fn tooltip(row: &Row<'_>) -> String {
    let span = &row.node.span;
    let mut lines = vec![
        format!("{} \u{b7} {}", text::named(&span.name, NAME_CHARS_MAX), text::label(&span.stage)),
        format!(
            "{}, of which {} its own; starts at {}{}",
            duration(span.duration_ns),
            duration(row.node.self_ns),
            duration(row.extent.0),
            if row.node.is_critical { "; on the critical path" } else { "" }
        ),
    ];
    if !row.wrappers.is_empty() {
        let names: Vec<String> =
            row.wrappers.iter().take(3).map(|name| text::named(name, NAME_CHARS_MAX)).collect();
        lines.push(format!("Called through {}", names.join(" \u{203a} ")));
    }
    lines.extend(model_line(span));
    if let Some(queue) = span.queue_ns.filter(|&ns| ns > 0) {
        lines.push(format!("Waited {} before it began", duration(queue)));
    }
    if let Some(retries) = span.retries.filter(|&retries| retries > 0) {
        lines.push(format!("Retries: {}", units::signed_count(retries)));
    }
    if span.status != "ok" {
        let class = span.error_type.as_deref().unwrap_or_default();
        let said = span.error_message.as_deref().unwrap_or_default();
        let parts = [span.status.as_str(), class, said];
        let parts: Vec<_> =
            parts.iter().filter(|part| !part.is_empty()).map(|part| text::label(part)).collect();
        lines.push(parts.join(": "));
    }
    if let Some(flags) = span.flags.as_deref().filter(|flags| !flags.is_empty()) {
        lines.push(format!("Odd: {}", text::label(flags)));
    }
    lines.join("\n")
}

/// What a model call was: model, tokens, time to first token.
fn model_line(span: &SpanRow) -> Option<String> {
    let model = span.model_response.as_deref().or(span.model_request.as_deref());
    let mut parts: Vec<String> = model.map(text::label).into_iter().collect();
    if span.input_tokens.is_some() || span.output_tokens.is_some() {
        let (input, output) = (span.input_tokens, span.output_tokens);
        parts.push(format!(
            "{} \u{2192} {} tokens ({})",
            units::count_or_absent(input),
            units::count_or_absent(output),
            text::label(&span.tokens_source)
        ));
    }
    parts.extend(span.ttft_ns.map(|ns| format!("first token after {}", duration(ns))));
    (!parts.is_empty()).then(|| parts.join(" \u{b7} "))
}

fn description(tree: &TraceTree, rows: &[Row<'_>]) -> String {
    let mut said = format!(
        "{} in {}.",
        units::plural(tree.nodes.len() as u64, "span"),
        duration(tree.duration_ns)
    );
    if let Some(longest) = tree.nodes.iter().max_by_key(|node| node.self_ns) {
        let name = text::label(&longest.span.name);
        said.push_str(&format!(" Most time of its own: {name}, {}.", duration(longest.self_ns)));
    }
    let critical: Vec<String> =
        leaves_on_critical_path(rows).map(|span| text::label(&span.name)).collect();
    if !critical.is_empty() {
        said.push_str(&format!(" Critical path: {}.", critical.join(", ")));
    }
    for node in tree.nodes.iter().filter(|node| node.span.is_error_origin).take(3) {
        said.push_str(&format!(" {} failed.", text::label(&node.span.name)));
    }
    said
}

/// The critical spans that worked themselves, in time.
fn leaves_on_critical_path<'a>(rows: &'a [Row<'a>]) -> impl Iterator<Item = &'a SpanRow> {
    let working = |row: &&tree::Row<'_>| {
        row.node.is_critical && row.node.self_ns > row.node.span.duration_ns / 4
    };
    rows.iter().filter(working).map(|row| &row.node.span).take(8)
}

/// What colours and signs mean.
pub(super) fn legend(palette: &Palette<'_>, stages: &[BreakdownRow]) -> Markup {
    let mut stages: Vec<&BreakdownRow> = stages.iter().filter(|row| !is_idle(row)).collect();
    stages.sort_by_key(|row| std::cmp::Reverse(row.wall_ns));
    html! {
        p class="legend" {
            @for row in stages.iter().take(LEGEND_STAGES_MAX) {
                span { (palette.name(&row.stage)) }
            }
            @if stages.len() > LEGEND_STAGES_MAX { span { span class="sw sx" {} "other" } }
        }
        p class="legend" {
            span { span class="key solid" {} "own work" }
            span { span class="key light" {} "waiting for children" }
            span { span class="key crit" {} "critical path" }
            span { span class="key first" {} "first token" }
            span { span class="bad glyph" { "\u{2715}" } "failure began here" }
            span { span class="bad glyph" { "\u{2191}" } "failure passed through" }
        }
    }
}

fn row_top(at: usize) -> f64 {
    AXIS_HEIGHT + ROW_HEIGHT * length(at)
}

/// Rows of one waterfall: about four screens; more is not read but searched, in SQL.
const ROWS_MAX: usize = 200;
/// Rows of a waterfall that has a page of its own.
const WHOLE_ROWS_MAX: usize = 1_500;
/// Bytes of all waterfalls, so that the page stays below a megabyte; checked before each.
const BYTES_MAX: usize = 420_000;
/// Bytes of all texts that are shown with `--with-text`.
const TEXT_BYTES_MAX: usize = 2_000_000;
/// Longest name in a row; about what fits its column.
const NAME_CHARS_MAX: usize = 64;
/// Deepest indent, levels; deeper ones would leave no room for the name.
const DEPTH_MAX: usize = 12;
/// Stages in the legend: those with a colour of their own.
const LEGEND_STAGES_MAX: usize = 7;
/// Units across the bars; a pixel is about 14.
const BAR_UNITS: u64 = 10_000;
/// Narrowest bar that is still seen.
const BAR_UNITS_MIN: u64 = 20;
/// Share of the width for names.
const LABELS_SHARE: f64 = 0.29;
/// Share of the width for bars; the rest is for durations.
const BARS_SHARE: f64 = 0.62;
/// Height of the time axis, pixels.
const AXIS_HEIGHT: f64 = 24.0;
/// Height of a row, pixels.
const ROW_HEIGHT: f64 = 20.0;
/// From a row's top to its bar, pixels.
const BAR_INSET: f64 = 4.0;
/// Height of a bar, pixels.
const BAR_HEIGHT: f64 = 11.0;
