//! The history, one run, and lists of traces.

use retake_analyzer::model::TraceSummary;
use retake_schemas::id::utc_text;
use retake_schemas::manifest::Manifest;
use retake_schemas::tables::{RunRow, TableName};

use crate::cli::Format;
use crate::output::{row, table};
use crate::units::{count, count_or_dash, duration, duration_or_dash};

/// The history, oldest first.
pub(crate) fn runs(rows: &[RunRow], format: Format) -> String {
    let header =
        ["run", "name", "started (UTC)", "status", "replay of", "duration", "traces", "spans"];
    let mut shown = table(format, &header, 5);
    for run in rows {
        row(
            &mut shown,
            [
                run.run_id.clone(),
                run.name.clone(),
                utc_text(run.started_unix_ns),
                run.status.clone(),
                run.replay_of.clone().unwrap_or_default(),
                duration(run.duration_ns),
                count_or_dash(run.traces),
                count(run.spans),
            ],
        );
    }
    shown.to_string()
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
pub(crate) fn traces(traces: &[TraceSummary], format: Format) -> String {
    let header =
        ["trace", "name", "request", "error", "duration", "first token", "spans", "in", "out"];
    let mut shown = table(format, &header, 4);
    for trace in traces {
        row(
            &mut shown,
            [
                trace.trace_id.clone(),
                trace.name.clone(),
                trace.request_id.clone().unwrap_or_default(),
                trace.error.clone().unwrap_or_default(),
                duration(trace.duration_ns),
                duration_or_dash(trace.ttft_ns),
                trace.spans.to_string(),
                count(trace.input_tokens),
                count(trace.output_tokens),
            ],
        );
    }
    shown.to_string()
}
