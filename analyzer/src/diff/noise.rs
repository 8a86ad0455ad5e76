//! How much two executions of the same workload differ by chance.
//!
//! Pairing removes what differs between requests, not what differs between runs: a machine that
//! is busier during one of them makes all of its requests slower at once, and no number of
//! requests shows that. So every interval is widened by the run-to-run chance, estimated from
//! repeats where there are any, and shrunk towards a prior where there are few (docs/replay.md).

use std::collections::{BTreeMap, HashMap};

use super::ops::{Op, OpId, Sides};
use crate::stats::median;

/// Half the width of the 95 % interval of run-to-run chance, on the log scale.
///
/// `stage` is a stage's name, or `None` for whole operations. Offsets of runs from the median of
/// their side are pooled over both sides, with the prior.
pub(super) fn half_width(sides: &Sides, kind: &str, stage: Option<&str>) -> f64 {
    let mut freedom = PRIOR_FREEDOM;
    let mut squares = PRIOR_FREEDOM * SIGMA_PRIOR * SIGMA_PRIOR;
    let mut inverse_runs = 0.0;
    for ops in [&sides.base, &sides.candidate] {
        let offsets = offsets(ops, kind, stage);
        let runs = offsets.len().max(1) as f64;
        let mean = offsets.iter().sum::<f64>() / runs;
        squares += offsets.iter().map(|offset| (offset - mean).powi(2)).sum::<f64>();
        freedom += runs - 1.0;
        inverse_runs += 1.0 / runs;
    }
    Z_975 * (squares / freedom * inverse_runs).sqrt()
}

/// Each run's offset from its side: the median over operations of the log of its value over the
/// operation's median over the runs.
fn offsets(ops: &[Op], kind: &str, stage: Option<&str>) -> Vec<f64> {
    let value = |op: &Op| match stage {
        None => op.latency_ns,
        Some(stage) => op.stages.get(stage).copied().unwrap_or(0),
    };
    let mut by_operation: HashMap<&Option<OpId>, Vec<(&str, f64)>> = HashMap::new();
    for op in ops.iter().filter(|op| op.is_ok && op.kind == kind && value(op) > 0) {
        let log = (value(op) as f64).ln();
        by_operation.entry(&op.source).or_default().push((&op.id.run, log));
    }
    let mut by_run: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for repeats in by_operation.values() {
        let logs: Vec<f64> = repeats.iter().map(|(_, log)| *log).collect();
        let Some(middle) = median(&logs) else { continue };
        for (run, log) in repeats {
            by_run.entry(run).or_default().push(log - middle);
        }
    }
    by_run.values().filter_map(|offsets| median(offsets)).collect()
}

/// Run-to-run standard deviation assumed before there are repeats: 15 %, the run-to-run
/// variation that mui/mui-public #1712 reports.
const SIGMA_PRIOR: f64 = 0.15;
/// Weight of the prior, in degrees of freedom: five quiet repeats a side may conclude "same"
/// within 5 %, three may not.
const PRIOR_FREEDOM: f64 = 0.5;
/// The value a standard normal variable exceeds with probability 0.025.
const Z_975: f64 = 1.959_963_984_540_054;

#[cfg(test)]
mod tests {
    use super::*;

    /// `runs` executions of 20 operations, the nth run slower by the nth factor.
    fn side(factors: &[f64]) -> Vec<Op> {
        let mut ops = Vec::new();
        for (run, factor) in factors.iter().enumerate() {
            for n in 0..20_i64 {
                let trace = format!("t{n}");
                let source = OpId { run: "source".to_owned(), trace: trace.clone(), span: None };
                ops.push(Op {
                    id: OpId { run: format!("run {run}"), trace, span: None },
                    source: Some(source),
                    latency_ns: (factor * 1e6 * (n + 1) as f64) as i64,
                    is_ok: true,
                    ..Op::default()
                });
            }
        }
        ops
    }

    fn width(base: &[f64], candidate: &[f64]) -> f64 {
        let sides = Sides { base: side(base), candidate: side(candidate), ..Sides::default() };
        half_width(&sides, "", None)
    }

    #[test]
    fn without_repeats_the_prior_alone_speaks() {
        assert!((width(&[1.0], &[1.3]) - 1.96 * 0.15 * 2_f64.sqrt()).abs() < 1e-3);
    }

    #[test]
    fn repeats_that_agree_narrow_the_interval_and_repeats_that_do_not_widen_it() {
        let quiet = width(&[1.0, 1.01, 0.99, 1.0, 1.0], &[1.3, 1.31, 1.29, 1.3, 1.3]);
        let noisy = width(&[1.0, 1.5, 0.7, 1.2, 0.9], &[1.3, 2.0, 0.9, 1.3, 1.3]);
        assert!(quiet < 0.07, "{quiet}");
        assert!(noisy > 0.25, "{noisy}");
    }
}
