//! Breakdowns and comparisons.

use retake_analyzer::check::shown;
use retake_analyzer::model::{Breakdown, BreakdownRow, Diff, DiffRow, Verdict};

use crate::cli::Format;
use crate::output::{inert, row, table};
use crate::units::{change, count_or_dash, duration, duration_or_dash, percent};

/// A breakdown as a table that adds up, and what is odd about it.
pub(crate) fn breakdown(breakdown: &Breakdown, name: &str, by: &str, format: Format) -> String {
    let header = [
        by,
        "calls",
        "errors",
        "wall",
        "share",
        "critical",
        "self",
        "p50",
        "p95",
        "p99",
        "queue",
        "batch",
        "tokens in",
        "tokens out",
        "counted by",
    ];
    let mut shown = table(format, &header, 1);
    for group in &breakdown.rows {
        row(&mut shown, cells(group));
    }
    row(&mut shown, sums(breakdown));
    let mut text = format!(
        "run {} ({}): {} traces, {} spans\n{shown}\n",
        breakdown.run_id,
        inert(name),
        breakdown.traces,
        breakdown.spans
    );
    // Checked where it is computed; stated here, so that a reader need not trust it.
    let sum: i64 = breakdown.rows.iter().map(|row| row.wall_ns).sum();
    let (sum, wall) = (duration(sum), duration(breakdown.wall_ns));
    text.push_str(&format!(
        "wall adds up: stages {sum} = traces {wall}. self counts parallel work in full.\n"
    ));
    if let Some(bottleneck) = breakdown.rows.first() {
        text.push_str(&format!(
            "bottleneck: {} with {} of the wall time\n",
            inert(&bottleneck.stage),
            percent(bottleneck.wall_share)
        ));
    }
    for (count, what) in [
        (breakdown.lost_spans, "spans never arrived"),
        (breakdown.dropped_events, "events were dropped by the recorder"),
    ] {
        if count > 0 {
            text.push_str(&format!("note: {count} {what}\n"));
        }
    }
    if let Some([metrics, spans]) = breakdown.disputed_tokens() {
        text.push_str(&format!(
            "note: the program's metrics count {} + {} tokens (in + out), its spans {} + {}\n",
            metrics.input, metrics.output, spans.input, spans.output
        ));
    }
    for error in breakdown.errors.iter().take(ERRORS_SHOWN) {
        let (stage, class) = (inert(&error.stage), inert(&error.error_type));
        text.push_str(&format!("error in {stage}: {class}: {}\n", inert(&error.message)));
    }
    let hidden = breakdown.errors.len().saturating_sub(ERRORS_SHOWN);
    if hidden > 0 {
        text.push_str(&format!("{hidden} more errors\n"));
    }
    text
}

fn cells(group: &BreakdownRow) -> Vec<String> {
    vec![
        group.stage.clone(),
        group.calls.to_string(),
        group.errors.to_string(),
        duration(group.wall_ns),
        percent(group.wall_share),
        percent(group.critical_share),
        duration(group.self_ns),
        duration(group.p50_ns),
        duration(group.p95_ns),
        duration(group.p99_ns),
        duration_or_dash(group.queue_mean_ns),
        group.batch_mean.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.1}")),
        count_or_dash(group.input_tokens),
        count_or_dash(group.output_tokens),
        group.tokens_source.clone(),
    ]
}

fn sums(breakdown: &Breakdown) -> Vec<String> {
    let rows = &breakdown.rows;
    let tokens = |pick: fn(&BreakdownRow) -> Option<i64>| {
        rows.iter().filter_map(pick).reduce(|a, b| a.saturating_add(b))
    };
    vec![
        "sum".to_owned(),
        rows.iter().map(|row| row.calls).sum::<u64>().to_string(),
        rows.iter().map(|row| row.errors).sum::<u64>().to_string(),
        duration(rows.iter().map(|row| row.wall_ns).sum()),
        percent(rows.iter().map(|row| row.wall_share).sum()),
        percent(rows.iter().map(|row| row.critical_share).sum()),
        duration(rows.iter().map(|row| row.self_ns).sum()),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        count_or_dash(tokens(|row| row.input_tokens)),
        count_or_dash(tokens(|row| row.output_tokens)),
        String::new(),
    ]
}

/// A comparison as a table, with what it rests on.
pub(crate) fn diff(diff: &Diff, format: Format) -> String {
    let header =
        ["stage", "base", "candidate", "change", "95 % interval", "p", "explains", "verdict"];
    let mut shown = table(format, &header, 1);
    // Where only latencies are compared, saying so in every row helps nobody.
    let has_metrics = diff.rows.iter().any(|row| row.metric != "latency");
    for stage in &diff.rows {
        row(&mut shown, diff_cells(stage, has_metrics));
    }
    let paired = if diff.paired {
        let [base, candidate] = diff.repeats;
        format!(
            "{} operations compared pairwise, {base} and {candidate} executions of each",
            diff.pairs
        )
    } else {
        let [base, candidate] = diff.repeats;
        format!("not paired, {base} runs against {candidate}")
    };
    let mut text = format!("base {} · candidate {} · {paired}\n", diff.base, diff.candidate);
    for (name, base, candidate) in &diff.settings_diff {
        text.push_str(&format!("  {}: {} -> {}\n", inert(name), inert(base), inert(candidate)));
    }
    text.push_str(&format!("{shown}\n"));
    for warning in &diff.warnings {
        text.push_str(&format!("warning: {}\n", inert(warning)));
    }
    for (note, stages) in notes(diff, has_metrics) {
        text.push_str(&format!("{}: {}\n", inert(note), inert(&stages.join(", "))));
    }
    text.push_str(&format!("verdict: {}. {}\n", diff.verdict.as_str(), inert(&diff.note)));
    text
}

/// Why rows have no verdict, each reason once.
fn notes(diff: &Diff, has_metrics: bool) -> Vec<(&str, Vec<String>)> {
    let mut notes: Vec<(&str, Vec<String>)> = Vec::new();
    for row in diff.rows.iter().filter(|row| row.verdict == Verdict::Inconclusive) {
        let Some(note) = row.note.as_deref() else { continue };
        let mut name = row_name(row, has_metrics);
        // A large number is no plan, and a small one is.
        if let Some(runs) = row.runs_needed.filter(|runs| *runs > 4) {
            name.push_str(&format!(" ({runs} a side)"));
        }
        match notes.iter_mut().find(|(seen, _)| *seen == note) {
            Some((_, stages)) => stages.push(name),
            None => notes.push((note, vec![name])),
        }
    }
    notes
}

fn row_name(row: &DiffRow, has_metrics: bool) -> String {
    match has_metrics {
        true => format!("{} {}", row.stage, row.metric),
        false => row.stage.clone(),
    }
}

fn diff_cells(stage: &DiffRow, has_metrics: bool) -> Vec<String> {
    let value = |value: f64| shown(value, &stage.unit);
    let [low, high] = stage.effect_ci;
    vec![
        row_name(stage, has_metrics),
        value(stage.base),
        value(stage.candidate),
        change(stage.effect),
        format!("{} .. {}", change(low), change(high)),
        stage.p_adjusted.map_or_else(|| "-".to_owned(), |p| format!("{p:.4}")),
        stage.explains_share.map_or_else(|| "-".to_owned(), percent),
        stage.verdict.as_str().to_owned(),
    ]
}

/// Errors printed; `retake sql` shows all of them.
const ERRORS_SHOWN: usize = 5;
