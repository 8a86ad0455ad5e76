//! One trace as a waterfall.

use retake_analyzer::model::{TraceNode, TraceTree};
use serde_json::{Value, json};

use crate::output::inert;
use crate::terminal::{Look, Tone, columns, cut, filled, shortened};
use crate::units::duration;

/// A trace as a waterfall as wide as `look`: where each span lies, how long it took, and what is
/// on the critical path.
pub(crate) fn waterfall(tree: &TraceTree, most: usize, look: Look) -> String {
    let shown = tree.nodes.get(..most.min(tree.nodes.len())).unwrap_or(&tree.nodes);
    let labels: Vec<String> = shown.iter().map(label).collect();
    let remarks: Vec<String> = shown.iter().map(remarks).collect();
    let widths = Widths::of(look.width, &labels, &remarks);
    let mut text = format!(
        "trace {}  {}  {} spans\n",
        tree.trace_id,
        duration(tree.duration_ns),
        tree.nodes.len()
    );
    for ((node, label), remarks) in shown.iter().zip(&labels).zip(&remarks) {
        let tone = tone_of(node);
        let paint =
            |text: &str| tone.map_or_else(|| text.to_owned(), |tone| look.paint(text, tone));
        let line = format!(
            "{} {} {:>9} {:>9}{}",
            paint(&filled(&shortened_after_indent(label, widths.label), widths.label)),
            paint(&bar(tree, node, widths.bar)),
            duration(node.span.duration_ns),
            duration(node.self_ns),
            paint(&cut(remarks, widths.remarks)),
        );
        text.push_str(&format!("{}\n", line.trim_end()));
    }
    if shown.len() < tree.nodes.len() {
        text.push_str(&format!("{} more spans\n", tree.nodes.len() - shown.len()));
    }
    let legend = "# on the critical path \u{b7} columns: duration, self time";
    text.push_str(&format!("{}\n", look.paint(legend, Tone::Faint)));
    text
}

/// How the columns of a line are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Widths {
    label: usize,
    bar: usize,
    remarks: usize,
}

impl Widths {
    /// What is left beside the numbers: names first, then remarks up to a third, or all of them
    /// where the bar is long enough without, then the bar.
    fn of(width: usize, labels: &[String], remarks: &[String]) -> Self {
        let widest = |texts: &[String]| texts.iter().map(|text| columns(text)).max().unwrap_or(0);
        let room = width.saturating_sub(FIXED_COLUMNS);
        let label = widest(labels).clamp(LABEL_MIN, LABEL_MAX).min((room * 2 / 5).max(LABEL_MIN));
        let beside = room.saturating_sub(label + BAR_FAIR).max(room / 3);
        let remarks = widest(remarks).min(beside);
        let bar = room.saturating_sub(label + remarks).clamp(BAR_MIN, BAR_MAX);
        // A bar of full length leaves what remains to the remarks.
        Self { label, bar, remarks: room.saturating_sub(label + bar) }
    }
}

/// What failed, then what matters: the rest of the trace can be looked at later.
fn tone_of(node: &TraceNode) -> Option<Tone> {
    match node.span.status.as_str() {
        "error" => Some(Tone::Bad),
        "ok" | "unset" if node.is_critical => None,
        "ok" | "unset" => Some(Tone::Faint),
        _ => Some(Tone::Warn),
    }
}

fn label(node: &TraceNode) -> String {
    let name = inert(&node.span.name).replace(['\n', '\t'], " ");
    format!("{}{name}", "  ".repeat(node.depth.min(DEPTH_SHOWN)))
}

/// A label whose name is shortened and whose depth stays, unless nothing of the name would be left.
fn shortened_after_indent(label: &str, most: usize) -> String {
    let name = label.trim_start_matches(' ');
    let indent = (label.len() - name.len()).min(most.saturating_sub(LABEL_MIN / 2));
    format!("{}{}", " ".repeat(indent), shortened(name, most - indent))
}

/// The span's place in the trace; at least one mark, so that short spans can be seen.
fn bar(tree: &TraceTree, node: &TraceNode, width: usize) -> String {
    let total = tree.duration_ns.max(1) as f64;
    let place = |ns: i64| ((ns as f64 / total) * width as f64) as usize;
    let offset = node.span.start_unix_ns - tree.start_unix_ns;
    let start = place(offset).min(width - 1);
    let end = place(offset + node.span.duration_ns).clamp(start + 1, width);
    let mark = if node.is_critical { "#" } else { "=" };
    format!("|{}{}{}|", " ".repeat(start), mark.repeat(end - start), " ".repeat(width - end))
}

/// What is worth saying of a span, failures first: the end may be cut off.
fn remarks(node: &TraceNode) -> String {
    let span = &node.span;
    let mut text = String::new();
    if span.status != "ok" {
        let class = span.error_type.as_deref().unwrap_or_default();
        text.push_str(&format!("  {} {}", span.status.to_uppercase(), inert(class)));
    }
    if let Some(model) = span.model_response.as_ref().or(span.model_request.as_ref()) {
        text.push_str(&format!("  {}", inert(model)));
    }
    if let (Some(input), output) = (span.input_tokens, span.output_tokens) {
        let output = output.map_or_else(String::new, |o| format!("+{o}"));
        text.push_str(&format!("  {input}{output} tokens ({})", inert(&span.tokens_source)));
    }
    if let Some(ttft) = span.ttft_ns {
        text.push_str(&format!("  first token {}", duration(ttft)));
    }
    if let Some(batch) = span.batch_size {
        text.push_str(&format!("  batch {batch}"));
    }
    text.replace(['\n', '\t'], " ")
}

/// A trace as JSON.
pub(crate) fn tree_json(tree: &TraceTree) -> Value {
    let spans: Vec<Value> = tree
        .nodes
        .iter()
        .map(|node| {
            let span = &node.span;
            json!({
                "span_id": span.span_id,
                "parent_span_id": span.parent_span_id,
                "depth": node.depth,
                "name": span.name,
                "stage": span.stage,
                "kind": span.kind,
                "start_unix_ns": span.start_unix_ns,
                "duration_ns": span.duration_ns,
                "self_ns": node.self_ns,
                "critical": node.is_critical,
                "status": span.status,
                "error_type": span.error_type,
                "error_message": span.error_message,
                "input_tokens": span.input_tokens,
                "output_tokens": span.output_tokens,
                "tokens_source": span.tokens_source,
            })
        })
        .collect();
    json!({
        "schema_version": 1,
        "trace_id": tree.trace_id,
        "start_unix_ns": tree.start_unix_ns,
        "duration_ns": tree.duration_ns,
        "spans": spans,
    })
}

/// Longer names are shortened; the JSON has them whole.
const LABEL_MAX: usize = 36;
/// Less says nothing.
const LABEL_MIN: usize = 8;
/// Shorter bars show no order.
const BAR_MIN: usize = 10;
/// Long enough to see where a span lies.
const BAR_FAIR: usize = 40;
/// Longer ones cannot be compared at a glance.
const BAR_MAX: usize = 100;
/// Bar frame, duration, self time and the spaces between.
const FIXED_COLUMNS: usize = 24;
/// Deeper spans stand no further to the right.
const DEPTH_SHOWN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use retake_schemas::tables::SpanRow;

    fn node(depth: usize, name: &str, start: i64, duration_ns: i64) -> TraceNode {
        TraceNode {
            depth,
            self_ns: duration_ns,
            is_critical: depth == 0,
            span: SpanRow {
                name: name.to_owned(),
                start_unix_ns: start,
                duration_ns,
                status: "ok".to_owned(),
                ..SpanRow::default()
            },
        }
    }

    #[test]
    fn bars_lie_where_the_spans_do() {
        let tree = TraceTree {
            trace_id: "t".to_owned(),
            start_unix_ns: 0,
            duration_ns: 100,
            nodes: vec![node(0, "root", 0, 100), node(1, "tail \u{1b}[31m", 90, 10)],
        };
        let text = waterfall(&tree, 10, Look::plain(100));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("|####"), "{text}");
        assert!(lines[2].contains("=|"), "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }

    /// Guarantees: a line keeps to the width from 44 columns up, with long names in wide scripts,
    /// deep nesting and long remarks; a failure is still told.
    #[test]
    fn lines_fit_the_terminal() {
        let mut failed = node(9, &"\u{691c}\u{7d22}.retrieve".repeat(5), 20, 30);
        failed.span.status = "error".to_owned();
        failed.span.error_type = Some("openai.RateLimitError".to_owned());
        failed.span.model_request = Some("a-model-of-a-very-long-name-2026-01-01".to_owned());
        let tree = TraceTree {
            trace_id: "t".to_owned(),
            start_unix_ns: 0,
            duration_ns: 100,
            nodes: vec![node(0, "root", 0, 100), failed],
        };
        for width in 44..240 {
            let text = waterfall(&tree, 10, Look::plain(width));
            for line in text.lines().skip(1).take(2) {
                assert!(columns(line) <= width, "{} > {width}: {line}", columns(line));
            }
            assert!(width < 72 || text.contains("ERROR open"), "{width}: {text}");
        }
        let colored = waterfall(&tree, 10, Look { width: 100, is_colored: true });
        assert!(colored.contains("\u{1b}[1m\u{1b}[31m"), "{colored:?}");
    }
}
