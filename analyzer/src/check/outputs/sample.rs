//! A report with everything in it, and with names strangers chose.

use crate::check::Severity;
use crate::model::{
    BudgetVerdict, CheckReport, CheckVerdict, Contribution, Diff, DiffRow, Evidence, ExampleTrace,
    Finding, SCHEMA_VERSION, Verdict,
};

pub(in crate::check) fn report(stage: &str) -> CheckReport {
    let row = |stage: &str, metric: &str, verdict| DiffRow {
        stage: stage.to_owned(),
        metric: metric.to_owned(),
        unit: "ns".to_owned(),
        base: 100e6,
        candidate: 125e6,
        effect: 0.25,
        effect_ci: [0.2, 0.3],
        p_adjusted: Some(0.001),
        n_base: 10,
        n_candidate: 5,
        verdict,
        explains_share: Some(0.9),
        note: (verdict == Verdict::Inconclusive).then(|| "too uncertain".to_owned()),
        resolvable: Some(0.08),
        runs_needed: None,
    };
    let finding = Finding {
        metric: "latency".to_owned(),
        operation: String::new(),
        stage: Some(stage.to_owned()),
        source_file: Some("src/my rerank,1.rs".to_owned()),
        source_line: Some(42),
        effect: 0.25,
        effect_ci: [0.2, 0.3],
        base: 100e6,
        candidate: 125e6,
        unit: "ns".to_owned(),
        contributions: vec![Contribution { stage: stage.to_owned(), change_ns: 25e6, share: 1.0 }],
        examples: vec![ExampleTrace {
            run_id: "r1".to_owned(),
            trace_id: "ab".repeat(16),
            stage_ns: 60_000_000,
            duration_ns: 140_000_000,
        }],
    };
    let budget = |name: &str, verdict| BudgetVerdict {
        budget: name.to_owned(),
        group: Some(stage.to_owned()),
        metric: "p95(duration)".to_owned(),
        unit: "ns".to_owned(),
        limit: Some(75e6),
        is_min: false,
        is_relative: false,
        actual: Some(82e6),
        margin: Some(-0.09),
        interval: Some([80e6, 84e6]),
        samples: 200,
        severity: Severity::Fail,
        verdict,
        evidence: vec![Evidence { run_id: "r1".into(), trace_id: "cd".repeat(16), value: 99e6 }],
        first_bad_run: Some("r0".to_owned()),
        line: 7,
        note: None,
    };
    let budgets = vec![
        budget("kept", CheckVerdict::Pass),
        budget("crossed", CheckVerdict::Fail),
        budget("said", CheckVerdict::Warn),
        budget("open", CheckVerdict::Inconclusive),
    ];
    CheckReport {
        schema_version: SCHEMA_VERSION,
        run_id: "r1".to_owned(),
        runs: vec!["r1".to_owned()],
        baseline: vec!["b1".to_owned(), "b2".to_owned()],
        violations: vec![budget("crossed", CheckVerdict::Fail)],
        budgets,
        comparison: Some(Diff {
            schema_version: SCHEMA_VERSION,
            base: "b1".to_owned(),
            candidate: "r1".to_owned(),
            paired: false,
            pairs: 0,
            repeats: [2, 1],
            settings_diff: Vec::new(),
            warnings: Vec::new(),
            rows: vec![
                row("(end to end)", "latency", Verdict::Worse),
                row(stage, "wall", Verdict::Worse),
                row("llm", "wall", Verdict::Inconclusive),
            ],
            verdict: Verdict::Worse,
            note: "2 runs against 1".to_owned(),
            findings: vec![finding.clone()],
        }),
        regressions: vec![finding],
        warnings: vec!["run b1 is interrupted".to_owned()],
        verdict: CheckVerdict::Fail,
        exit_code: 12,
    }
}
