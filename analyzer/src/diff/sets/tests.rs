//! How often comparisons of sets of runs are wrong, by simulation: what is compared are the
//! numbers of runs, as they would come from recordings.

use std::collections::BTreeMap;

use super::estimates::{KindEstimates, RunEstimates};
use super::findings::of_kind;
use super::metric::Metric;
use super::{DiffOptions, Judge, one_sided, rows_of};
use crate::model::{Finding, Verdict};
use crate::stats::SplitMix64;

const STAGES: usize = 12;

/// A standard normal number, by Box and Muller.
fn normal(random: &mut SplitMix64) -> f64 {
    let mut uniform = || (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let (a, b) = (1.0 - uniform(), uniform());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// One run: the machine's luck is shared by all it measures, each measure has some of its own.
/// `tail` stretches the 95th percentile, `slow` one stage.
fn run(random: &mut SplitMix64, noise: f64, tail: f64, slow: f64) -> RunEstimates {
    let shared = noise * normal(random);
    let mut around = |value: f64| value * (0.95 * shared + 0.3 * noise * normal(random)).exp();
    let nominal = |n: usize| if n == 3 { slow * 20e6 } else { 5e6 * (n + 1) as f64 };
    let stages: BTreeMap<String, f64> =
        (0..STAGES).map(|n| (format!("stage {n}"), around(nominal(n)))).collect();
    let whole: f64 = (0..STAGES).map(nominal).sum();
    let values = BTreeMap::from([
        (Metric::Latency, around(whole)),
        (Metric::LatencyP95, around(2.0 * whole * tail)),
        (Metric::Ttft, around(0.4 * whole)),
        (Metric::Cost, around(0.004)),
        (Metric::OutputTokens, around(300.0)),
        (Metric::Errors, (0.01 + 0.003 * normal(random)).max(0.0)),
    ]);
    let kind = KindEstimates { operations: 100, values, stages, ..KindEstimates::default() };
    RunEstimates { kinds: BTreeMap::from([(String::new(), kind)]) }
}

fn found(base: &[RunEstimates], candidate: &[RunEstimates]) -> Vec<Finding> {
    let judge = Judge::of_reports(&DiffOptions::default(), true);
    rows_of(base, candidate, &judge).iter().flat_map(of_kind).collect()
}

fn side(
    random: &mut SplitMix64,
    runs: usize,
    noise: f64,
    tail: f64,
    slow: f64,
) -> Vec<RunEstimates> {
    (0..runs).map(|_| run(random, noise, tail, slow)).collect()
}

/// Scenario: 1,000 pairs of sets of the same program, with six measures and twelve stages each;
/// quiet and noisy machines, many runs and few, one new run against ten.
/// Guarantees: G1 - at most 1 % of the reports find something.
#[test]
fn what_did_not_change_is_found_in_at_most_one_report_of_a_hundred() {
    let mut worst = 0;
    for noise in [0.01, 0.03, 0.08, 0.15, 0.3] {
        for (before, after) in [(4, 4), (5, 5), (10, 10), (10, 1), (5, 1), (4, 1), (20, 3)] {
            let mut random = SplitMix64::new(41 + before as u64 * 100 + after as u64);
            let alarms = (0..1_000)
                .filter(|_| {
                    let base = side(&mut random, before, noise, 1.0, 1.0);
                    !found(&base, &side(&mut random, after, noise, 1.0, 1.0)).is_empty()
                })
                .count();
            println!("{noise}: {before} against {after} runs: {alarms} of 1000");
            worst = worst.max(alarms);
        }
    }
    assert!(worst <= 10, "{worst} of 1000");
}

/// Scenario: 200 pairs of ten runs a side; in one set the 95th percentile is 10 % more.
/// Guarantees: G1 - at least 95 % are found.
#[test]
fn a_tenth_more_of_the_95th_percentile_is_found() {
    for noise in [0.01, 0.02, 0.03] {
        let mut random = SplitMix64::new(7);
        let hits = (0..200)
            .filter(|_| {
                let base = side(&mut random, 10, noise, 1.0, 1.0);
                let found = found(&base, &side(&mut random, 10, noise, 1.1, 1.0));
                found.iter().any(|finding| finding.metric.contains("latency p95"))
            })
            .count();
        assert!(hits >= 190, "{hits} of 200 with {noise}");
    }
}

/// Scenario: one of twelve stages takes twice as long, which is 5 % of the whole.
/// Guarantees: one finding, which names the stage.
#[test]
fn a_stage_that_got_slower_is_one_finding_that_names_it() {
    let mut random = SplitMix64::new(9);
    for _ in 0..50 {
        let base = side(&mut random, 8, 0.02, 1.0, 1.0);
        let found = found(&base, &side(&mut random, 8, 0.02, 1.0, 2.0));
        let [finding] = found.as_slice() else { panic!("{found:#?}") };
        assert_eq!(finding.stage.as_deref(), Some("stage 3"));
        let whole: f64 = finding.contributions.iter().map(|part| part.share).sum();
        assert!((whole - 1.0).abs() < 1e-9);
    }
}

/// Scenario: the candidate ingests and asks, the baseline only asks.
/// Guarantees: what only one side does is named and compared with nothing, instead of being infinitely
/// slower; what both do is compared.
#[test]
fn what_only_one_side_does_is_not_compared() {
    let mut random = SplitMix64::new(3);
    let named = |runs: Vec<RunEstimates>, kinds: &[&str]| -> Vec<RunEstimates> {
        let renamed = |run: RunEstimates| {
            let of = |kind: &&str| Some(((*kind).to_owned(), run.kinds.values().next()?.clone()));
            RunEstimates { kinds: kinds.iter().filter_map(of).collect() }
        };
        runs.into_iter().map(renamed).collect()
    };
    let base = named(side(&mut random, 5, 0.01, 1.0, 1.0), &["query"]);
    let candidate = named(side(&mut random, 5, 0.01, 1.0, 1.0), &["query", "ingest"]);
    let judge = Judge::of_reports(&DiffOptions::default(), true);
    let kinds: Vec<_> =
        rows_of(&base, &candidate, &judge).into_iter().map(|kind| kind.name).collect();
    assert_eq!(kinds, ["query"]);
    let said = one_sided(&base, &candidate);
    let [lacking] = said.as_slice() else { panic!("{said:?}") };
    assert!(lacking.starts_with("the baseline has no operation of kind ingest"), "{lacking}");
    assert!(one_sided(&base, &base).is_empty());
}

/// Scenario: the same numbers the other way round; a measure that only one side has; a cost of
/// nothing; runs that agree to the last digit.
#[test]
fn odd_numbers_are_judged_soundly() {
    let judge = Judge { options: DiffOptions::default(), is_same_machine: true, level: 0.95 };
    let row = |metric: Metric, base: &[f64], candidate: &[f64]| {
        let judged = judge.compare("x", metric.measure(), base, candidate);
        judge.decide(vec![judged]).remove(0)
    };
    let (fast, slow) = ([1e9, 1.02e9, 0.99e9, 1.01e9, 1e9], [1.5e9, 1.52e9, 1.49e9, 1.5e9, 1.51e9]);
    assert_eq!(row(Metric::Latency, &fast, &slow).verdict, Verdict::Worse);
    assert_eq!(row(Metric::Latency, &slow, &fast).verdict, Verdict::Better);
    assert_eq!(row(Metric::Latency, &fast, &fast).verdict, Verdict::Same);
    let gone = row(Metric::Cost, &[0.1; 5], &[]);
    assert_eq!(
        (gone.verdict, gone.note.as_deref()),
        (Verdict::Inconclusive, Some("only in the base"))
    );
    let free = row(Metric::Cost, &[0.0; 5], &[0.1; 5]);
    assert_eq!(free.verdict, Verdict::Inconclusive);
    assert_eq!(row(Metric::Errors, &[0.0; 8], &[0.0; 8]).verdict, Verdict::Same);
    let failing = row(Metric::Errors, &[0.0; 8], &[0.25; 8]);
    assert_eq!((failing.verdict, failing.effect), (Verdict::Worse, 0.25));
    let exact = row(Metric::InputTokens, &[100.0; 6], &[100.0; 6]);
    assert_eq!(exact.verdict, Verdict::Same);
    let tiny = row(Metric::Latency, &[1e4; 6], &[2e4; 6]);
    assert_eq!(tiny.verdict, Verdict::Same, "10 us more matter to nobody: {:?}", tiny.note);
    let other = Judge { is_same_machine: false, ..judge };
    let judged = other.compare("x", Metric::Latency.measure(), &fast, &slow);
    assert_eq!(other.decide(vec![judged])[0].verdict, Verdict::Inconclusive);
}
