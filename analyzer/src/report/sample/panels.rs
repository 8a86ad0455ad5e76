//! Made-up budgets, history and retrieval of the rich run.

use super::{Dice, START};
use crate::check::Severity;
use crate::model::{
    BudgetVerdict, CheckVerdict, Evidence, RankScores, ReportData, Reranking, Retrieval,
    SCHEMA_VERSION, SweepData, SweepMeasurement, SweepObjective, SweepSetting, Trend, TrendChange,
    TrendPoint, TrendSeries,
};

pub(super) fn budgets(data: &ReportData) -> Vec<BudgetVerdict> {
    let slowest = data.traces.first().map_or("", |trace| &trace.trace_id);
    let budget =
        |name: &str, unit: &str, limit: f64, actual: f64, verdict: CheckVerdict| BudgetVerdict {
            budget: name.to_owned(),
            group: (unit == "ns").then(|| "rerank".to_owned()),
            metric: "p95(duration)".to_owned(),
            unit: unit.to_owned(),
            limit: Some(limit),
            is_min: false,
            is_relative: false,
            actual: Some(actual),
            margin: Some(1.0 - actual / limit),
            interval: Some([actual * 0.93, actual * 1.08]),
            samples: 400,
            severity: Severity::Fail,
            verdict,
            evidence: vec![Evidence {
                run_id: data.run.run_id.clone(),
                trace_id: slowest.to_owned(),
                value: actual,
            }],
            first_bad_run: None,
            line: 3,
            note: None,
        };
    let mut all = vec![
        budget("cost per request", "usd", 0.004, 0.0031, CheckVerdict::Pass),
        budget("rerank p95", "ns", 150e6, 231e6, CheckVerdict::Fail),
        budget("retrieval share", "share", 0.25, 0.252, CheckVerdict::Inconclusive),
        budget("tokens per answer", "number", 900.0, 1_240.0, CheckVerdict::Warn),
    ];
    all[2].note = Some("the interval lies on both sides; 3 more runs would decide".to_owned());
    all[2].evidence.clear();
    all
}

pub(super) fn sweep(data: &ReportData) -> SweepData {
    let mut dice = Dice(5);
    let objective = |name: &str, unit: &str, is_more_better| SweepObjective {
        name: name.to_owned(),
        unit: unit.to_owned(),
        is_more_better,
    };
    let settings = [(1, 22.0, 41e6), (4, 61.0, 47e6), (16, 118.0, 66e6), (64, 112.0, 98e6)];
    let settings = settings.map(|(batch, throughput, latency)| {
        let run_id = match batch {
            16 => data.run.run_id.clone(),
            _ => format!("20260313-020000-batch-{batch}"),
        };
        SweepSetting {
            label: format!("embed.batch_size={batch}"),
            predicted: vec![Some([throughput * 1.06, throughput * 0.9, throughput * 1.2]), None],
            measured: (0..4)
                .map(|_| SweepMeasurement {
                    run_id: run_id.clone(),
                    values: vec![
                        Some(dice.around(throughput * 1e6, 0.05) as f64 / 1e6),
                        Some(dice.around(latency, 0.06) as f64),
                    ],
                })
                .collect(),
            is_on_front: batch != 64,
            is_as_recorded: batch == 4,
            is_shown: batch == 16,
        }
    });
    SweepData {
        run_id: "20260313-010000-sweep".to_owned(),
        source: "20260312-230000-prod".to_owned(),
        objectives: vec![
            objective("throughput", "1/s", true),
            objective("latency_p95", "ns", false),
        ],
        settings: settings.to_vec(),
    }
}

pub(super) fn trend(data: &ReportData) -> Trend {
    let mut dice = Dice(11);
    let series = data.breakdown.rows.iter().map(|row| {
        let jump = if row.stage == "rerank" { 1.5 } else { 1.0 };
        let run_id = |at: usize| match at {
            23 => data.run.run_id.clone(),
            at => format!("20260313-0{:02}000-nightly-{at}", at),
        };
        let points: Vec<TrendPoint> = (0..24)
            .map(|at| TrendPoint {
                run_id: run_id(at),
                started_unix_ns: START,
                git_sha: Some(format!("{at:02}c1f0e7a9be2d5518d0")),
                value: (at != 5).then(|| {
                    let level = row.p95_ns as f64 * if at >= 15 { jump } else { 1.0 };
                    dice.around(level, 0.04) as f64
                }),
                samples: 400,
            })
            .collect();
        let change = TrendChange {
            index: 15,
            run_before: run_id(14),
            run: run_id(15),
            sha_before: Some("14c1f0e7a9be".to_owned()),
            sha: Some("15c1f0e7a9be".to_owned()),
            median_before: row.p95_ns as f64,
            median_after: row.p95_ns as f64 * jump,
            change: Some(jump - 1.0),
            p: 0.001,
            run_earliest: run_id(15),
            run_latest: run_id(16),
            interval_runs: 2,
            sha_before_earliest: Some("14c1f0e7a9be".to_owned()),
            sha_latest: Some("16c1f0e7a9be".to_owned()),
        };
        TrendSeries {
            group: row.stage.clone(),
            machine_key: "m".to_owned(),
            is_same_machine: true,
            points,
            gaps: Vec::new(),
            changes: if jump > 1.0 { vec![change] } else { Vec::new() },
            recent: None,
        }
    });
    Trend {
        schema_version: SCHEMA_VERSION,
        metric: "p95(duration)".to_owned(),
        unit: "ns".to_owned(),
        select: None,
        by: vec!["stage".to_owned()],
        runs: 24,
        machine_key: "m".to_owned(),
        runs_min: 12,
        groups_left_out: 0,
        series: series.collect(),
        warnings: Vec::new(),
    }
}

pub(super) fn retrieval(dice: &mut Dice) -> Retrieval {
    let mut scores = |stage: &str, role: &str, ranks: i64, first: f64, fall: f64| {
        (0..ranks)
            .map(|rank| {
                let median =
                    first - fall * (rank as f64).sqrt() + dice.around(1e6, 0.1) as f64 / 1e9;
                RankScores {
                    stage: stage.to_owned(),
                    role: role.to_owned(),
                    rank,
                    documents: 400 - 7 * rank.unsigned_abs(),
                    scores: Some([median - 0.08, median, median + 0.06]),
                }
            })
            .collect::<Vec<_>>()
    };
    let mut ranks = scores("search", "retrieved", 20, 0.82, 0.06);
    ranks.extend(scores("rerank", "rerank_output", 8, 0.97, 0.21));
    let moves = (0..11_u64).map(|after| {
        (0..11_u64)
            .map(|before| 400 / (1 + after.abs_diff(before).pow(2)) / (1 + after / 3))
            .collect()
    });
    Retrieval {
        retrievals: 1_200,
        empty: 17,
        ranks,
        reranking: Some(Reranking {
            rerankings: 398,
            first_changed: 141,
            moves: moves.collect(),
            moved: [1_480, 611, 1_093],
            dropped: 6_400,
        }),
        quality: vec![
            ("hit".to_owned(), 0.93, 120),
            ("recall".to_owned(), 0.812, 120),
            ("mrr".to_owned(), 0.74, 120),
        ],
        sources: vec![
            ("docs/guide/replay.md".to_owned(), 812),
            ("docs/guide/recording.md".to_owned(), 455),
            (
                "docs/a very long folder/with/many/parts/of/a/path/that/does/not/fit/one/column.html".to_owned(),
                90,
            ),
        ],
        sources_all: 64,
    }
}
