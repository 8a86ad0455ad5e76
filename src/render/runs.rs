//! The history, one run, and lists of traces.

use retake_analyzer::model::TraceSummary;
use retake_schemas::id::utc_text;
use retake_schemas::manifest::Manifest;
use retake_schemas::tables::{RunRow, TableName};

use super::sheet::{Entry, Keep, Sheet};
use crate::cli::Format;
use crate::output::{row, table};
use crate::terminal::{Look, Tone};
use crate::units::{count, count_or_dash, duration, duration_or_dash};

/// The history, oldest first.
pub(crate) fn runs(rows: &[RunRow], format: Format, look: Look) -> String {
    let mut shown = Sheet::default()
        .whole("run", Keep::Always)
        .text("name", Keep::Always)
        .whole("started (UTC)", Keep::Rank(2))
        .whole("status", Keep::Rank(5))
        .whole("replay of", Keep::Rank(1))
        .number("duration", Keep::Rank(6))
        .number("traces", Keep::Rank(3))
        .number("spans", Keep::Rank(4));
    for run in rows {
        let tone = match run.status.as_str() {
            "finished" => None,
            "recording" => Some(Tone::Good),
            _ => Some(Tone::Warn),
        };
        shown.row([
            run.run_id.clone().into(),
            run.name.clone().into(),
            utc_text(run.started_unix_ns).into(),
            Entry::toned(run.status.clone(), tone),
            run.replay_of.clone().unwrap_or_default().into(),
            duration(run.duration_ns).into(),
            count_or_dash(run.traces).into(),
            count(run.spans).into(),
        ]);
    }
    shown.render(format, look)
}

/// One run with everything known of it.
pub(crate) fn run(run: &RunRow, manifest: &Manifest, format: Format) -> String {
    let mut shown = table(format, &["", ""], 2);
    let rows = TableName::SEALED.map(|name| format!("{name} {}", manifest.rows(name))).join(", ");
    let bytes: u64 = manifest.segments.iter().map(|segment| segment.bytes).sum();
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let facts = [
        ("run", run.run_id.clone()),
        ("name", run.name.clone()),
        ("service", format!("{} {}", run.service, or_dash(&run.service_version))),
        ("status", run.status.clone()),
        ("started (UTC)", utc_text(run.started_unix_ns)),
        ("duration", duration(run.duration_ns)),
        ("traces", count_or_dash(run.traces)),
        ("replay of", or_dash(&run.replay_of)),
        ("commit", format!("{} {}", or_dash(&run.git_sha), or_dash(&run.git_branch))),
        ("capture", run.capture.clone()),
        ("labels", run.labels.clone()),
        ("machine", format!("{} · {} · {} cpus · {}", run.host, run.cpu, run.cpus, run.os)),
        (
            "events",
            format!(
                "{} offered = {} accepted + {} dropped",
                run.events_offered, run.events_accepted, run.events_dropped
            ),
        ),
        ("sealed rows", rows),
        ("sealed bytes", count(i64::try_from(bytes).unwrap_or(i64::MAX))),
        ("settings", run.settings.clone()),
    ];
    for (name, value) in facts {
        row(&mut shown, [name.to_owned(), value]);
    }
    shown.to_string()
}

/// Traces at a glance.
pub(crate) fn traces(traces: &[TraceSummary], format: Format, look: Look) -> String {
    let mut shown = Sheet::default()
        .whole("trace", Keep::Always)
        .text("name", Keep::Always)
        .text("request", Keep::Rank(2))
        .text("error", Keep::Rank(6))
        .number("duration", Keep::Always)
        .number("first token", Keep::Rank(4))
        .number("spans", Keep::Rank(1))
        .number("in", Keep::Rank(3))
        .number("out", Keep::Rank(3));
    for trace in traces {
        shown.row([
            trace.trace_id.clone().into(),
            trace.name.clone().into(),
            trace.request_id.clone().unwrap_or_default().into(),
            Entry::toned(trace.error.clone().unwrap_or_default(), Some(Tone::Bad)),
            duration(trace.duration_ns).into(),
            duration_or_dash(trace.ttft_ns).into(),
            trace.spans.to_string().into(),
            count(trace.input_tokens).into(),
            count(trace.output_tokens).into(),
        ]);
    }
    shown.render(format, look)
}
