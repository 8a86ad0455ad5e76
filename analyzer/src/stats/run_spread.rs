//! How much runs of the same thing differ from each other, estimated from a short history.

/// A run-to-run standard deviation on the scale of natural logarithms (0.03 is about 3 %), and
/// how much is known about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunSpread {
    /// The standard deviation of one run's logarithm.
    pub sd: f64,
    /// Degrees of freedom behind it, those of the prior included.
    pub degrees_of_freedom: f64,
}

/// What is taken for granted about the run-to-run spread before any history is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpreadPrior {
    /// The standard deviation of one run's logarithm.
    pub sd: f64,
    /// How many degrees of freedom it counts for: a history of that many runs and one more weighs
    /// as much.
    pub weight: f64,
}

impl RunSpread {
    /// The spread of a history of runs (the logarithm of one measure, a value a run), shrunk
    /// towards `prior`.
    ///
    /// The variance is the mean of the prior's and the history's, weighted by degrees of freedom:
    /// the moderated variance of Smyth (2004), section 3. Three runs that happen to agree do not
    /// make a machine quiet. Values that are not finite are left out; of fewer than two there is
    /// only the prior. `None` when that has no weight either, or is not a number.
    #[must_use]
    pub fn of_history(log_values: &[f64], prior: SpreadPrior) -> Option<Self> {
        let finite: Vec<f64> = log_values.iter().copied().filter(|v| v.is_finite()).collect();
        let count = finite.len() as f64;
        let mean = finite.iter().sum::<f64>() / count.max(1.0);
        let squares: f64 = finite.iter().map(|value| (value - mean).powi(2)).sum();
        let freedom = (count - 1.0).max(0.0);
        Self::shrunken(squares, freedom, prior)
    }

    /// The same from a standard deviation already known, of `runs` runs.
    #[must_use]
    pub fn of_sd(sd: f64, runs: usize, prior: SpreadPrior) -> Option<Self> {
        let freedom = runs.saturating_sub(1) as f64;
        let squares = if freedom > 0.0 { sd * sd * freedom } else { 0.0 };
        Self::shrunken(squares, freedom, prior)
    }

    fn shrunken(squares: f64, freedom: f64, prior: SpreadPrior) -> Option<Self> {
        let degrees_of_freedom = freedom + prior.weight;
        let variance = (squares + prior.weight * prior.sd * prior.sd) / degrees_of_freedom;
        let is_known = prior.weight >= 0.0 && degrees_of_freedom > 0.0 && variance.is_finite();
        is_known.then(|| Self { sd: variance.sqrt(), degrees_of_freedom })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIOR: SpreadPrior = SpreadPrior { sd: 0.03, weight: 4.0 };

    #[test]
    fn a_short_history_is_pulled_towards_the_prior() {
        let quiet = RunSpread::of_history(&[1.0, 1.0, 1.0], PRIOR).unwrap();
        // (2 * 0 + 4 * .03^2) / 6
        assert!((quiet.sd - 0.03 * (4.0_f64 / 6.0).sqrt()).abs() < 1e-12);
        assert_eq!(quiet.degrees_of_freedom, 6.0);
        let long: Vec<f64> = (0..1001).map(|i| if i % 2 == 0 { 0.1 } else { -0.1 }).collect();
        assert!((RunSpread::of_history(&long, PRIOR).unwrap().sd - 0.1).abs() < 0.001);
        let same = RunSpread::of_sd(0.05, 5, SpreadPrior { sd: 9.0, weight: 0.0 }).unwrap();
        assert_eq!((same.sd, same.degrees_of_freedom), (0.05, 4.0));
    }

    #[test]
    fn without_a_history_there_is_only_the_prior() {
        for history in [&[][..], &[1.0], &[f64::NAN, 1.0]] {
            let found = RunSpread::of_history(history, PRIOR).unwrap();
            assert_eq!((found.sd, found.degrees_of_freedom), (0.03, 4.0));
        }
        let nothing = SpreadPrior { sd: 0.03, weight: 0.0 };
        assert_eq!(RunSpread::of_history(&[1.0], nothing), None);
        assert_eq!(RunSpread::of_sd(f64::NAN, 5, PRIOR), None);
        assert_eq!(RunSpread::of_history(&[], SpreadPrior { sd: f64::NAN, weight: 4.0 }), None);
        assert_eq!(RunSpread::of_history(&[], SpreadPrior { sd: 0.1, weight: f64::NAN }), None);
    }
}
