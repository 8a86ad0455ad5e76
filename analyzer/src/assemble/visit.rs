//! Visiting every trace of a run.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use datafusion::prelude::{col, lit};
use futures::StreamExt;
use retake_schemas::RunId;

use super::lean::{COLUMNS, Columns, LeanSpan, value};
use super::texts::Texts;
use crate::error::AnalyzeError;
use crate::session::Analyzer;
use crate::trace::{Forest, SpanTimes};

/// One trace, whole.
#[derive(Debug)]
pub(crate) struct TraceView<'a> {
    pub(crate) trace_id: &'a str,
    /// By start.
    pub(crate) spans: &'a [LeanSpan],
    /// The same spans, in the same order, put together.
    pub(crate) forest: Forest,
    pub(crate) texts: &'a Texts,
}

/// Calls `visit` with every trace of a run. Within a pass traces come by start.
///
/// Memory is bounded by reading a large run several times and keeping another part of its traces
/// each time: rows cannot simply be read in order of trace, because sealing follows time.
///
/// # Errors
/// The run is not in scope, a file is damaged, or `visit` fails.
pub(crate) async fn visit_traces<F>(
    analyzer: &Analyzer,
    run_id: &RunId,
    visit: F,
) -> Result<(), AnalyzeError>
where
    F: FnMut(&TraceView<'_>) -> Result<(), AnalyzeError>,
{
    let spans = u64::try_from(analyzer.run(run_id)?.spans).unwrap_or(0);
    visit_in_passes(analyzer, run_id, spans.div_ceil(SPANS_PER_PASS).max(1), visit).await
}

async fn visit_in_passes<F>(
    analyzer: &Analyzer,
    run_id: &RunId,
    passes: u64,
    mut visit: F,
) -> Result<(), AnalyzeError>
where
    F: FnMut(&TraceView<'_>) -> Result<(), AnalyzeError>,
{
    let mut texts = Texts::default();
    for pass in 0..passes {
        let traces = load(analyzer, run_id, Part { pass, passes }, &mut texts).await?;
        for (trace_id, spans) in &traces {
            let times: Vec<SpanTimes> = spans.iter().map(LeanSpan::times).collect();
            let forest = Forest::new(&times);
            visit(&TraceView { trace_id, spans, forest, texts: &texts })?;
        }
    }
    Ok(())
}

/// A part of a run's traces.
#[derive(Debug, Clone, Copy)]
struct Part {
    pass: u64,
    passes: u64,
}

impl Part {
    fn contains(self, trace_id: &str) -> bool {
        if self.passes == 1 {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        trace_id.hash(&mut hasher);
        hasher.finish() % self.passes == self.pass
    }
}

async fn load(
    analyzer: &Analyzer,
    run_id: &RunId,
    part: Part,
    texts: &mut Texts,
) -> Result<Vec<(String, Vec<LeanSpan>)>, AnalyzeError> {
    let mut rows = analyzer
        .context()
        .table("spans")
        .await?
        .filter(col("run_id").eq(lit(run_id.as_str())))?
        .select_columns(&COLUMNS)?
        .execute_stream()
        .await?;
    let mut traces: HashMap<String, Vec<LeanSpan>> = HashMap::new();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let columns = Columns::new(&batch)?;
        for row in 0..batch.num_rows() {
            let trace_id = value(&columns.trace_id, row).unwrap_or("");
            if !part.contains(trace_id) {
                continue;
            }
            let span = columns.span(row, texts);
            match traces.get_mut(trace_id) {
                Some(spans) => spans.push(span),
                None => {
                    traces.insert(trace_id.to_owned(), vec![span]);
                }
            }
        }
    }
    let mut traces: Vec<(String, Vec<LeanSpan>)> = traces.into_iter().collect();
    for (_, spans) in &mut traces {
        // Rows come in any order; results must not depend on it.
        spans.sort_by_key(|span| (span.start_unix_ns, span.id, span.duration_ns));
    }
    traces.sort_by_cached_key(|(trace_id, spans)| {
        (spans.first().map(|span| span.start_unix_ns), trace_id.clone())
    });
    Ok(traces)
}

/// About half a gigabyte of lean spans at a time.
const SPANS_PER_PASS: u64 = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;
    use crate::fixture::{Fixture, question};

    /// Scenario: a run read in one pass, and in five.
    /// Guarantees: each trace is visited once and whole, however the run is read.
    #[tokio::test]
    async fn passes_partition_the_traces() {
        let fixture = Fixture::new();
        let run_id = fixture.run("r", |recorder| {
            for trace in 0..40 {
                question(recorder, trace, 0, 1_000);
            }
        });
        let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
        for passes in [1, 5] {
            let mut seen: Vec<(String, usize)> = Vec::new();
            visit_in_passes(&analyzer, &run_id, passes, |trace| {
                seen.push((trace.trace_id.to_owned(), trace.spans.len()));
                Ok(())
            })
            .await
            .unwrap();
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), 40);
            assert!(seen.iter().all(|(_, spans)| *spans == 5));
        }
    }
}
