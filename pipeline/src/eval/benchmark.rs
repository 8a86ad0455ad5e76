//! How good a judge is: its judgements against labels that people gave.
//!
//! What could not be judged is counted and left out, never compared as a 0. A figure that has no
//! meaning (a correlation of one pair, or of labels that are all the same) is absent.

use serde::Serialize;

use super::judge::{INCONCLUSIVE, Judgement};

/// A judge against labels.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct JudgeBenchmark {
    /// Items with a label.
    pub labelled: u64,
    /// Of these, judged.
    pub judged: u64,
    /// Of these, the reply could not be read.
    pub invalid: u64,
    /// Of these, the judge failed.
    pub failed: u64,
    /// Of these, the evaluator lacked what it needs.
    pub not_applicable: u64,
    /// Share of the judged with exactly the label's score.
    pub agreement: Option<f64>,
    /// Mean distance of score and label.
    pub mean_absolute_error: Option<f64>,
    /// Pearson's correlation of scores and labels.
    pub pearson: Option<f64>,
    /// Spearman's rank correlation of scores and labels.
    pub spearman: Option<f64>,
    /// Of a comparison: judged as equal.
    pub ties: u64,
    /// Of a comparison: decided by the order of the answers.
    pub inconclusive: u64,
    /// Of a comparison: share of agreement where neither judge nor label says equal.
    pub agreement_without_ties: Option<f64>,
}

/// Compares judgements with labels. `is_comparison`: scores are 1, 0.5 and 0.
#[must_use]
pub fn benchmark<'j>(
    pairs: impl Iterator<Item = (&'j Judgement, f64)>,
    is_comparison: bool,
) -> JudgeBenchmark {
    let mut found = JudgeBenchmark::default();
    let mut scored: Vec<(f64, f64)> = Vec::new();
    for (judgement, label) in pairs {
        found.labelled += 1;
        match judgement.score {
            Some(score) => {
                found.judged += 1;
                let is_inconclusive =
                    is_comparison && judgement.feedback.as_deref() == Some(INCONCLUSIVE);
                found.inconclusive += u64::from(is_inconclusive);
                found.ties += u64::from(is_comparison && !is_inconclusive && is_same(score, TIE));
                // Saying nothing is no agreement with anything.
                if !is_inconclusive {
                    scored.push((score, label));
                }
            }
            None if judgement.error.is_some() => found.failed += 1,
            None if judgement.not_applicable.is_some() => found.not_applicable += 1,
            None => found.invalid += 1,
        }
    }
    let agrees = |(score, label): &&(f64, f64)| is_same(*score, *label);
    found.agreement = share(scored.iter().filter(agrees).count(), scored.len());
    found.mean_absolute_error = mean(scored.iter().map(|(score, label)| (score - label).abs()));
    found.pearson = pearson(&scored);
    found.spearman = pearson(&ranked(&scored));
    if is_comparison {
        let decided: Vec<&(f64, f64)> = scored
            .iter()
            .filter(|(score, label)| !is_same(*score, TIE) && !is_same(*label, TIE))
            .collect();
        let agreeing = decided.iter().filter(|pair| is_same(pair.0, pair.1)).count();
        found.agreement_without_ties = share(agreeing, decided.len());
    }
    found
}

fn is_same(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-9
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Pearson's correlation; absent where one side does not vary.
fn pearson(pairs: &[(f64, f64)]) -> Option<f64> {
    let one = mean(pairs.iter().map(|pair| pair.0))?;
    let other = mean(pairs.iter().map(|pair| pair.1))?;
    let sum = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>();
    let both = sum(&|pair| (pair.0 - one) * (pair.1 - other));
    let spread = sum(&|pair| (pair.0 - one).powi(2)) * sum(&|pair| (pair.1 - other).powi(2));
    (spread > 0.0).then(|| (both / spread.sqrt()).clamp(-1.0, 1.0))
}

/// The ranks of both sides; equal values share the mean of their ranks.
fn ranked(pairs: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let ranks = |values: Vec<f64>| -> Vec<f64> {
        values
            .iter()
            .map(|value| {
                let below = values.iter().filter(|other| **other < *value).count();
                let same = values.iter().filter(|other| is_same(**other, *value)).count();
                below as f64 + (same as f64 + 1.0) / 2.0
            })
            .collect()
    };
    let one = ranks(pairs.iter().map(|pair| pair.0).collect());
    let other = ranks(pairs.iter().map(|pair| pair.1).collect());
    one.into_iter().zip(other).collect()
}

/// The score of equal answers.
const TIE: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(score: f64) -> Judgement {
        Judgement::scored(score, true, String::new())
    }

    fn of(pairs: &[(Judgement, f64)], is_comparison: bool) -> JudgeBenchmark {
        benchmark(pairs.iter().map(|(judgement, label)| (judgement, *label)), is_comparison)
    }

    fn close(one: Option<f64>, other: f64) -> bool {
        one.is_some_and(|one| (one - other).abs() < 1e-12)
    }

    /// Scenario: scores and labels whose correlations are known (Pearson by hand, ranks with ties).
    #[test]
    fn agreement_and_correlation_are_those_of_the_books() {
        let pairs = [(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 4.0), (5.0, 5.0)];
        let pairs = pairs.map(|(score, label)| (scored(score), label));
        let found = of(&pairs, false);
        assert!(close(found.agreement, 0.6) && close(found.mean_absolute_error, 0.4));
        assert!(close(found.pearson, 0.9) && close(found.spearman, 0.9), "{found:?}");
        let tied = [(1.0, 10.0), (1.0, 20.0), (2.0, 20.0), (3.0, 1000.0)];
        let found = of(&tied.map(|(score, label)| (scored(score), label)), false);
        // Ranks 1.5 1.5 3 4 and 1 2.5 2.5 4.
        assert!(close(found.spearman, 3.75 / 4.5), "{found:?}");
    }

    /// Scenario: no reply could be read, where LlamaIndex's benchmark divides by zero.
    #[test]
    fn a_judge_whose_every_reply_is_invalid_has_no_figures() {
        let found = of(&[(Judgement::invalid("x"), 1.0), (Judgement::invalid("y"), 0.0)], true);
        assert_eq!((found.labelled, found.judged, found.invalid), (2, 0, 2));
        assert_eq!(
            (found.agreement, found.pearson, found.agreement_without_ties),
            (None, None, None)
        );
        assert_eq!(of(&[], false), JudgeBenchmark::default());
        let same = of(&[(scored(1.0), 1.0), (scored(1.0), 1.0)], false);
        assert_eq!((same.agreement, same.pearson), (Some(1.0), None));
    }

    /// Guarantees: ties and changes of mind are counted apart, and the latter agree with nothing.
    #[test]
    fn ties_and_changes_of_mind_are_counted_apart() {
        let inconclusive = Judgement::scored(0.5, false, INCONCLUSIVE.to_owned());
        let failed = Judgement { error: Some("503".to_owned()), ..Judgement::default() };
        let found = of(
            &[
                (scored(1.0), 1.0),
                (scored(0.0), 1.0),
                (scored(0.5), 0.5),
                (scored(0.5), 0.0),
                (inconclusive, 0.5),
                (failed, 1.0),
                (Judgement::not_applicable("x"), 1.0),
            ],
            true,
        );
        assert_eq!((found.ties, found.inconclusive), (2, 1));
        assert_eq!((found.judged, found.failed, found.not_applicable), (5, 1, 1));
        assert!(close(found.agreement, 0.5) && close(found.agreement_without_ties, 0.5));
    }
}
