//! Which operation of one run is which of the other.

use std::collections::BTreeMap;

use super::ops::{Link, Op, OpId, Sides};
use crate::model::ExampleTrace;
use crate::stats::median;

/// One side of a pair: the medians over its repeats.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Side {
    pub(super) latency_ns: f64,
    pub(super) stages: BTreeMap<String, f64>,
    pub(super) repeats: usize,
    /// The execution in which each stage took longest.
    pub(super) longest: BTreeMap<String, ExampleTrace>,
}

/// The same operation on both sides.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Pair {
    pub(super) kind: String,
    pub(super) base: Side,
    pub(super) candidate: Side,
}

/// The result of pairing.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Pairing {
    /// `None` when the runs did not execute the same operations.
    pub(super) pairs: Option<Vec<Pair>>,
    /// Operations left out because one side of them failed.
    pub(super) left_out: usize,
}

/// Pairs the operations of two runs.
pub(super) fn pair(sides: &Sides) -> Pairing {
    let own = |op: &Op| Some(op.id.clone());
    let source = |op: &Op| op.source.clone();
    let (base, candidate) = match sides.link {
        Link::CandidateRepeatsBase => {
            (grouped(&sides.base, own), grouped(&sides.candidate, source))
        }
        Link::BaseRepeatsCandidate => {
            (grouped(&sides.base, source), grouped(&sides.candidate, own))
        }
        Link::SameSource => (grouped(&sides.base, source), grouped(&sides.candidate, source)),
        Link::None => {
            let failed = sides.base.iter().chain(&sides.candidate).filter(|op| !op.is_ok);
            return Pairing { pairs: None, left_out: failed.count() };
        }
    };
    let mut pairing = Pairing::default();
    let mut pairs = Vec::new();
    for (id, base_ops) in &base {
        let Some(candidate_ops) = candidate.get(id) else { continue };
        match (side(base_ops), side(candidate_ops)) {
            (Some(base), Some(candidate)) => {
                let kind = base_ops.first().map(|op| op.kind.clone()).unwrap_or_default();
                pairs.push(Pair { kind, base, candidate });
            }
            _ => pairing.left_out += 1,
        }
    }
    pairing.pairs = Some(pairs);
    pairing
}

fn grouped(ops: &[Op], id: impl Fn(&Op) -> Option<OpId>) -> BTreeMap<OpId, Vec<&Op>> {
    let mut groups: BTreeMap<OpId, Vec<&Op>> = BTreeMap::new();
    for op in ops {
        if let Some(id) = id(op) {
            groups.entry(id).or_default().push(op);
        }
    }
    groups
}

/// The median over the repeats that succeeded; `None` when none did.
fn side(repeats: &[&Op]) -> Option<Side> {
    let good: Vec<&Op> = repeats.iter().copied().filter(|op| op.is_ok).collect();
    let latencies: Vec<f64> = good.iter().map(|op| op.latency_ns as f64).collect();
    let mut names: Vec<&String> = good.iter().flat_map(|op| op.stages.keys()).collect();
    names.sort();
    names.dedup();
    let stage = |name: &String| {
        let walls: Vec<f64> =
            good.iter().map(|op| op.stages.get(name).copied().unwrap_or(0) as f64).collect();
        median(&walls).map(|wall| (name.clone(), wall))
    };
    Some(Side {
        latency_ns: median(&latencies)?,
        stages: names.into_iter().filter_map(stage).collect(),
        repeats: good.len(),
        longest: longest(&good),
    })
}

fn longest(repeats: &[&Op]) -> BTreeMap<String, ExampleTrace> {
    let mut found: BTreeMap<String, ExampleTrace> = BTreeMap::new();
    for op in repeats {
        for (stage, stage_ns) in &op.stages {
            if found.get(stage).is_none_or(|longest| longest.stage_ns < *stage_ns) {
                let example = ExampleTrace {
                    run_id: op.id.run.clone(),
                    trace_id: op.id.trace.clone(),
                    stage_ns: *stage_ns,
                    duration_ns: op.latency_ns,
                };
                found.insert(stage.clone(), example);
            }
        }
    }
    found
}
