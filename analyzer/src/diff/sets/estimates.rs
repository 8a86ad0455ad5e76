//! One run as a few numbers.

use std::collections::BTreeMap;

use retake_schemas::RunId;
use serde::{Deserialize, Serialize};

use super::metric::Metric;
use crate::diff::explain::mean_stages;
use crate::diff::found::shortlist;
use crate::diff::ops::{Op, operations};
use crate::error::AnalyzeError;
use crate::history::Answers;
use crate::model::ExampleTrace;
use crate::session::Analyzer;
use crate::stats::{median, nearest_rank};

/// The estimates of one run, by kind of operation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct RunEstimates {
    pub(super) kinds: BTreeMap<String, KindEstimates>,
}

/// One kind of operation in one run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct KindEstimates {
    pub(super) operations: u64,
    /// Those that are known.
    pub(super) values: BTreeMap<Metric, f64>,
    /// Mean attributed wall time of each stage in an operation that succeeded, ns.
    pub(super) stages: BTreeMap<String, f64>,
    /// The operations in which each stage took longest, longest first.
    pub(super) longest: BTreeMap<String, Vec<ExampleTrace>>,
}

impl RunEstimates {
    /// Those of several runs.
    pub(super) async fn load(
        analyzer: &Analyzer,
        runs: &[RunId],
    ) -> Result<Vec<Self>, AnalyzeError> {
        let mut answers = Answers::<Self>::of(analyzer, runs, "estimates of a comparison")?;
        while let Some(run_id) = answers.missing().first() {
            let (ops, _) = operations(analyzer, run_id).await?;
            answers.add([Self::new(ops)]);
        }
        Ok(answers.finish())
    }

    pub(super) fn new(ops: Vec<Op>) -> Self {
        let mut by_kind: BTreeMap<String, Vec<Op>> = BTreeMap::new();
        for op in ops {
            by_kind.entry(op.kind.clone()).or_default().push(op);
        }
        let kinds = by_kind.into_iter().map(|(kind, ops)| (kind, KindEstimates::new(&ops)));
        Self { kinds: kinds.collect() }
    }
}

impl KindEstimates {
    fn new(ops: &[Op]) -> Self {
        let good: Vec<&Op> = ops.iter().filter(|op| op.is_ok).collect();
        let mut latencies: Vec<i64> = good.iter().map(|op| op.latency_ns).collect();
        latencies.sort_unstable();
        let known = |value: fn(&Op) -> Option<f64>| -> Vec<f64> {
            good.iter().filter_map(|op| value(op)).collect()
        };
        // Over all operations: one that states nothing used nothing, unless none states any.
        let per_operation = |values: Vec<f64>| {
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / good.len() as f64)
        };
        let failed = (ops.len() - good.len()) as f64 / ops.len().max(1) as f64;
        let percentile =
            |percent| (!latencies.is_empty()).then(|| nearest_rank(&latencies, percent) as f64);
        let values = [
            (Metric::Latency, percentile(50)),
            (Metric::LatencyP95, percentile(95)),
            (Metric::Ttft, median(&known(|op| op.ttft_ns.map(|ns| ns as f64)))),
            (Metric::Cost, per_operation(known(|op| op.cost_usd))),
            (Metric::InputTokens, per_operation(known(|op| op.input_tokens.map(|n| n as f64)))),
            (Metric::OutputTokens, per_operation(known(|op| op.output_tokens.map(|n| n as f64)))),
            (Metric::Errors, (!ops.is_empty()).then_some(failed)),
        ];
        Self {
            operations: ops.len() as u64,
            values: values.into_iter().filter_map(|(m, value)| Some((m, value?))).collect(),
            stages: mean_stages(&good),
            longest: longest(&good),
        }
    }
}

fn longest(ops: &[&Op]) -> BTreeMap<String, Vec<ExampleTrace>> {
    let mut found: BTreeMap<String, Vec<ExampleTrace>> = BTreeMap::new();
    for op in ops {
        for (stage, wall_ns) in &op.stages {
            let examples = found.entry(stage.clone()).or_default();
            examples.push(ExampleTrace {
                run_id: op.id.run.clone(),
                trace_id: op.id.trace.clone(),
                stage_ns: *wall_ns,
                duration_ns: op.latency_ns,
            });
            shortlist(examples);
        }
    }
    found
}
