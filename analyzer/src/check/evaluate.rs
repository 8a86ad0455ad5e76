//! What a metric is in one run.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::cast::{as_float64_array, as_int64_array, as_string_array};
use datafusion::prelude::{DataFrame, Expr, cast, col, lit};
use futures::StreamExt;
use retake_schemas::RunId;

use super::measured::Measured;
use super::metric::{Measure, Metric, Statistic, predicate};
use super::quantity::Unit;
use crate::breakdown::breakdown;
use crate::error::AnalyzeError;
use crate::model::Evidence;
use crate::session::Analyzer;
use crate::stats::{Interval, SplitMix64};

/// A metric's value in one run, for one group of rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Found {
    pub(crate) value: f64,
    /// Rows it was made of.
    pub(crate) samples: u64,
    /// How far it may be off by the luck of which requests came; not of which run it was.
    pub(super) interval: Option<Interval>,
    /// The rows that contribute most, largest first; smallest first where less is bad.
    pub(super) largest: Vec<Evidence>,
    pub(super) smallest: Vec<Evidence>,
}

/// The values by group; the group's name is empty where there is only one.
pub(crate) type Groups = BTreeMap<String, Found>;

/// Evaluates a metric in one run.
pub(super) async fn evaluate(
    analyzer: &Analyzer,
    run_id: &RunId,
    measured: &Measured,
) -> Result<Groups, AnalyzeError> {
    let collected = collect(analyzer, run_id, measured).await?;
    Ok(collected.groups(|samples, by| samples.finish(run_id, by)))
}

/// Evaluates a metric in one run, without the interval and the evidence that only a verdict needs:
/// resampling costs hundreds of times what the value does, and a history has many runs.
pub(crate) async fn values(
    analyzer: &Analyzer,
    run_id: &RunId,
    measured: &Measured,
) -> Result<Groups, AnalyzeError> {
    Ok(collect(analyzer, run_id, measured).await?.groups(Samples::value))
}

/// What a run has of a metric.
enum Collected {
    /// Its values.
    Whole(Groups),
    /// The rows that become a value by a statistic.
    Samples(BTreeMap<String, Samples>, Statistic),
}

impl Collected {
    fn groups(self, found: impl Fn(Samples, Statistic) -> Option<Found>) -> Groups {
        match self {
            Self::Whole(groups) => groups,
            Self::Samples(samples, by) => samples
                .into_iter()
                .filter_map(|(name, samples)| Some((name, found(samples, by)?)))
                .collect(),
        }
    }
}

async fn collect(
    analyzer: &Analyzer,
    run_id: &RunId,
    measured: &Measured,
) -> Result<Collected, AnalyzeError> {
    let one = |found: Found| Ok(Collected::Whole(BTreeMap::from([(String::new(), found)])));
    let whole = |value: f64| one(Found { value, samples: 1, ..Found::default() });
    match &measured.metric {
        Metric::Share { is_critical, stage } => {
            let found = breakdown(analyzer, run_id, &[]).await?;
            let row = found.rows.iter().find(|row| row.stage == *stage);
            let share = row
                .map_or(0.0, |row| if *is_critical { row.critical_share } else { row.wall_share });
            one(Found { value: share, samples: found.traces, ..Found::default() })
        }
        Metric::LostSpans => {
            let quality = crate::data_quality(analyzer, run_id).await?;
            whole(quality.lost_spans as f64)
        }
        Metric::DroppedEvents => whole(analyzer.run(run_id)?.events_dropped as f64),
        Metric::Statistic { by, measure } => {
            sampled(analyzer, run_id, measured, measure, *by).await
        }
        Metric::ErrorRate => {
            let measure = match measured.of_spans() {
                true => share_of("is_error_origin", false),
                false => share_of("errors > 0", true),
            };
            sampled(analyzer, run_id, measured, &measure, Statistic::Mean).await
        }
        Metric::Goodput(good) => {
            let measure = share_of(&predicate(good, !measured.of_spans()), !measured.of_spans());
            sampled(analyzer, run_id, measured, &measure, Statistic::Mean).await
        }
        Metric::Count => {
            let measure =
                Measure { sql: "1".to_owned(), of_traces: false, unit: Unit::Number, only: None };
            sampled(analyzer, run_id, measured, &measure, Statistic::Sum).await
        }
    }
}

/// 1 where a condition holds, 0 where it does not; where it is unknown the row does not count.
pub(super) fn share_of(condition: &str, of_traces: bool) -> Measure {
    let sql = format!("CASE WHEN {condition} THEN 1.0 WHEN NOT ({condition}) THEN 0.0 END");
    Measure { sql, of_traces, unit: Unit::Share, only: None }
}

/// The rows of a measure: `value` (never NULL), `trace_id`, `start_unix_ns`, `group`.
pub(super) async fn rows(
    analyzer: &Analyzer,
    runs: &[RunId],
    measure: &Measure,
    select: Option<&str>,
    per: &[String],
) -> Result<DataFrame, AnalyzeError> {
    let table = if measure.of_traces { "trace_summary" } else { "spans" };
    let runs = runs.iter().map(|run_id| lit(run_id.as_str())).collect();
    let mut frame =
        analyzer.context().table(table).await?.filter(col("run_id").in_list(runs, false))?;
    for condition in [select, measure.only].into_iter().flatten() {
        let condition = frame.parse_sql_expr(&predicate(condition, measure.of_traces))?;
        frame = frame.filter(condition)?;
    }
    let value = cast(frame.parse_sql_expr(&measure.sql)?, DataType::Float64).alias("value");
    let mut group = Vec::new();
    for name in per {
        group.push(cast(frame.parse_sql_expr(group_sql(name))?, DataType::Utf8));
    }
    let group = joined(group).alias("group");
    let frame = frame.select(vec![value, col("trace_id"), col("start_unix_ns"), group])?;
    Ok(frame.filter(col("value").is_not_null())?)
}

/// Short names of what people group by; anything else is SQL.
fn group_sql(name: &str) -> &str {
    match name {
        "session" => "session_id",
        "user" => "user_id",
        "model" => "coalesce(model_response, model_request)",
        "tenant" => "attr(attributes, 'tenant.id')",
        name => name,
    }
}

fn joined(parts: Vec<Expr>) -> Expr {
    let shown = |part: Expr| datafusion::functions::expr_fn::coalesce(vec![part, lit("(none)")]);
    parts
        .into_iter()
        .map(shown)
        .reduce(|a, b| datafusion::functions::expr_fn::concat(vec![a, lit(" / "), b]))
        .unwrap_or_else(|| lit(""))
}

async fn sampled(
    analyzer: &Analyzer,
    run_id: &RunId,
    measured: &Measured,
    measure: &Measure,
    by: Statistic,
) -> Result<Collected, AnalyzeError> {
    let select = measured.select.as_deref();
    let frame =
        rows(analyzer, std::slice::from_ref(run_id), measure, select, &measured.per).await?;
    let mut stream = frame.execute_stream().await?;
    let mut groups: BTreeMap<String, Samples> = BTreeMap::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let column = |at: usize, to: &DataType| {
            let column = batch.columns().get(at).ok_or_else(|| {
                AnalyzeError::Internal(format!("column {at} of a measure is missing"))
            })?;
            datafusion::arrow::compute::cast(column, to)
                .map_err(|error| AnalyzeError::Internal(error.to_string()))
        };
        let values = column(0, &DataType::Float64)?;
        let traces = column(1, &DataType::Utf8)?;
        let starts = column(2, &DataType::Int64)?;
        let names = column(3, &DataType::Utf8)?;
        let (values, starts) = (as_float64_array(&values)?, as_int64_array(&starts)?);
        let (traces, names) = (as_string_array(&traces)?, as_string_array(&names)?);
        for row in 0..batch.num_rows() {
            let (value, start) = (values.value(row), starts.value(row));
            if !value.is_finite() {
                continue;
            }
            let name = names.value(row);
            let samples = match groups.get_mut(name) {
                Some(samples) => samples,
                None => groups.entry(name.to_owned()).or_default(),
            };
            samples.add(start, value, traces.value(row));
        }
    }
    Ok(Collected::Samples(groups, by))
}

#[derive(Debug, Default)]
struct Samples {
    values: Vec<(i64, f64)>,
    largest: Vec<(f64, String)>,
    smallest: Vec<(f64, String)>,
}

impl Samples {
    fn add(&mut self, start: i64, value: f64, trace: &str) {
        self.values.push((start, value));
        keep(&mut self.largest, value, trace, |new, old| new > old);
        keep(&mut self.smallest, value, trace, |new, old| new < old);
    }

    fn value(self, by: Statistic) -> Option<Found> {
        let mut sorted: Vec<f64> = self.values.into_iter().map(|(_, value)| value).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        Some(Found { value: by.of(&sorted)?, samples: sorted.len() as u64, ..Found::default() })
    }

    fn finish(mut self, run_id: &RunId, by: Statistic) -> Option<Found> {
        self.values.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let interval = interval(&self.values, by);
        let mut sorted: Vec<f64> = self.values.iter().map(|(_, value)| *value).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let evidence = |found: Vec<(f64, String)>| -> Vec<Evidence> {
            let shown =
                |(value, trace_id)| Evidence { run_id: run_id.to_string(), trace_id, value };
            found.into_iter().map(shown).collect()
        };
        Some(Found {
            value: by.of(&sorted)?,
            samples: sorted.len() as u64,
            interval,
            largest: evidence(self.largest),
            smallest: evidence(self.smallest),
        })
    }
}

/// Keeps the few most extreme, each trace once.
fn keep(kept: &mut Vec<(f64, String)>, value: f64, trace: &str, is_before: fn(f64, f64) -> bool) {
    if let Some((old, _)) = kept.iter_mut().find(|(_, known)| known == trace) {
        if is_before(value, *old) {
            *old = value;
        }
    } else if kept.len() < EVIDENCE_MAX {
        kept.push((value, trace.to_owned()));
    } else if let Some(last) = kept.last_mut().filter(|(old, _)| is_before(value, *old)) {
        *last = (value, trace.to_owned());
    } else {
        return;
    }
    kept.sort_by(|a, b| match (is_before(a.0, b.0), is_before(b.0, a.0)) {
        (true, _) => std::cmp::Ordering::Less,
        (_, true) => std::cmp::Ordering::Greater,
        _ => a.1.cmp(&b.1),
    });
}

/// A 95 % interval for a statistic of one run, by resampling stretches of time: neighbouring
/// requests share load and caches, so they are drawn together (Künsch 1989). `None` for too few
/// rows, and for sums, which say how much there was and not how much there is.
fn interval(in_time: &[(i64, f64)], by: Statistic) -> Option<Interval> {
    let is_total = matches!(by, Statistic::Sum | Statistic::Min | Statistic::Max);
    if is_total || in_time.len() < 2 * BLOCKS || in_time.len() > INTERVAL_ROWS_MAX {
        return None;
    }
    let blocks: Vec<&[(i64, f64)]> = in_time.chunks(in_time.len().div_ceil(BLOCKS)).collect();
    let mut random = SplitMix64::new(SEED);
    let mut drawn = Vec::with_capacity(in_time.len() + BLOCKS);
    let mut estimates = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        drawn.clear();
        for _ in 0..blocks.len() {
            let block = blocks.get(random.below(blocks.len()))?;
            drawn.extend(block.iter().map(|(_, value)| *value));
        }
        drawn.sort_unstable_by(f64::total_cmp);
        estimates.push(by.of(&drawn)?);
    }
    estimates.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| estimates.get((share * (RESAMPLES - 1) as f64).round() as usize).copied();
    let mut all: Vec<f64> = in_time.iter().map(|(_, value)| *value).collect();
    all.sort_unstable_by(f64::total_cmp);
    Some(Interval { estimate: by.of(&all)?, low: at(0.025)?, high: at(0.975)? })
}

/// Traces shown as evidence.
const EVIDENCE_MAX: usize = 3;
/// Stretches of time that are resampled.
const BLOCKS: usize = 20;
const RESAMPLES: usize = 400;
/// More rows than this make an interval narrower than anybody cares, and slow to resample.
const INTERVAL_ROWS_MAX: usize = 200_000;
const SEED: u64 = 0x6275_6467_6574;
