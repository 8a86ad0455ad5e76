//! How often the tests are wrong and the intervals miss, by simulation. What is measured is
//! printed: `cargo test -p retake-analyzer error_rates -- --nocapture`.

mod intervals;
mod levels;
mod tests_of_runs;

use super::normal;
use super::seeded::SplitMix64;

/// Logarithms of a run's measure: normal noise of 3 %, and one run in twenty is 20 % slower.
fn runs(count: usize, shift: f64, random: &mut SplitMix64) -> Vec<f64> {
    (0..count)
        .map(|_| {
            let outlier = if random.below(20) == 0 { 0.18 } else { 0.0 };
            shift + 0.03 * normal::draw(random) + outlier
        })
        .collect()
}

/// How often `is_hit` in so many trials, with a line that says so.
fn rate(name: &str, trials: usize, mut is_hit: impl FnMut() -> bool) -> f64 {
    let hits = (0..trials).filter(|_| is_hit()).count();
    let rate = hits as f64 / trials as f64;
    println!("{name}: {:.1} % of {trials}", 100.0 * rate);
    rate
}

/// Three standard errors of a rate counted in so many trials.
fn chance(rate: f64, trials: usize) -> f64 {
    3.0 * (rate * (1.0 - rate) / trials as f64).sqrt()
}
