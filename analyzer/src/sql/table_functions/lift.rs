//! What do some traces have in common that others do not?

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::datatypes::DataType::{Float64, Int64, Utf8};
use datafusion::prelude::{col, lit};
use futures::StreamExt;
use retake_schemas::RunId;

use super::arguments::Arguments;
use super::columns::{floats, ints, texts};
use super::computed::Answer;
use super::{Definition, FunctionDoc};
use crate::assemble::{text, value};
use crate::error::AnalyzeError;
use crate::session::Analyzer;

pub(super) const BUBBLE_UP: Definition = Definition {
    doc: FunctionDoc {
        call: "bubble_up(run, condition)",
        doc: "What distinguishes the traces that satisfy a condition over `trace_summary` from the \
              others: one row per attribute and value, the share of traces with it on either side, and \
              their difference, largest first. Attributes with more than 1,000 values (ids) are left out.",
        example: "SELECT * FROM bubble_up('last', 'duration_ns > 1e9') LIMIT 10",
    },
    prepare: bubble_up,
};

fn bubble_up(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(2)?;
    let run = arguments.text(0, "the run")?;
    let condition = arguments.text(1, "the condition")?;
    Ok(Answer::of(
        &[
            ("attribute", Utf8),
            ("value", Utf8),
            ("selected_share", Float64),
            ("other_share", Float64),
            ("difference", Float64),
            ("selected", Int64),
            ("others", Int64),
        ],
        (run, condition),
        move |analyzer, (run, condition)| async move {
            let run_id = analyzer.select(&run)?;
            let traces = selected(&analyzer, &run_id, &condition).await?;
            let rows = lifts(&analyzer, &run_id, &traces).await?;
            Ok(vec![
                texts(rows.iter().map(|row| row.attribute.clone())),
                texts(rows.iter().map(|row| row.value.clone())),
                floats(rows.iter().map(|row| row.shares[0])),
                floats(rows.iter().map(|row| row.shares[1])),
                floats(rows.iter().map(Lift::difference)),
                ints(rows.iter().map(|row| row.counts[0])),
                ints(rows.iter().map(|row| row.counts[1])),
            ])
        },
    ))
}

/// An attribute's value, and how many traces have it: selected, others.
#[derive(Debug)]
struct Lift {
    attribute: String,
    value: String,
    counts: [i64; 2],
    shares: [f64; 2],
}

impl Lift {
    fn difference(&self) -> f64 {
        self.shares[0] - self.shares[1]
    }
}

/// Every trace of a run: its number, and whether it satisfies the condition.
async fn selected(
    analyzer: &Analyzer,
    run_id: &RunId,
    condition: &str,
) -> Result<HashMap<String, (u32, bool)>, AnalyzeError> {
    let all = analyzer.context().table("trace_summary").await?;
    let all = all.filter(col("run_id").eq(lit(run_id.as_str())))?;
    let chosen = all.clone().filter(all.parse_sql_expr(condition)?)?;
    let chosen = trace_ids(chosen.select_columns(&["trace_id"])?.collect().await?)?;
    let chosen: HashSet<String> = chosen.into_iter().collect();
    let every = trace_ids(all.select_columns(&["trace_id"])?.collect().await?)?;
    let numbered = every.into_iter().zip(0..);
    Ok(numbered
        .map(|(id, number)| {
            let is_chosen = chosen.contains(&id);
            (id, (number, is_chosen))
        })
        .collect())
}

fn trace_ids(batches: Vec<arrow::array::RecordBatch>) -> Result<Vec<String>, AnalyzeError> {
    let mut ids = Vec::new();
    for batch in batches {
        let column = text(&batch, "trace_id")?;
        ids.extend((0..batch.num_rows()).filter_map(|row| value(&column, row).map(str::to_owned)));
    }
    Ok(ids)
}

async fn lifts(
    analyzer: &Analyzer,
    run_id: &RunId,
    traces: &HashMap<String, (u32, bool)>,
) -> Result<Vec<Lift>, AnalyzeError> {
    let frame = analyzer.context().table("spans").await?;
    let mut columns = vec![col("trace_id"), col("attributes")];
    for name in COLUMNS {
        columns.push(datafusion::prelude::cast(col(*name), Utf8).alias(*name));
    }
    let frame = frame.filter(col("run_id").eq(lit(run_id.as_str())))?.select(columns)?;
    let mut stream = frame.execute_stream().await?;
    let mut found: BTreeMap<String, Values> = BTreeMap::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let (ids, attributes) = (text(&batch, "trace_id")?, text(&batch, "attributes")?);
        let mut known = Vec::new();
        for name in COLUMNS {
            known.push((*name, text(&batch, name)?));
        }
        for row in 0..batch.num_rows() {
            let Some(trace) = value(&ids, row).and_then(|id| traces.get(id)) else { continue };
            for (name, column) in &known {
                if let Some(value) = value(column, row) {
                    add(&mut found, name, value, trace.0);
                }
            }
            let object = value(&attributes, row).unwrap_or("{}");
            let parsed: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(object).unwrap_or_default();
            for (name, value) in &parsed {
                match value {
                    serde_json::Value::String(text) => add(&mut found, name, text, trace.0),
                    other => add(&mut found, name, &other.to_string(), trace.0),
                }
            }
        }
    }
    Ok(ranked(found, traces))
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

fn ranked(found: BTreeMap<String, Values>, traces: &HashMap<String, (u32, bool)>) -> Vec<Lift> {
    let mut is_selected = vec![false; traces.len()];
    for (number, is_chosen) in traces.values() {
        if let Some(slot) = is_selected.get_mut(*number as usize) {
            *slot = *is_chosen;
        }
    }
    let selected = is_selected.iter().filter(|chosen| **chosen).count() as f64;
    let others = is_selected.len() as f64 - selected;
    let share = |count: i64, of: f64| if of > 0.0 { count as f64 / of } else { 0.0 };
    let mut rows = Vec::new();
    for (attribute, values) in found {
        for (value, having) in values.into_iter().flatten() {
            let chosen =
                having.iter().filter(|t| is_selected.get(**t as usize) == Some(&true)).count()
                    as i64;
            let rest = having.len() as i64 - chosen;
            let shares = [share(chosen, selected), share(rest, others)];
            rows.push(Lift { attribute: attribute.clone(), value, counts: [chosen, rest], shares });
        }
    }
    rows.retain(|row| row.difference() != 0.0);
    rows.sort_by(|a, b| {
        let by = b.difference().abs().total_cmp(&a.difference().abs());
        by.then_with(|| (&a.attribute, &a.value).cmp(&(&b.attribute, &b.value)))
    });
    rows.truncate(ROWS_MAX);
    rows
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
