//! Histories asked twice.

use std::collections::BTreeMap;
use std::path::PathBuf;

use retake_recorder::RecorderBuilder;
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_schemas::settings::{Price, Prices};

use super::*;
use crate::diff::{DiffOptions, diff_repeated};
use crate::fixture::{Fixture, question, spec};
use crate::session::{AnalyzerOptions, Scope};
use crate::trend::{TrendQuery, trend};

/// Six runs of three questions, each slower than the one before.
fn recorded(fixture: &Fixture) -> Vec<RunId> {
    let run = |unit: i64| {
        fixture.run("nightly", |recorder| {
            for n in 0..3_u8 {
                question(recorder, n, i64::from(n) * 1_000_000_000, unit);
            }
            spec(9, 1, None, "query").at(9_000_000_000, unit).failed("Timeout").record(recorder);
        })
    };
    (1..=6).map(|n| run(n * 1_000_000)).collect()
}

fn opened(fixture: &Fixture, keeps_history: bool) -> Analyzer {
    priced(fixture, keeps_history, Prices::default())
}

fn priced(fixture: &Fixture, keeps_history: bool, prices: Prices) -> Analyzer {
    let options = AnalyzerOptions { keeps_history, prices, ..AnalyzerOptions::default() };
    Analyzer::open_with(&fixture.store, Scope::All, &options).unwrap()
}

async fn values(analyzer: &Analyzer, metric: &str, by: &[String]) -> Result<String, AnalyzeError> {
    let query = TrendQuery::parse(metric, None, by).unwrap();
    Ok(format!("{:?}", trend(analyzer, &query).await?))
}

fn answer_files(fixture: &Fixture) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(fixture.path().join("history")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Takes the span files of all runs away, so that whoever reads one fails.
fn hide_spans(fixture: &Fixture, runs: &[RunId]) {
    for run_id in runs {
        for entry in std::fs::read_dir(fixture.store.run_dir(run_id)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "parquet") {
                std::fs::rename(&path, path.with_extension("hidden")).unwrap();
            }
        }
    }
}

/// Scenario: every kind of metric, without a history, with an empty one, with a full one, and when the
/// runs have lost their files.
/// Guarantees: the answers are the same to the last bit, and the last one reads no run.
#[tokio::test]
async fn what_is_kept_is_what_would_be_computed() {
    let fixture = Fixture::new();
    let runs = recorded(&fixture);
    let by_stage = ["stage".to_owned()];
    let asked: [(&str, &[String]); 8] = [
        ("p95(duration)", &by_stage),
        ("mean(duration)", &by_stage),
        ("p(50)", &[]),
        ("error_rate()", &[]),
        ("goodput(e2e < 3ms)", &[]),
        ("count()", &by_stage),
        ("share(critical_path, 'llm')", &[]),
        ("lost_spans()", &[]),
    ];
    let options = DiffOptions::default();
    let (base, candidate) = runs.split_at(3);
    let without = opened(&fixture, false);
    let mut expected = Vec::new();
    for (metric, by) in asked {
        expected.push(values(&without, metric, by).await.unwrap());
    }
    let compared = diff_repeated(&without, base, candidate, &options).await.unwrap();
    assert_eq!(answer_files(&fixture), Vec::<PathBuf>::new(), "reading a store changes nothing");
    for hides in [false, false, true] {
        if hides {
            hide_spans(&fixture, &runs);
        }
        let with = opened(&fixture, true);
        for ((metric, by), expected) in asked.iter().zip(&expected) {
            assert_eq!(&values(&with, metric, by).await.unwrap(), expected, "{metric}");
        }
        if hides {
            // Where in the source a stage is stands in its spans.
            break;
        }
        let again = diff_repeated(&with, base, candidate, &options).await.unwrap();
        // As text: what is not known is not a number, and that equals nothing.
        assert_eq!(format!("{again:#?}"), format!("{compared:#?}"));
    }
    let error = values(&opened(&fixture, false), "p(50)", &[]).await.unwrap_err();
    assert!(error.is_damage(), "{error}");
}

/// Scenario: shares of stages as a metric, and as the breakdown of each run shows them.
#[tokio::test]
async fn shares_are_those_of_the_breakdown() {
    let fixture = Fixture::new();
    let runs = recorded(&fixture);
    let analyzer = opened(&fixture, true);
    for (of, is_critical) in [("critical_path", true), ("wall", false)] {
        for stage in ["llm", "retrieve", "nothing"] {
            let found = values(&analyzer, &format!("share({of}, '{stage}')"), &[]).await.unwrap();
            for run_id in &runs {
                let breakdown = crate::breakdown(&analyzer, run_id, &[]).await.unwrap();
                let row = breakdown.rows.iter().find(|row| row.stage == stage);
                let share = |row: &crate::model::BreakdownRow| match is_critical {
                    true => row.critical_share,
                    false => row.wall_share,
                };
                let expected = format!("value: Some({:?}), samples: 4", row.map_or(0.0, share));
                assert!(found.contains(&expected), "{of} {stage}: {expected} in {found}");
            }
        }
    }
}

/// Scenario: the durations of all runs by SQL, and from the sketches that are kept of each.
#[tokio::test]
async fn sketches_of_the_history_are_those_of_its_spans() {
    let fixture = Fixture::new();
    let runs = recorded(&fixture);
    let rows = |result: crate::QueryResult| -> Vec<String> {
        result.batches.iter().map(|batch| format!("{:?}", batch.columns())).collect()
    };
    let direct = "SELECT stage, count(*) AS n, count(*) FILTER (WHERE status = 'error') AS errors, \
                  sum(duration_ns) AS total, sketch_quantile(latency_sketch(duration_ns), 0.9) AS p \
                  FROM spans GROUP BY stage ORDER BY stage";
    let kept = "SELECT stage, sum(spans) AS n, sum(errors) AS errors, sum(total_ns) AS total, \
                sketch_quantile(merge_sketch(sketch), 0.9) AS p \
                FROM run_stage_sketch('last*6') GROUP BY stage ORDER BY stage";
    let expected = rows(opened(&fixture, false).query(direct).await.unwrap());
    for hides in [false, false, true] {
        if hides {
            hide_spans(&fixture, &runs);
        }
        assert_eq!(rows(opened(&fixture, true).query(kept).await.unwrap()), expected);
    }
}

/// Scenario: each byte of the file of answers is changed in turn, and the file is cut at each.
/// Guarantees: the answer is computed anew and right.
#[tokio::test]
async fn damage_to_what_is_kept_costs_time_and_nothing_else() {
    let fixture = Fixture::new();
    recorded(&fixture);
    let expected = values(&opened(&fixture, true), "p(50)", &[]).await.unwrap();
    let files = answer_files(&fixture);
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let whole = std::fs::read(file).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        std::fs::write(file, flipped).unwrap();
        assert_eq!(values(&opened(&fixture, true), "p(50)", &[]).await.unwrap(), expected, "{at}");
        assert_eq!(std::fs::read(file).unwrap(), whole, "it was mended, {at}");
        std::fs::write(file, &whole[..at]).unwrap();
        assert_eq!(values(&opened(&fixture, true), "p(50)", &[]).await.unwrap(), expected, "{at}");
    }
}

/// Scenario: the manifest of one run says something else than when it was asked.
/// Guarantees: that run is read again.
#[tokio::test]
async fn a_run_that_changed_is_computed_again() {
    let fixture = Fixture::new();
    let runs = recorded(&fixture);
    values(&opened(&fixture, true), "p(50)", &[]).await.unwrap();
    hide_spans(&fixture, &runs);
    let label = |manifest: &mut retake_schemas::manifest::Manifest| {
        manifest.facts.labels.insert("note".to_owned(), "kept".to_owned());
    };
    fixture.store.update_manifest(&runs[2], label).unwrap();
    values(&opened(&fixture, true), "p(50)", &[]).await.expect("a label is no change of its spans");
    let change = |manifest: &mut retake_schemas::manifest::Manifest| {
        let first = manifest.segments.first_mut().unwrap();
        first.blake3 = retake_schemas::Digest::of(b"other spans");
    };
    fixture.store.update_manifest(&runs[2], change).unwrap();
    let error = values(&opened(&fixture, true), "p(50)", &[]).await.unwrap_err();
    assert!(error.to_string().contains(&runs[2].to_string()), "{error}");
}

/// Scenario: a run is asked while it is recorded, and again with more in it.
/// Guarantees: nothing is kept of it until it has ended.
#[tokio::test]
async fn nothing_is_kept_of_a_run_that_is_being_recorded() {
    let fixture = Fixture::new();
    let recorder = RecorderBuilder::new("nightly", "app").start(&fixture.store).unwrap();
    for n in 0..3_u8 {
        question(&recorder, n, i64::from(n) * 1_000_000_000, 1_000_000);
        recorder.flush().unwrap();
        let expected = values(&opened(&fixture, false), "count()", &[]).await.unwrap();
        assert_eq!(values(&opened(&fixture, true), "count()", &[]).await.unwrap(), expected);
        assert_eq!(answer_files(&fixture), Vec::<PathBuf>::new());
    }
    assert_eq!(recorder.finish(RunStatus::Finished).dropped, 0);
    values(&opened(&fixture, true), "count()", &[]).await.unwrap();
    assert_eq!(answer_files(&fixture).len(), 1);
}

/// Scenario: costs at two prices; and a store whose history cannot be written.
#[tokio::test]
async fn prices_are_a_part_of_the_question_and_a_history_is_never_needed() {
    let fixture = Fixture::new();
    fixture.run("nightly", |recorder| {
        let call = spec(1, 1, None, "llm").at(0, 1_000_000).with("gen_ai.request.model", "m");
        let call = call.with("gen_ai.operation.name", "chat");
        let tokens = call.with("gen_ai.usage.input_tokens", 1_000_000_i64);
        tokens.record(recorder);
    });
    let at = |input: f64| {
        let price =
            Price { input, output: 0.0, cache_read: None, cache_write: None, reasoning: None };
        Prices(BTreeMap::from([("m".to_owned(), price)]))
    };
    let mut found = Vec::new();
    for price in [1.0, 2.0, 1.0] {
        let analyzer = priced(&fixture, true, at(price));
        found.push(values(&analyzer, "sum(cost_usd)", &[]).await.unwrap());
    }
    assert!(
        found[0].contains("value: Some(1.0)") && found[1].contains("value: Some(2.0)"),
        "{found:?}"
    );
    assert_eq!(found[0], found[2]);
    std::fs::remove_dir_all(fixture.path().join("history")).unwrap();
    std::fs::write(fixture.path().join("history"), "a file in its place").unwrap();
    assert_eq!(
        values(&priced(&fixture, true, at(1.0)), "sum(cost_usd)", &[]).await.unwrap(),
        found[0]
    );
}

/// Scenario: the folder is a link to another one; and a run is removed.
/// Guarantees: nothing is written outside the store, and nothing of a removed run stays.
#[tokio::test]
async fn the_history_stays_in_the_store_and_goes_with_a_run() {
    let fixture = Fixture::new();
    let runs = recorded(&fixture);
    let elsewhere = tempfile::tempdir().unwrap();
    let link = fixture.store.history_dir();
    std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
    let expected = values(&opened(&fixture, true), "count()", &[]).await.unwrap();
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    std::fs::remove_file(&link).unwrap();
    assert_eq!(values(&opened(&fixture, true), "count()", &[]).await.unwrap(), expected);
    assert_eq!(answer_files(&fixture).len(), 1);
    retake_recorder::upkeep::remove_run(&fixture.store, &runs[0]).unwrap();
    assert_eq!(answer_files(&fixture), Vec::<PathBuf>::new());
}

/// Scenario: more questions than are kept.
#[tokio::test]
async fn old_questions_are_forgotten() {
    let fixture = Fixture::new();
    recorded(&fixture);
    for n in 0..QUESTIONS_MAX + 5 {
        let mut history = opened(&fixture, true).history::<u64>(&format!("question {n}"));
        history
            .put(opened(&fixture, true).source(&fixture.store.run_ids().unwrap()[0]).unwrap(), 1);
        history.save();
    }
    assert_eq!(answer_files(&fixture).len(), QUESTIONS_MAX);
}
