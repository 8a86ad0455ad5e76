//! Visiting every trace of a run.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};

use arrow::array::{Array, StringArray};
use retake_schemas::RunId;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::lean::{Columns, LeanSpan, Wanted, text, value};
use super::partitions::Partitions;
use super::texts::Texts;
use crate::error::AnalyzeError;
use crate::session::Analyzer;
use crate::trace::{Forest, SpanTimes};

/// One trace, whole.
#[derive(Debug)]
pub(crate) struct TraceView<'a> {
    /// Its run's place among those visited.
    pub(crate) run: usize,
    pub(crate) trace_id: &'a str,
    /// By start. What was not asked for is empty.
    pub(crate) spans: &'a [LeanSpan],
    /// The same spans, in the same order, put together.
    pub(crate) forest: Forest,
    pub(crate) texts: &'a Texts,
}

/// Calls `visit` with every trace of a run, in an order that follows the files; see
/// [`visit_traces_of`].
pub(crate) async fn visit_traces<F>(
    analyzer: &Analyzer,
    run_id: &RunId,
    wanted: Wanted,
    visit: F,
) -> Result<(), AnalyzeError>
where
    F: FnMut(&TraceView<'_>) -> Result<(), AnalyzeError>,
{
    visit_traces_of(analyzer, std::slice::from_ref(run_id), wanted, visit).await
}

/// Calls `visit` with every trace of several runs, in an order that follows the files.
///
/// Rows are clustered by trace in each file, so most traces are whole when their stretch of rows
/// ends, and only those are kept that are spread over several (sealing follows time, not traces).
/// Which those are, a first reading of the trace ids alone tells. So memory is the spread traces
/// plus eight bytes for each stretch.
///
/// # Errors
/// A run is not in scope, a file is damaged, or `visit` fails.
pub(crate) async fn visit_traces_of<F>(
    analyzer: &Analyzer,
    runs: &[RunId],
    wanted: Wanted,
    mut visit: F,
) -> Result<(), AnalyzeError>
where
    F: FnMut(&TraceView<'_>) -> Result<(), AnalyzeError>,
{
    for run_id in runs {
        analyzer.run(run_id)?;
    }
    let mut assembly = Assembly { stretches: spread(analyzer, runs).await?, ..Assembly::default() };
    let mut columns = wanted.columns();
    if runs.len() > 1 {
        columns.push("run_id");
    }
    let mut batches = Partitions::read(analyzer, runs, &columns).await?;
    let places = places(runs);
    let mut open: Vec<Stretch> = Vec::new();
    open.resize_with(batches.len(), Stretch::default);
    while let Some((partition, batch)) = batches.next().await {
        let columns = Columns::new(&batch?, &columns)?;
        let Some(stretch) = open.get_mut(partition) else { continue };
        let mut run = Runs::new(&places, columns.run_id.as_ref());
        for row in 0..columns.trace_id.len() {
            let (run, trace_id) = (run.of(row), value(&columns.trace_id, row).unwrap_or(""));
            if stretch.trace_id != trace_id || stretch.run != run {
                assembly.take(stretch, &mut visit)?;
                stretch.run = run;
                stretch.trace_id.clear();
                stretch.trace_id.push_str(trace_id);
            }
            stretch.spans.push(columns.span(row, &mut assembly.texts));
        }
    }
    for mut stretch in open {
        assembly.take(&mut stretch, &mut visit)?;
    }
    assembly.finish(&mut visit)
}

/// The runs of a batch's rows. A file is of one run, so they hardly change.
struct Runs<'a> {
    column: Option<&'a StringArray>,
    places: &'a Places<'a>,
    last: Option<(&'a str, usize)>,
}

/// The place of each run among those visited.
type Places<'a> = HashMap<&'a str, usize>;

fn places(runs: &[RunId]) -> Places<'_> {
    runs.iter().map(RunId::as_str).zip(0..).collect()
}

impl<'a> Runs<'a> {
    fn new(places: &'a Places<'a>, column: Option<&'a StringArray>) -> Self {
        Self { column, places, last: None }
    }

    fn of(&mut self, row: usize) -> usize {
        let Some(run_id) = self.column.and_then(|column| value(column, row)) else { return 0 };
        match self.last {
            Some((last, place)) if last == run_id => place,
            _ => {
                let place = self.places.get(run_id).copied().unwrap_or(0);
                self.last = Some((run_id, place));
                place
            }
        }
    }
}

/// Rows of one trace that follow each other.
#[derive(Debug, Default)]
struct Stretch {
    run: usize,
    trace_id: String,
    spans: Vec<LeanSpan>,
}

/// Traces on their way from stretches of rows.
#[derive(Debug, Default)]
struct Assembly {
    texts: Texts,
    /// How many stretches the traces have that have more than one, by [`key`].
    stretches: FxHashMap<u64, u32>,
    /// Traces of which stretches are missing: how many came, and their spans.
    waiting: HashMap<(usize, String), (u32, Vec<LeanSpan>)>,
    times: Vec<SpanTimes>,
}

impl Assembly {
    /// Takes a stretch that has ended, and leaves it empty.
    fn take<F>(&mut self, stretch: &mut Stretch, visit: &mut F) -> Result<(), AnalyzeError>
    where
        F: FnMut(&TraceView<'_>) -> Result<(), AnalyzeError>,
    {
        if stretch.spans.is_empty() {
            return Ok(());
        }
        let known = self.stretches.get(&key(stretch.run, &stretch.trace_id));
        let Some(expected) = known.copied() else {
            self.show(stretch.run, &stretch.trace_id, &mut stretch.spans, visit)?;
            stretch.spans.clear();
            return Ok(());
        };
        let trace = (stretch.run, stretch.trace_id.clone());
        let (came, spans) = self.waiting.entry(trace.clone()).or_default();
        *came += 1;
        spans.append(&mut stretch.spans);
        if *came == expected {
            let (_, mut spans) = self.waiting.remove(&trace).unwrap_or_default();
            self.show(stretch.run, &stretch.trace_id, &mut spans, visit)?;
        }
        Ok(())
    }

    /// Shows what is left: two traces of one key wait for stretches that never come.
    fn finish<F>(mut self, visit: &mut F) -> Result<(), AnalyzeError>
    where
        F: FnMut(&TraceView<'_>) -> Result<(), AnalyzeError>,
    {
        let mut left: Vec<_> = std::mem::take(&mut self.waiting).into_iter().collect();
        left.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for ((run, trace_id), (_, mut spans)) in left {
            self.show(run, &trace_id, &mut spans, visit)?;
        }
        Ok(())
    }

    fn show<F>(
        &mut self,
        run: usize,
        trace_id: &str,
        spans: &mut [LeanSpan],
        visit: &mut F,
    ) -> Result<(), AnalyzeError>
    where
        F: FnMut(&TraceView<'_>) -> Result<(), AnalyzeError>,
    {
        // Rows come in any order; results must not depend on it.
        let order = |span: &LeanSpan| (span.start_unix_ns, span.id, span.duration_ns);
        if !spans.is_sorted_by_key(order) {
            spans.sort_by_key(order);
        }
        self.times.clear();
        self.times.extend(spans.iter().map(LeanSpan::times));
        let forest = Forest::new(&self.times);
        visit(&TraceView { run, trace_id, spans, forest, texts: &self.texts })
    }
}

/// The traces whose rows stand in more than one place, by [`key`], and in how many.
async fn spread(analyzer: &Analyzer, runs: &[RunId]) -> Result<FxHashMap<u64, u32>, AnalyzeError> {
    let wanted: &[&str] = if runs.len() > 1 { &["trace_id", "run_id"] } else { &["trace_id"] };
    let mut batches = Partitions::read(analyzer, runs, wanted).await?;
    let places = places(runs);
    let mut last: Vec<Option<(usize, String)>> = vec![None; batches.len()];
    let mut keys: Vec<u64> = Vec::new();
    while let Some((partition, batch)) = batches.next().await {
        let batch = batch?;
        let trace_ids = text(&batch, "trace_id")?;
        let run_ids = (runs.len() > 1).then(|| text(&batch, "run_id")).transpose()?;
        let mut run = Runs::new(&places, run_ids.as_ref());
        let Some(last) = last.get_mut(partition) else { continue };
        let mut current = last.as_ref().map(|(run, trace_id)| (*run, trace_id.as_str()));
        for row in 0..trace_ids.len() {
            let trace = (run.of(row), value(&trace_ids, row).unwrap_or(""));
            if current != Some(trace) {
                keys.push(key(trace.0, trace.1));
                current = Some(trace);
            }
        }
        let current = current.map(|(run, trace_id)| (run, trace_id.to_owned()));
        *last = current;
    }
    keys.sort_unstable();
    let several = keys.chunk_by(|a, b| a == b).filter(|same| same.len() > 1);
    let counted =
        several.filter_map(|same| Some((*same.first()?, u32::try_from(same.len()).ok()?)));
    Ok(counted.collect())
}

/// Names a trace nearly always: two of one key cost memory, not correctness.
fn key(run: usize, trace_id: &str) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    run.hash(&mut hasher);
    trace_id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;
    use crate::fixture::{Fixture, question, spec};

    /// Scenario: forty traces in a file each, then one whose spans are sealed in three segments.
    /// Guarantees: each trace is visited once and whole, by start of its spans.
    #[tokio::test]
    async fn traces_are_whole_wherever_their_rows_stand() {
        let fixture = Fixture::new();
        let run_id = fixture.run("r", |recorder| {
            for trace in 0..40 {
                question(recorder, trace, 0, 1_000);
            }
            let root = spec(255, 1, None, "ingest").at(0, 1_000);
            root.open(recorder);
            for part in 0..3 {
                spec(255, 2 + part, Some(1), "chunk").at(1 + part as i64, 10).record(recorder);
                recorder.flush().unwrap();
                recorder.seal().unwrap();
            }
            root.close(recorder);
        });
        let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
        let mut seen: Vec<(String, usize)> = Vec::new();
        visit_traces(&analyzer, &run_id, Wanted::TIMES, |trace| {
            assert!(trace.spans.is_sorted_by_key(|span| span.start_unix_ns));
            assert!(trace.forest.lost_parents().is_empty(), "{trace:?}");
            seen.push((trace.trace_id.to_owned(), trace.spans.len()));
            Ok(())
        })
        .await
        .unwrap();
        seen.sort();
        let spans: Vec<usize> = seen.iter().map(|(_, spans)| *spans).collect();
        assert_eq!(spans, [vec![5; 40], vec![4]].concat());
        seen.dedup_by(|(a, _), (b, _)| a == b);
        assert_eq!(seen.len(), 41);
    }
}
