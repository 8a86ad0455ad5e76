//! What a sweep came to: each setting against the recorded one and against the best.

use std::collections::BTreeMap;

use retake_analyzer::stats::{Blocks, Interval, SpreadPrior, median};
use retake_replay::cost::{CallFit, Estimate, Unknown};
use retake_replay::sweep::{Better, Objective, Point, pareto};
use retake_schemas::RunId;
use serde_json::Value as Json;

use crate::failure::Code;

/// One setting.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) point: Point,
    /// The pipeline's settings under it.
    pub(crate) target: BTreeMap<String, Json>,
    /// Whether it changes nothing of the recorded run.
    pub(crate) is_as_recorded: bool,
    pub(crate) predicted: BTreeMap<Objective, Predicted>,
    pub(crate) measured: Vec<Measurement>,
    /// Replays that may not be used, and why.
    pub(crate) failures: Vec<(RunId, String)>,
}

/// A prediction, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Predicted {
    As(Estimate),
    Not(Unknown),
}

/// One replay of a setting.
#[derive(Debug, Clone)]
pub(crate) struct Measurement {
    pub(crate) run_id: RunId,
    pub(crate) block: usize,
    pub(crate) values: BTreeMap<Objective, f64>,
}

/// What was found, before it is judged.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) run_id: RunId,
    pub(crate) source: String,
    pub(crate) objectives: Vec<Objective>,
    pub(crate) rows: Vec<Row>,
    pub(crate) base: usize,
    pub(crate) calibrations: Vec<RunId>,
    pub(crate) fits: Vec<(String, CallFit)>,
    pub(crate) calibration: f64,
}

/// A sweep that is over.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) found: Found,
    /// Of each objective, of each row: the mean of what was measured.
    pub(crate) means: BTreeMap<Objective, Vec<Option<f64>>>,
    /// Of each row, by the first objective.
    pub(crate) standings: Vec<Standing>,
    /// Row that is best by the first objective.
    pub(crate) best: Option<usize>,
    /// Rows that no other beats in everything.
    pub(crate) front: Vec<usize>,
    pub(crate) regret: Option<Regret>,
    /// Standard deviation of a replay inside its block, as a share.
    pub(crate) noise: Option<f64>,
}

/// How a row stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Standing {
    /// Against the row as recorded.
    pub(crate) to_base: Compared,
    /// Against the best row.
    pub(crate) to_best: Compared,
}

/// A ratio and what may be said about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Compared {
    /// It is the row itself.
    Itself,
    /// One of them was not measured.
    Unknown,
    /// The interval lies on the good side of 1.
    Better(Interval),
    /// The interval lies on the bad side of 1.
    Worse(Interval),
    /// The interval lies within 5 % of 1.
    Same(Interval),
    /// The interval does not tell.
    Undecided(Interval),
}

/// How good the predictions were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Regret {
    /// Row predicted to be best, of those measured.
    pub(crate) predicted_best: usize,
    /// How much worse it is than the best measured, as a share of that: 0 when it is the best.
    pub(crate) regret: f64,
    /// Median size of (measured / predicted - 1).
    pub(crate) error_median: f64,
    /// Predictions whose interval held the mean of what was measured.
    pub(crate) inside: usize,
    /// Predictions that were measured.
    pub(crate) of: usize,
}

impl Row {
    pub(crate) fn new(point: Point, target: BTreeMap<String, Json>, is_as_recorded: bool) -> Self {
        Self {
            point,
            target,
            is_as_recorded,
            predicted: BTreeMap::new(),
            measured: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn label(&self) -> String {
        self.point.label.clone()
    }

    /// Predictions, `NAN` where there are none.
    pub(crate) fn predicted_values(&self, objectives: &[Objective]) -> Vec<f64> {
        let of = |objective| match self.predicted.get(objective) {
            Some(Predicted::As(estimate)) => estimate.estimate,
            _ => f64::NAN,
        };
        objectives.iter().map(of).collect()
    }

    /// Means of what was measured, `NAN` where nothing was.
    pub(crate) fn measured_values(&self, objectives: &[Objective]) -> Vec<f64> {
        objectives.iter().map(|objective| self.mean(*objective).unwrap_or(f64::NAN)).collect()
    }

    fn mean(&self, objective: Objective) -> Option<f64> {
        let values: Vec<f64> =
            self.measured.iter().filter_map(|m| m.values.get(&objective).copied()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }
}

impl From<Result<Estimate, Unknown>> for Predicted {
    fn from(found: Result<Estimate, Unknown>) -> Self {
        match found {
            Ok(estimate) => Self::As(estimate),
            Err(unknown) => Self::Not(unknown),
        }
    }
}

impl Outcome {
    pub(crate) fn of(found: Found) -> Self {
        let means: BTreeMap<Objective, Vec<Option<f64>>> = found
            .objectives
            .iter()
            .map(|objective| {
                (*objective, found.rows.iter().map(|row| row.mean(*objective)).collect())
            })
            .collect();
        let better: Vec<Better> = found.objectives.iter().map(|o| o.better()).collect();
        let values: Vec<Vec<f64>> =
            found.rows.iter().map(|row| row.measured_values(&found.objectives)).collect();
        let mut outcome = Self {
            front: pareto::front(&values, &better),
            means,
            standings: Vec::new(),
            best: None,
            regret: None,
            noise: None,
            found,
        };
        outcome.judge();
        outcome
    }

    /// The first objective, by which settings are ranked.
    pub(crate) fn first(&self) -> Option<Objective> {
        self.found.objectives.first().copied()
    }

    fn judge(&mut self) {
        let unknown = Standing { to_base: Compared::Unknown, to_best: Compared::Unknown };
        self.standings = vec![unknown; self.found.rows.len()];
        let Some(objective) = self.first() else { return };
        let Some(blocks) = self.blocks(objective) else { return };
        let cost = |row: usize| {
            let mean = blocks.mean(row)?;
            Some(if objective.better() == Better::Higher { -mean } else { mean })
        };
        let measured = (0..self.found.rows.len()).filter_map(|row| Some((row, cost(row)?)));
        let best = measured.clone().min_by(|a, b| a.1.total_cmp(&b.1)).map(|(row, _)| row);
        let comparisons = measured.count().saturating_sub(1);
        let Some(best) = best else { return };
        let base = self.found.base;
        for (row, standing) in self.standings.iter_mut().enumerate() {
            let to = |other: usize| match row == other {
                true => Compared::Itself,
                false => compared(blocks.difference(other, row, comparisons), objective.better()),
            };
            *standing = Standing { to_base: to(base), to_best: to(best) };
        }
        self.best = Some(best);
        self.noise = Some(blocks.sd());
        self.regret = self.regret(objective, &blocks, best);
    }

    /// Logarithms of an objective by row and block.
    fn blocks(&self, objective: Objective) -> Option<Blocks> {
        let count =
            self.found.rows.iter().flat_map(|row| &row.measured).map(|m| m.block + 1).max()?;
        let row_values = |row: &Row| {
            let mut values = vec![f64::NAN; count];
            for measurement in &row.measured {
                let value = measurement.values.get(&objective).map_or(f64::NAN, |value| value.ln());
                if let Some(cell) = values.get_mut(measurement.block) {
                    *cell = value;
                }
            }
            values
        };
        let values: Vec<Vec<f64>> = self.found.rows.iter().map(row_values).collect();
        Blocks::of(&values, PRIOR)
    }

    fn regret(&self, objective: Objective, blocks: &Blocks, best: usize) -> Option<Regret> {
        let predicted = |row: usize| match self.found.rows.get(row)?.predicted.get(&objective)? {
            Predicted::As(estimate) => Some(*estimate),
            Predicted::Not(_) => None,
        };
        let both: Vec<(usize, Estimate, f64)> = (0..self.found.rows.len())
            .filter_map(|row| Some((row, predicted(row)?, blocks.mean(row)?.exp())))
            .collect();
        let cost = |estimate: &Estimate| match objective.better() {
            Better::Higher => -estimate.estimate,
            Better::Lower => estimate.estimate,
        };
        let predicted_best = both.iter().min_by(|a, b| cost(&a.1).total_cmp(&cost(&b.1)))?.0;
        let log_ratio = blocks.mean(predicted_best)? - blocks.mean(best)?;
        let regret = match objective.better() {
            Better::Higher => 1.0 - log_ratio.exp(),
            Better::Lower => log_ratio.exp() - 1.0,
        };
        let errors: Vec<f64> =
            both.iter().map(|(_, estimate, mean)| (mean / estimate.estimate - 1.0).abs()).collect();
        let is_inside = |(_, estimate, mean): &&(usize, Estimate, f64)| {
            (estimate.low..=estimate.high).contains(mean)
        };
        Some(Regret {
            predicted_best,
            regret: regret.max(0.0),
            error_median: median(&errors)?,
            inside: both.iter().filter(is_inside).count(),
            of: both.len(),
        })
    }

    /// Rows that cannot be told from the best.
    pub(crate) fn ties(&self) -> Vec<usize> {
        let is_tied =
            |compared: &Compared| matches!(compared, Compared::Same(_) | Compared::Undecided(_));
        let rows = self.standings.iter().enumerate();
        rows.filter(|(_, standing)| is_tied(&standing.to_best)).map(|(row, _)| row).collect()
    }

    /// How the sweep ends: settings that all cannot be told apart are no answer.
    pub(crate) fn code(&self) -> Code {
        let measured = self.found.rows.iter().filter(|row| !row.measured.is_empty()).count();
        let replayed = self.found.rows.iter().any(|row| !row.failures.is_empty());
        if measured == 0 {
            return if replayed { Code::ReplayInvalid } else { Code::Ok };
        }
        let others: Vec<&Compared> = self
            .standings
            .iter()
            .map(|standing| &standing.to_best)
            .filter(|compared| !matches!(compared, Compared::Itself | Compared::Unknown))
            .collect();
        let is_undecided = |compared: &&Compared| matches!(compared, Compared::Undecided(_));
        if !others.is_empty() && others.iter().all(is_undecided) {
            Code::TooNoisy
        } else {
            Code::Ok
        }
    }
}

fn compared(difference: Option<Interval>, better: Better) -> Compared {
    let Some(difference) = difference else { return Compared::Unknown };
    let ratio = Interval {
        estimate: difference.estimate.exp(),
        low: difference.low.exp(),
        high: difference.high.exp(),
    };
    let (above, below) = (ratio.low > 1.0, ratio.high < 1.0);
    if ratio.low > 1.0 / SAME && ratio.high < SAME {
        Compared::Same(ratio)
    } else if (above && better == Better::Higher) || (below && better == Better::Lower) {
        Compared::Better(ratio)
    } else if above || below {
        Compared::Worse(ratio)
    } else {
        Compared::Undecided(ratio)
    }
}

/// Two settings this close are the same for anyone who has to choose, as in `retake diff`.
const SAME: f64 = 1.05;
/// As in `retake diff`: run-to-run variation of 15 %, with the weight of half a degree of freedom.
const PRIOR: SpreadPrior = SpreadPrior { sd: 0.15, weight: 0.5 };

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: &str, throughputs: &[f64], predicted: Option<f64>) -> Row {
        let axis = retake_replay::sweep::Axis::parse(&format!("b={value},other")).unwrap();
        let point = retake_replay::sweep::grid(&[axis]).unwrap().swap_remove(0);
        let mut row = Row::new(point, BTreeMap::new(), false);
        for (block, throughput) in throughputs.iter().enumerate() {
            row.measured.push(Measurement {
                run_id: "r".parse().unwrap(),
                block,
                values: [(Objective::Throughput, *throughput)].into(),
            });
        }
        let estimate = |e: f64| Estimate { estimate: e, low: 0.9 * e, high: 1.1 * e };
        let unknown = || Unknown { reason: String::new(), is_learnable: false };
        let predicted: Predicted = predicted.map(estimate).ok_or_else(unknown).into();
        row.predicted.insert(Objective::Throughput, predicted);
        row
    }

    fn outcome(rows: Vec<Row>) -> Outcome {
        Outcome::of(Found {
            run_id: "s".parse().unwrap(),
            source: "r".to_owned(),
            objectives: vec![Objective::Throughput],
            rows,
            base: 0,
            calibrations: Vec::new(),
            fits: Vec::new(),
            calibration: 1.0,
        })
    }

    /// Scenario: a setting twice as good, one as good as that, and one that nobody measured, in four
    /// quiet blocks of which one was slow for all.
    /// Guarantees: what is told apart and what is not; the slow block decides nothing; the regret is
    /// that of the setting that was predicted to be best.
    #[test]
    fn settings_are_told_apart_or_said_not_to_be() {
        let found = outcome(vec![
            row("4", &[100.0, 101.0, 70.0, 99.0], Some(100.0)),
            row("32", &[200.0, 203.0, 139.0, 199.0], Some(260.0)),
            row("64", &[204.0, 201.0, 141.0, 201.0], Some(205.0)),
            row("128", &[], None),
        ]);
        assert_eq!(found.best, Some(2));
        let Standing { to_base: Compared::Better(ratio), to_best } = found.standings[1] else {
            panic!("{:?}", found.standings)
        };
        assert!((ratio.estimate - 2.0).abs() < 0.03 && ratio.low > 1.8, "{ratio:?}");
        assert!(matches!(to_best, Compared::Same(_) | Compared::Undecided(_)), "{to_best:?}");
        assert_eq!(found.ties(), [1]);
        assert!(matches!(found.standings[0].to_best, Compared::Worse(_)));
        assert_eq!(found.standings[3].to_base, Compared::Unknown);
        assert_eq!((found.front.clone(), found.code()), (vec![2], Code::Ok));
        let regret = found.regret.unwrap();
        assert_eq!((regret.predicted_best, regret.of), (1, 3));
        assert!(regret.regret < 0.02, "{regret:?}");
    }

    /// Scenario: settings whose replays differ more among themselves than from one another.
    /// Guarantees: no verdict, and the exit code that says so.
    #[test]
    fn noise_is_not_called_a_difference() {
        let found = outcome(vec![
            row("4", &[100.0, 190.0, 90.0, 160.0], None),
            row("32", &[170.0, 100.0, 150.0, 95.0], None),
        ]);
        assert_eq!(found.code(), Code::TooNoisy);
        assert_eq!(
            outcome(vec![row("4", &[], Some(1.0)), row("8", &[], Some(2.0))]).code(),
            Code::Ok
        );
    }
}
