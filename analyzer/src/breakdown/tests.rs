//! Breakdowns of runs written by the real recorder.

use std::collections::HashMap;

use crate::breakdown::GroupKey;
use crate::check::Budgets;
use crate::fixture::{Fixture, START, question, spec, trace_id};
use crate::model::{BreakdownRow, CheckVerdict};
use crate::{AnalyzeError, Analyzer, ReportRequest, Scope};
use crate::{breakdown, data_quality, goodput, report_data, trace_summaries, trace_tree};

fn row<'a>(rows: &'a [BreakdownRow], stage: &str) -> &'a BreakdownRow {
    rows.iter().find(|row| row.stage == stage).unwrap_or_else(|| panic!("{stage} in {rows:?}"))
}

/// Scenario: two questions, the first sealed in two parts.
/// Guarantees: the attributed times sum to the wall time; the parallel searches share theirs.
#[tokio::test]
async fn every_nanosecond_of_the_wall_time_is_in_one_row() {
    let fixture = Fixture::new();
    let run_id = fixture.run("r", |recorder| {
        question(recorder, 1, 0, 1_000_000);
        recorder.seal().unwrap();
        question(recorder, 2, 0, 1_000_001);
    });
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let found = breakdown(&analyzer, &run_id, &[]).await.unwrap();
    assert_eq!((found.traces, found.spans, found.wall_ns), (2, 10, 20_000_010));
    assert_eq!(found.rows.iter().map(|row| row.wall_ns).sum::<i64>(), found.wall_ns);
    let shares: f64 = found.rows.iter().map(|row| row.critical_share).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    let search = row(&found.rows, "search");
    assert_eq!((search.calls, search.wall_ns, search.total_ns), (4, 6_000_003, 10_000_005));
    assert_eq!(row(&found.rows, "retrieve").self_ns, 0);
    assert_eq!(row(&found.rows, "query").wall_ns, 6_000_003);
    let llm = row(&found.rows, "llm");
    assert_eq!((llm.kind.as_str(), llm.p50_ns, llm.p99_ns), ("llm", 4_000_000, 4_000_004));
    assert_eq!((llm.input_tokens, llm.output_tokens), (Some(200), Some(20)));
    assert_eq!((llm.tokens_source.as_str(), llm.ttft_p50_ns), ("provider", Some(1_000_000)));
    // 4 ms of which 1 ms to the first of 10 tokens.
    assert_eq!(llm.tpot_p50_ns, Some(3_000_000 / 9));
    assert_eq!((llm.retries, llm.cache_lookups), (None, 0));
    assert_eq!((found.tokens.llm_input, found.tokens.llm_output), (200, 20));
    assert_eq!(found.rows[0].stage, "llm", "largest first: {:?}", found.rows);
    let by = [GroupKey::Kind, GroupKey::Model];
    let by_model = breakdown(&analyzer, &run_id, &by).await.unwrap();
    assert_eq!(row(&by_model.rows, "llm / model-a").calls, 2);
    assert_eq!(row(&by_model.rows, "span / -").calls, 8);
}

/// Scenario: calls that were retried, a cache that was asked, tokens from the provider's cache and
/// spent on reasoning, a call of one token, a call without a first token; two objectives.
#[tokio::test]
async fn retries_caches_and_goodput_are_counted_where_they_were_recorded() {
    let fixture = Fixture::new();
    let run_id = fixture.run("r", |recorder| {
        let call = |trace: u8, retries: i64, output: i64| {
            let call = spec(trace, 2, Some(1), "llm").at(0, 1_000).with("retake.retries", retries);
            let call = call.with("gen_ai.operation.name", "chat");
            let call = call.with("gen_ai.usage.input_tokens", 100_i64);
            let call = call.with("gen_ai.usage.output_tokens", output);
            let call = call.with("gen_ai.usage.cache_read.input_tokens", 60_i64);
            call.with("gen_ai.usage.reasoning.output_tokens", 3_i64)
        };
        for (trace, retries, output) in [(1, 0, 1), (2, 2, 11), (3, 1, 11)] {
            spec(trace, 1, None, "query").at(0, 1_000 * i64::from(trace)).record(recorder);
            let lookup = spec(trace, 3, Some(1), "cache").at(0, 10);
            lookup.with("retake.cache_hit", trace == 2).record(recorder);
            let call = call(trace, retries, output);
            call.open(recorder);
            if trace < 3 {
                call.token(recorder, 0, 400);
            }
            call.close(recorder);
        }
    });
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let found = breakdown(&analyzer, &run_id, &[]).await.unwrap();
    let (llm, cache) = (row(&found.rows, "llm"), row(&found.rows, "cache"));
    assert_eq!((llm.retries, cache.retries), (Some(3), None));
    assert_eq!((cache.cache_lookups, cache.cache_hits, llm.cache_lookups), (3, 1, 0));
    assert_eq!((llm.cache_read_tokens, llm.reasoning_tokens), (Some(180), Some(9)));
    assert_eq!(llm.tpot_p50_ns, Some(60), "only the second streamed more than one token");
    let good = goodput(&analyzer, &run_id, "e2e < 2.5us").await.unwrap();
    assert_eq!((good.traces, good.share), (3, Some(2.0 / 3.0)));
    let known = goodput(&analyzer, &run_id, "ttft < 1us and e2e < 1.5us").await.unwrap();
    assert_eq!((known.traces, known.share), (3, Some(1.0 / 3.0)), "false is known without ttft");
    let wrong = goodput(&analyzer, &run_id, "colour = 'red'").await.unwrap_err();
    assert!(wrong.to_string().contains("colour"), "{wrong}");
}

/// Scenario: an agent that states the sum of its calls' tokens, sealed after them; estimates;
/// an embedding; a failure below a failed parent; a lost parent; a gap between two roots.
/// Guarantees: tokens and failures count once, across segments; estimates stand apart.
#[tokio::test]
async fn tokens_and_failures_count_once_across_segments() {
    let fixture = Fixture::new();
    let usage = |s: crate::fixture::Spec, input: i64| {
        s.with("gen_ai.usage.input_tokens", input).with("gen_ai.usage.output_tokens", 1_i64)
    };
    let run_id = fixture.run("r", |recorder| {
        let agent = usage(spec(1, 1, None, "agent").at(0, 100), 30).failed("Gave up");
        agent.open(recorder);
        usage(spec(1, 2, Some(1), "llm").at(0, 10), 10).record(recorder);
        recorder.seal().unwrap();
        usage(spec(1, 3, Some(1), "llm").at(10, 10), 20).failed("Timeout").record(recorder);
        recorder.seal().unwrap();
        agent.close(recorder);
        usage(spec(2, 1, None, "guess").at(0, 10), 5)
            .with("retake.tokens.source", "estimate")
            .record(recorder);
        usage(spec(3, 1, None, "embed").at(0, 10), 7)
            .with("gen_ai.operation.name", "embeddings")
            .record(recorder);
        spec(4, 8, Some(7), "lost").at(0, 10).record(recorder);
        spec(4, 9, Some(7), "lost").at(30, 10).record(recorder);
    });
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let found = breakdown(&analyzer, &run_id, &[]).await.unwrap();
    assert_eq!(row(&found.rows, "llm").input_tokens, Some(30));
    assert_eq!(row(&found.rows, "agent").input_tokens, None);
    assert_eq!(found.tokens.embedding, 7);
    assert_eq!(found.tokens.llm_input + found.tokens.estimated_input, 35);
    let [error] = found.errors.as_slice() else { panic!("{:?}", found.errors) };
    assert_eq!((error.stage.as_str(), error.error_type.as_str()), ("llm", "Timeout"));
    assert_eq!(error.span_id, "0000000000000003");
    assert_eq!((row(&found.rows, "agent").errors, row(&found.rows, "llm").errors), (0, 1));
    assert_eq!(found.lost_spans, 1);
    assert_eq!(row(&found.rows, "(idle)").wall_ns, 20);
    assert_eq!(found.wall_ns, 100 + 10 + 10 + 40);
    let quality = data_quality(&analyzer, &run_id).await.unwrap();
    assert_eq!((quality.lost_spans, quality.orphans, quality.unfinished), (1, 2, 0));
}

#[tokio::test]
async fn a_trace_is_found_by_a_prefix_and_shown_in_order() {
    let fixture = Fixture::new();
    let run_id = fixture.run("r", |recorder| {
        question(recorder, 0x1a, 0, 1_000);
        question(recorder, 0x1b, 500, 1_000);
    });
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let tree = trace_tree(&analyzer, &run_id, "1A").await.unwrap();
    assert_eq!(tree.trace_id, trace_id(0x1a).to_string());
    let shape: Vec<(usize, &str, bool)> = tree
        .nodes
        .iter()
        .map(|node| (node.depth, node.span.stage.as_str(), node.is_critical))
        .collect();
    assert_eq!(
        shape,
        [
            (0, "query", true),
            (1, "retrieve", true),
            (2, "search", true),
            (2, "search", false),
            (1, "llm", true)
        ]
    );
    assert_eq!((tree.start_unix_ns, tree.duration_ns), (START, 10_000));
    for (prefix, reason) in
        [("1", "several traces"), ("ff", "no trace"), ("x'--", "hex"), ("", "hex"), ("%", "hex")]
    {
        let error = trace_tree(&analyzer, &run_id, prefix).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    let summaries = trace_summaries(&analyzer, &run_id).await.unwrap();
    let first = &summaries[0];
    assert_eq!((first.name.as_str(), first.duration_ns, first.spans), ("query call", 10_000, 5));
    assert_eq!((first.ttft_ns, first.input_tokens, first.error.clone()), (Some(6_000), 100, None));
    let none = "none".parse().unwrap();
    let error = breakdown(&analyzer, &none, &[]).await.unwrap_err();
    assert!(matches!(error, AnalyzeError::NoRun(_)));
}

#[tokio::test]
async fn a_report_has_everything_it_draws() {
    let fixture = Fixture::new();
    let record = |recorder: &retake_recorder::Recorder| {
        for trace in 1..=8 {
            question(recorder, trace, i64::from(trace) * 1_000_000, 1_000 * i64::from(trace));
        }
        spec(9, 1, None, "query").at(0, 10).failed("Timeout").record(recorder);
    };
    let earlier = fixture.run("earlier", record);
    let base = fixture.run("base", record);
    let run_id = fixture.run("r", record);
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let budgets = "version = 1\n[[budget]]\nname = \"all\"\nmetric = \"p95(e2e)\"\nmax = \"1us\"\n";
    let budgets = Budgets::parse(budgets, "budgets.toml".as_ref()).unwrap();
    let request = ReportRequest {
        runs: std::slice::from_ref(&run_id),
        baselines: std::slice::from_ref(&base),
        history: &[earlier, base.clone(), run_id.clone()],
        budgets: Some(&budgets),
        named: &HashMap::new(),
        with_text: false,
    };
    let data = report_data(&analyzer, request).await.unwrap();
    assert_eq!(data.traces.len(), 9);
    assert_eq!(data.traces[0].duration_ns, 80_000, "slowest first");
    assert_eq!(data.trees.len(), 6, "the five slowest and the failed one");
    let stages: Vec<&String> = data.breakdown.rows.iter().map(|row| &row.stage).collect();
    assert_eq!(data.durations.iter().map(|(stage, _)| stage).collect::<Vec<_>>(), stages);
    assert_eq!(data.token_gaps_ns.len(), 16);
    assert_eq!(data.token_gaps_ns[0], 1_000);
    for query in data.queries.iter().filter(|query| query.section != "budgets") {
        let found = analyzer.query(&query.sql).await;
        assert!(found.is_ok(), "{}: {:?}", query.sql, found.err());
    }
    let wall: i64 = data.flames.iter().map(|flame| flame.wall_ns).sum();
    let idle = data.breakdown.rows.iter().find(|row| row.stage == "(idle)");
    assert_eq!(wall + idle.map_or(0, |row| row.wall_ns), data.breakdown.wall_ns, "paths add up");
    assert!(data.budgets.len() == 1 && data.budgets[0].verdict == CheckVerdict::Fail);
    assert!(data.trend.unwrap().series.iter().all(|series| series.points.len() == 3));
    let baseline = data.baseline.unwrap();
    assert_eq!(baseline.trace_durations_ns.len(), 9);
    assert!(!baseline.diff.paired);
}
