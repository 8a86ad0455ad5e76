//! What would traces take if a stage were faster?
//!
//! Computed on the recorded graph of each trace ([`wall_with`](crate::trace::wall_with)): queues,
//! shared processors and caches stay as they were, so a replay has the last word.

use std::collections::{BTreeMap, BTreeSet};

use retake_schemas::RunId;
use serde::Serialize;

use crate::assemble::{Wanted, visit_traces};
use crate::error::AnalyzeError;
use crate::session::Analyzer;
use crate::stats::Sketch;
use crate::trace::wall_with;

/// The own work of a stage takes `factor` times as long: 0.5 is twice as fast, 0 is gone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageFactor {
    /// The stage.
    pub stage: String,
    /// From 0 to [`FACTOR_MAX`].
    pub factor: f64,
}

/// Largest factor that is taken for meant.
pub const FACTOR_MAX: f64 = 1_000.0;

/// Reads `STAGE*FACTOR`, several with commas between them.
///
/// # Errors
/// What is not of this form, and how to write it.
pub fn parse_factors(text: &str) -> Result<Vec<StageFactor>, String> {
    let one = |part: &str| {
        let expected = || format!("{part:?}: write STAGE*FACTOR, such as llm*0.5");
        let (stage, factor) = part.rsplit_once('*').ok_or_else(expected)?;
        let (stage, factor) = (stage.trim(), factor.trim().parse().map_err(|_| expected())?);
        match (0.0..=FACTOR_MAX).contains(&factor) && !stage.is_empty() {
            true => Ok(StageFactor { stage: stage.to_owned(), factor }),
            false => Err(expected()),
        }
    };
    let factors: Vec<StageFactor> =
        text.split(',').map(str::trim).map(one).collect::<Result<_, _>>()?;
    let mut seen = BTreeSet::new();
    match factors.iter().find(|factor| !seen.insert(&factor.stage)) {
        Some(twice) => Err(format!("{} is changed twice; one factor a stage", twice.stage)),
        None => Ok(factors),
    }
}

/// A measure of all traces before and after a change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// `mean`, `p50`, `p95` or `p99`.
    pub measure: &'static str,
    /// As recorded, ns; `None` when there is no trace.
    pub before_ns: Option<f64>,
    /// As computed, ns.
    pub after_ns: Option<f64>,
}

impl Prediction {
    /// Relative change: -0.1 is a tenth less.
    #[must_use]
    pub fn change(&self) -> Option<f64> {
        Some(self.after_ns? / self.before_ns.filter(|before| *before > 0.0)? - 1.0)
    }
}

/// Mean and percentiles (nearest rank) of a run's traces if stages took other times.
///
/// # Errors
/// The run is not in scope, a file is damaged, or the run has no such stage.
pub async fn what_if(
    analyzer: &Analyzer,
    run_id: &RunId,
    factors: &[StageFactor],
) -> Result<Vec<Prediction>, AnalyzeError> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut stages = BTreeSet::new();
    visit_traces(analyzer, run_id, Wanted::TIMES, |trace| {
        let factor =
            |stage: &str| factors.iter().find(|f| f.stage == stage).map_or(1.0, |f| f.factor);
        let mut of_spans = Vec::with_capacity(trace.spans.len());
        for span in trace.spans {
            let stage = trace.texts.text(span.stage);
            if !stages.contains(stage) {
                stages.insert(stage.to_owned());
            }
            of_spans.push(factor(stage));
        }
        before.push(trace.forest.wall_ns() as f64);
        after.push(wall_with(&trace.forest, &of_spans));
        Ok(())
    })
    .await?;
    if let Some(unknown) = factors.iter().find(|factor| !stages.contains(&factor.stage)) {
        return Err(no_stage(run_id, &unknown.stage, &stages));
    }
    let mut prediction = |(name, percent): &(&'static str, Option<usize>)| Prediction {
        measure: name,
        before_ns: measure(&mut before, *percent),
        after_ns: measure(&mut after, *percent),
    };
    Ok(MEASURES.iter().map(&mut prediction).collect())
}

/// How the traces of a run follow from one stage: its virtual speedup curve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeedupCurve {
    /// The stage.
    pub stage: String,
    /// In the order of [`CURVE_FACTORS`].
    pub points: Vec<SpeedupPoint>,
}

/// One point of a [`SpeedupCurve`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeedupPoint {
    /// What the stage's own work is multiplied by.
    pub factor: f64,
    /// Mean wall time of traces, ns.
    pub mean_ns: f64,
    /// 95th percentile of the wall times, ns; from a sketch whose error is below 1 %.
    pub p95_ns: f64,
    /// Relative change of the mean: -0.1 is a tenth less.
    pub mean_change: f64,
    /// Relative change of the 95th percentile.
    pub p95_change: f64,
}

/// The points of a curve: a tenth faster to gone.
pub const CURVE_FACTORS: [f64; 5] = [0.9, 0.75, 0.5, 0.25, 0.0];

/// The curve of every stage of a run, the one that saves most at twice the speed first. Memory does
/// not grow with traces.
///
/// # Errors
/// The run is not in scope, or a file is damaged.
pub async fn speedup_curves(
    analyzer: &Analyzer,
    run_id: &RunId,
) -> Result<Vec<SpeedupCurve>, AnalyzeError> {
    let mut recorded = Walls::default();
    let mut of_stages: BTreeMap<String, [Walls; CURVE_FACTORS.len()]> = BTreeMap::new();
    visit_traces(analyzer, run_id, Wanted::TIMES, |trace| {
        let wall = trace.forest.wall_ns();
        let present: BTreeSet<_> = trace.spans.iter().map(|span| span.stage).collect();
        for stage in present {
            let name = trace.texts.text(stage);
            if !of_stages.contains_key(name) {
                // The traces so far do not have the stage, and stay as they are.
                of_stages.insert(name.to_owned(), std::array::from_fn(|_| recorded.clone()));
            }
            let Some(curve) = of_stages.get_mut(name) else { continue };
            for (walls, factor) in curve.iter_mut().zip(CURVE_FACTORS) {
                let factors: Vec<f64> = trace
                    .spans
                    .iter()
                    .map(|span| if span.stage == stage { factor } else { 1.0 })
                    .collect();
                walls.add(wall_with(&trace.forest, &factors));
            }
        }
        recorded.add(wall as f64);
        for curve in of_stages.values_mut() {
            for walls in curve.iter_mut().filter(|walls| walls.count() < recorded.count()) {
                walls.add(wall as f64);
            }
        }
        Ok(())
    })
    .await?;
    let mut curves: Vec<SpeedupCurve> = of_stages
        .into_iter()
        .map(|(stage, walls)| {
            let points = walls.iter().zip(CURVE_FACTORS).map(|(walls, factor)| SpeedupPoint {
                factor,
                mean_ns: walls.mean(),
                p95_ns: walls.p95(),
                mean_change: relative(walls.mean(), recorded.mean()),
                p95_change: relative(walls.p95(), recorded.p95()),
            });
            SpeedupCurve { stage, points: points.collect() }
        })
        .collect();
    curves.sort_by(|a, b| a.at_half().total_cmp(&b.at_half()).then_with(|| a.stage.cmp(&b.stage)));
    Ok(curves)
}

impl SpeedupCurve {
    /// Relative change of the mean when the stage is twice as fast.
    #[must_use]
    pub fn at_half(&self) -> f64 {
        self.at(0.5).map_or(0.0, |point| point.mean_change)
    }

    /// The point of one of [`CURVE_FACTORS`].
    #[must_use]
    pub fn at(&self, factor: f64) -> Option<&SpeedupPoint> {
        self.points.iter().find(|point| point.factor == factor)
    }
}

/// Wall times of traces, ns.
#[derive(Debug, Clone, Default)]
struct Walls(Sketch);

impl Walls {
    fn add(&mut self, wall_ns: f64) {
        self.0.insert(wall_ns.round() as i64);
    }

    fn count(&self) -> u64 {
        self.0.count()
    }

    fn mean(&self) -> f64 {
        self.0.mean().unwrap_or(0.0)
    }

    fn p95(&self) -> f64 {
        self.0.quantile(0.95).unwrap_or(0.0)
    }
}

fn relative(after: f64, before: f64) -> f64 {
    if before > 0.0 { after / before - 1.0 } else { 0.0 }
}

fn no_stage(run_id: &RunId, stage: &str, known: &BTreeSet<String>) -> AnalyzeError {
    let known: Vec<&str> = known.iter().map(String::as_str).take(STAGES_SHOWN).collect();
    AnalyzeError::NoStage {
        run_id: run_id.clone(),
        stage: stage.to_owned(),
        known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
    }
}

/// The mean (no percentile), or the percentile by nearest rank; `None` of nothing.
fn measure(values: &mut [f64], percent: Option<usize>) -> Option<f64> {
    // Before the mean too: a sum of floats depends on their order.
    values.sort_unstable_by(f64::total_cmp);
    let Some(percent) = percent else {
        return (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    };
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied()
}

const MEASURES: [(&str, Option<usize>); 4] =
    [("mean", None), ("p50", Some(50)), ("p95", Some(95)), ("p99", Some(99))];
const STAGES_SHOWN: usize = 20;
