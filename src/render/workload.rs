//! Imports and statistics of workloads.

use retake_replay::workload::Workload;
use retake_replay::workload::import::ImportReport;
use retake_replay::workload::stats::{Lengths, WorkloadStats};
use serde_json::{Value, json};

use crate::cli::Format;
use crate::output::{row, table};
use crate::units::{count, duration, percent};

/// What an import found, in a few lines.
pub(crate) fn import(report: &ImportReport) -> String {
    let mut text = format!("{}: {} operations\n", report.format, number(report.operations));
    text.push_str(&match report.inversions {
        0 => "in order\n".to_owned(),
        n => format!(
            "{} out of order, the largest step back {}; sorted by time\n",
            number(n),
            seconds(report.inversion_ns_max)
        ),
    });
    text.push_str(&format!(
        "the clock tells {} apart; {} operations share a stamp\n",
        duration(report.stamp_resolution_ns),
        number(report.shared_stamps)
    ));
    if let Some((least, most)) = report.unexplained_tokens {
        text.push_str(&format!(
            "parts explain the input of {} operations up to {least} to {most} tokens\n",
            number(report.operations_with_parts)
        ));
    }
    if report.bad_lines > 0 {
        text.push_str(&format!("{} lines left out\n", number(report.bad_lines)));
    }
    text
}

/// The same for scripts.
pub(crate) fn import_json(report: &ImportReport, workload: &Workload) -> Value {
    let mut json = json!({ "schema_version": 1, "workload": workload.digest() });
    merge(&mut json, serde_json::to_value(report).unwrap_or_default());
    json
}

/// Statistics for scripts.
pub(crate) fn stats_json(stats: &WorkloadStats, workload: &Workload) -> Value {
    let (digest, origin) = (workload.digest(), &workload.origin);
    let mut json = json!({ "schema_version": 1, "workload": digest, "origin": origin });
    merge(&mut json, serde_json::to_value(stats).unwrap_or_default());
    json
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

/// Statistics for people.
pub(crate) fn stats(stats: &WorkloadStats, format: Format) -> String {
    let mut shown = table(format, &["", ""], 2);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let kinds: Vec<String> =
        stats.kinds.iter().map(|(k, n)| format!("{k} {}", number(*n))).collect();
    let sessions = &stats.sessions;
    let mut facts = vec![
        ("operations", format!("{} ({})", number(stats.operations), kinds.join(", "))),
        ("with input", number(stats.with_input)),
        ("span", seconds(stats.span_ns)),
        ("rate", or_dash(stats.rate_per_s.map(|rate| format!("{rate:.3}/s")))),
        ("peak", format!("{} in 1 s, {} in 1 h", number(stats.peak_1s), number(stats.peak_1h))),
        ("gaps, coefficient of variation", or_dash(stats.gap_cv.map(|cv| format!("{cv:.2}")))),
        (
            "clock",
            format!(
                "tells {} apart; {} operations share a stamp",
                duration(stats.stamp_resolution_ns),
                number(stats.shared_stamps)
            ),
        ),
        ("tokens in", lengths(&stats.tokens_in)),
        ("tokens out", lengths(&stats.tokens_out)),
    ];
    if sessions.count > 0 {
        facts.push((
            "sessions",
            format!(
                "{}, {} of several turns, longest {}; think time known for {}",
                number(sessions.count),
                number(sessions.multi_turn),
                number(sessions.turns_max),
                number(sessions.with_think)
            ),
        ));
        let gaps = [sessions.turn_gap_p10_ns, sessions.turn_gap_p50_ns, sessions.turn_gap_p90_ns];
        facts.push(("start to start of turns, p10/p50/p90", gaps.map(seconds).join(" / ")));
    }
    for (role, part) in &stats.parts {
        facts.push((
            role.as_str(),
            format!(
                "{} parts, {} different, {} tokens, {} of the input",
                number(part.count),
                number(part.distinct),
                number(part.tokens),
                percent(part.share_of_input)
            ),
        ));
    }
    let shares = [
        ("an unbounded cache of exact queries hits", stats.exact_query_hit_share),
        ("an unbounded prefix cache hits", stats.prefix_hit_share),
    ];
    facts.extend(shares.into_iter().filter_map(|(name, share)| Some((name, percent(share?)))));
    for (name, value) in facts {
        row(&mut shown, [name.to_owned(), value]);
    }
    for left in &stats.top_k {
        let value = format!(
            "{} of the input stays ({} tokens less)",
            percent(left.share_left),
            number(left.tokens_dropped)
        );
        row(&mut shown, [format!("at most {} passages", left.top_k), value]);
    }
    shown.to_string()
}

fn lengths(lengths: &Lengths) -> String {
    if lengths.known == 0 {
        return "-".to_owned();
    }
    format!(
        "{} (p50 {}, p90 {}, p99 {}, max {})",
        number(lengths.sum),
        number(lengths.p50),
        number(lengths.p90),
        number(lengths.p99),
        number(lengths.max)
    )
}

/// Long times in seconds: 604 453.0 s says more of a trace than 10 074 min.
fn seconds(ns: i64) -> String {
    if ns < 120_000_000_000 {
        return duration(ns);
    }
    let tenths = (ns + 50_000_000) / 100_000_000;
    format!("{}.{} s", count(tenths / 10), tenths % 10)
}

fn number(n: u64) -> String {
    count(i64::try_from(n).unwrap_or(i64::MAX))
}
