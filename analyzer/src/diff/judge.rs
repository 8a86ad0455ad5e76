//! From numbers to a verdict.

use super::DiffOptions;
use crate::model::{DiffRow, Verdict};
use crate::stats::{Shift, median, median_ratio, shift, signed_rank_p};

/// What every row is judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub(super) options: DiffOptions,
    pub(super) is_same_machine: bool,
}

/// Compares one measure of the same operations on both sides. Values that are 0 are absent: the
/// operation did not pass through the stage.
///
/// `chance` is half the width of the 95 % interval of run-to-run chance, on the log scale.
pub(super) fn paired(stage: &str, values: &[(f64, f64)], chance: f64) -> DiffRow {
    let base: Vec<f64> = values.iter().map(|v| v.0).filter(|v| *v > 0.0).collect();
    let candidate: Vec<f64> = values.iter().map(|v| v.1).filter(|v| *v > 0.0).collect();
    let logs: Vec<f64> = values
        .iter()
        .filter(|(base, candidate)| *base > 0.0 && *candidate > 0.0)
        .map(|(base, candidate)| (candidate / base).ln())
        .collect();
    let mut row = row(stage, &base, &candidate);
    let Some(found) = shift(&logs) else { return one_sided(row) };
    let middle = found.interval.estimate;
    row.effect = middle.exp_m1();
    // Two independent sources of error: their half widths add like standard deviations.
    let below = (middle - found.interval.low).hypot(chance);
    let above = (found.interval.high - middle).hypot(chance);
    row.effect_ci = [(middle - below).exp_m1(), (middle + above).exp_m1()];
    row.p_adjusted = Some(signed_rank_p(&logs));
    row.note = few(&found, logs.len()).or_else(|| mostly_one_sided(values.len(), logs.len()));
    row
}

/// Gives a paired row its verdict; its p-value must be adjusted by now.
pub(super) fn decide(row: &mut DiffRow, context: &Context) {
    let options = &context.options;
    let [low, high] = row.effect_ci;
    if row.p_adjusted.is_none() || row.n_base.min(row.n_candidate) < PAIRS_MIN {
        return;
    }
    if !context.is_same_machine {
        row.note = Some("the machines differ".to_owned());
        return;
    }
    let is_clear = low > options.effect_min || high < -options.effect_min;
    let is_within = -options.effect_min <= low && high <= options.effect_min;
    let is_small = (row.candidate - row.base).abs() < options.change_ns_min as f64;
    if is_clear && is_small {
        row.verdict = Verdict::Same;
        note(row, "the change is too small in absolute terms to matter");
    } else if is_clear && row.p_adjusted.is_some_and(|p| p <= options.false_reports_max) {
        row.verdict = if low > 0.0 { Verdict::Worse } else { Verdict::Better };
    } else if is_within {
        row.verdict = Verdict::Same;
    } else {
        note(row, "too uncertain; more repeats narrow the interval");
    }
}

/// Compares one measure of two runs with different operations, in order of time. Never a verdict.
pub(super) fn unpaired(stage: &str, base: &[f64], candidate: &[f64], context: &Context) -> DiffRow {
    let present = |side: &[f64]| side.iter().copied().filter(|v| *v > 0.0).collect::<Vec<f64>>();
    let (base, candidate) = (present(base), present(candidate));
    let mut row = row(stage, &base, &candidate);
    let Some(found) = median_ratio(&base, &candidate, SEED) else { return one_sided(row) };
    row.effect = found.estimate;
    row.effect_ci = [found.low, found.high];
    let least = context.options.effect_min;
    let tendency = if found.low > least {
        "looks worse, but "
    } else if found.high < -least {
        "looks better, but "
    } else if found.low >= -least && found.high <= least {
        "looks the same, but "
    } else {
        ""
    };
    row.note = Some(format!("{tendency}{NEEDS_MORE}"));
    row
}

fn row(stage: &str, base: &[f64], candidate: &[f64]) -> DiffRow {
    DiffRow {
        stage: stage.to_owned(),
        metric: "latency".to_owned(),
        unit: "ns".to_owned(),
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
    }
}

/// A stage that only one side has (or in no operation both): there is no ratio to estimate.
fn one_sided(mut row: DiffRow) -> DiffRow {
    let (effect, text) = match (row.n_base, row.n_candidate) {
        (_, 0) => (-1.0, "only in the base run"),
        // JSON has no infinity; it becomes null.
        (0, _) => (f64::INFINITY, "only in the candidate run"),
        _ => (f64::NAN, "never in the same operation on both sides"),
    };
    row.effect = effect;
    row.effect_ci = [effect, effect];
    row.note = Some(text.to_owned());
    row
}

fn few(found: &Shift, pairs: usize) -> Option<String> {
    (!found.is_decidable).then(|| match pairs {
        1 => format!("one operation; at least {PAIRS_MIN} are needed"),
        pairs => format!("{pairs} operations; at least {PAIRS_MIN} are needed"),
    })
}

fn mostly_one_sided(all: usize, both: usize) -> Option<String> {
    let one_sided = all - both;
    (one_sided * 10 > all).then(|| format!("{one_sided} of {all} operations lack it on a side"))
}

fn note(row: &mut DiffRow, text: &str) {
    row.note = Some(match row.note.take() {
        Some(before) => format!("{before}; {text}"),
        None => text.to_owned(),
    });
}

/// With fewer pairs no interval has 95 % (the smallest two-sided p-value of five is 0.0625).
pub(super) const PAIRS_MIN: u64 = 6;
/// What would give a verdict.
pub(super) const NEEDS_MORE: &str =
    "need >= 4 runs of the base (`retake baseline set`), or replay the same workload";
const SEED: u64 = 0x7265_7461_6b65;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix64;

    const CONTEXT: Context = Context {
        options: DiffOptions { effect_min: 0.05, change_ns_min: 20_000, false_reports_max: 0.05 },
        is_same_machine: true,
    };

    /// Requests of very different sizes with noise of about 8 % on each execution; the candidate
    /// takes `factor` times as long.
    fn verdict(random: &mut SplitMix64, pairs: usize, factor: f64) -> Verdict {
        let mut uniform = || random.next_u64() as f64 / u64::MAX as f64;
        let values: Vec<(f64, f64)> = (0..pairs)
            .map(|_| {
                let size = 1e6 * (3.0 * uniform()).exp();
                let mut noise = || 0.86 + 0.14 * (uniform() + uniform());
                (size * noise(), factor * size * noise())
            })
            .collect();
        let mut row = paired("stage", &values, 0.0);
        decide(&mut row, &CONTEXT);
        row.verdict
    }

    fn count(pairs: usize, factor: f64, wanted: Verdict) -> usize {
        let mut random = SplitMix64::new(11);
        (0..1000).filter(|_| verdict(&mut random, pairs, factor) == wanted).count()
    }

    /// Scenario: 1,000 unchanged comparisons each of 6 to 50 requests.
    /// Guarantees: G1 - false alarms are at most 1 %.
    #[test]
    fn unchanged_comparisons_do_not_alarm() {
        for pairs in [6, 10, 25, 26, 50] {
            let alarms = count(pairs, 1.0, Verdict::Worse) + count(pairs, 1.0, Verdict::Better);
            assert!(alarms <= 10, "{alarms} of 1000 with {pairs} pairs");
        }
    }

    /// Scenario: 1,000 comparisons of 40 requests, 20 % slower and 20 % faster.
    /// Guarantees: G1 - at least 95 % are found, and none is called the opposite.
    #[test]
    fn planted_changes_are_found() {
        assert!(count(40, 1.2, Verdict::Worse) >= 950);
        assert!(count(40, 0.8, Verdict::Better) >= 950);
        assert_eq!(count(40, 1.2, Verdict::Better) + count(40, 1.2, Verdict::Same), 0);
    }

    #[test]
    fn another_machine_or_a_tiny_change_is_no_verdict() {
        let values: Vec<(f64, f64)> =
            (1..=20).map(|n| (1e3 * f64::from(n), 2e3 * f64::from(n))).collect();
        let mut tiny = paired("stage", &values, 0.0);
        decide(&mut tiny, &CONTEXT);
        assert_eq!(tiny.verdict, Verdict::Same, "{tiny:?}");
        let large: Vec<(f64, f64)> = values.iter().map(|(b, c)| (b * 1e3, c * 1e3)).collect();
        let mut moved = paired("stage", &large, 0.0);
        decide(&mut moved, &Context { is_same_machine: false, ..CONTEXT });
        assert_eq!(moved.verdict, Verdict::Inconclusive, "{moved:?}");
        decide(&mut moved, &CONTEXT);
        assert_eq!(moved.verdict, Verdict::Worse, "{moved:?}");
    }
}
