//! How often intervals contain what they are about.

use super::{chance, rate, runs};
use crate::stats::{
    Interval, QuantileRatio, RunSpread, SplitMix64, SpreadPrior, normal, paired_replays,
    quantile_ratio, two_sample_shift,
};

/// As many as take a second or two.
const TRIALS: usize = 200;

fn contains(interval: Interval, value: f64) -> bool {
    interval.low <= value && value <= interval.high
}

/// Scenario: 2,000 pairs of samples of several sizes, the candidate 5 % above.
/// Guarantees: the interval contains the shift as often as it says, but for chance.
#[test]
fn shifts_of_two_samples_are_covered() {
    let mut random = SplitMix64::new(53);
    for (n, m, level) in [(4, 4, 0.95), (5, 8, 0.95), (8, 8, 0.9), (10, 10, 0.99), (40, 30, 0.95)] {
        let name = format!("shift of {n} and {m} runs, {level} interval, covered");
        let covered = rate(&name, 2000, || {
            let (base, candidate) = (runs(n, 0.0, &mut random), runs(m, 0.05, &mut random));
            let shift = two_sample_shift(&base, &candidate, level).unwrap();
            assert!(shift.is_decidable);
            contains(shift.interval, 0.05)
        });
        assert!(covered >= level - chance(level, 2000));
    }
}

/// One repeat of a workload: requests differ, and so does what the change does to them; a repeat
/// has a noise of its own (`run_sd`), and so has every measurement.
fn repeat(requests: &[(f64, f64)], run_sd: f64, random: &mut SplitMix64) -> Vec<f64> {
    let busy = run_sd * normal::draw(random);
    requests
        .iter()
        .map(|(size, effect)| size + effect + busy + 0.05 * normal::draw(random))
        .collect()
}

/// Scenario: 200 comparisons of 2 to 8 repeats of 30 requests that become 8 % slower, more or
/// less, with a run-to-run noise of 3 to 10 %.
/// Guarantees: the interval contains the median effect in 95 % of them, but for chance.
#[test]
fn shifts_of_replays_are_covered() {
    let mut random = SplitMix64::new(59);
    for (repeats, run_sd) in [(2, 0.1), (3, 0.1), (5, 0.03), (8, 0.05)] {
        let mut widths = 0.0;
        let name = format!("{repeats} replays, noise {run_sd}, covered");
        let covered = rate(&name, TRIALS, || {
            let requests: Vec<(f64, f64)> = (0..30)
                .map(|_| (normal::draw(&mut random), 0.08 + 0.04 * normal::draw(&mut random)))
                .collect();
            let unchanged: Vec<(f64, f64)> =
                requests.iter().map(|(size, _)| (*size, 0.0)).collect();
            let mut side = |requests: &[(f64, f64)]| -> Vec<Vec<f64>> {
                (0..repeats).map(|_| repeat(requests, run_sd, &mut random)).collect()
            };
            let (base, candidate) = (side(&unchanged), side(&requests));
            let interval = paired_replays(&base, &candidate, 1).unwrap().interval;
            widths += (interval.high - interval.low) / TRIALS as f64;
            contains(interval, 0.08)
        });
        println!("    mean width {widths:.4}");
        assert!(covered >= 0.95 - chance(0.95, TRIALS));
    }
}

/// Latencies in order of time whose logarithms resemble their neighbours' (correlation 0.6), on
/// top of the run's own level.
fn trace(count: usize, level: f64, random: &mut SplitMix64) -> Vec<f64> {
    let mut drift = normal::draw(random);
    (0..count)
        .map(|_| {
            drift = 0.6 * drift + 0.8 * normal::draw(random);
            (level + 0.2 * drift + 0.2 * normal::draw(random)).exp()
        })
        .collect()
}

fn covered_by(
    name: &str,
    (count, q): (usize, f64),
    run_sd: f64,
    interval: impl Fn(QuantileRatio, RunSpread) -> Interval,
) -> f64 {
    let mut random = SplitMix64::new(61);
    let prior = SpreadPrior { sd: 0.04, weight: 4.0 };
    rate(&format!("{name}, {count} traces, quantile {q}, covered"), TRIALS, || {
        let mut level = || run_sd * normal::draw(&mut random);
        let levels = [level(), level()];
        let history: Vec<f64> = (0..5).map(|_| level()).collect();
        let [base, candidate] = levels.map(|level| trace(count, level, &mut random));
        let found = quantile_ratio(&base, &candidate, q, 1).unwrap();
        let spread = RunSpread::of_history(&history, prior).unwrap();
        contains(interval(found, spread), 0.0)
    })
}

/// Scenario: 200 pairs of runs of one level, whose traces resemble their neighbours.
/// Guarantees: the interval within runs contains no change in 95 % of them, but for chance.
#[test]
fn quantiles_within_runs_are_covered() {
    for sizes in [(400, 0.5), (400, 0.95), (1200, 0.99)] {
        let covered = covered_by("one level", sizes, 0.0, |found, _| found.within_runs());
        assert!(covered >= 0.95 - chance(0.95, TRIALS));
    }
}

/// Scenario: 200 pairs of runs whose levels have a spread of 4 %, of which the history of five
/// runs tells something, and the prior believes 4 %.
/// Guarantees: the interval between runs contains no change in 95 % of them, but for chance; that
/// within runs does not claim to.
#[test]
fn quantiles_between_runs_are_covered() {
    let sizes = (600, 0.5);
    let within = covered_by("own level, within", sizes, 0.04, |found, _| found.within_runs());
    let between = covered_by("own level", sizes, 0.04, |found, spread| found.between_runs(spread));
    assert!(between >= 0.95 - chance(0.95, TRIALS));
    assert!(within < 0.85);
}
