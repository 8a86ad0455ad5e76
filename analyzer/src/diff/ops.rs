//! The operations of a run: what a replay would repeat, with their times by stage.

use std::collections::{BTreeMap, HashMap, HashSet};

use datafusion::prelude::{col, lit};
use futures::StreamExt;
use retake_schemas::{RunId, convention};

use crate::assemble::{Family, LeanSpan, TraceView, Wanted, family, text, value, visit_traces};
use crate::breakdown::IDLE;
use crate::error::AnalyzeError;
use crate::session::Analyzer;
use crate::sql::functions;
use crate::trace::{Forest, SpanTimes, span_key, times};

/// One operation, once executed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Op {
    pub(super) id: OpId,
    /// The operation it repeats.
    pub(super) source: Option<OpId>,
    /// Kind of operation, empty when the program does not say.
    pub(super) kind: String,
    pub(super) start_unix_ns: i64,
    /// Duration of the operation's root, ns.
    pub(super) latency_ns: i64,
    /// Attributed wall time by stage, ns.
    pub(super) stages: BTreeMap<String, i64>,
    pub(super) is_ok: bool,
    /// From its start to the first output token, ns.
    pub(super) ttft_ns: Option<i64>,
    /// Tokens, each counted once; `None` when nobody counted.
    pub(super) input_tokens: Option<i64>,
    pub(super) output_tokens: Option<i64>,
    /// US dollars; `None` when nobody said.
    pub(super) cost_usd: Option<f64>,
}

/// Names an operation. Without a span it is the first root of its trace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct OpId {
    pub(super) run: String,
    pub(super) trace: String,
    pub(super) span: Option<u64>,
}

/// The operations of two runs, and how they are linked.
#[derive(Debug, Default)]
pub(super) struct Sides {
    pub(super) base: Vec<Op>,
    pub(super) candidate: Vec<Op>,
    pub(super) link: Link,
    pub(super) lost_spans: [(String, u64); 2],
}

/// How two runs are linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Link {
    /// The candidate replays the base.
    CandidateRepeatsBase,
    /// The base replays the candidate.
    BaseRepeatsCandidate,
    /// Both replay a third run.
    SameSource,
    /// Not at all.
    #[default]
    None,
}

impl Sides {
    pub(super) fn warnings(&self) -> Vec<String> {
        let lost = self.lost_spans.iter().filter(|(_, lost)| *lost > 0);
        lost.map(|(run, lost)| format!("run {run}: {lost} spans are named as parents and missing"))
            .collect()
    }
}

/// Loads the operations that can be compared.
pub(super) async fn load(
    analyzer: &Analyzer,
    base: &RunId,
    candidate: &RunId,
) -> Result<Sides, AnalyzeError> {
    let base_links = sources(analyzer, base).await?;
    let candidate_links = sources(analyzer, candidate).await?;
    let of_run = |links: &HashSet<OpId>, run: &RunId| -> HashSet<OpId> {
        links.iter().filter(|id| id.run == run.as_str()).cloned().collect()
    };
    let in_base = of_run(&candidate_links, base);
    let in_candidate = of_run(&base_links, candidate);
    let roots = |links: &HashSet<OpId>| if links.is_empty() { Roots::Any } else { Roots::Linked };
    let (link, base_roots, candidate_roots) = if !in_base.is_empty() {
        (Link::CandidateRepeatsBase, Roots::Listed(in_base), Roots::Linked)
    } else if !in_candidate.is_empty() {
        (Link::BaseRepeatsCandidate, Roots::Linked, Roots::Listed(in_candidate))
    } else if base_links.intersection(&candidate_links).next().is_some() {
        (Link::SameSource, Roots::Linked, Roots::Linked)
    } else {
        (Link::None, roots(&base_links), roots(&candidate_links))
    };
    let (base_ops, base_lost) = ops(analyzer, base, &base_roots).await?;
    let (candidate_ops, candidate_lost) = ops(analyzer, candidate, &candidate_roots).await?;
    Ok(Sides {
        base: base_ops,
        candidate: candidate_ops,
        link,
        lost_spans: [(base.to_string(), base_lost), (candidate.to_string(), candidate_lost)],
    })
}

/// Adds the operations of further executions of the same replays. Only replays of a third run
/// have repeats: the operations of each name the one they repeat.
pub(super) async fn add_repeats(
    analyzer: &Analyzer,
    sides: &mut Sides,
    bases: &[RunId],
    candidates: &[RunId],
) -> Result<(), AnalyzeError> {
    if sides.link != Link::SameSource {
        return Ok(());
    }
    for run_id in bases {
        sides.base.extend(ops(analyzer, run_id, &Roots::Linked).await?.0);
    }
    for run_id in candidates {
        sides.candidate.extend(ops(analyzer, run_id, &Roots::Linked).await?.0);
    }
    Ok(())
}

/// Which spans are the roots of operations.
#[derive(Debug)]
enum Roots {
    /// Those that name a source.
    Linked,
    /// These.
    Listed(HashSet<OpId>),
    /// The first root of every trace.
    Any,
}

/// The operations a run repeats.
async fn sources(analyzer: &Analyzer, run_id: &RunId) -> Result<HashSet<OpId>, AnalyzeError> {
    let mut rows = analyzer
        .context()
        .table("spans")
        .await?
        .filter(col("run_id").eq(lit(run_id.as_str())).and(col("source_trace_id").is_not_null()))?
        .select_columns(&["source_run_id", "source_trace_id", "source_span_id"])?
        .execute_stream()
        .await?;
    let mut found = HashSet::new();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let (runs, traces) = (text(&batch, "source_run_id")?, text(&batch, "source_trace_id")?);
        let spans = text(&batch, "source_span_id")?;
        found.extend((0..batch.num_rows()).filter_map(|row| {
            Some(OpId {
                run: value(&runs, row)?.to_owned(),
                trace: value(&traces, row)?.to_owned(),
                span: value(&spans, row).map(span_key),
            })
        }));
    }
    Ok(found)
}

/// The operations of one run, in order of their start, and how many of its spans never arrived.
pub(super) async fn operations(
    analyzer: &Analyzer,
    run_id: &RunId,
) -> Result<(Vec<Op>, u64), AnalyzeError> {
    let links = sources(analyzer, run_id).await?;
    let roots = if links.is_empty() { Roots::Any } else { Roots::Linked };
    ops(analyzer, run_id, &roots).await
}

async fn ops(
    analyzer: &Analyzer,
    run_id: &RunId,
    roots: &Roots,
) -> Result<(Vec<Op>, u64), AnalyzeError> {
    let kinds = kinds(analyzer, run_id).await?;
    let mut ops = Vec::new();
    let mut lost_spans = 0;
    visit_traces(analyzer, run_id, Wanted::ALL, |trace| {
        lost_spans += trace.forest.lost_parents().len() as u64;
        let family = family(trace.spans, &trace.forest, trace.texts);
        let found = op_roots(trace, run_id, roots);
        for (root, id) in &found {
            let members: Vec<usize> = match found.len() {
                // Spans whose parent was lost belong to the only operation there is.
                1 => (0..trace.spans.len()).collect(),
                _ => trace.forest.subtree(*root),
            };
            if let Some(span) = trace.spans.get(*root) {
                let kind = kinds.get(&(trace.trace_id.to_owned(), span.id)).cloned();
                let kind = kind.unwrap_or_default();
                ops.push(Op { kind, ..op(trace, &family, span, id.clone(), &members) });
            }
        }
        Ok(())
    })
    .await?;
    ops.sort_by(|a: &Op, b: &Op| (a.start_unix_ns, &a.id).cmp(&(b.start_unix_ns, &b.id)));
    Ok((ops, lost_spans))
}

fn op_roots(trace: &TraceView<'_>, run_id: &RunId, roots: &Roots) -> Vec<(usize, OpId)> {
    let id = |span: Option<u64>| OpId {
        run: run_id.to_string(),
        trace: trace.trace_id.to_owned(),
        span,
    };
    let first = trace.forest.roots().first().copied();
    let spans = || trace.spans.iter().enumerate();
    match roots {
        Roots::Linked => spans()
            .filter(|(_, span)| span.source.is_some())
            .map(|(index, span)| (index, id(Some(span.id))))
            .collect(),
        Roots::Listed(listed) => {
            let named = spans()
                .map(|(index, span)| (index, id(Some(span.id))))
                .filter(|(_, id)| listed.contains(id));
            let whole = first.map(|index| (index, id(None))).filter(|(_, id)| listed.contains(id));
            named.chain(whole).collect()
        }
        Roots::Any => first.map(|index| (index, id(None))).into_iter().collect(),
    }
}

fn op(trace: &TraceView<'_>, family: &Family, root: &LeanSpan, id: OpId, members: &[usize]) -> Op {
    let spans: Vec<&LeanSpan> =
        members.iter().filter_map(|index| trace.spans.get(*index)).collect();
    let shapes: Vec<SpanTimes> = spans.iter().map(|span| span.times()).collect();
    let times = times(&Forest::new(&shapes));
    let mut stages: BTreeMap<String, i64> = BTreeMap::new();
    for (span, wall_ns) in spans.iter().zip(&times.wall_ns) {
        *stages.entry(trace.texts.text(span.stage).to_owned()).or_default() += wall_ns;
    }
    if times.wall_idle_ns > 0 {
        stages.insert(IDLE.to_owned(), times.wall_idle_ns);
    }
    let source = root.source.map(|source| OpId {
        run: trace.texts.text(source.run).to_owned(),
        trace: trace.texts.text(source.trace).to_owned(),
        span: source.span,
    });
    let counted = |counts: &[bool], value: fn(&LeanSpan) -> Option<i64>| {
        let counts = |index: &&usize| counts.get(**index).copied().unwrap_or(false);
        let spans = members.iter().filter(counts).filter_map(|index| trace.spans.get(*index));
        spans.filter_map(value).reduce(i64::saturating_add)
    };
    let counts_cost = |index: &&usize| family.counts_cost.get(**index).copied().unwrap_or(false);
    let cost_usd = members
        .iter()
        .filter(counts_cost)
        .filter_map(|index| trace.spans.get(*index)?.cost_usd)
        .reduce(|a, b| a + b);
    let first_token = spans.iter().filter_map(|span| Some(span.start_unix_ns + span.ttft_ns?));
    Op {
        id,
        source,
        kind: String::new(),
        start_unix_ns: root.start_unix_ns,
        latency_ns: root.duration_ns,
        stages,
        is_ok: trace.texts.text(root.status) == "ok",
        ttft_ns: first_token.min().map(|first| first.saturating_sub(root.start_unix_ns).max(0)),
        input_tokens: counted(&family.counts_tokens, |span| span.input_tokens),
        output_tokens: counted(&family.counts_tokens, |span| span.output_tokens),
        cost_usd,
    }
}

/// Kinds of operations by root span, for programs that say so.
async fn kinds(
    analyzer: &Analyzer,
    run_id: &RunId,
) -> Result<HashMap<(String, u64), String>, AnalyzeError> {
    let names_kind = col("attributes").like(lit(format!("%{}%", convention::OPERATION_KIND)));
    let mut rows = analyzer
        .context()
        .table("spans")
        .await?
        .filter(col("run_id").eq(lit(run_id.as_str())).and(names_kind))?
        .select_columns(&["trace_id", "span_id", "attributes"])?
        .execute_stream()
        .await?;
    let mut kinds = HashMap::new();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let (traces, spans) = (text(&batch, "trace_id")?, text(&batch, "span_id")?);
        let attributes = text(&batch, "attributes")?;
        for row in 0..batch.num_rows() {
            let kind = value(&attributes, row)
                .and_then(|object| functions::lookup(object, convention::OPERATION_KIND));
            let span = value(&traces, row).zip(value(&spans, row));
            if let (Some(kind), Some((trace, span))) = (kind, span) {
                kinds.insert((trace.to_owned(), span_key(span)), kind);
            }
        }
    }
    Ok(kinds)
}
