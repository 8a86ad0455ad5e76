//! Checks of runs that were recorded for the purpose.

use std::collections::HashMap;
use std::path::Path;

use retake_recorder::Recorder;
use retake_schemas::RunId;

use super::{Budgets, Check, check};
use crate::diff::DiffOptions;
use crate::fixture::{Fixture, spec};
use crate::model::{BudgetVerdict, CheckReport, CheckVerdict};
use crate::session::{Analyzer, Scope};
use crate::stats::SplitMix64;

/// Forty questions: retrieval, reranking, model. `slower` stretches the reranking; `noise` is the
/// luck of the run, about 1.
fn questions(recorder: &Recorder, random: &mut SplitMix64, noise: f64, slower: f64) {
    let mut uniform = || random.next_u64() as f64 / u64::MAX as f64;
    for n in 0..40_u8 {
        let spread = 0.9 + 0.2 * uniform();
        let ns = |ms: f64| (ms * 1e6 * noise * spread) as i64;
        let (retrieve, rerank, llm) = (ns(20.0), ns(30.0 * slower), ns(100.0));
        let start = i64::from(n) * 1_000_000_000;
        spec(n, 1, None, "query").at(start, retrieve + rerank + llm).record(recorder);
        spec(n, 2, Some(1), "retrieve")
            .at(start, retrieve)
            .with("retake.quality.recall", 0.75)
            .record(recorder);
        spec(n, 3, Some(1), "rerank").at(start + retrieve, rerank).record(recorder);
        spec(n, 4, Some(1), "llm")
            .at(start + retrieve + rerank, llm)
            .with("gen_ai.operation.name", "chat")
            .with("gen_ai.usage.input_tokens", 1_000_i64)
            .with("gen_ai.usage.output_tokens", 50_i64)
            .with("gen_ai.usage.cost", 0.002)
            .with("gen_ai.conversation.id", if n % 2 == 0 { "even" } else { "odd" })
            .record(recorder);
    }
}

/// Runs with 3 % of luck each.
fn runs(fixture: &Fixture, name: &str, count: usize, slower: f64, seed: u64) -> Vec<RunId> {
    let mut random = SplitMix64::new(seed);
    (0..count)
        .map(|_| {
            let uniform = |random: &mut SplitMix64| random.next_u64() as f64 / u64::MAX as f64;
            // The sum of three uniform numbers has a standard deviation of a half.
            let luck = (0..3).map(|_| uniform(&mut random)).sum::<f64>() - 1.5;
            fixture.run(name, |recorder| {
                questions(recorder, &mut random, 1.0 + 0.06 * luck, slower);
            })
        })
        .collect()
}

async fn checked(
    fixture: &Fixture,
    runs: &[RunId],
    baseline: &[RunId],
    budgets: Option<&str>,
) -> CheckReport {
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let budgets = budgets.map(|text| {
        Budgets::parse(&format!("version = 1\n{text}"), Path::new("budgets.toml")).unwrap()
    });
    let named = HashMap::from([("baseline:main".to_owned(), baseline.to_vec())]);
    let options = Check {
        runs,
        baseline,
        budgets: budgets.as_ref(),
        named: &named,
        options: DiffOptions::default(),
        inconclusive_fails: true,
    };
    check(&analyzer, &options).await.unwrap()
}

/// Scenario: ten runs, and ten in which reranking takes twice as long.
/// Guarantees: one finding, which names the stage, the effect and three traces; contributions sum
/// to the change.
#[tokio::test]
async fn a_planted_regression_is_one_finding() {
    let fixture = Fixture::new();
    let base = runs(&fixture, "base", 10, 1.0, 1);
    let slow = runs(&fixture, "slow", 10, 2.0, 2);
    let report = checked(&fixture, &slow, &base, None).await;
    assert_eq!((report.exit_code, report.verdict), (10, CheckVerdict::Fail));
    let [finding] = report.regressions.as_slice() else { panic!("{:#?}", report.regressions) };
    assert_eq!(finding.stage.as_deref(), Some("rerank"));
    assert_eq!(finding.metric, "latency, latency p95");
    assert!((finding.effect - 0.2).abs() < 0.05, "{}", finding.effect);
    assert!(finding.effect_ci[0] > 0.1 && finding.effect_ci[1] < 0.3, "{:?}", finding.effect_ci);
    assert_eq!(finding.examples.len(), 3);
    let whole: f64 = finding.contributions.iter().map(|part| part.share).sum();
    assert!((whole - 1.0).abs() < 1e-9);
    assert!(finding.contributions[0].share > 0.8, "{:?}", finding.contributions);
}

/// Scenario: the same program twice; then one new run against ten, as a pull request has it, the
/// same and twice as slow; then two runs a side.
/// Guarantees: nothing is found where nothing changed; a single run is judged by the luck of the
/// baseline's runs; too few runs are inconclusive, with how many are needed.
#[tokio::test]
async fn what_did_not_change_is_no_finding_and_too_few_runs_are_no_verdict() {
    let fixture = Fixture::new();
    let base = runs(&fixture, "base", 10, 1.0, 3);
    let same = runs(&fixture, "same", 10, 1.0, 4);
    let slow = runs(&fixture, "slow", 1, 2.0, 5);
    let report = checked(&fixture, &same, &base, None).await;
    assert!(report.regressions.is_empty(), "{:#?}", report.regressions);
    let one = checked(&fixture, &same[..1], &base, None).await;
    assert!(one.regressions.is_empty(), "{:#?}", one.regressions);
    let one = checked(&fixture, &slow, &base, None).await;
    assert_eq!(one.regressions.len(), 1, "{:#?}", one.comparison);
    let few = checked(&fixture, &slow, &base[..2], None).await;
    assert_eq!((few.exit_code, few.verdict), (20, CheckVerdict::Inconclusive));
    let row = &few.comparison.unwrap().rows[0];
    assert_eq!(row.runs_needed, Some(4));
}

fn verdict<'a>(report: &'a CheckReport, name: &str) -> &'a BudgetVerdict {
    report.budgets.iter().find(|budget| budget.budget == name).unwrap()
}

/// Scenario: budgets of every kind, kept and crossed, over a history whose last two runs are slow.
/// Guarantees: each verdict has its number, limit, room and evidence; the first bad run is named.
#[tokio::test]
async fn budgets_are_held_against_what_was_recorded() {
    let fixture = Fixture::new();
    let good = runs(&fixture, "app", 5, 1.0, 6);
    let bad = runs(&fixture, "app", 2, 2.0, 7);
    let budgets = r#"
        [[budget]]
        name = "rerank p95"
        select = "stage = 'rerank'"
        metric = "p95(duration)"
        max = "45ms"
        [[budget]]
        name = "enough"
        metric = "count()"
        min = 160
        min_samples = 100
        [[budget]]
        name = "too few"
        metric = "p99(e2e)"
        max = "1s"
        min_samples = 1000
        [[budget]]
        name = "cost"
        metric = "mean(cost_usd)"
        per = "session"
        max = "$0.001"
        severity = "warn"
        [[budget]]
        name = "recall"
        metric = "mean(recall_at_5)"
        min = "80%"
        [[budget]]
        name = "share"
        metric = "share(critical_path, 'llm')"
        max = 0.7
        [[budget]]
        name = "own"
        sql = "select count(distinct trace_id) from spans where run_id = $run"
        max = 40
        [[budget]]
        name = "slo"
        slo = { good = "e2e < 200ms", target = 0.9, window = "28d", burn = [{ long = "1h", short = "5m", rate = 1.5 }] }
        [[budget]]
        name = "goodput"
        metric = "goodput(e2e < 150ms)"
        min = 0.9
        [[budget]]
        name = "relative"
        metric = "median(duration)"
        per = "stage"
        relative_to = "baseline:main"
        max_increase = "8%"
        [[budget]]
        name = "nothing there"
        metric = "p95(ttft)"
        max = "1s"
        [[budget]]
        name = "lost"
        metric = "lost_spans()"
        max = 0
    "#;
    let report = checked(&fixture, &bad[1..], &good, Some(budgets)).await;
    let rerank = verdict(&report, "rerank p95");
    assert_eq!(rerank.verdict, CheckVerdict::Fail);
    assert!(rerank.actual.unwrap() > 55e6 && rerank.margin.unwrap() < 0.0);
    assert_eq!(rerank.first_bad_run, Some(bad[0].to_string()));
    assert_eq!((rerank.samples, rerank.evidence.len()), (40, 3));
    assert!(rerank.evidence[0].value >= rerank.evidence[1].value);
    assert_eq!(verdict(&report, "enough").verdict, CheckVerdict::Pass);
    assert_eq!(verdict(&report, "enough").actual, Some(160.0));
    assert_eq!(verdict(&report, "too few").verdict, CheckVerdict::Inconclusive);
    let groups: Vec<(&str, CheckVerdict)> = report
        .budgets
        .iter()
        .filter(|budget| budget.budget == "cost")
        .map(|budget| (budget.group.as_deref().unwrap(), budget.verdict))
        .collect();
    assert_eq!(groups, [("even", CheckVerdict::Warn), ("odd", CheckVerdict::Warn)]);
    let recall = verdict(&report, "recall");
    assert_eq!((recall.actual, recall.verdict), (Some(0.75), CheckVerdict::Fail));
    assert_eq!(verdict(&report, "share").verdict, CheckVerdict::Pass);
    let own = verdict(&report, "own");
    assert_eq!((own.actual, own.verdict), (Some(40.0), CheckVerdict::Pass));
    // All 280 of the week are good, or all but those of the slow runs; the slow ones take 180 ms.
    assert_eq!(verdict(&report, "slo").verdict, CheckVerdict::Pass);
    assert_eq!(verdict(&report, "slo").samples, 280);
    assert_eq!(verdict(&report, "goodput").verdict, CheckVerdict::Fail);
    let relative: Vec<(&str, CheckVerdict)> = report
        .budgets
        .iter()
        .filter(|budget| budget.budget == "relative")
        .map(|budget| (budget.group.as_deref().unwrap(), budget.verdict))
        .collect();
    assert!(relative.contains(&("rerank", CheckVerdict::Fail)), "{relative:?}");
    assert!(!relative.contains(&("llm", CheckVerdict::Fail)), "{relative:?}");
    let nothing = verdict(&report, "nothing there");
    assert_eq!(nothing.verdict, CheckVerdict::Inconclusive);
    assert!(nothing.note.is_some());
    assert_eq!(verdict(&report, "lost").verdict, CheckVerdict::Pass);
    assert_eq!(report.exit_code, 12, "a regression and crossed budgets");
}

/// Scenario: SQL in a budget that names no column, and that tries to write.
/// Guarantees: the error names the budget and its line.
#[tokio::test]
async fn wrong_sql_in_a_budget_names_the_budget() {
    let fixture = Fixture::new();
    let run = runs(&fixture, "app", 1, 1.0, 8);
    for (budget, reason) in [
        ("metric = 'p95(nonsense)'\nmax = 1", "budget \"x\" (line 2)"),
        ("metric = 'count()'\nselect = 'stage ='\nmax = 1", "budget \"x\" (line 2)"),
        ("sql = 'drop table spans'\nmax = 1", "not allowed"),
        ("sql = 'select stage from spans'\nmax = 1", "budget \"x\" (line 2)"),
    ] {
        let text = format!("version = 1\n[[budget]]\nname = 'x'\n{budget}");
        let budgets = Budgets::parse(&text, Path::new("b.toml")).unwrap();
        let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
        let options = Check {
            runs: &run,
            baseline: &[],
            budgets: Some(&budgets),
            named: &HashMap::new(),
            options: DiffOptions::default(),
            inconclusive_fails: false,
        };
        let error = check(&analyzer, &options).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
