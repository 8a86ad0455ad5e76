//! The times of stages.

use std::collections::BTreeMap;

use arrow::datatypes::DataType::{Float64, Int64, Utf8};
use retake_schemas::RunId;

use super::arguments::Arguments;
use super::columns::{floats, ints, texts};
use super::computed::Answer;
use super::{Definition, FunctionDoc};
use crate::assemble::{Wanted, visit_traces, visit_traces_of};
use crate::breakdown::{IDLE, StageTimes, saturated, stage_times};
use crate::error::AnalyzeError;
use crate::session::Analyzer;
use crate::trace::times;

pub(super) const SELF_TIME: Definition = Definition {
    doc: FunctionDoc {
        call: "self_time(runs[, mode])",
        doc: "One row per run and stage: calls, total, self, attributed wall and critical-path time, ns. With mode \
              `'union'` (as it is without) self time is what the union of the children does not \
              cover; with `'sum'` it is the duration minus the children's durations, which other \
              tools show and which parallel children make negative.",
        example: "SELECT * FROM self_time('last')",
    },
    prepare: self_time,
};

pub(super) const CRITICAL_PATH: Definition = Definition {
    doc: FunctionDoc {
        call: "critical_path(runs[, by])",
        doc: "Time on the critical path, ns: one row per run and stage, or with `by` = `'trace'` one \
              per run, trace and stage. Sums to the wall time; says where a speed-up would shorten traces.",
        example: "SELECT * FROM critical_path('last') ORDER BY critical_ns DESC",
    },
    prepare: critical_path,
};

pub(super) const QUEUE_TIME: Definition = Definition {
    doc: FunctionDoc {
        call: "queue_time(run)",
        doc: "One row per stage that knows how long work waited: waiting and working, ns, and the share \
              of the sum that is waiting.",
        example: "SELECT * FROM queue_time('last')",
    },
    prepare: queue_time,
};

fn self_time(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(2)?;
    let run = arguments.text(0, "the run")?;
    let is_sum = match arguments.optional_text(1)?.as_deref() {
        None | Some("union") => false,
        Some("sum") => true,
        Some(other) => return Err(format!("mode {other:?} is neither 'union' nor 'sum'")),
    };
    Ok(Answer::of(
        &[
            ("run_id", Utf8),
            ("stage", Utf8),
            ("calls", Int64),
            ("total_ns", Int64),
            ("self_ns", Int64),
            ("wall_ns", Int64),
            ("wall_share", Float64),
            ("critical_ns", Int64),
        ],
        run,
        move |analyzer, run| async move {
            let runs = analyzer.select_set(&run)?;
            let mut rows: Vec<(&RunId, String, StageTimes, i128)> = Vec::new();
            for (run_id, mut found) in runs.iter().zip(stage_times(&analyzer, &runs).await?) {
                if is_sum {
                    let sums = duration_minus_children(&analyzer, run_id).await?;
                    for (stage, times) in &mut found.stages {
                        times.self_ns = sums.get(stage).copied().unwrap_or(0).into();
                    }
                }
                let begin = rows.len();
                rows.extend(
                    found
                        .stages
                        .into_iter()
                        .map(|(stage, times)| (run_id, stage, times, found.wall_ns)),
                );
                if let Some(of_run) = rows.get_mut(begin..) {
                    of_run.sort_by_key(|(_, _, times, _)| std::cmp::Reverse(times.wall_ns));
                }
            }
            let ns = |of: fn(&StageTimes) -> i128| {
                ints(rows.iter().map(|(_, _, times, _)| saturated(of(times))))
            };
            Ok(vec![
                texts(rows.iter().map(|(run_id, ..)| run_id.to_string())),
                texts(rows.iter().map(|(_, stage, ..)| stage.clone())),
                ints(rows.iter().map(|(_, _, times, _)| times.calls() as i64)),
                ns(|times| times.total_ns),
                ns(|times| times.self_ns),
                ns(|times| times.wall_ns),
                floats(rows.iter().map(|(_, _, times, wall)| share(times.wall_ns, *wall))),
                ns(|times| times.critical_ns),
            ])
        },
    ))
}

fn critical_path(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(2)?;
    let run = arguments.text(0, "the run")?;
    let by_trace = match arguments.optional_text(1)?.as_deref() {
        None | Some("stage") => false,
        Some("trace") => true,
        Some(other) => return Err(format!("by {other:?} is neither 'stage' nor 'trace'")),
    };
    let mut columns =
        vec![("run_id", Utf8), ("stage", Utf8), ("critical_ns", Int64), ("share", Float64)];
    if by_trace {
        columns.insert(1, ("trace_id", Utf8));
    }
    Ok(Answer::of(&columns, run, move |analyzer, run| async move {
        let runs = analyzer.select_set(&run)?;
        let rows = match by_trace {
            true => critical_by_trace(&analyzer, &runs).await?,
            false => critical_by_stage(&analyzer, &runs).await?,
        };
        let mut columns = vec![
            texts(rows.iter().map(|row| row.run_id.clone())),
            texts(rows.iter().map(|row| row.stage.clone())),
            ints(rows.iter().map(|row| row.critical_ns)),
            floats(rows.iter().map(|row| row.share)),
        ];
        if by_trace {
            columns.insert(1, texts(rows.iter().map(|row| row.trace_id.clone())));
        }
        Ok(columns)
    }))
}

/// A stage's time on critical paths.
struct CriticalRow {
    run_id: String,
    trace_id: String,
    stage: String,
    critical_ns: i64,
    share: Option<f64>,
}

async fn critical_by_stage(
    analyzer: &Analyzer,
    runs: &[RunId],
) -> Result<Vec<CriticalRow>, AnalyzeError> {
    let mut rows = Vec::new();
    for (run_id, found) in runs.iter().zip(stage_times(analyzer, runs).await?) {
        rows.extend(found.stages.into_iter().map(|(stage, times)| CriticalRow {
            run_id: run_id.to_string(),
            trace_id: String::new(),
            stage,
            critical_ns: saturated(times.critical_ns),
            share: share(times.critical_ns, found.wall_ns),
        }));
    }
    Ok(rows)
}

async fn critical_by_trace(
    analyzer: &Analyzer,
    runs: &[RunId],
) -> Result<Vec<CriticalRow>, AnalyzeError> {
    let mut rows = Vec::new();
    visit_traces_of(analyzer, runs, Wanted::TIMES, |trace| {
        let times = times(&trace.forest);
        let mut stages: BTreeMap<&str, i64> = BTreeMap::new();
        for (span, ns) in trace.spans.iter().zip(&times.critical_ns) {
            *stages.entry(trace.texts.text(span.stage)).or_default() += ns;
        }
        if times.critical_idle_ns > 0 {
            *stages.entry(IDLE).or_default() += times.critical_idle_ns;
        }
        let run_id = runs.get(trace.run).map(RunId::to_string).unwrap_or_default();
        rows.extend(stages.into_iter().map(|(stage, critical_ns)| CriticalRow {
            run_id: run_id.clone(),
            trace_id: trace.trace_id.to_owned(),
            stage: stage.to_owned(),
            critical_ns,
            share: share(critical_ns.into(), trace.forest.wall_ns().into()),
        }));
        Ok(())
    })
    .await?;
    rows.sort_by(|a, b| {
        (&a.run_id, &a.trace_id, &a.stage).cmp(&(&b.run_id, &b.trace_id, &b.stage))
    });
    Ok(rows)
}

fn share(ns: i128, of: i128) -> Option<f64> {
    (of > 0).then(|| ns as f64 / of as f64)
}

/// Durations minus those of the children, by stage: the usual formula, wrong with parallel ones.
async fn duration_minus_children(
    analyzer: &Analyzer,
    run_id: &RunId,
) -> Result<BTreeMap<String, i64>, AnalyzeError> {
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    visit_traces(analyzer, run_id, Wanted::TIMES, |trace| {
        for (index, span) in trace.spans.iter().enumerate() {
            let children = trace.forest.children(index).iter();
            let inside: i64 = children
                .filter_map(|child| trace.spans.get(*child))
                .map(|child| child.duration_ns)
                .sum();
            let stage = trace.texts.text(span.stage).to_owned();
            *sums.entry(stage).or_default() += span.duration_ns - inside;
        }
        Ok(())
    })
    .await?;
    Ok(sums)
}

fn queue_time(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(1)?;
    let run = arguments.text(0, "the run")?;
    Ok(Answer::of(
        &[
            ("stage", Utf8),
            ("n", Int64),
            ("queue_mean_ns", Int64),
            ("queue_p50_ns", Int64),
            ("queue_p95_ns", Int64),
            ("service_mean_ns", Int64),
            ("service_p50_ns", Int64),
            ("service_p95_ns", Int64),
            ("queue_share", Float64),
        ],
        run,
        move |analyzer, run| async move {
            let run_id = analyzer.select(&run)?;
            // Run ids are made of letters, digits and dashes, so this needs no escaping.
            let sql =
                format!("{QUEUES} WHERE run_id = '{run_id}' AND queue_ns IS NOT NULL {BY_STAGE}");
            let found = analyzer.query(&sql).await?;
            arrow::compute::concat_batches(&found.schema, &found.batches)
                .map(|rows| rows.columns().to_vec())
                .map_err(|error| AnalyzeError::Internal(error.to_string()))
        },
    ))
}

const QUEUES: &str = "SELECT stage, n, queue_mean_ns, CAST(q[1] AS BIGINT) AS queue_p50_ns,
  CAST(q[2] AS BIGINT) AS queue_p95_ns, service_mean_ns, CAST(s[1] AS BIGINT) AS service_p50_ns,
  CAST(s[2] AS BIGINT) AS service_p95_ns, queue_share
FROM (SELECT stage, count(*) AS n, CAST(avg(queue_ns) AS BIGINT) AS queue_mean_ns,
  quantiles(queue_ns, [0.5, 0.95]) AS q, CAST(avg(duration_ns) AS BIGINT) AS service_mean_ns,
  quantiles(duration_ns, [0.5, 0.95]) AS s,
  CASE WHEN sum(queue_ns) + sum(duration_ns) > 0
       THEN CAST(sum(queue_ns) AS DOUBLE) / (sum(queue_ns) + sum(duration_ns)) END AS queue_share
  FROM spans";
const BY_STAGE: &str = "GROUP BY stage) ORDER BY queue_share DESC";
