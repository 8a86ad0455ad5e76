//! One trace as a waterfall.

use retake_analyzer::model::{TraceNode, TraceTree};
use serde_json::{Value, json};

use crate::output::inert;
use crate::units::duration;

/// A trace as a waterfall as wide as the terminal: where each span lies, how long it took, and
/// what is on the critical path.
pub(crate) fn waterfall(tree: &TraceTree, most: usize) -> String {
    let width = comfy_table::Table::new().width().map_or(WIDTH_DEFAULT, usize::from);
    let shown = tree.nodes.get(..most.min(tree.nodes.len())).unwrap_or(&tree.nodes);
    let labels: Vec<String> = shown.iter().map(label).collect();
    let label_width =
        labels.iter().map(|l| l.chars().count()).max().unwrap_or(0).clamp(8, LABEL_MAX);
    let bar_width = width.saturating_sub(label_width + FIXED_COLUMNS).clamp(10, 100);
    let mut text = format!(
        "trace {}  {}  {} spans\n",
        tree.trace_id,
        duration(tree.duration_ns),
        tree.nodes.len()
    );
    for (node, label) in shown.iter().zip(&labels) {
        let bar = bar(tree, node, bar_width);
        let label: String = label.chars().take(label_width).collect();
        text.push_str(&format!(
            "{label:<label_width$} {bar} {:>9} {:>9}{}\n",
            duration(node.span.duration_ns),
            duration(node.self_ns),
            remarks(node)
        ));
    }
    if shown.len() < tree.nodes.len() {
        text.push_str(&format!("{} more spans\n", tree.nodes.len() - shown.len()));
    }
    text.push_str("# on the critical path · columns: duration, self time\n");
    text
}

fn label(node: &TraceNode) -> String {
    let name = inert(&node.span.name).replace('\n', " ");
    format!("{}{name}", "  ".repeat(node.depth.min(DEPTH_SHOWN)))
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

fn remarks(node: &TraceNode) -> String {
    let span = &node.span;
    let mut text = String::new();
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
    if span.status != "ok" {
        let class = span.error_type.as_deref().unwrap_or_default();
        text.push_str(&format!("  {} {}", span.status.to_uppercase(), inert(class)));
    }
    text
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

/// Width when stdout is no terminal: fits a CI log.
const WIDTH_DEFAULT: usize = 110;
/// Longer names are cut; the JSON has them whole.
const LABEL_MAX: usize = 36;
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
        let text = waterfall(&tree, 10);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("|####"), "{text}");
        assert!(lines[2].contains("=|"), "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
}
