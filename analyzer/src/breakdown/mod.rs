//! Where a run's time, tokens, money and errors went.

mod aggregate;
mod group;
mod stages;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use retake_schemas::RunId;
use rustc_hash::FxHashMap;

pub use group::{GroupKey, UnknownGroupKey};

pub(crate) use aggregate::saturated;
pub(crate) use stages::{RunStages, StageTimes, stage_times};

use aggregate::Aggregate;
use group::Words;

use crate::assemble::{Family, LeanSpan, Texts, TraceView, family, visit_traces};
use crate::error::AnalyzeError;
use crate::model::{
    Breakdown, BreakdownRow, ErrorOrigin, MetricTokens, SCHEMA_VERSION, TokenTotals,
};
use crate::session::Analyzer;
use crate::trace::times;

/// Breaks a run down by `by`, or by stage when that is empty.
///
/// Percentiles are exact (nearest rank). Tokens and costs count once, at the lowest span that
/// states them; failures count at the deepest failed span. The row `(idle)` holds instants of a
/// trace at which no span was active.
///
/// # Errors
/// The run is not in scope, a file is damaged, or the attributed times do not sum to the wall
/// time, which would be a bug here.
pub async fn breakdown(
    analyzer: &Analyzer,
    run_id: &RunId,
    by: &[GroupKey],
) -> Result<Breakdown, AnalyzeError> {
    Ok(breakdown_with_durations(analyzer, run_id, by).await?.0)
}

/// A breakdown, and the ascending durations of each row's spans, ns.
pub(crate) type WithDurations = (Breakdown, Vec<(String, Vec<i64>)>);

/// A breakdown with the durations behind it.
pub(crate) async fn breakdown_with_durations(
    analyzer: &Analyzer,
    run_id: &RunId,
    by: &[GroupKey],
) -> Result<WithDurations, AnalyzeError> {
    let by = if by.is_empty() { &[GroupKey::Stage] } else { by };
    let mut collected = Collected::default();
    visit_traces(analyzer, run_id, group::wanted(by), |trace| {
        collected.add(trace, by);
        Ok(())
    })
    .await?;
    let dropped = analyzer.run(run_id)?.events_dropped;
    let (mut breakdown, durations) =
        collected.finish(run_id, u64::try_from(dropped).unwrap_or(0))?;
    breakdown.metric_tokens = metric_tokens(analyzer, run_id).await?;
    Ok((breakdown, durations))
}

/// The tokens that a run's metrics count. Of several metrics that count the same, the one that
/// counts most: it was on for longest.
async fn metric_tokens(
    analyzer: &Analyzer,
    run_id: &RunId,
) -> Result<Option<MetricTokens>, AnalyzeError> {
    let sql = format!(
        "SELECT max(input) AS input, max(output) AS output FROM (
           SELECT coalesce(sum(tokens) FILTER (WHERE token_type = 'input'), 0) AS input,
                  coalesce(sum(tokens) FILTER (WHERE token_type = 'output'), 0) AS output
           FROM token_metrics WHERE run_id = '{run_id}' GROUP BY metric)"
    );
    let result = analyzer.query(&sql).await?;
    let Some(batch) = result.batches.iter().find(|batch| batch.num_rows() == 1) else {
        return Ok(None);
    };
    let count = |index: usize| {
        let column = batch.column(index).as_primitive_opt::<Int64Type>()?;
        column.is_valid(0).then(|| column.value(0))
    };
    Ok(count(0).zip(count(1)).map(|(input, output)| MetricTokens { input, output }))
}

#[derive(Debug, Default)]
struct Collected {
    traces: u64,
    spans: u64,
    /// Wider than a column, so that hostile times cannot overflow a sum.
    wall_ns: i128,
    lost_spans: u64,
    groups: FxHashMap<Words, (String, Aggregate)>,
    idle: Idle,
    tokens: TokenTotals,
    errors: Errors,
}

/// Instants of traces at which no span was active, ns.
#[derive(Debug, Default)]
struct Idle {
    wall_ns: i128,
    critical_ns: i128,
}

impl Collected {
    fn add(&mut self, trace: &TraceView<'_>, by: &[GroupKey]) {
        let times = times(&trace.forest);
        let family = family(trace.spans, &trace.forest, trace.texts);
        self.traces += 1;
        self.spans += trace.spans.len() as u64;
        self.wall_ns += i128::from(trace.forest.wall_ns());
        self.lost_spans += trace.forest.lost_parents().len() as u64;
        let at = |column: &[i64], index: usize| column.get(index).copied().unwrap_or(0);
        for (index, span) in trace.spans.iter().enumerate() {
            let verdict = SpanVerdict::new(&family, index);
            let words = group::words(span, by);
            let (_, group) = self
                .groups
                .entry(words)
                .or_insert_with(|| (group::label(&words, by, trace.texts), Aggregate::default()));
            group.add_span(span, verdict, trace.texts);
            group.self_ns += i128::from(at(&times.self_ns, index));
            group.wall_ns += i128::from(at(&times.wall_ns, index));
            group.critical_ns += i128::from(at(&times.critical_ns, index));
            if verdict.counts_tokens {
                count_tokens(&mut self.tokens, span, trace.texts);
            }
            if verdict.is_error_origin {
                self.errors.add(trace, span);
            }
        }
        self.idle.wall_ns += i128::from(times.wall_idle_ns);
        self.idle.critical_ns += i128::from(times.critical_idle_ns);
    }

    /// The groups by name. Two that read the same are one.
    fn groups(&mut self) -> HashMap<String, Aggregate> {
        let mut groups: HashMap<String, Aggregate> = HashMap::new();
        // In a fixed order, so that what they agree on does not depend on a hash.
        let mut found: Vec<_> = std::mem::take(&mut self.groups).into_iter().collect();
        found.sort_unstable_by_key(|(words, _)| *words);
        for (_, (name, group)) in found {
            match groups.entry(name) {
                Entry::Occupied(mut same) => same.get_mut().merge(group),
                Entry::Vacant(place) => {
                    place.insert(group);
                }
            }
        }
        if self.idle.wall_ns > 0 || self.idle.critical_ns > 0 {
            let idle = groups.entry(IDLE.to_owned()).or_default();
            idle.wall_ns += self.idle.wall_ns;
            idle.critical_ns += self.idle.critical_ns;
        }
        groups
    }

    fn finish(
        mut self,
        run_id: &RunId,
        dropped_events: u64,
    ) -> Result<WithDurations, AnalyzeError> {
        let groups = self.groups();
        let attributed: i128 = groups.values().map(|group| group.wall_ns).sum();
        let critical: i128 = groups.values().map(|group| group.critical_ns).sum();
        if attributed != self.wall_ns || critical != self.wall_ns {
            return Err(AnalyzeError::Internal(format!(
                "of {} ns wall time {attributed} were attributed and {critical} are on the \
                 critical path",
                self.wall_ns
            )));
        }
        let mut groups: Vec<(String, Aggregate)> = groups.into_iter().collect();
        groups.sort_by(|(a_name, a), (b_name, b)| {
            (b.wall_ns, a_name.as_str()).cmp(&(a.wall_ns, b_name.as_str()))
        });
        let mut rows: Vec<BreakdownRow> = Vec::with_capacity(groups.len());
        let mut durations = Vec::with_capacity(groups.len());
        for (name, group) in groups {
            let (row, sorted) = group.finish(name, self.wall_ns);
            durations.push((row.stage.clone(), sorted));
            rows.push(row);
        }
        let breakdown = Breakdown {
            schema_version: SCHEMA_VERSION,
            run_id: run_id.to_string(),
            traces: self.traces,
            spans: self.spans,
            wall_ns: saturated(self.wall_ns),
            lost_spans: self.lost_spans,
            dropped_events,
            rows,
            tokens: self.tokens,
            metric_tokens: None,
            errors: self.errors.finish(),
            goodput: None,
        };
        Ok((breakdown, durations))
    }
}

/// What its family decides about one span.
#[derive(Debug, Clone, Copy, Default)]
struct SpanVerdict {
    is_error_origin: bool,
    counts_tokens: bool,
    counts_cost: bool,
}

impl SpanVerdict {
    fn new(family: &Family, index: usize) -> Self {
        let at = |column: &[bool]| column.get(index).copied().unwrap_or(false);
        Self {
            is_error_origin: at(&family.is_error_origin),
            counts_tokens: at(&family.counts_tokens),
            counts_cost: at(&family.counts_cost),
        }
    }
}

fn count_tokens(totals: &mut TokenTotals, span: &LeanSpan, texts: &Texts) {
    let (input, output) = (span.input_tokens.unwrap_or(0), span.output_tokens.unwrap_or(0));
    let add = |total: &mut i64, count: i64| *total = total.saturating_add(count);
    if texts.text(span.tokens_source) == "estimate" {
        add(&mut totals.estimated_input, input);
        add(&mut totals.estimated_output, output);
    } else if texts.text(span.kind) == "embedding" {
        add(&mut totals.embedding, input);
    } else {
        add(&mut totals.llm_input, input);
        add(&mut totals.llm_output, output);
    }
}

/// Where failures began: the earliest, however many there are and in whatever order they come.
#[derive(Debug, Default)]
struct Errors {
    earliest: BTreeMap<(i64, String, u64), ErrorOrigin>,
}

impl Errors {
    fn add(&mut self, trace: &TraceView<'_>, span: &LeanSpan) {
        let is_full = self.earliest.len() == ERRORS_MAX;
        let last = self.earliest.last_key_value().map(|((start, ..), _)| *start);
        if is_full && last.is_some_and(|last| last < span.start_unix_ns) {
            return;
        }
        let text =
            |text: Option<_>| text.map_or_else(String::new, |t| trace.texts.text(t).to_owned());
        let origin = ErrorOrigin {
            trace_id: trace.trace_id.to_owned(),
            span_id: span.id_text(),
            stage: trace.texts.text(span.stage).to_owned(),
            error_type: text(span.error_type),
            message: text(span.error_message),
        };
        let key = (span.start_unix_ns, trace.trace_id.to_owned(), span.id);
        self.earliest.insert(key, origin);
        if self.earliest.len() > ERRORS_MAX {
            self.earliest.pop_last();
        }
    }

    fn finish(self) -> Vec<ErrorOrigin> {
        self.earliest.into_values().collect()
    }
}

/// Name of the row for instants at which no span was active.
pub const IDLE: &str = "(idle)";

/// Failures listed one by one, the earliest; the rows count all of them.
const ERRORS_MAX: usize = 1000;

#[cfg(test)]
mod tests;
