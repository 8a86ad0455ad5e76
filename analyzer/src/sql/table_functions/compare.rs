//! Comparisons as rows.

use arrow::datatypes::DataType::{Float64, Int64, Utf8};

use super::arguments::Arguments;
use super::columns::{floats, ints, texts};
use super::computed::Answer;
use super::{Definition, FunctionDoc};
use crate::diff::{DiffOptions, diff_repeated};
use crate::error::AnalyzeError;
use crate::model::{Contribution, Diff, DiffRow, Finding};
use crate::session::Analyzer;

pub(super) const COMPARE_RUNS: Definition = Definition {
    doc: FunctionDoc {
        call: "compare_runs(base, candidate)",
        doc: "Two runs or sets of runs compared, as `retake diff` does: one row per measure and stage, \
              with the change, its 95 % interval, the adjusted p-value and the verdict.",
        example: "SELECT stage, metric, effect, verdict FROM compare_runs('baseline:main', 'last')",
    },
    prepare: compare_runs,
};

pub(super) const REGRESSIONS: Definition = Definition {
    doc: FunctionDoc {
        call: "regressions(base, candidate)",
        doc: "What got worse, each cause once: what, by how much, the stage it comes from, the line of \
              source where that is instrumented, and up to three traces.",
        example: "SELECT * FROM regressions('baseline:main', 'nightly*5')",
    },
    prepare: regressions,
};

pub(super) const EXPLAIN_REGRESSION: Definition = Definition {
    doc: FunctionDoc {
        call: "explain_regression(base, candidate)",
        doc: "What each stage adds to the change of the mean operation, ns, for each finding; the rows of \
              a finding sum to its change.",
        example: "SELECT * FROM explain_regression('baseline:main', 'last')",
    },
    prepare: explain,
};

fn sides(arguments: &Arguments) -> Result<(String, String), String> {
    arguments.at_most(2)?;
    Ok((arguments.text(0, "the base")?, arguments.text(1, "the candidate")?))
}

/// Compares two sets of runs by name.
async fn compared(
    analyzer: &Analyzer,
    (base, candidate): &(String, String),
) -> Result<Diff, AnalyzeError> {
    let (base, candidate) = (analyzer.select_set(base)?, analyzer.select_set(candidate)?);
    diff_repeated(analyzer, &base, &candidate, &DiffOptions::default()).await
}

fn compare_runs(arguments: &Arguments) -> Result<Answer, String> {
    let sides = sides(arguments)?;
    Ok(Answer::of(
        &[
            ("stage", Utf8),
            ("metric", Utf8),
            ("unit", Utf8),
            ("base", Float64),
            ("candidate", Float64),
            ("effect", Float64),
            ("effect_low", Float64),
            ("effect_high", Float64),
            ("p_adjusted", Float64),
            ("n_base", Int64),
            ("n_candidate", Int64),
            ("verdict", Utf8),
            ("explains_share", Float64),
            ("note", Utf8),
        ],
        sides,
        move |analyzer, sides| async move {
            let rows: Vec<DiffRow> = compared(&analyzer, &sides).await?.rows;
            Ok(vec![
                texts(rows.iter().map(|row| row.stage.clone())),
                texts(rows.iter().map(|row| row.metric.clone())),
                texts(rows.iter().map(|row| row.unit.clone())),
                floats(rows.iter().map(|row| row.base)),
                floats(rows.iter().map(|row| row.candidate)),
                floats(rows.iter().map(|row| row.effect)),
                floats(rows.iter().map(|row| row.effect_ci[0])),
                floats(rows.iter().map(|row| row.effect_ci[1])),
                floats(rows.iter().map(|row| row.p_adjusted)),
                ints(rows.iter().map(|row| row.n_base as i64)),
                ints(rows.iter().map(|row| row.n_candidate as i64)),
                texts(rows.iter().map(|row| row.verdict.as_str().to_owned())),
                floats(rows.iter().map(|row| row.explains_share)),
                texts(rows.iter().map(|row| row.note.clone())),
            ])
        },
    ))
}

fn regressions(arguments: &Arguments) -> Result<Answer, String> {
    let sides = sides(arguments)?;
    Ok(Answer::of(
        &[
            ("metric", Utf8),
            ("operation", Utf8),
            ("stage", Utf8),
            ("unit", Utf8),
            ("base", Float64),
            ("candidate", Float64),
            ("effect", Float64),
            ("effect_low", Float64),
            ("effect_high", Float64),
            ("source_file", Utf8),
            ("source_line", Int64),
            ("traces", Utf8),
        ],
        sides,
        move |analyzer, sides| async move {
            let rows: Vec<Finding> = compared(&analyzer, &sides).await?.findings;
            let traces = |finding: &Finding| {
                let ids: Vec<&str> =
                    finding.examples.iter().map(|example| example.trace_id.as_str()).collect();
                ids.join(" ")
            };
            Ok(vec![
                texts(rows.iter().map(|row| row.metric.clone())),
                texts(rows.iter().map(|row| row.operation.clone())),
                texts(rows.iter().map(|row| row.stage.clone())),
                texts(rows.iter().map(|row| row.unit.clone())),
                floats(rows.iter().map(|row| row.base)),
                floats(rows.iter().map(|row| row.candidate)),
                floats(rows.iter().map(|row| row.effect)),
                floats(rows.iter().map(|row| row.effect_ci[0])),
                floats(rows.iter().map(|row| row.effect_ci[1])),
                texts(rows.iter().map(|row| row.source_file.clone())),
                ints(rows.iter().map(|row| row.source_line)),
                texts(rows.iter().map(traces)),
            ])
        },
    ))
}

fn explain(arguments: &Arguments) -> Result<Answer, String> {
    let sides = sides(arguments)?;
    let columns = [("metric", Utf8), ("stage", Utf8), ("change_ns", Float64), ("share", Float64)];
    Ok(Answer::of(&columns, sides, |analyzer, sides| async move {
        let findings = compared(&analyzer, &sides).await?.findings;
        let rows: Vec<(&str, &Contribution)> = findings
            .iter()
            .flat_map(|f| f.contributions.iter().map(|part| (f.metric.as_str(), part)))
            .collect();
        Ok(vec![
            texts(rows.iter().map(|(metric, _)| (*metric).to_owned())),
            texts(rows.iter().map(|(_, part)| part.stage.clone())),
            floats(rows.iter().map(|(_, part)| part.change_ns)),
            floats(rows.iter().map(|(_, part)| part.share)),
        ])
    }))
}
