//! What a run does right now: the last seconds of one that is being recorded.

use retake_schemas::RunId;
use serde::Serialize;

use crate::answers::rows;
use crate::error::AnalyzeError;
use crate::model::SCHEMA_VERSION;
use crate::session::Analyzer;

/// The last seconds of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pulse {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The run.
    pub run_id: String,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// `recording` while it is.
    pub status: String,
    /// From its start to the last thing seen, ns.
    pub duration_ns: i64,
    /// Traces so far; `None` where nobody counted.
    pub traces: Option<i64>,
    /// Spans so far.
    pub spans: i64,
    /// Events that the recorder had to drop so far.
    pub dropped: i64,
    /// How far back `rows` look, ns.
    pub window_ns: i64,
    /// One row per stage with spans that began in the window, most time first.
    pub rows: Vec<PulseRow>,
}

/// A stage in the last seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PulseRow {
    /// The stage.
    pub stage: String,
    /// Calls that began in the window and have ended, without wrappers.
    pub calls: u64,
    /// Failures among them, where they began.
    pub errors: u64,
    /// Median duration, ns.
    pub p50_ns: i64,
    /// 95th percentile of durations, ns.
    pub p95_ns: i64,
    /// Tokens in and out, each counted once.
    pub tokens: u64,
}

/// The last `window_ns` of a run, back from the last thing that was seen of it: times of a program
/// on another machine are not this machine's.
///
/// # Errors
/// The run is not in scope, or a file is damaged.
pub async fn pulse(
    analyzer: &Analyzer,
    run_id: &RunId,
    window_ns: i64,
) -> Result<Pulse, AnalyzeError> {
    let run = analyzer.run(run_id)?;
    let last = rows(
        analyzer,
        &format!(
            "SELECT max(start_unix_ns + duration_ns) AS seen FROM spans WHERE run_id = '{run_id}'"
        ),
    )
    .await?;
    let seen = last.first().and_then(|row| row.whole("seen")).unwrap_or(run.started_unix_ns);
    let from = seen.saturating_sub(window_ns);
    let found = rows(
        analyzer,
        &format!(
            "SELECT stage, count(*) FILTER (WHERE coalesce(is_call, true)) AS calls, \
                    count(*) FILTER (WHERE is_error_origin) AS errors, \
                    quantiles(duration_ns, [0.5, 0.95])[1] AS p50, \
                    quantiles(duration_ns, [0.5, 0.95])[2] AS p95, \
                    sum(CASE WHEN tokens_counted \
                        THEN coalesce(input_tokens, 0) + coalesce(output_tokens, 0) END) AS tokens \
             FROM spans WHERE run_id = '{run_id}' AND start_unix_ns >= {from} \
             GROUP BY stage ORDER BY sum(duration_ns) DESC, stage LIMIT {STAGES_MAX}"
        ),
    )
    .await?;
    Ok(Pulse {
        schema_version: SCHEMA_VERSION,
        run_id: run_id.to_string(),
        name: run.name,
        service: run.service,
        status: run.status,
        duration_ns: seen.saturating_sub(run.started_unix_ns).max(run.duration_ns),
        traces: run.traces,
        spans: run.spans,
        dropped: run.events_dropped,
        window_ns,
        rows: found
            .iter()
            .map(|row| PulseRow {
                stage: row.text("stage"),
                calls: row.count("calls"),
                errors: row.count("errors"),
                p50_ns: row.whole("p50").unwrap_or(0),
                p95_ns: row.whole("p95").unwrap_or(0),
                tokens: row.count("tokens"),
            })
            .collect(),
    })
}

/// Stages shown; a screen has no more lines.
const STAGES_MAX: usize = 30;
