//! From the numbers of two sets of runs to a verdict.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::metric::Measure;
use crate::diff::DiffOptions;
use crate::model::{DiffRow, Verdict};
use crate::stats::{benjamini_hochberg, median, rank_sum};

/// What every row is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judge {
    pub(crate) options: DiffOptions,
    pub(crate) is_same_machine: bool,
    /// Confidence of the one-sided bound that must clear the practical minimum, such as 0.95.
    pub(crate) level: f64,
}

/// A row on its way to a verdict.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judged {
    row: DiffRow,
    /// `None` when there are too few runs to know what chance does.
    evidence: Option<Evidence>,
}

/// What speaks for a change; on the scale the measure is compared on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Evidence {
    /// Ends of the one-sided intervals.
    at_least: f64,
    at_most: f64,
    /// One-sided p-values of "more" and of "less".
    p_more: f64,
    p_less: f64,
    /// The practical minimum: what a change must clear to be one, and stay within to be none.
    least: f64,
    asked: f64,
}

impl Judge {
    /// The judge of a report with all its measures and stages, of which at most one in a hundred
    /// may find what is not there (measured by simulation in `tests.rs`).
    pub(crate) fn of_reports(options: &DiffOptions, is_same_machine: bool) -> Self {
        let options =
            DiffOptions { false_reports_max: options.false_reports_max.min(FALSE_MAX), ..*options };
        Self { options, is_same_machine, level: 0.95 }
    }

    /// Compares one measure. `base` and `candidate` hold one value a run.
    ///
    /// Ratios are compared on the log scale, shares as they are. The interval is Student's with
    /// the variance of both sides pooled; where a side has fewer runs than [`RUNS_MIN`], a prior
    /// for the run-to-run variation goes into it. The p-value is the larger one of Student's and,
    /// where both sides have that many runs, the exact rank-sum test's.
    pub(crate) fn compare(
        &self,
        stage: &str,
        metric: Measure<'_>,
        base: &[f64],
        candidate: &[f64],
    ) -> Judged {
        let mut row = DiffRow {
            stage: stage.to_owned(),
            metric: metric.name.to_owned(),
            unit: metric.unit.to_owned(),
            base: median(base).unwrap_or(0.0),
            candidate: median(candidate).unwrap_or(0.0),
            effect: 0.0,
            effect_ci: [0.0, 0.0],
            p_adjusted: None,
            n_base: base.len() as u64,
            n_candidate: candidate.len() as u64,
            verdict: Verdict::Inconclusive,
            explains_share: None,
            note: None,
            resolvable: None,
            runs_needed: None,
        };
        let on_scale = |values: &[f64]| -> Option<Vec<f64>> {
            match metric.is_ratio {
                false => Some(values.to_vec()),
                true => values.iter().map(|v| (*v > 0.0).then(|| v.ln())).collect(),
            }
        };
        let (before, after) = match (on_scale(base), on_scale(candidate)) {
            (Some(before), Some(after)) if !before.is_empty() && !after.is_empty() => {
                (before, after)
            }
            _ => return one_sided(row),
        };
        let shown = |value: f64| if metric.is_ratio { value.exp_m1() } else { value };
        let spread = Spread::new(&before, &after, metric.is_ratio);
        let effect = shift(&before, &after);
        let half = spread.student.inverse_cdf(0.975) * spread.error;
        row.effect = shown(effect);
        row.effect_ci = [shown(effect - half), shown(effect + half)];
        if base.len().max(candidate.len()) < RUNS_MIN {
            row.runs_needed = Some(RUNS_MIN as u64);
            row.note = Some(crate::diff::judge::NEEDS_MORE.to_owned());
            return Judged { row, evidence: None };
        }
        let asked = self.asked(metric);
        let least = noise_floor(&before, after.len()).max(asked);
        let bound = spread.student.inverse_cdf(self.level) * spread.error;
        let [p_more, p_less] = spread.p_values(&before, &after, effect);
        row.resolvable = Some(shown(least + bound + Z_80 * spread.error));
        let per_side = 2.0 * ((Z_95 + Z_80) * spread.deviation / least).powi(2);
        row.runs_needed = Some((per_side.ceil() as u64).clamp(RUNS_MIN as u64, RUNS_NEEDED_MAX));
        let evidence = Evidence {
            at_least: effect - bound,
            at_most: effect + bound,
            p_more,
            p_less,
            least,
            asked,
        };
        Judged { row, evidence: Some(evidence) }
    }

    /// The practical minimum that the options ask for, on the measure's scale.
    fn asked(&self, metric: Measure<'_>) -> f64 {
        match metric.is_ratio {
            true => self.options.effect_min.ln_1p(),
            false => SHARE_MIN,
        }
    }

    /// Gives rows of one family their verdicts. p-values are adjusted for the number of rows that
    /// point the same way: a report of what got worse asks one question of each of those only.
    pub(crate) fn decide(&self, mut judged: Vec<Judged>) -> Vec<DiffRow> {
        for is_more in [true, false] {
            let pointing: Vec<&mut Judged> = judged
                .iter_mut()
                .filter(|judged| judged.evidence.is_some() && (judged.row.effect > 0.0) == is_more)
                .collect();
            let p_values: Vec<f64> = pointing
                .iter()
                .filter_map(|judged| judged.evidence)
                .map(|evidence| if is_more { evidence.p_more } else { evidence.p_less })
                .collect();
            for (judged, p) in pointing.into_iter().zip(benjamini_hochberg(&p_values)) {
                judged.row.p_adjusted = Some(p);
            }
        }
        judged.into_iter().map(|judged| self.decide_one(judged)).collect()
    }

    fn decide_one(&self, judged: Judged) -> DiffRow {
        let Judged { mut row, evidence } = judged;
        let Some(evidence) = evidence else { return row };
        if !self.is_same_machine {
            row.note = Some("the machines differ".to_owned());
            row.runs_needed = None;
            return row;
        }
        let is_sure = row.p_adjusted.is_some_and(|p| p <= self.options.false_reports_max);
        let is_small = row.unit == "ns"
            && (row.candidate - row.base).abs() < self.options.change_ns_min as f64;
        let is_more = evidence.at_least > evidence.least;
        let is_less = evidence.at_most < -evidence.least;
        let is_within = -evidence.asked <= evidence.at_least && evidence.at_most <= evidence.asked;
        if (is_more || is_less) && is_small {
            row.verdict = Verdict::Same;
            row.note = Some("the change is too small in absolute terms to matter".to_owned());
        } else if is_more && is_sure {
            row.verdict = Verdict::Worse;
        } else if is_less && is_sure {
            row.verdict = Verdict::Better;
        } else if is_within {
            row.verdict = Verdict::Same;
        } else {
            let needed = row.runs_needed.unwrap_or(0).max(row.n_base.min(row.n_candidate) + 1);
            row.runs_needed = Some(needed);
            row.note = Some("too uncertain; more runs would tell".to_owned());
            return row;
        }
        row.runs_needed = None;
        row
    }
}

/// What the base's runs differ by anyway: three times their median absolute deviation, over the
/// root of the smaller side's number of runs. With one new run that is the spread of single runs;
/// the median of ten runs moves less, and a change of it matters sooner.
fn noise_floor(base: &[f64], candidates: usize) -> f64 {
    if base.len() < RUNS_MIN {
        return 0.0;
    }
    let middle = median(base).unwrap_or(0.0);
    let deviations: Vec<f64> = base.iter().map(|value| (value - middle).abs()).collect();
    let runs = base.len().min(candidates).max(1) as f64;
    3.0 * median(&deviations).unwrap_or(0.0) / runs.sqrt()
}

/// How far the difference of two sides may be off by chance.
struct Spread {
    /// Standard deviation of a run.
    deviation: f64,
    /// Standard error of the difference.
    error: f64,
    student: StudentsT,
}

impl Spread {
    fn new(base: &[f64], candidate: &[f64], is_ratio: bool) -> Self {
        let squares = |side: &[f64]| {
            let mean = side.iter().sum::<f64>() / side.len().max(1) as f64;
            side.iter().map(|value| (value - mean).powi(2)).sum::<f64>()
        };
        let (before, after) = (base.len() as f64, candidate.len() as f64);
        let is_few = base.len().min(candidate.len()) < RUNS_MIN;
        let prior = if is_few { PRIOR_FREEDOM } else { 0.0 };
        let freedom = (prior + before + after - 2.0).max(PRIOR_FREEDOM);
        let sigma = if is_ratio { SIGMA_PRIOR } else { SIGMA_PRIOR_SHARE };
        let all = prior * sigma.powi(2) + squares(base) + squares(candidate);
        // Runs that agree to the last digit still differ by what the clock cannot show.
        let deviation = (all / freedom).sqrt().max(DEVIATION_MIN);
        let error = deviation * (1.0 / before + 1.0 / after).sqrt();
        // Both parameters are positive here, which is all the constructor asks for.
        let student = StudentsT::new(0.0, 1.0, freedom)
            .or_else(|_| StudentsT::new(0.0, 1.0, 1.0))
            .unwrap_or_else(|_| unreachable!("one degree of freedom is positive"));
        Self { deviation, error, student }
    }

    /// One-sided p-values of "the candidate is more" and "is less".
    fn p_values(&self, base: &[f64], candidate: &[f64], effect: f64) -> [f64; 2] {
        let more = self.student.cdf(-effect / self.error);
        let student = [more, 1.0 - more];
        let is_enough = base.len().min(candidate.len()) >= RUNS_MIN;
        // Counting ranks takes a while, and decides nothing where Student's is large already.
        let is_close = more.min(1.0 - more) <= RANKS_FROM;
        if !(is_enough && is_close) {
            return student;
        }
        match (rank_sum(base, candidate), rank_sum(candidate, base)) {
            // Whichever is more careful: ranks mind no outlier, few ranks mind no distance.
            (Some(more), Some(less)) => {
                [student[0].max(more.p_greater), student[1].max(less.p_greater)]
            }
            _ => student,
        }
    }
}

/// Hodges and Lehmann's estimate: the median of all differences between the sides.
fn shift(base: &[f64], candidate: &[f64]) -> f64 {
    let differences: Vec<f64> =
        candidate.iter().flat_map(|after| base.iter().map(move |before| after - before)).collect();
    median(&differences).unwrap_or(0.0)
}

/// Only one side has it, or it is zero in a run: there is no ratio to estimate.
fn one_sided(mut row: DiffRow) -> Judged {
    let (effect, text) = match (row.n_base, row.n_candidate) {
        (_, 0) => (-1.0, "only in the base"),
        // JSON has no infinity; it becomes null.
        (0, _) => (f64::INFINITY, "only in the candidate"),
        _ => (f64::NAN, "zero in some runs, so there is no ratio"),
    };
    row.effect = effect;
    row.effect_ci = [effect, effect];
    row.note = Some(text.to_owned());
    Judged { row, evidence: None }
}

/// With fewer runs than this on both sides nobody can say what chance does: the smallest p-value
/// of three against three is 0.1.
pub(super) const RUNS_MIN: usize = 4;
/// Largest adjusted p-value of a finding in a report: what keeps false alarms below one report in
/// a hundred on machines where runs differ by 30 %.
const FALSE_MAX: f64 = 0.0075;
/// Student's p-values above this are not looked at more closely.
const RANKS_FROM: f64 = 0.1;
/// Run-to-run standard deviation assumed before there are runs to see it, and its weight; as for
/// replays (`diff/noise.rs`).
const SIGMA_PRIOR: f64 = 0.15;
/// The same for shares, which are mostly near zero: half an operation in a hundred.
const SIGMA_PRIOR_SHARE: f64 = 0.005;
const PRIOR_FREEDOM: f64 = 0.5;
const DEVIATION_MIN: f64 = 1e-4;
/// Smallest difference of shares worth reporting: one operation in a hundred.
const SHARE_MIN: f64 = 0.01;
/// More runs than this are no plan.
const RUNS_NEEDED_MAX: u64 = 1_000;
/// The values a standard normal variable exceeds with probabilities 0.05 and 0.2.
const Z_95: f64 = 1.644_853_626_951_472_2;
const Z_80: f64 = 0.841_621_233_572_914_3;
