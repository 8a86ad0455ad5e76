//! Explanations, what distinguishes traces, and what would be.

use retake_analyzer::check::{markdown_cell, shown};
use retake_analyzer::model::SCHEMA_VERSION;
use retake_analyzer::what_if::{CURVE_FACTORS, Prediction, SpeedupCurve, StageFactor};
use retake_analyzer::{Contrast, Explanation, Lift};
use retake_schemas::RunId;
use serde_json::{Value, json};

use super::check::regression;
use crate::cli::Format;
use crate::output::{inert, row, table};
use crate::terminal::Look;
use crate::units::{change, percent};

/// What got worse and where it comes from, then what else differs.
pub(crate) fn explanation(found: &Explanation, format: Format, look: Look) -> String {
    let diff = &found.comparison;
    let mut text = format!("base {} · candidate {}\n", diff.base, diff.candidate);
    if diff.findings.is_empty() {
        let note = inert(&diff.note);
        text.push_str(&format!("nothing is shown to have got worse: {note}\n"));
    }
    diff.findings.iter().for_each(|finding| text.push_str(&regression(finding, look)));
    for (name, base, candidate) in &diff.settings_diff {
        let (name, base, candidate) = (inert(name), inert(base), inert(candidate));
        text.push_str(&format!("setting {name}: {base} -> {candidate}\n"));
    }
    for origin in &found.origins {
        let (base, candidate) = (inert(&origin.base), inert(&origin.candidate));
        text.push_str(&format!("{}: {base} -> {candidate}\n", origin.what));
    }
    for warning in &diff.warnings {
        text.push_str(&format!("warning: {}\n", inert(warning)));
    }
    if found.attributes.is_empty() {
        text.push_str("the spans of both sides have the same attributes\n");
    } else {
        text.push_str("traces that have a span with\n");
        text.push_str(&lifts(&found.attributes, ["candidate", "base"], format));
    }
    text
}

/// What distinguishes traces from others, as a table.
pub(crate) fn contrast(found: &Contrast, condition: &str, format: Format) -> String {
    let safe = cell(format);
    let mut text = format!(
        "{} traces where {}, beside {} others; shares of traces that have a span with\n",
        found.selected,
        safe(condition),
        found.others
    );
    match found.lifts.is_empty() {
        true => text.push_str("nothing that the others have not as often\n"),
        false => text.push_str(&lifts(&found.lifts, ["these", "others"], format)),
    }
    text
}

pub(crate) fn contrast_json(found: &Contrast, condition: &str) -> Value {
    json!({
        "schema_version": SCHEMA_VERSION,
        "condition": condition,
        "selected": found.selected,
        "others": found.others,
        "lifts": found.lifts,
    })
}

/// A row for each set of traces, with all attributes that just these traces have.
fn lifts(lifts: &[Lift], sides: [&str; 2], format: Format) -> String {
    let safe = cell(format);
    let mut shown = table(format, &["attribute", sides[0], sides[1], "difference"], 1);
    let mut groups: Vec<u32> = Vec::new();
    for lift in lifts {
        if groups.contains(&lift.group) {
            continue;
        }
        groups.push(lift.group);
        let alike: Vec<&Lift> = lifts.iter().filter(|other| other.group == lift.group).collect();
        let mut names: Vec<String> = alike
            .iter()
            .take(ALIKE_SHOWN)
            .map(|one| safe(&format!("{} = {}", one.attribute, one.value)))
            .collect();
        if alike.len() > ALIKE_SHOWN {
            names.push(format!("{} more", alike.len() - ALIKE_SHOWN));
        }
        let points = lift.difference() * 100.0;
        row(
            &mut shown,
            [
                names.join(", "),
                format!("{} ({})", percent(lift.selected_share), lift.selected),
                format!("{} ({})", percent(lift.other_share), lift.others),
                format!("{points:+.1} points"),
            ],
        );
    }
    format!("{shown}\n")
}

/// What traces would take.
pub(crate) fn prediction(
    run_id: &RunId,
    factors: &[StageFactor],
    rows: &[Prediction],
    format: Format,
) -> String {
    let safe = cell(format);
    let what: Vec<String> =
        factors.iter().map(|one| format!("{} x {}", safe(&one.stage), one.factor)).collect();
    let mut lines = table(format, &["traces", "recorded", "would be", "change"], 1);
    let time = |ns: Option<f64>| ns.map_or_else(|| "-".to_owned(), |ns| shown(ns, "ns"));
    for one in rows {
        let relative = one.change().map_or_else(|| "-".to_owned(), change);
        row(
            &mut lines,
            [one.measure.to_owned(), time(one.before_ns), time(one.after_ns), relative],
        );
    }
    format!("run {run_id} with {}\n{lines}\n", what.join(", "))
}

pub(crate) fn prediction_json(
    run_id: &RunId,
    factors: &[StageFactor],
    rows: &[Prediction],
) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|one| {
            json!({
                "measure": one.measure,
                "before_ns": one.before_ns,
                "after_ns": one.after_ns,
                "change": one.change(),
            })
        })
        .collect();
    json!({
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id.as_str(),
        "factors": factors,
        "rows": rows,
    })
}

/// What each stage's speed is worth: the mean trace, and the 95th percentile at twice the speed.
pub(crate) fn speedups(run_id: &RunId, curves: &[SpeedupCurve], format: Format) -> String {
    let safe = cell(format);
    let names: Vec<String> = CURVE_FACTORS
        .iter()
        .map(|factor| match *factor {
            0.0 => "gone".to_owned(),
            factor => format!("x {factor}"),
        })
        .collect();
    let mut header = vec!["stage"];
    header.extend(names.iter().map(String::as_str));
    header.push("p95 at x 0.5");
    let mut lines = table(format, &header, 1);
    for curve in curves {
        let mut cells = vec![safe(&curve.stage)];
        cells.extend(curve.points.iter().map(|point| change(point.mean_change)));
        cells.push(curve.at(0.5).map_or_else(|| "-".to_owned(), |point| change(point.p95_change)));
        row(&mut lines, cells);
    }
    format!(
        "run {run_id}: change of the mean trace, were a stage's own work as long times\n{lines}\n"
    )
}

pub(crate) fn speedups_json(run_id: &RunId, curves: &[SpeedupCurve]) -> Value {
    json!({ "schema_version": SCHEMA_VERSION, "run_id": run_id.as_str(), "stages": curves })
}

/// Names in traces come from strangers.
fn cell(format: Format) -> impl Fn(&str) -> String {
    move |text| match format {
        Format::Markdown => markdown_cell(text),
        _ => inert(text).replace('\n', " "),
    }
}

/// Attributes of one set of traces that are spelt out.
const ALIKE_SHOWN: usize = 4;
