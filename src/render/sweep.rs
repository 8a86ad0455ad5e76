//! Sweeps: the table, what it says in words, and the document for scripts.

use std::ffi::OsStr;
use std::path::Path;

use retake_analyzer::stats::Interval;
use retake_replay::sweep::{Better, Objective};
use serde_json::{Map, Value, json};

use super::sheet::{Entry, Keep, Sheet};
use super::sweep_picture;
use crate::cli::Format;
use crate::commands::sweep::{Compared, Outcome, Predicted, Row};
use crate::failure::{Code, Failure};
use crate::output::inert;
use crate::terminal::{Look, Tone};
use crate::units::{duration, percent};

/// For people: a row for each setting, and the verdict.
pub(crate) fn text(outcome: &Outcome, format: Format, look: Look) -> String {
    let found = &outcome.found;
    let mut shown = Sheet::default().text("setting", Keep::Always);
    if let Some(first) = outcome.first() {
        shown = shown.number(&format!("{first} predicted"), Keep::Rank(2));
    }
    for (place, objective) in found.objectives.iter().enumerate() {
        // The most important one decides.
        let keep = if place == 0 { Keep::Always } else { Keep::Rank(4) };
        shown = shown.number(&objective.to_string(), keep);
    }
    shown = shown
        .number("against recorded", Keep::Rank(3))
        .number("against best", Keep::Rank(1))
        .text("", Keep::Always);
    for (position, found_row) in found.rows.iter().enumerate() {
        let tone = (outcome.best == Some(position)).then_some(Tone::Strong);
        let entries = cells(outcome, position, found_row).into_iter();
        shown.row(entries.map(|text| Entry::toned(text, tone)));
    }
    let mut text = shown.render(format, look);
    for line in verdict(outcome) {
        text.push_str(&inert(&line));
        text.push('\n');
    }
    text
}

fn cells(outcome: &Outcome, position: usize, found: &Row) -> Vec<String> {
    let mut cells = vec![found.label()];
    if let Some(first) = outcome.first() {
        cells.push(match found.predicted.get(&first) {
            Some(Predicted::As(estimate)) => value(first, estimate.estimate),
            _ => "-".to_owned(),
        });
    }
    for objective in &outcome.found.objectives {
        let mean = outcome.means.get(objective).and_then(|means| means.get(position).copied());
        cells.push(mean.flatten().map_or_else(|| "-".to_owned(), |mean| value(*objective, mean)));
    }
    let standing = outcome.standings.get(position);
    cells.push(standing.map_or_else(String::new, |standing| ratio(&standing.to_base)));
    cells.push(standing.map_or_else(String::new, |standing| ratio(&standing.to_best)));
    let marks = [
        (position == outcome.found.base).then_some(base_name(outcome)),
        (outcome.best == Some(position)).then_some("best"),
        (outcome.front.contains(&position)).then_some("front"),
        (!found.failures.is_empty()).then_some("failures"),
    ];
    cells.push(marks.into_iter().flatten().collect::<Vec<_>>().join(", "));
    cells
}

fn base_name(outcome: &Outcome) -> &'static str {
    let base = outcome.found.rows.get(outcome.found.base);
    if base.is_some_and(|row| row.is_as_recorded) { "as recorded" } else { "base" }
}

/// A value of an objective with its unit.
pub(super) fn value(objective: Objective, value: f64) -> String {
    match objective {
        Objective::Throughput => format!("{}/s", three_digits(value)),
        Objective::LatencyP50 | Objective::LatencyP95 | Objective::LatencyP99 | Objective::Wall => {
            duration(value.round() as i64)
        }
        Objective::Cost => format!("${value:.4}"),
        Objective::Agreement | Objective::Recall => format!("{value:.3}"),
    }
}

fn three_digits(value: f64) -> String {
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$}")
}

fn ratio(compared: &Compared) -> String {
    match compared {
        Compared::Itself => "1".to_owned(),
        Compared::Unknown => "-".to_owned(),
        Compared::Better(found) => format!("{} better", times(found)),
        Compared::Worse(found) => format!("{} worse", times(found)),
        Compared::Same(found) => format!("{} same", times(found)),
        Compared::Undecided(found) => format!("{} not distinguishable", times(found)),
    }
}

fn times(ratio: &Interval) -> String {
    format!("{:.2}x [{:.2}, {:.2}]", ratio.estimate, ratio.low, ratio.high)
}

/// What the sweep found, in sentences.
pub(crate) fn verdict(outcome: &Outcome) -> Vec<String> {
    let (Some(first), Some(best)) = (outcome.first(), outcome.best) else {
        return not_measured(outcome);
    };
    let label = |row: usize| outcome.found.rows.get(row).map_or_else(String::new, Row::label);
    let base = outcome.found.base;
    let named_base = format!("{} ({})", label(base), base_name(outcome));
    let mut lines = Vec::new();
    let to_base = outcome.standings.get(best).map(|standing| standing.to_base);
    lines.push(match to_base {
        Some(Compared::Better(found)) => {
            let Interval { estimate: factor, low, high } = found;
            format!(
                "{}: {factor:.2}x the {first} of {named_base}, 95 % interval {low:.2} to {high:.2}",
                label(best)
            )
        }
        Some(Compared::Same(found)) => {
            let Interval { low, high, .. } = found;
            format!(
                "{}: the {first} of {named_base} within 5 %, interval {low:.2} to {high:.2}",
                label(best)
            )
        }
        Some(Compared::Undecided(found)) => {
            let Interval { estimate: factor, low, high } = found;
            format!(
                "{} looks best, but is not distinguishable from {named_base}: {factor:.2}x, interval \
                 {low:.2} to {high:.2}",
                label(best)
            )
        }
        _ if best == base => format!("{named_base} is best by {first}"),
        _ => format!("{} is best by {first}", label(best)),
    });
    let ties = outcome.ties().into_iter().filter(|row| *row != base || best == base);
    let ties: Vec<String> = ties.map(label).collect();
    if !ties.is_empty() {
        lines.push(format!("not distinguishable from it: {}", ties.join("; ")));
    }
    if outcome.found.objectives.len() > 1 {
        let front: Vec<String> = outcome.front.iter().map(|row| label(*row)).collect();
        lines.push(format!("no other setting beats in everything: {}", front.join("; ")));
    }
    if let Some(noise) = outcome.noise {
        lines.push(format!(
            "a replay differs from another of the same by {} (one sd)",
            percent(noise)
        ));
    }
    lines.extend(prediction(outcome, first));
    if outcome.code() == Code::TooNoisy {
        lines.push(
            "the noise is too high to decide: more --repeat, or a machine that does nothing else"
                .to_owned(),
        );
    }
    lines
}

fn prediction(outcome: &Outcome, first: Objective) -> Option<String> {
    let regret = outcome.regret?;
    let row = outcome.found.rows.get(regret.predicted_best)?;
    let chosen = if regret.predicted_best == outcome.best? {
        "the prediction named the same best".to_owned()
    } else {
        format!("the prediction named {}, regret {}", row.label(), percent(regret.regret))
    };
    Some(format!(
        "{chosen}; predicted {first} was off by {} (median), {} of {} inside its interval",
        percent(regret.error_median),
        regret.inside,
        regret.of
    ))
}

fn not_measured(outcome: &Outcome) -> Vec<String> {
    let Some(first) = outcome.first() else { return Vec::new() };
    let cost = |value: f64| if first.better() == Better::Higher { -value } else { value };
    let predicted = outcome.found.rows.iter().filter_map(|row| match row.predicted.get(&first) {
        Some(Predicted::As(estimate)) => Some((row, *estimate)),
        _ => None,
    });
    let best = predicted.min_by(|a, b| cost(a.1.estimate).total_cmp(&cost(b.1.estimate)));
    match best {
        Some((row, estimate)) => vec![format!(
            "predicted best by {first}: {}, {} (95 % interval {} to {}); nothing was measured",
            row.label(),
            value(first, estimate.estimate),
            value(first, estimate.low),
            value(first, estimate.high)
        )],
        None => {
            let reasons =
                outcome.found.rows.iter().filter_map(|row| match row.predicted.get(&first) {
                    Some(Predicted::Not(unknown)) => Some(unknown.reason.clone()),
                    _ => None,
                });
            let reason = reasons.into_iter().next().unwrap_or_default();
            vec![format!("nothing was measured, and {first} cannot be predicted: {reason}")]
        }
    }
}

/// For scripts.
pub(crate) fn json(outcome: &Outcome) -> Value {
    let found = &outcome.found;
    let objectives: Vec<Value> = found
        .objectives
        .iter()
        .map(|o| json!({"name": o, "unit": o.unit(), "better": o.better()}))
        .collect();
    let label = |row: usize| found.rows.get(row).map(Row::label);
    let rows = found.rows.iter().enumerate().map(|(at, row)| row_json(outcome, at, row));
    let regret = outcome.regret.map(|regret| {
        json!({
            "predicted_best": label(regret.predicted_best),
            "regret": regret.regret,
            "error_median": regret.error_median,
            "inside_interval": regret.inside,
            "predictions": regret.of,
        })
    });
    json!({
        "schema_version": 1,
        "run_id": found.run_id,
        "source": found.source,
        "objectives": objectives,
        "settings": rows.collect::<Vec<_>>(),
        "base": label(found.base),
        "best": outcome.best.and_then(label),
        "ties": outcome.ties().into_iter().filter_map(label).collect::<Vec<_>>(),
        "front": outcome.front.iter().filter_map(|row| label(*row)).collect::<Vec<_>>(),
        "regret": regret,
        "noise": outcome.noise,
        "model": {
            "fits": found.fits.iter().map(|(stage, fit)| (stage.clone(), json!(fit)))
                .collect::<Map<_, _>>(),
            "calibration": found.calibration,
            "calibration_runs": found.calibrations,
        },
        "verdict": verdict(outcome),
        "exit_code": outcome.code() as u8,
    })
}

fn row_json(outcome: &Outcome, at: usize, row: &Row) -> Value {
    let predicted: Map<String, Value> = row
        .predicted
        .iter()
        .map(|(objective, predicted)| {
            let json = match predicted {
                Predicted::As(estimate) => json!(estimate),
                Predicted::Not(unknown) => json!({"refused": unknown.reason}),
            };
            (objective.to_string(), json)
        })
        .collect();
    let measured: Map<String, Value> = outcome
        .means
        .iter()
        .map(|(objective, means)| {
            let values = row.measured.iter().filter_map(|m| m.values.get(objective));
            let values: Vec<f64> = values.copied().collect();
            let mean = means.get(at).copied().flatten();
            (objective.to_string(), json!({"mean": mean, "values": values}))
        })
        .collect();
    let standing = outcome.standings.get(at);
    json!({
        "label": row.label(),
        "assignments": row.point.assignments,
        "is_as_recorded": row.is_as_recorded,
        "predicted": predicted,
        "measured": measured,
        "to_base": standing.map(|standing| compared_json(&standing.to_base)),
        "to_best": standing.map(|standing| compared_json(&standing.to_best)),
        "on_front": outcome.front.contains(&at),
        "replays": row.measured.iter().map(|m| &m.run_id).collect::<Vec<_>>(),
        "failures": row.failures.iter().map(|(run_id, reason)| {
            json!({"run_id": run_id, "reason": reason})
        }).collect::<Vec<_>>(),
    })
}

fn compared_json(compared: &Compared) -> Value {
    let (verdict, ratio) = match compared {
        Compared::Itself => ("itself", None),
        Compared::Unknown => ("unknown", None),
        Compared::Better(ratio) => ("better", Some(ratio)),
        Compared::Worse(ratio) => ("worse", Some(ratio)),
        Compared::Same(ratio) => ("same", Some(ratio)),
        Compared::Undecided(ratio) => ("not_distinguishable", Some(ratio)),
    };
    json!({
        "verdict": verdict,
        "ratio": ratio.map(|ratio| ratio.estimate),
        "ratio_ci": ratio.map(|ratio| [ratio.low, ratio.high]),
    })
}

/// What a picture is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Picture {
    Svg,
    Html,
}

/// The format of a picture by its file's ending; nothing for no file.
pub(crate) fn picture_format(path: Option<&Path>) -> Result<Option<Picture>, Failure> {
    let Some(path) = path else { return Ok(None) };
    match path.extension().and_then(OsStr::to_str) {
        Some("svg") => Ok(Some(Picture::Svg)),
        Some("html" | "htm") => Ok(Some(Picture::Html)),
        _ => {
            let message =
                format!("write picture {}: its name must end in .svg or .html", path.display());
            Err(Failure::new(Code::Usage, message))
        }
    }
}

/// The picture as text.
pub(crate) fn picture(outcome: &Outcome, path: &Path) -> Result<String, Failure> {
    Ok(match picture_format(Some(path))? {
        Some(Picture::Html) => sweep_picture::page(outcome),
        _ => sweep_picture::svg(outcome),
    })
}
