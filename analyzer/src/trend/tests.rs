//! Histories that were recorded for the purpose.

use retake_recorder::Recorder;
use retake_schemas::RunId;

use super::{Alarm, Direction, TrendQuery, expressions, points, trend, worsened};
use crate::fixture::{Fixture, spec};
use crate::model::{Trend, TrendSeries};
use crate::session::{Analyzer, Scope};
use crate::stats::SplitMix64;

/// A number of mean 1 and standard deviation 0.03.
fn luck(random: &mut SplitMix64) -> f64 {
    let uniform = |random: &mut SplitMix64| random.next_u64() as f64 / u64::MAX as f64;
    // The sum of three uniform numbers has a standard deviation of a half.
    1.0 + 0.06 * ((0..3).map(|_| uniform(random)).sum::<f64>() - 1.5)
}

/// Four questions: reranking, then a model.
fn questions(recorder: &Recorder, noise: f64, slower: f64) {
    for n in 0..4_u8 {
        let (rerank, llm) = ((30e6 * noise * slower) as i64, (100e6 * noise) as i64);
        let start = i64::from(n) * 1_000_000_000;
        spec(n, 1, None, "query").at(start, rerank + llm).record(recorder);
        spec(n, 2, Some(1), "rerank").at(start, rerank).record(recorder);
        let model = spec(n, 3, Some(1), "llm").at(start + rerank, llm);
        model.with("gen_ai.usage.cost", 0.002).record(recorder);
    }
}

/// Runs whose reranking takes 30 ms times the factor of each; every run has a commit of its own.
fn history(fixture: &Fixture, factors: &[f64], seed: u64) -> Vec<RunId> {
    let mut random = SplitMix64::new(seed);
    let runs = factors.iter().enumerate().map(|(index, factor)| {
        let noise = luck(&mut random);
        let run_id = fixture.run("nightly", |recorder| questions(recorder, noise, *factor));
        let sha = Some(format!("{index:040x}"));
        fixture.store.update_manifest(&run_id, |manifest| manifest.facts.git_sha = sha).unwrap();
        run_id
    });
    runs.collect()
}

fn step(before: usize, after: usize, factor: f64) -> Vec<f64> {
    let mut factors = vec![1.0; before];
    factors.resize(before + after, factor);
    factors
}

async fn looked_at(fixture: &Fixture, metric: &str, select: Option<&str>, by: &[&str]) -> Trend {
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let by: Vec<String> = by.iter().map(|text| (*text).to_owned()).collect();
    let query = TrendQuery::parse(metric, select, &by).unwrap();
    trend(&analyzer, &query).await.unwrap()
}

fn series<'a>(trend: &'a Trend, group: &str) -> &'a TrendSeries {
    let found = trend.series.iter().find(|series| series.group == group);
    found.unwrap_or_else(|| panic!("no {group} in {:?}", trend.series))
}

const LATELY: Alarm = Alarm { worse: Direction::More, runs: 10, change_min: 0.05 };

/// Scenario: 24 runs; from the 15th on, reranking takes a quarter longer.
/// Guarantees: one change point, in the stage that changed and nowhere else, with its runs,
/// commits, medians and size; it is for the worse where more is worse.
#[tokio::test]
async fn a_planted_change_is_found_where_it_is() {
    let fixture = Fixture::new();
    let runs = history(&fixture, &step(14, 10, 1.25), 1);
    let found = looked_at(&fixture, "p95(duration)", None, &["stage"]).await;
    assert_eq!((found.runs, found.unit.as_str(), found.runs_min), (24, "ns", 12));
    let names: Vec<&str> = found.series.iter().map(|series| series.group.as_str()).collect();
    assert_eq!(names, ["llm", "query", "rerank"]);
    let rerank = series(&found, "rerank");
    let [change] = rerank.changes.as_slice() else { panic!("{:#?}", rerank.changes) };
    assert_eq!(change.index, 14, "{change:?}");
    assert_eq!((&change.run_before, &change.run), (&runs[13].to_string(), &runs[14].to_string()));
    assert_eq!(change.sha_before.as_deref(), Some(format!("{:040x}", 13).as_str()));
    assert_eq!(change.sha.as_deref(), Some(format!("{:040x}", 14).as_str()));
    assert!((change.median_before / 30e6 - 1.0).abs() < 0.03, "{change:?}");
    assert!((change.change.unwrap() - 0.25).abs() < 0.05 && change.p <= 0.01, "{change:?}");
    assert!(change.run_earliest <= change.run && change.run <= change.run_latest);
    assert!(change.interval_runs >= 1);
    assert!(series(&found, "llm").changes.is_empty());
    let alarms = worsened(&found, &LATELY);
    assert!(alarms.iter().any(|(series, _)| series.group == "rerank"), "{alarms:?}");
    for alarm in [
        Alarm { worse: Direction::Less, ..LATELY },
        Alarm { runs: 9, ..LATELY },
        Alarm { change_min: 0.4, ..LATELY },
    ] {
        assert!(worsened(&found, &alarm).is_empty(), "{alarm:?}");
    }
}

/// Scenario: 24 runs of the same program.
/// Guarantees: nothing changed in any of its stages; one group needs no name.
#[tokio::test]
async fn a_history_without_a_change_has_no_change_point() {
    let fixture = Fixture::new();
    history(&fixture, &[1.0; 24], 2);
    let found = looked_at(&fixture, "p95(duration)", None, &["stage"]).await;
    assert!(found.series.iter().all(|series| series.changes.is_empty()), "{found:#?}");
    assert!(found.warnings.is_empty() && worsened(&found, &LATELY).is_empty());
    let whole = looked_at(&fixture, "share(critical_path, 'rerank')", None, &[]).await;
    let [only] = whole.series.as_slice() else { panic!("{whole:#?}") };
    assert_eq!((only.group.as_str(), only.points.len()), ("", 24));
    assert!((only.points[0].value.unwrap() - 30.0 / 130.0).abs() < 1e-6);
    assert!(only.changes.is_empty() && only.gaps.is_empty());
    let same = looked_at(&fixture, "mean(cost_usd)", Some("stage = 'llm'"), &[]).await;
    assert!(same.series[0].changes.is_empty(), "every value is the same");
}

/// Scenario: three slow runs after 20, too few for a change point; then six runs in all.
/// Guarantees: the three are warned of; how many runs a change point takes is said.
#[tokio::test]
async fn too_few_runs_are_a_warning_at_most() {
    let fixture = Fixture::new();
    let runs = history(&fixture, &step(20, 3, 1.3), 3);
    let found = looked_at(&fixture, "mean(duration)", Some("stage = 'rerank'"), &[]).await;
    let [one] = found.series.as_slice() else { panic!("{found:#?}") };
    assert!(one.changes.is_empty(), "{:?}", one.changes);
    let recent = one.recent.as_ref().unwrap();
    assert!(recent.is_shifted, "{recent:?}");
    assert_eq!((recent.runs, &recent.run), (3, &runs[20].to_string()));
    assert!((recent.change.unwrap() - 0.3).abs() < 0.06, "{recent:?}");
    let few = Fixture::new();
    history(&few, &step(3, 3, 2.0), 4);
    let found = looked_at(&few, "mean(duration)", None, &[]).await;
    assert_eq!((found.runs, found.runs_min), (6, 10));
    let recent = found.series[0].recent.as_ref();
    assert!(found.series[0].changes.is_empty() && recent.is_some_and(|shift| !shift.is_shifted));
}

/// Scenario: a run without the stage, one on another machine, and one that lost events.
/// Guarantees: a gap is no zero; another machine is a series of its own, after those of the
/// youngest run's; positions count gaps; what was lost is warned of.
#[tokio::test]
async fn gaps_and_other_machines_are_kept_apart() {
    let fixture = Fixture::new();
    let before = history(&fixture, &[1.0; 8], 5);
    let gap = fixture.run("nightly", |recorder| spec(1, 1, None, "idle").record(recorder));
    let after = history(&fixture, &[1.4; 8], 6);
    fixture
        .store
        .update_manifest(&before[2], |manifest| manifest.facts.host.cpu = "other".to_owned())
        .unwrap();
    let found = looked_at(&fixture, "mean(duration)", Some("stage = 'rerank'"), &[]).await;
    let [here, there] = found.series.as_slice() else { panic!("{found:#?}") };
    assert!(here.is_same_machine && !there.is_same_machine);
    assert_eq!(here.gaps, [gap.to_string()]);
    assert_eq!((here.points.len(), there.points.len()), (16, 1));
    assert_eq!(there.group, format!("(machine {})", there.machine_key));
    assert_eq!(there.points[0].run_id, before[2].to_string());
    let [change] = here.changes.as_slice() else { panic!("{:#?}", here.changes) };
    assert_eq!((change.index, &change.run), (8, &after[0].to_string()));
    assert_eq!(change.run_before, before[7].to_string(), "the gap before it has no value");
    let rows = points(&found).unwrap();
    assert_eq!(rows.num_rows(), 17);
    let names: Vec<&String> = rows.schema.fields().iter().map(|field| field.name()).collect();
    assert_eq!(names, ["run_id", "started_unix_ns", "git_sha", "group", "value"]);
}

/// Scenario: metrics nobody knows, groups of what has no rows, columns that do not exist.
/// Guarantees: each has an error that says what to write.
#[tokio::test]
async fn wrong_metrics_are_refused() {
    for (metric, by, reason) in [
        ("fastest(duration)", None, "p50 to p99.9"),
        ("duration", None, "such as p95(duration)"),
        ("lost_spans()", Some("stage"), "whole run"),
    ] {
        let by: Vec<String> = by.into_iter().map(str::to_owned).collect();
        let error = TrendQuery::parse(metric, None, &by).unwrap_err().to_string();
        assert!(error.starts_with("read metric") && error.contains(reason), "{error}");
    }
    let fixture = Fixture::new();
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let query = TrendQuery::parse("mean(nonsense)", None, &[]).unwrap();
    assert!(trend(&analyzer, &query).await.unwrap_err().to_string().contains("needs a run"));
    history(&fixture, &[1.0], 7);
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let error = trend(&analyzer, &query).await.unwrap_err().to_string();
    assert!(error.contains("nonsense"), "{error}");
}

#[test]
fn lists_of_expressions_are_split_outside_brackets_and_quotes() {
    assert_eq!(expressions("stage, model"), ["stage", "model"]);
    assert_eq!(
        expressions("coalesce(stage, 'a,b') , \"x,y\""),
        ["coalesce(stage, 'a,b')", "\"x,y\""]
    );
    assert_eq!(expressions(" , "), Vec::<String>::new());
}

/// Scenario: the same history, and a run of another name, asked of in SQL.
/// Guarantees: the change is one row, with the commits it lies between; other names stay out of it,
/// unless they are asked for.
#[tokio::test]
async fn change_points_are_rows() {
    let fixture = Fixture::new();
    let runs = history(&fixture, &step(8, 8, 1.4), 11);
    fixture.run("other", |recorder| questions(recorder, 1.0, 5.0));
    // The youngest run names the history.
    let youngest = fixture.run("nightly", |recorder| questions(recorder, 1.0, 1.4));
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let ask = async |sql: &str| {
        let result = analyzer.query(sql).await.unwrap();
        let batches = result.batches.iter();
        let rows = batches.flat_map(|batch| {
            let of = |column: usize, row: usize| {
                arrow::util::display::array_value_to_string(batch.column(column), row).unwrap()
            };
            let line = |row| (0..batch.num_columns()).map(|c| of(c, row)).collect::<Vec<_>>();
            (0..batch.num_rows()).map(line).collect::<Vec<_>>()
        });
        rows.collect::<Vec<Vec<String>>>()
    };
    let found = ask("select group_name, run, round(change, 1), unit, git_sha_before is null, git_sha_latest is null \
                     from change_points('mean(duration)', 'stage')").await;
    let stages: Vec<&str> = found.iter().map(|row| row[0].as_str()).collect();
    assert!(stages.contains(&"rerank") && !stages.contains(&"llm"), "{found:?}");
    let rerank = found.iter().find(|row| row[0] == "rerank").unwrap();
    assert_eq!(rerank[1..], [runs[8].as_str(), "0.4", "ns", "false", "false"]);
    let few = format!("select * from change_points('mean(duration)', '', '{youngest}')");
    assert_eq!(ask(&few).await.len(), 0);
}
