//! Single traces, all traces at a glance, and what is odd about the data.

use std::collections::BTreeMap;

use datafusion::prelude::{DataFrame, col, lit};
use retake_schemas::RunId;
use retake_schemas::tables::{Row, SpanRow};

use crate::assemble::{TraceView, Wanted, family, text, value, visit_traces};
use crate::error::AnalyzeError;
use crate::model::{DataQuality, TraceNode, TraceSummary, TraceTree};
use crate::session::Analyzer;
use crate::trace::{Forest, SpanTimes, span_key, times};

/// One trace of a run, by its id or a prefix of it that no other trace shares.
///
/// # Errors
/// No trace or several begin with `prefix`, the run is not in scope, or a file is damaged.
pub async fn trace_tree(
    analyzer: &Analyzer,
    run_id: &RunId,
    prefix: &str,
) -> Result<TraceTree, AnalyzeError> {
    analyzer.run(run_id)?;
    let prefix = prefix.trim().to_ascii_lowercase();
    let trace_id = find_trace(analyzer, run_id, &prefix).await?;
    let of_trace = spans(analyzer, run_id).await?.filter(col("trace_id").eq(lit(&trace_id)))?;
    let mut rows = Vec::new();
    for batch in of_trace.collect().await? {
        let read = SpanRow::from_batch(&batch);
        rows.extend(read.map_err(|error| AnalyzeError::Internal(error.to_string()))?);
    }
    Ok(tree(trace_id, rows))
}

/// Every trace of a run at a glance, by start.
///
/// # Errors
/// The run is not in scope, or a file is damaged.
pub async fn trace_summaries(
    analyzer: &Analyzer,
    run_id: &RunId,
) -> Result<Vec<TraceSummary>, AnalyzeError> {
    let mut summaries = Vec::new();
    visit_traces(analyzer, run_id, Wanted::ALL, |trace| {
        summaries.push(summary(trace));
        Ok(())
    })
    .await?;
    summaries.sort_by_cached_key(|summary: &TraceSummary| {
        (summary.start_unix_ns, summary.trace_id.clone())
    });
    Ok(summaries)
}

/// What is odd about a run's data.
///
/// # Errors
/// The run is not in scope, or a file is damaged.
pub async fn data_quality(
    analyzer: &Analyzer,
    run_id: &RunId,
) -> Result<DataQuality, AnalyzeError> {
    let dropped = analyzer.run(run_id)?.events_dropped;
    let mut quality = DataQuality {
        dropped_events: u64::try_from(dropped).unwrap_or(0),
        ..DataQuality::default()
    };
    let mut flags: BTreeMap<String, u64> = BTreeMap::new();
    visit_traces(analyzer, run_id, Wanted::QUALITY, |trace| {
        quality.lost_spans += trace.forest.lost_parents().len() as u64;
        quality.orphans += trace.forest.orphans() as u64;
        for span in trace.spans {
            quality.unfinished += u64::from(trace.texts.text(span.status) == "unfinished");
            let found = span.flags.map_or("", |flags| trace.texts.text(flags));
            for flag in found.split(',').map(str::trim).filter(|flag| !flag.is_empty()) {
                *flags.entry(flag.to_owned()).or_default() += 1;
            }
        }
        Ok(())
    })
    .await?;
    quality.flags = flags.into_iter().collect();
    Ok(quality)
}

async fn spans(analyzer: &Analyzer, run_id: &RunId) -> Result<DataFrame, AnalyzeError> {
    let spans = analyzer.context().table("spans").await?;
    Ok(spans.filter(col("run_id").eq(lit(run_id.as_str())))?)
}

async fn find_trace(
    analyzer: &Analyzer,
    run_id: &RunId,
    prefix: &str,
) -> Result<String, AnalyzeError> {
    let not_found = |reason: String| AnalyzeError::Trace {
        prefix: prefix.to_owned(),
        run_id: run_id.clone(),
        reason,
    };
    if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(not_found("a trace id is up to 32 hex digits".to_owned()));
    }
    // A range rather than LIKE, which the statistics of row groups cannot answer. `g` follows
    // every hex digit.
    let found = spans(analyzer, run_id)
        .await?
        .filter(
            col("trace_id").gt_eq(lit(prefix)).and(col("trace_id").lt(lit(format!("{prefix}g")))),
        )?
        .select_columns(&["trace_id"])?
        .distinct()?
        .limit(0, Some(CANDIDATES_MAX))?
        .collect()
        .await?;
    let mut ids = Vec::new();
    for batch in &found {
        let column = text(batch, "trace_id")?;
        ids.extend((0..batch.num_rows()).filter_map(|row| value(&column, row).map(str::to_owned)));
    }
    ids.sort();
    match ids.as_slice() {
        [] => Err(not_found("no trace begins with it".to_owned())),
        [only] => Ok(only.clone()),
        several => Err(not_found(format!("several traces begin with it: {}", several.join(", ")))),
    }
}

fn tree(trace_id: String, mut rows: Vec<SpanRow>) -> TraceTree {
    rows.sort_by(|a, b| {
        (a.start_unix_ns, &a.span_id, a.duration_ns).cmp(&(
            b.start_unix_ns,
            &b.span_id,
            b.duration_ns,
        ))
    });
    let shapes: Vec<SpanTimes> = rows
        .iter()
        .map(|row| SpanTimes {
            id: span_key(&row.span_id),
            parent: row.parent_span_id.as_deref().map(span_key),
            start_unix_ns: row.start_unix_ns,
            duration_ns: row.duration_ns,
        })
        .collect();
    let forest = Forest::new(&shapes);
    let times = times(&forest);
    let depths = forest.depths();
    let mut rows: Vec<Option<SpanRow>> = rows.into_iter().map(Some).collect();
    let nodes = forest
        .preorder()
        .iter()
        .filter_map(|index| {
            Some(TraceNode {
                depth: depths.get(*index).copied()?,
                self_ns: times.self_ns.get(*index).copied()?,
                is_critical: times.is_critical.get(*index).copied()?,
                span: rows.get_mut(*index)?.take()?,
            })
        })
        .collect();
    TraceTree {
        trace_id,
        start_unix_ns: forest.start_unix_ns(),
        duration_ns: forest.wall_ns(),
        nodes,
    }
}

fn summary(trace: &TraceView<'_>) -> TraceSummary {
    let texts = trace.texts;
    let family = family(trace.spans, &trace.forest, texts);
    let mut found = TraceSummary {
        trace_id: trace.trace_id.to_owned(),
        name: String::new(),
        request_id: None,
        start_unix_ns: trace.forest.start_unix_ns(),
        duration_ns: trace.forest.wall_ns(),
        spans: trace.spans.len() as u64,
        ttft_ns: None,
        input_tokens: 0,
        output_tokens: 0,
        error: None,
    };
    let root = trace.spans.iter().find(|span| span.parent.is_none());
    let named = root.or_else(|| trace.spans.first());
    found.name = named.map_or_else(String::new, |span| texts.text(span.name).to_owned());
    for (index, span) in trace.spans.iter().enumerate() {
        if let (None, Some(id)) = (&found.request_id, span.request_id) {
            found.request_id = Some(texts.text(id).to_owned());
        }
        if let Some(ttft) = span.ttft_ns {
            let arrival = span.start_unix_ns.saturating_add(ttft) - found.start_unix_ns;
            found.ttft_ns = Some(found.ttft_ns.map_or(arrival, |first| first.min(arrival)));
        }
        if family.counts_tokens.get(index) == Some(&true) {
            let add = |total: i64, count: Option<i64>| total.saturating_add(count.unwrap_or(0));
            found.input_tokens = add(found.input_tokens, span.input_tokens);
            found.output_tokens = add(found.output_tokens, span.output_tokens);
        }
        if found.error.is_none() && family.is_error_origin.get(index) == Some(&true) {
            let class = span.error_type.map_or("error", |class| texts.text(class));
            found.error = Some(format!("{}: {class}", texts.text(span.stage)));
        }
    }
    found
}

/// Enough to see what to add to a prefix.
const CANDIDATES_MAX: usize = 10;
