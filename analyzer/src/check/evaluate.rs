//! What a metric is in one run.

use std::collections::BTreeMap;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::cast::{as_float64_array, as_int64_array, as_string_array};
use datafusion::prelude::{DataFrame, Expr, cast, col, lit};
use futures::StreamExt;
use retake_schemas::RunId;
use rustc_hash::FxHashMap;

use super::measured::Measured;
use super::metric::{Measure, Metric, Statistic, predicate};
use super::quantity::Unit;
use crate::breakdown::{RunStages, stage_times};
use crate::error::AnalyzeError;
use crate::history::Answers;
use crate::model::{Evidence, Goodput};
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

/// Evaluates a metric in several runs, without the interval and the evidence that only a verdict
/// needs: resampling costs hundreds of times what the value does, and a history has many runs.
/// What is known of finished runs is not computed again.
pub(crate) async fn values_of(
    analyzer: &Analyzer,
    runs: &[RunId],
    measured: &Measured,
) -> Result<Vec<Groups>, AnalyzeError> {
    if let Metric::Share { is_critical, stage } = &measured.metric {
        return shares(analyzer, runs, stage, *is_critical).await;
    }
    let mut answers = Answers::<KeptGroups>::of(analyzer, runs, &format!("{measured:?}"))?;
    loop {
        let missing = answers.missing();
        let Some(first) = missing.first() else { break };
        if let Some((measure, by)) = sampling(measured) {
            let found = sampled_values(analyzer, &missing, measured, &measure, by).await?;
            answers.add(
                missing
                    .iter()
                    .map(|run_id| found.get(run_id.as_str()).cloned().unwrap_or_default()),
            );
        } else if let Collected::Whole(groups) = collect(analyzer, first, measured).await? {
            let kept =
                groups.iter().map(|(name, found)| (name.clone(), (found.value, found.samples)));
            answers.add([kept.collect()]);
        }
    }
    let groups = |kept: KeptGroups| -> Groups {
        let found = |(value, samples)| Found { value, samples, ..Found::default() };
        kept.into_iter().map(|(name, kept)| (name, found(kept))).collect()
    };
    Ok(answers.finish().into_iter().map(groups).collect())
}

/// Of each group its value and the rows it was made of.
type KeptGroups = BTreeMap<String, (f64, u64)>;

/// A stage's share of the time of each of several runs.
async fn shares(
    analyzer: &Analyzer,
    runs: &[RunId],
    stage: &str,
    is_critical: bool,
) -> Result<Vec<Groups>, AnalyzeError> {
    let of = |run: &RunStages| {
        let value = match is_critical {
            true => run.share(stage, |times| times.critical_ns),
            false => run.share(stage, |times| times.wall_ns),
        };
        let found = Found { value, samples: run.traces, ..Found::default() };
        Groups::from([(String::new(), found)])
    };
    Ok(stage_times(analyzer, runs).await?.iter().map(of).collect())
}

/// The share of a run's traces that satisfy a condition such as `ttft < 800ms and e2e < 2s`.
///
/// # Errors
/// The run is not in scope, a file is damaged, or the condition is not SQL over the columns of
/// `trace_summary`.
pub async fn goodput(
    analyzer: &Analyzer,
    run_id: &RunId,
    slo: &str,
) -> Result<Goodput, AnalyzeError> {
    let measured = Measured::parse(&format!("goodput({slo})"), None, Vec::new())
        .map_err(|message| AnalyzeError::Sql { message })?;
    let found = values_of(analyzer, std::slice::from_ref(run_id), &measured).await?;
    let found = found.first().and_then(|groups| groups.get(""));
    Ok(Goodput {
        slo: slo.to_owned(),
        share: found.map(|found| found.value),
        traces: found.map_or(0, |found| found.samples),
    })
}

/// How a metric that is a statistic of rows is sampled.
fn sampling(measured: &Measured) -> Option<(Measure, Statistic)> {
    let of_traces = !measured.of_spans();
    Some(match &measured.metric {
        Metric::Statistic { by, measure } => (measure.clone(), *by),
        Metric::ErrorRate if of_traces => (share_of("errors > 0", true), Statistic::Mean),
        Metric::ErrorRate => (share_of("is_error_origin", false), Statistic::Mean),
        Metric::Goodput(good) => {
            (share_of(&predicate(good, of_traces), of_traces), Statistic::Mean)
        }
        Metric::Count => {
            let one = "1".to_owned();
            let measure = Measure { sql: one, of_traces: false, unit: Unit::Number, only: None };
            (measure, Statistic::Sum)
        }
        Metric::Share { .. } | Metric::LostSpans | Metric::DroppedEvents => return None,
    })
}

/// The values of a statistic in several runs, by run: planning a query takes longer than reading
/// most runs.
async fn sampled_values(
    analyzer: &Analyzer,
    runs: &[RunId],
    measured: &Measured,
    measure: &Measure,
    by: Statistic,
) -> Result<BTreeMap<String, KeptGroups>, AnalyzeError> {
    let frame = rows(analyzer, runs, measure, measured.select.as_deref(), &measured.per).await?;
    let mut stream = frame.select_columns(&["value", "group", "run_id"])?.execute_stream().await?;
    let mut found: FxHashMap<String, FxHashMap<String, Vec<f64>>> = FxHashMap::default();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let values = column(&batch, 0, &DataType::Float64)?;
        let names = column(&batch, 1, &DataType::Utf8)?;
        let runs = column(&batch, 2, &DataType::Utf8)?;
        let values = as_float64_array(&values)?;
        let (names, runs) = (as_string_array(&names)?, as_string_array(&runs)?);
        for row in (0..batch.num_rows()).filter(|row| values.value(*row).is_finite()) {
            let groups = entry(&mut found, runs.value(row));
            let group = groups.and_then(|groups| entry(groups, names.value(row)));
            group.into_iter().for_each(|group| group.push(values.value(row)));
        }
    }
    let value = |(name, mut values): (String, Vec<f64>)| {
        values.sort_unstable_by(f64::total_cmp);
        Some((name, (by.of(&values)?, values.len() as u64)))
    };
    let groups = |groups: FxHashMap<_, _>| groups.into_iter().filter_map(value).collect();
    Ok(found.into_iter().map(|(run_id, found)| (run_id, groups(found))).collect())
}

/// An entry of a map, without making its key anew for each row.
fn entry<'a, T: Default>(map: &'a mut FxHashMap<String, T>, key: &str) -> Option<&'a mut T> {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), T::default());
    }
    map.get_mut(key)
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
    let whole = |value: f64| {
        let found = Found { value, samples: 1, ..Found::default() };
        Ok(Collected::Whole(Groups::from([(String::new(), found)])))
    };
    if let Some((measure, by)) = sampling(measured) {
        return sampled(analyzer, run_id, measured, &measure, by).await;
    }
    match &measured.metric {
        Metric::Share { is_critical, stage } => {
            let runs = std::slice::from_ref(run_id);
            let found = shares(analyzer, runs, stage, *is_critical).await?;
            Ok(Collected::Whole(found.into_iter().next().unwrap_or_default()))
        }
        Metric::LostSpans => {
            let quality = crate::data_quality(analyzer, run_id).await?;
            whole(quality.lost_spans as f64)
        }
        _ => whole(analyzer.run(run_id)?.events_dropped as f64),
    }
}

/// 1 where a condition holds, 0 where it does not; where it is unknown the row does not count.
pub(super) fn share_of(condition: &str, of_traces: bool) -> Measure {
    let sql = format!("CASE WHEN {condition} THEN 1.0 WHEN NOT ({condition}) THEN 0.0 END");
    Measure { sql, of_traces, unit: Unit::Share, only: None }
}

/// The rows of a measure: `value` (never NULL), `trace_id`, `start_unix_ns`, `group`, `run_id`.
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
    let (trace, start, run) = (col("trace_id"), col("start_unix_ns"), col("run_id"));
    let frame = frame.select(vec![value, trace, start, group, run])?;
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
        let values = column(&batch, 0, &DataType::Float64)?;
        let traces = column(&batch, 1, &DataType::Utf8)?;
        let starts = column(&batch, 2, &DataType::Int64)?;
        let names = column(&batch, 3, &DataType::Utf8)?;
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

fn column(batch: &RecordBatch, at: usize, to: &DataType) -> Result<ArrayRef, AnalyzeError> {
    let column = batch.columns().get(at);
    let column = column
        .ok_or_else(|| AnalyzeError::Internal(format!("column {at} of a measure is missing")))?;
    datafusion::arrow::compute::cast(column, to)
        .map_err(|error| AnalyzeError::Internal(error.to_string()))
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
