//! Several treatments, each measured once in every block: a randomised block design.
//!
//! What a block has in common (the machine was busy in that hour) is taken out of all its values
//! alike, so only the differences inside blocks count (Fisher 1935; Montgomery 2017, chapter 4).

use super::Interval;
use super::run_spread::{RunSpread, SpreadPrior};
use super::student;

/// Treatments and how far their values scatter inside blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocks {
    /// Mean of each treatment, adjusted for the blocks it was in; `NAN` when it was in none.
    means: Vec<f64>,
    /// How often each treatment was measured.
    counts: Vec<usize>,
    /// Standard deviation of one value, and what is known about it.
    spread: RunSpread,
}

impl Blocks {
    /// Of values by treatment and block, on the scale of logarithms if differences are to be
    /// logarithms of ratios. What was not measured is `NAN`.
    ///
    /// The model is value = treatment + block + error; missing values are allowed for by least
    /// squares, found by turns of both (they converge, as the design is connected or not). The error
    /// has as many degrees of freedom as there are values, less one for each treatment and for each
    /// block but one, and those of `prior` (Smyth 2004, section 3). `None` when nothing was measured
    /// or nothing is known of the error.
    #[must_use]
    pub fn of(values: &[Vec<f64>], prior: SpreadPrior) -> Option<Self> {
        let blocks = values.iter().map(Vec::len).max().unwrap_or(0);
        let cells: Vec<(usize, usize, f64)> = values
            .iter()
            .enumerate()
            .flat_map(|(treatment, row)| {
                row.iter().enumerate().map(move |(block, value)| (treatment, block, *value))
            })
            .filter(|cell| cell.2.is_finite())
            .collect();
        let count_of = |of: &dyn Fn(&(usize, usize, f64)) -> usize, number: usize| {
            cells.iter().filter(|cell| of(cell) == number).count()
        };
        let counts: Vec<usize> =
            (0..values.len()).map(|treatment| count_of(&|cell| cell.0, treatment)).collect();
        let block_counts: Vec<usize> =
            (0..blocks).map(|block| count_of(&|cell| cell.1, block)).collect();
        let (mut means, mut offsets) = (vec![0.0; values.len()], vec![0.0; blocks]);
        for _ in 0..ROUNDS {
            let before = means.clone();
            means.fill(0.0);
            for (treatment, block, value) in &cells {
                means[*treatment] += value - offsets[*block];
            }
            means.iter_mut().zip(&counts).for_each(|(sum, count)| *sum /= *count as f64);
            offsets.fill(0.0);
            for (treatment, block, value) in &cells {
                offsets[*block] += value - means[*treatment];
            }
            offsets
                .iter_mut()
                .zip(&block_counts)
                .for_each(|(sum, count)| *sum /= (*count).max(1) as f64);
            let moved = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-12;
            if !means.iter().zip(&before).any(moved) {
                break;
            }
        }
        let squares: f64 = cells
            .iter()
            .map(|(treatment, block, value)| (value - means[*treatment] - offsets[*block]).powi(2))
            .sum();
        let measured = counts.iter().filter(|count| **count > 0).count();
        let used = block_counts.iter().filter(|count| **count > 0).count();
        let freedom = cells.len().saturating_sub((measured + used).saturating_sub(1));
        let sd = if freedom > 0 { (squares / freedom as f64).sqrt() } else { 0.0 };
        let spread = RunSpread::of_sd(sd, freedom + 1, prior)?;
        (measured > 0).then_some(Self { means, counts, spread })
    }

    /// Mean of a treatment, adjusted for its blocks; `None` when it was not measured.
    #[must_use]
    pub fn mean(&self, treatment: usize) -> Option<f64> {
        self.means.get(treatment).copied().filter(|mean| mean.is_finite())
    }

    /// Standard deviation of one value inside its block.
    #[must_use]
    pub fn sd(&self) -> f64 {
        self.spread.sd
    }

    /// How far `treatment` lies above `base`, with an interval that holds for `comparisons` of them
    /// at once with 95 % (Bonferroni). `None` when one was not measured.
    #[must_use]
    pub fn difference(
        &self,
        base: usize,
        treatment: usize,
        comparisons: usize,
    ) -> Option<Interval> {
        let estimate = self.mean(treatment)? - self.mean(base)?;
        let share = |treatment: usize| self.counts.get(treatment).map(|count| 1.0 / *count as f64);
        let confidence = 1.0 - 0.05 / comparisons.max(1) as f64;
        let width = student::two_sided(confidence, self.spread.degrees_of_freedom)
            * self.spread.sd
            * (share(base)? + share(treatment)?).sqrt();
        Some(Interval { estimate, low: estimate - width, high: estimate + width })
    }
}

/// Turns converge by a constant factor each; a complete design is done after one.
const ROUNDS: usize = 200;

#[cfg(test)]
mod tests {
    use super::super::SplitMix64;
    use super::*;

    const NOTHING: SpreadPrior = SpreadPrior { sd: 0.0, weight: 0.0 };

    /// Scenario: the tips of a hardness tester on four coupons (Montgomery, Design and Analysis of
    /// Experiments, 4.1).
    /// Guarantees: means and mean square of the error are those of the book: 9.45 to 9.875, and 0.0089
    /// with 9 degrees of freedom.
    #[test]
    fn a_textbook_example_comes_out_as_printed() {
        let values = vec![
            vec![9.3, 9.4, 9.6, 10.0],
            vec![9.4, 9.3, 9.8, 9.9],
            vec![9.2, 9.4, 9.5, 9.7],
            vec![9.7, 9.6, 10.0, 10.2],
        ];
        let found = Blocks::of(&values, NOTHING).unwrap();
        let means: Vec<f64> = (0..4).map(|tip| found.mean(tip).unwrap()).collect();
        let offset = means[0] - 9.575;
        for (mean, printed) in means.iter().zip([9.575, 9.6, 9.45, 9.875]) {
            assert!((mean - offset - printed).abs() < 1e-9, "{means:?}");
        }
        assert!((found.sd().powi(2) - 0.00889).abs() < 1e-4, "{}", found.sd());
        assert_eq!(found.spread.degrees_of_freedom, 9.0);
        // t(0.975, 9) = 2.262.
        let pair = found.difference(0, 3, 1).unwrap();
        assert!((pair.estimate - 0.3).abs() < 1e-9);
        assert!((pair.high - pair.estimate - 2.262 * (0.00889_f64 / 2.0).sqrt()).abs() < 1e-3);
        let three = found.difference(0, 3, 3).unwrap();
        assert!(three.low < pair.low && three.high > pair.high);
    }

    /// Scenario: blocks far apart, with values missing.
    /// Guarantees: a treatment that was only in slow blocks is not called slow.
    #[test]
    fn missing_values_are_allowed_for() {
        let values = vec![
            vec![1.0, 6.0, f64::NAN],
            vec![1.5, f64::NAN, 9.5],
            vec![f64::NAN, 6.5, 9.5],
            vec![f64::NAN; 3],
        ];
        let found = Blocks::of(&values, NOTHING).unwrap();
        assert!((found.difference(0, 1, 1).unwrap().estimate - 0.5).abs() < 1e-6);
        assert!((found.difference(1, 2, 1).unwrap().estimate).abs() < 1e-6);
        assert_eq!((found.mean(3), found.difference(0, 3, 1)), (None, None));
        assert_eq!(Blocks::of(&[], NOTHING), None);
        let one =
            Blocks::of(&[vec![1.0], vec![2.0]], SpreadPrior { sd: 0.1, weight: 1.0 }).unwrap();
        let wide = one.difference(0, 1, 1).unwrap();
        assert!(wide.low < 0.0, "one block decides nothing: {wide:?}");
    }

    /// Scenario: 2,000 sweeps of four treatments in four blocks, all the same, blocks far apart.
    /// Guarantees: an interval misses the truth in about 5 % of them.
    #[test]
    fn intervals_cover_as_often_as_they_say() {
        let mut random = SplitMix64::new(5);
        let mut normal = move || (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
        let mut missed = 0;
        for _ in 0..2000 {
            let blocks: Vec<f64> = (0..4).map(|_| 3.0 * normal()).collect();
            let values: Vec<Vec<f64>> = (0..4)
                .map(|_| blocks.iter().map(|block| block + 0.1 * normal()).collect())
                .collect();
            let found = Blocks::of(&values, NOTHING).unwrap().difference(0, 3, 1).unwrap();
            missed += usize::from(found.low > 0.0 || found.high < 0.0);
        }
        assert!((60..=140).contains(&missed), "{missed} of 2000");
    }
}
