//! Breakdowns and comparisons.

use retake_analyzer::check::shown;
use retake_analyzer::diff::END_TO_END;
use retake_analyzer::model::{Breakdown, BreakdownRow, Diff, DiffRow, Verdict};

use super::sheet::{Entry, Keep, Sheet};
use crate::cli::Format;
use crate::output::inert;
use crate::terminal::{Look, Tone};
use crate::units::{change, count_or_dash, duration, duration_or_dash, percent};

/// A breakdown as a table that adds up, and what is odd about it.
pub(crate) fn breakdown(
    breakdown: &Breakdown,
    name: &str,
    by: &str,
    format: Format,
    look: Look,
) -> String {
    let mut shown = Sheet::default()
        .text(by, Keep::Always)
        .number("calls", Keep::Rank(8))
        .number("errors", Keep::Rank(9))
        .number("wall", Keep::Rank(10))
        .number("share", Keep::Always)
        .number("critical", Keep::Rank(7))
        .number("self", Keep::Rank(3))
        .number("p50", Keep::Rank(4))
        .number("p95", Keep::Rank(8))
        .number("p99", Keep::Rank(2))
        .number("queue", Keep::Rank(1))
        .number("batch", Keep::Rank(1))
        .number("tokens in", Keep::Rank(6))
        .number("tokens out", Keep::Rank(6))
        .text("counted by", Keep::Rank(0));
    let is_shown = |extra: &&Extra| breakdown.rows.iter().any(extra.is_known);
    let extras: Vec<&Extra> = EXTRAS.iter().filter(is_shown).collect();
    for extra in &extras {
        shown = shown.number(extra.name, Keep::Rank(extra.rank));
    }
    for (place, group) in breakdown.rows.iter().enumerate() {
        // The rows are sorted: the first one is the bottleneck.
        let tone = (place == 0).then_some(Tone::Strong);
        let own = std::slice::from_ref(group);
        let more = extras.iter().map(|extra| Entry::from((extra.cell)(own)));
        shown.row(cells(group, tone).into_iter().chain(more));
    }
    let faint = |text: String| Entry::toned(text, Some(Tone::Faint));
    let all = &breakdown.rows;
    let more = extras.iter().map(|extra| match extra.adds_up {
        true => (extra.cell)(all),
        false => String::new(),
    });
    shown.row(sums(breakdown).into_iter().chain(more).map(faint));
    let shown = shown.render(format, look);
    let mut text = format!(
        "run {} ({}): {} traces, {} spans\n{shown}",
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
            look.paint(&inert(&bottleneck.stage), Tone::Strong),
            percent(bottleneck.wall_share)
        ));
    }
    if let Some(goodput) = &breakdown.goodput {
        let share = goodput.share.map_or_else(|| "unknown".to_owned(), percent);
        let (traces, slo) = (goodput.traces, inert(&goodput.slo));
        text.push_str(&format!("goodput: {share} of {traces} traces have {slo}\n"));
    }
    for (count, what) in [
        (breakdown.lost_spans, "spans never arrived"),
        (breakdown.dropped_events, "events were dropped by the recorder"),
    ] {
        if count > 0 {
            let note = look.paint("note:", Tone::Warn);
            text.push_str(&format!("{note} {count} {what}\n"));
        }
    }
    if let Some([metrics, spans]) = breakdown.disputed_tokens() {
        text.push_str(&format!(
            "{} the program's metrics count {} + {} tokens (in + out), its spans {} + {}\n",
            look.paint("note:", Tone::Warn),
            metrics.input,
            metrics.output,
            spans.input,
            spans.output
        ));
    }
    for error in breakdown.errors.iter().take(ERRORS_SHOWN) {
        let (stage, class) = (inert(&error.stage), inert(&error.error_type));
        let error_in = look.paint("error in", Tone::Bad);
        text.push_str(&format!("{error_in} {stage}: {class}: {}\n", inert(&error.message)));
    }
    let hidden = breakdown.errors.len().saturating_sub(ERRORS_SHOWN);
    if hidden > 0 {
        text.push_str(&format!("{hidden} more errors\n"));
    }
    text
}

fn cells(group: &BreakdownRow, tone: Option<Tone>) -> Vec<Entry> {
    let failed = (group.errors > 0).then_some(Tone::Bad);
    let mut cells = vec![
        Entry::toned(group.stage.clone(), tone),
        group.calls.to_string().into(),
        Entry::toned(group.errors.to_string(), failed),
    ];
    let numbers = [
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
    ];
    cells.extend(numbers.map(Entry::from));
    cells
}

/// A column that is shown where a row has something in it.
struct Extra {
    name: &'static str,
    rank: u8,
    is_known: fn(&BreakdownRow) -> bool,
    /// Whether the last line has it for all rows; medians have no sum.
    adds_up: bool,
    cell: fn(&[BreakdownRow]) -> String,
}

fn median(rows: &[BreakdownRow], pick: fn(&BreakdownRow) -> Option<i64>) -> String {
    duration_or_dash(rows.first().and_then(pick))
}

fn total(rows: &[BreakdownRow], pick: fn(&BreakdownRow) -> Option<i64>) -> String {
    count_or_dash(rows.iter().filter_map(pick).reduce(i64::saturating_add))
}

fn hits(rows: &[BreakdownRow]) -> String {
    let lookups: u64 = rows.iter().map(|row| row.cache_lookups).sum();
    let hits: u64 = rows.iter().map(|row| row.cache_hits).sum();
    if lookups == 0 { "-".to_owned() } else { percent(hits as f64 / lookups as f64) }
}

const EXTRAS: [Extra; 6] = [
    Extra {
        name: "ttft p50",
        rank: 5,
        is_known: |row| row.ttft_p50_ns.is_some(),
        adds_up: false,
        cell: |rows| median(rows, |row| row.ttft_p50_ns),
    },
    Extra {
        name: "per token",
        rank: 4,
        is_known: |row| row.tpot_p50_ns.is_some(),
        adds_up: false,
        cell: |rows| median(rows, |row| row.tpot_p50_ns),
    },
    Extra {
        name: "tokens cached",
        rank: 5,
        is_known: |row| row.cache_read_tokens.is_some_and(|tokens| tokens > 0),
        adds_up: true,
        cell: |rows| total(rows, |row| row.cache_read_tokens),
    },
    Extra {
        name: "reasoning",
        rank: 3,
        is_known: |row| row.reasoning_tokens.is_some_and(|tokens| tokens > 0),
        adds_up: true,
        cell: |rows| total(rows, |row| row.reasoning_tokens),
    },
    Extra {
        name: "retries",
        rank: 8,
        is_known: |row| row.retries.is_some_and(|retries| retries > 0),
        adds_up: true,
        cell: |rows| total(rows, |row| row.retries),
    },
    Extra {
        name: "cache hits",
        rank: 6,
        is_known: |row| row.cache_lookups > 0,
        adds_up: true,
        cell: hits,
    },
];

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
pub(crate) fn diff(diff: &Diff, format: Format, look: Look) -> String {
    let mut shown = Sheet::default()
        .text("stage", Keep::Always)
        .number("base", Keep::Rank(3))
        .number("candidate", Keep::Rank(4))
        .number("change", Keep::Always)
        .number("95 % interval", Keep::Rank(5))
        .number("p", Keep::Rank(1))
        .number("explains", Keep::Rank(2))
        .text("verdict", Keep::Always);
    // Where only latencies are compared, saying so in every row helps nobody.
    let has_metrics = diff.rows.iter().any(|row| row.metric != "latency");
    for stage in &diff.rows {
        shown.row(diff_cells(stage, has_metrics));
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
    text.push_str(&shown.render(format, look));
    for warning in &diff.warnings {
        let sign = look.paint("warning:", Tone::Warn);
        text.push_str(&format!("{sign} {}\n", inert(warning)));
    }
    for (note, stages) in notes(diff, has_metrics) {
        text.push_str(&format!("{}: {}\n", inert(note), inert(&stages.join(", "))));
    }
    let verdict = diff.verdict.as_str();
    let verdict =
        tone_of(diff.verdict).map_or_else(|| verdict.to_owned(), |tone| look.paint(verdict, tone));
    text.push_str(&format!("verdict: {verdict}{}. {}\n", kinds(diff), inert(&diff.note)));
    text
}

/// The verdict of each kind of operation, where there are several.
fn kinds(diff: &Diff) -> String {
    let wholes = || diff.rows.iter().filter(|row| row.stage.ends_with(END_TO_END));
    let is_one = wholes().count() < 2 || diff.rows.iter().any(|row| row.metric != "latency");
    if is_one {
        return String::new();
    }
    let words: Vec<String> =
        wholes().map(|row| format!("{} {}", inert(&row.stage), row.verdict.as_str())).collect();
    format!(": {}", words.join(", "))
}

/// How a verdict is told from others at a glance.
fn tone_of(verdict: Verdict) -> Option<Tone> {
    match verdict {
        Verdict::Worse => Some(Tone::Bad),
        Verdict::Better => Some(Tone::Good),
        Verdict::Inconclusive => Some(Tone::Warn),
        _ => None,
    }
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

fn diff_cells(stage: &DiffRow, has_metrics: bool) -> Vec<Entry> {
    let value = |value: f64| shown(value, &stage.unit);
    let [low, high] = stage.effect_ci;
    let tone = tone_of(stage.verdict);
    // What may be chance is not painted as a change.
    let of_change = tone.filter(|tone| matches!(tone, Tone::Bad | Tone::Good));
    vec![
        row_name(stage, has_metrics).into(),
        value(stage.base).into(),
        value(stage.candidate).into(),
        Entry::toned(change(stage.effect), of_change),
        format!("{} .. {}", change(low), change(high)).into(),
        stage.p_adjusted.map_or_else(|| "-".to_owned(), |p| format!("{p:.4}")).into(),
        stage.explains_share.map_or_else(|| "-".to_owned(), percent).into(),
        Entry::toned(stage.verdict.as_str(), tone),
    ]
}

/// Errors printed; `retake sql` shows all of them.
const ERRORS_SHOWN: usize = 5;
