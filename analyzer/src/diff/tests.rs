//! Comparisons of runs written by the real recorder, with changes planted in them.

use retake_recorder::RecorderBuilder;
use retake_schemas::RunId;

use super::{DiffOptions, END_TO_END, diff, diff_repeated};
use crate::fixture::{Fixture, Spec, settings, spec, trace_id, workload};
use crate::model::{Diff, DiffRow, Verdict};
use crate::stats::SplitMix64;
use crate::{Analyzer, Scope};

/// Requests whose sizes differ tenfold, so that unpaired comparison could not see 20 %.
fn size_ns(trace: u8) -> f64 {
    1e6 * (1.0 + f64::from(trace % 10))
}

/// Executes `count` requests. Each stage takes its share times a noise of up to 4 %.
fn execute(
    recorder: &retake_recorder::Recorder,
    count: u8,
    seed: u64,
    rerank: f64,
    root: impl Fn(Spec, u8) -> Spec,
) {
    let mut random = SplitMix64::new(seed);
    let mut noise = || 0.98 + 0.04 * (random.next_u64() as f64 / u64::MAX as f64);
    for trace in 1..=count {
        let start = i64::from(trace) * 1_000_000_000;
        let retrieve = (size_ns(trace) * noise()) as i64;
        let rerank = (size_ns(trace) * rerank * noise()) as i64;
        let rest = (size_ns(trace) * 0.2 * noise()) as i64;
        root(spec(trace, 1, None, "query").at(start, retrieve + rerank + rest), trace)
            .record(recorder);
        spec(trace, 2, Some(1), "retrieve").at(start, retrieve).record(recorder);
        spec(trace, 3, Some(1), "rerank").at(start + retrieve, rerank).record(recorder);
    }
}

fn replay(fixture: &Fixture, source: &RunId, count: u8, seed: u64, rerank: f64) -> RunId {
    let builder = RecorderBuilder::new("replay", "app")
        .replay_of(source.clone(), workload())
        .settings(settings(&[("rerank.depth", (rerank * 100.0) as i64)]));
    let source = source.to_string();
    fixture.run_with(builder, |recorder| {
        execute(recorder, count, seed, rerank, |root, trace| {
            root.with("retake.source.run_id", source.as_str())
                .with("retake.source.trace_id", trace_id(trace).to_string().as_str())
                .with("retake.source.span_id", "0000000000000001")
        });
    })
}

fn original(fixture: &Fixture, count: u8, seed: u64, rerank: f64) -> RunId {
    let builder = RecorderBuilder::new("base", "app").settings(settings(&[("rerank.depth", 100)]));
    fixture.run_with(builder, |recorder| execute(recorder, count, seed, rerank, |root, _| root))
}

async fn compared(fixture: &Fixture, base: &RunId, candidate: &RunId) -> Diff {
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    diff(&analyzer, base, candidate, &DiffOptions::default()).await.unwrap()
}

/// Five replays of `source`.
fn replays(fixture: &Fixture, source: &RunId, seed: u64, rerank: f64) -> Vec<RunId> {
    (0..5).map(|n| replay(fixture, source, 30, seed + n, rerank)).collect()
}

async fn compared_repeats(fixture: &Fixture, bases: &[RunId], candidates: &[RunId]) -> Diff {
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    diff_repeated(&analyzer, bases, candidates, &DiffOptions::default()).await.unwrap()
}

fn row<'a>(found: &'a Diff, stage: &str) -> &'a DiffRow {
    found.rows.iter().find(|row| row.stage == stage).unwrap_or_else(|| panic!("{stage}: {found:?}"))
}

/// Scenario: a replay with unchanged settings, ten seeds.
/// Guarantees: G1 - no false alarm, and one execution a side claims nothing.
#[tokio::test]
async fn an_unchanged_replay_is_no_finding() {
    let fixture = Fixture::new();
    let base = original(&fixture, 30, 1, 1.0);
    for seed in 10..20 {
        let candidate = replay(&fixture, &base, 30, seed, 1.0);
        let found = compared(&fixture, &base, &candidate).await;
        assert!(found.paired && found.pairs == 30, "{found:?}");
        assert_eq!(found.verdict, Verdict::Inconclusive, "{found:?}");
        let alarms = |row: &DiffRow| matches!(row.verdict, Verdict::Worse | Verdict::Better);
        assert!(!found.rows.iter().any(alarms), "{found:?}");
        assert!(found.settings_diff.is_empty() && found.warnings.is_empty(), "{found:?}");
        assert!(found.note.contains("--repeat"), "{}", found.note);
    }
}

/// Scenario: five replays a side with unchanged settings.
#[tokio::test]
async fn quiet_repeats_may_say_same() {
    let fixture = Fixture::new();
    let source = original(&fixture, 30, 1, 1.0);
    let bases = replays(&fixture, &source, 10, 1.0);
    let candidates = replays(&fixture, &source, 20, 1.0);
    let found = compared_repeats(&fixture, &bases, &candidates).await;
    assert_eq!(found.repeats, [5, 5]);
    assert_eq!(found.verdict, Verdict::Same, "{found:?}");
}

/// Scenario: one execution of the candidate met a machine that made all of it 30 % slower.
/// Guarantees: G1 - what differs between runs is not called a change, however many requests agree.
#[tokio::test]
async fn a_slow_moment_of_the_machine_is_no_regression() {
    let fixture = Fixture::new();
    let source = original(&fixture, 30, 1, 1.0);
    let base = replay(&fixture, &source, 30, 2, 1.0);
    let candidate = replay(&fixture, &source, 30, 3, 1.66);
    let found = compared(&fixture, &base, &candidate).await;
    assert!((found.rows[0].effect - 0.3).abs() < 0.02, "{found:?}");
    assert_eq!(found.verdict, Verdict::Inconclusive, "{found:?}");
}

/// Scenario: reranking takes 50 % longer, which is 23 % end to end, under tenfold request sizes.
/// Guarantees: the change is found, and one cause is one finding.
#[tokio::test]
async fn a_planted_slowdown_is_found_and_attributed() {
    let fixture = Fixture::new();
    let source = original(&fixture, 30, 1, 1.0);
    let bases = replays(&fixture, &source, 10, 1.0);
    let candidates = replays(&fixture, &source, 20, 1.5);
    let found = compared_repeats(&fixture, &bases, &candidates).await;
    assert_eq!(found.rows[0].stage, END_TO_END);
    assert_eq!(found.verdict, Verdict::Worse);
    let whole = &found.rows[0];
    assert!((whole.effect - 0.5 / 2.2).abs() < 0.02, "{whole:?}");
    assert!(whole.effect_ci[0] < whole.effect && whole.effect < whole.effect_ci[1]);
    let rerank = row(&found, "rerank");
    assert_eq!(found.rows[1].stage, "rerank", "largest share first");
    assert_eq!(rerank.verdict, Verdict::Worse);
    assert!((rerank.effect - 0.5).abs() < 0.03, "{rerank:?}");
    assert!(rerank.p_adjusted.unwrap() < 0.001);
    assert!(rerank.explains_share.unwrap() > 0.9);
    let retrieve = row(&found, "retrieve");
    assert!(!matches!(retrieve.verdict, Verdict::Worse | Verdict::Better), "{retrieve:?}");
    let shares: f64 = found.rows.iter().filter_map(|row| row.explains_share).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    let changed = ("rerank.depth".to_owned(), "100".to_owned(), "150".to_owned());
    assert_eq!(found.settings_diff, [changed]);
    assert!(found.note.contains("medians over repeats"), "{}", found.note);
    let reversed = compared_repeats(&fixture, &candidates, &bases).await;
    assert!(reversed.paired);
    assert_eq!(reversed.verdict, Verdict::Better);
}

#[tokio::test]
async fn two_replays_of_one_source_are_paired() {
    let fixture = Fixture::new();
    let source = original(&fixture, 12, 1, 1.0);
    let base = replay(&fixture, &source, 12, 2, 1.0);
    let candidate = replay(&fixture, &source, 12, 3, 5.0);
    let found = compared(&fixture, &base, &candidate).await;
    assert!(found.paired && found.pairs == 12);
    assert_eq!(found.verdict, Verdict::Worse);
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let pairs = format!(
        "SELECT source_trace_id FROM replay_pairs WHERE run_id = '{candidate}' AND ratio > 1.3"
    );
    assert_eq!(analyzer.query(&pairs).await.unwrap().num_rows(), 12);
}

#[tokio::test]
async fn five_operations_decide_nothing() {
    let fixture = Fixture::new();
    let base = original(&fixture, 5, 1, 1.0);
    let candidate = replay(&fixture, &base, 5, 2, 5.0);
    let found = compared(&fixture, &base, &candidate).await;
    assert_eq!(found.verdict, Verdict::Inconclusive);
    assert!(found.rows[0].note.as_ref().unwrap().contains("at least 6"), "{found:?}");
}

/// Scenario: runs that executed different operations, five times slower.
/// Guarantees: one run a side is never a verdict.
#[tokio::test]
async fn unpaired_runs_never_get_a_verdict() {
    let fixture = Fixture::new();
    let base = original(&fixture, 40, 1, 1.0);
    for (seed, rerank, word) in [(2, 10.0, "looks worse"), (1, 1.0, "looks the same")] {
        let candidate = original(&fixture, 40, seed, rerank);
        let found = compared(&fixture, &base, &candidate).await;
        assert!(!found.paired);
        assert!(found.rows.iter().all(|row| row.verdict == Verdict::Inconclusive), "{found:?}");
        let note = row(&found, "retrieve").note.clone().unwrap();
        assert!(note.contains(">= 4 runs of the base"), "{note}");
        if word == "looks worse" {
            assert!(row(&found, "rerank").note.as_ref().unwrap().starts_with(word), "{found:?}");
        }
    }
}

/// Scenario: one ingest among questions; a stage only in the candidate; a failed request.
/// Guarantees: kinds of operations are not mixed, one side only is said, failures are left out.
#[tokio::test]
async fn what_cannot_be_compared_is_said() {
    let fixture = Fixture::new();
    let ingest = |trace: u8| spec(trace, 1, None, "ingest").at(0, 50_000_000);
    let base = fixture.run("base", |recorder| {
        execute(recorder, 10, 1, 1.0, |root, _| root.with("retake.operation", "query"));
        ingest(99).with("retake.operation", "ingest").record(recorder);
    });
    let link = |s: Spec| {
        let trace = trace_id(s.trace).to_string();
        s.with("retake.source.run_id", base.as_str())
            .with("retake.source.trace_id", trace.as_str())
            .with("retake.source.span_id", "0000000000000001")
    };
    let builder = RecorderBuilder::new("replay", "app").replay_of(base.clone(), workload());
    let candidate = fixture.run_with(builder, |recorder| {
        execute(recorder, 10, 2, 1.0, |root, trace| {
            let root = if trace == 3 { root.failed("Timeout") } else { root };
            link(root.with("retake.operation", "query"))
        });
        link(ingest(99)).with("retake.operation", "ingest").record(recorder);
        spec(99, 2, Some(1), "cache").at(0, 10_000_000).record(recorder);
    });
    let found = compared(&fixture, &base, &candidate).await;
    assert_eq!(found.pairs, 10);
    assert_eq!(row(&found, END_TO_END).n_base, 9);
    assert!(found.warnings.iter().any(|w| w.starts_with("1 operations failed")), "{found:?}");
    let whole = row(&found, "ingest: (end to end)");
    assert!(whole.note.as_ref().unwrap().contains("one operation"), "{whole:?}");
    assert_eq!(whole.verdict, Verdict::Inconclusive);
    let cache = row(&found, "ingest: cache");
    assert_eq!(cache.note.as_deref(), Some("only in the candidate run"));
    let json = serde_json::to_value(&found).unwrap();
    let cache = json["rows"].as_array().unwrap().iter().find(|r| r["stage"] == "ingest: cache");
    assert!(cache.unwrap()["effect"].is_null());
}
