//! What do some traces have in common that others do not?

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::datatypes::DataType::Utf8;
use datafusion::prelude::{cast, col, lit};
use futures::StreamExt;
use retake_schemas::RunId;
use serde::Serialize;

use crate::assemble::{int, text, value};
use crate::error::AnalyzeError;
use crate::session::Analyzer;

/// An attribute's value, and how many traces have it on either side.
///
/// There is no p-value: traces of one run share its luck, so counts of traces say what to look at
/// and prove nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lift {
    /// A column of `spans`, or a key of `attributes`.
    pub attribute: String,
    /// Its value.
    pub value: String,
    /// Selected traces that have a span with it.
    pub selected: u64,
    /// Other traces that have one.
    pub others: u64,
    /// The same as a share of all selected traces.
    pub selected_share: f64,
    /// And of all others.
    pub other_share: f64,
    /// Values that the very same traces have are of one group: `stage = 'load'` and `name = 'load'`
    /// say one thing. Groups are numbered from 0 in order of appearance.
    pub group: u32,
}

impl Lift {
    /// Share among the selected less the share among the others, from -1 to 1.
    #[must_use]
    pub fn difference(&self) -> f64 {
        self.selected_share - self.other_share
    }
}

/// What distinguishes the selected traces, and how many of them there are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contrast {
    /// Traces that were selected.
    pub selected: u64,
    /// The others.
    pub others: u64,
    /// Largest difference first; at most 1,000.
    pub lifts: Vec<Lift>,
}

/// What distinguishes the traces of runs that satisfy a condition, in SQL over `trace_summary`,
/// from the others of the same runs. Attributes with more than 1,000 values (ids) and values of
/// more than 200 bytes (texts) are left out.
///
/// # Errors
/// A run is not in scope, a file is damaged, or the condition is wrong.
pub async fn bubble_up(
    analyzer: &Analyzer,
    runs: &[RunId],
    condition: &str,
) -> Result<Contrast, AnalyzeError> {
    let all = traces_of(analyzer, runs).await?;
    let chosen = all.clone().filter(all.parse_sql_expr(condition)?)?;
    let chosen: HashSet<(String, String)> = ids(chosen).await?.into_iter().collect();
    let mut sides = Sides::default();
    for (run_id, trace_id) in ids(all).await? {
        let key = (run_id, trace_id);
        let is_selected = chosen.contains(&key);
        sides.add(key, is_selected);
    }
    contrast(analyzer, runs, &sides).await
}

/// The condition that the slowest tenth of the traces satisfy, and those that took as long.
///
/// # Errors
/// A run is not in scope, or a file is damaged.
pub async fn slowest_tenth(analyzer: &Analyzer, runs: &[RunId]) -> Result<String, AnalyzeError> {
    let all = traces_of(analyzer, runs).await?.select_columns(&["duration_ns"])?;
    let tenth = all.clone().count().await?.div_ceil(10);
    let slowest = all.sort(vec![col("duration_ns").sort(false, false)])?;
    let last = slowest.limit(tenth.saturating_sub(1), Some(1))?.collect().await?;
    let limit = last
        .iter()
        .find(|batch| batch.num_rows() > 0)
        .map_or(Ok(0), |batch| int(batch, "duration_ns").map(|column| column.value(0)))?;
    Ok(format!("duration_ns >= {limit}"))
}

/// What distinguishes the traces of the candidate from those of the base.
///
/// # Errors
/// A run is not in scope, or a file is damaged.
pub(crate) async fn between(
    analyzer: &Analyzer,
    base: &[RunId],
    candidate: &[RunId],
) -> Result<Contrast, AnalyzeError> {
    let mut sides = Sides::default();
    for (runs, is_selected) in [(base, false), (candidate, true)] {
        for key in ids(traces_of(analyzer, runs).await?).await? {
            sides.add(key, is_selected);
        }
    }
    contrast(analyzer, &[base, candidate].concat(), &sides).await
}

/// Every trace: its number by run and id, and whether it is selected by number.
#[derive(Debug, Default)]
struct Sides {
    numbers: HashMap<String, HashMap<String, u32>>,
    is_selected: Vec<bool>,
}

impl Sides {
    fn add(&mut self, (run_id, trace_id): (String, String), is_selected: bool) {
        let Ok(number) = u32::try_from(self.is_selected.len()) else { return };
        self.numbers.entry(run_id).or_default().insert(trace_id, number);
        self.is_selected.push(is_selected);
    }

    /// Selected and others among some traces, by number.
    fn counts(&self, traces: impl Iterator<Item = u32>) -> [u64; 2] {
        let mut counts = [0, 0];
        for number in traces {
            let is_selected = self.is_selected.get(number as usize).copied().unwrap_or(false);
            counts[usize::from(!is_selected)] += 1;
        }
        counts
    }

    fn all(&self) -> [u64; 2] {
        let selected = self.is_selected.iter().filter(|is_selected| **is_selected).count() as u64;
        [selected, self.is_selected.len() as u64 - selected]
    }
}

type Frame = datafusion::dataframe::DataFrame;

async fn traces_of(analyzer: &Analyzer, runs: &[RunId]) -> Result<Frame, AnalyzeError> {
    of_runs(analyzer.context().table("trace_summary").await?, runs)
}

fn of_runs(frame: Frame, runs: &[RunId]) -> Result<Frame, AnalyzeError> {
    let wanted = runs.iter().map(|run_id| lit(run_id.as_str())).collect();
    Ok(frame.filter(col("run_id").in_list(wanted, false))?)
}

/// Run and trace ids.
async fn ids(frame: Frame) -> Result<Vec<(String, String)>, AnalyzeError> {
    let mut found = Vec::new();
    for batch in frame.select_columns(&["run_id", "trace_id"])?.collect().await? {
        let (runs, traces) = (text(&batch, "run_id")?, text(&batch, "trace_id")?);
        let id = |row| Some((value(&runs, row)?.to_owned(), value(&traces, row)?.to_owned()));
        found.extend((0..batch.num_rows()).filter_map(id));
    }
    Ok(found)
}

async fn contrast(
    analyzer: &Analyzer,
    runs: &[RunId],
    sides: &Sides,
) -> Result<Contrast, AnalyzeError> {
    let mut columns = vec![col("run_id"), col("trace_id"), col("attributes")];
    columns.extend(COLUMNS.iter().map(|name| cast(col(*name), Utf8).alias(*name)));
    let frame = of_runs(analyzer.context().table("spans").await?, runs)?.select(columns)?;
    let mut stream = frame.execute_stream().await?;
    let mut found: BTreeMap<String, Values> = BTreeMap::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let (run_ids, trace_ids) = (text(&batch, "run_id")?, text(&batch, "trace_id")?);
        let attributes = text(&batch, "attributes")?;
        let mut known = Vec::with_capacity(COLUMNS.len());
        for name in COLUMNS {
            known.push((*name, text(&batch, name)?));
        }
        for row in 0..batch.num_rows() {
            let of_run = value(&run_ids, row).and_then(|run_id| sides.numbers.get(run_id));
            let trace = value(&trace_ids, row).and_then(|id| of_run?.get(id));
            let Some(&trace) = trace else { continue };
            for (name, column) in &known {
                if let Some(value) = value(column, row) {
                    add(&mut found, name, value, trace);
                }
            }
            let object = value(&attributes, row).unwrap_or("{}");
            let parsed: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(object).unwrap_or_default();
            for (name, value) in &parsed {
                match value {
                    serde_json::Value::String(text) => add(&mut found, name, text, trace),
                    other => add(&mut found, name, &other.to_string(), trace),
                }
            }
        }
    }
    let [selected, others] = sides.all();
    Ok(Contrast { selected, others, lifts: ranked(found, sides) })
}

/// The traces that have each value of an attribute; `None` once there are too many values.
type Values = Option<HashMap<String, HashSet<u32>>>;

fn add(found: &mut BTreeMap<String, Values>, name: &str, value: &str, trace: u32) {
    if value.len() > VALUE_BYTES_MAX {
        return;
    }
    if !found.contains_key(name) {
        found.insert(name.to_owned(), Some(HashMap::new()));
    }
    let Some(slot) = found.get_mut(name) else { return };
    let Some(values) = slot else { return };
    if let Some(traces) = values.get_mut(value) {
        traces.insert(trace);
    } else if values.len() < VALUES_MAX {
        values.insert(value.to_owned(), HashSet::from([trace]));
    } else {
        *slot = None;
    }
}

fn ranked(found: BTreeMap<String, Values>, sides: &Sides) -> Vec<Lift> {
    let share = |count: u64, of: u64| if of > 0 { count as f64 / of as f64 } else { 0.0 };
    let of = sides.all();
    let mut rows = Vec::new();
    for (attribute, values) in found {
        for (value, having) in values.into_iter().flatten() {
            let [selected, others] = sides.counts(having.iter().copied());
            let (selected_share, other_share) = (share(selected, of[0]), share(others, of[1]));
            if selected_share != other_share {
                let attribute = attribute.clone();
                let group = 0;
                let lift =
                    Lift { attribute, value, selected, others, selected_share, other_share, group };
                rows.push((lift, having));
            }
        }
    }
    rows.sort_by(|(a, _), (b, _)| {
        let by = b.difference().abs().total_cmp(&a.difference().abs());
        by.then_with(|| (&a.attribute, &a.value).cmp(&(&b.attribute, &b.value)))
    });
    rows.truncate(ROWS_MAX);
    let mut groups: HashMap<Vec<u32>, u32> = HashMap::new();
    let grouped = rows.into_iter().map(|(mut lift, having)| {
        let mut traces: Vec<u32> = having.into_iter().collect();
        traces.sort_unstable();
        let next = groups.len() as u32;
        lift.group = *groups.entry(traces).or_insert(next);
        lift
    });
    grouped.collect()
}

/// Columns that may say what is different about a trace.
const COLUMNS: &[&str] = &[
    "name",
    "stage",
    "kind",
    "status",
    "error_type",
    "service",
    "model_request",
    "model_response",
    "provider",
    "stream",
    "finish_reason",
    "cache_hit",
    "batch_size",
    "top_k",
    "document_count",
    "retries",
    "tool_name",
    "agent_name",
    "session_id",
    "user_id",
];
/// An attribute with more values is an id, and distinguishes nothing.
const VALUES_MAX: usize = 1_000;
/// Longer values are texts.
const VALUE_BYTES_MAX: usize = 200;
const ROWS_MAX: usize = 1_000;
