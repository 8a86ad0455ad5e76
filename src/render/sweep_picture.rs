//! A sweep as a picture: one SVG without scripts, alone or in a page with the table.
//!
//! With two objectives, the settings in their plane with the front as a line; with one, a bar for
//! each setting. Rings are what was predicted, dots what was measured, small dots each replay.

use retake_replay::sweep::{Better, Objective};

use super::sweep::{text, value, verdict};
use crate::cli::Format;
use crate::commands::sweep::{Outcome, Predicted, Row};
use crate::terminal::Look;

/// The picture alone.
pub(super) fn svg(outcome: &Outcome) -> String {
    let plane = outcome.found.objectives.get(..2).map(|pair| (pair[0], pair[1]));
    let plane = plane.filter(|(_, y)| differs(outcome, *y));
    match (plane, outcome.first()) {
        (Some((x, y)), _) => scatter(outcome, x, y),
        (None, Some(only)) => bars(outcome, only),
        (None, None) => frame(HEIGHT, ""),
    }
}

/// The picture, what it says, and the table.
pub(super) fn page(outcome: &Outcome) -> String {
    let sentences: String =
        verdict(outcome).iter().map(|line| format!("<p>{}</p>\n", escaped(line))).collect();
    let title = format!("Sweep {} of {}", outcome.found.run_id, outcome.found.source);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\n\
         <style>body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         pre{{overflow-x:auto}}svg{{width:100%;height:auto}}</style></head>\n\
         <body><h1>{title}</h1>\n{}{sentences}<pre>{}</pre></body></html>\n",
        svg(outcome),
        escaped(&text(outcome, Format::Markdown, Look::MARKDOWN)),
        title = escaped(&title),
    )
}

/// Whether an objective tells settings apart at all; a line of equal costs is no plane.
fn differs(outcome: &Outcome, objective: Objective) -> bool {
    let values: Vec<f64> = means(outcome, objective).into_iter().flatten().collect();
    let first = values.first().copied().unwrap_or(0.0);
    values.iter().any(|value| (value - first).abs() > 1e-9 * first.abs())
}

fn means(outcome: &Outcome, objective: Objective) -> Vec<Option<f64>> {
    outcome.means.get(&objective).cloned().unwrap_or_default()
}

fn predicted(row: &Row, objective: Objective) -> Option<f64> {
    match row.predicted.get(&objective)? {
        Predicted::As(estimate) => Some(estimate.estimate),
        Predicted::Not(_) => None,
    }
}

/// A linear axis with some room at both ends.
#[derive(Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn holding(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let room = ((high - low) * 0.08).max(high.abs() * 0.01).max(1e-9);
        Self { low: low - room, high: high + room, from, to }
    }

    fn at(self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        (0..5).map(move |n| self.low + (self.high - self.low) * f64::from(n) / 4.0)
    }
}

fn scatter(outcome: &Outcome, x: Objective, y: Objective) -> String {
    let rows = &outcome.found.rows;
    let (of_x, of_y) = (means(outcome, x), means(outcome, y));
    let all = |objective, means: &[Option<f64>]| {
        let predictions = rows.iter().filter_map(|row| predicted(row, objective));
        let each = rows.iter().flat_map(|row| &row.measured);
        let each = each.filter_map(|m| m.values.get(&objective).copied());
        predictions.chain(each).chain(means.iter().copied().flatten()).collect::<Vec<f64>>()
    };
    let across = Axis::holding(all(x, &of_x).into_iter(), LEFT, WIDTH - RIGHT);
    let up = Axis::holding(all(y, &of_y).into_iter(), HEIGHT - BOTTOM, TOP);
    let mut body = axes(across, up, x, y);
    let mut front: Vec<(f64, f64)> = outcome
        .front
        .iter()
        .filter_map(|row| Some((of_x.get(*row).copied()??, of_y.get(*row).copied()??)))
        .collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0));
    let line: Vec<String> =
        front.iter().map(|(a, b)| format!("{:.1},{:.1}", across.at(*a), up.at(*b))).collect();
    body.push_str(&format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{FRONT}\" stroke-width=\"1.5\"/>",
        line.join(" ")
    ));
    for (position, row) in rows.iter().enumerate() {
        for measurement in &row.measured {
            let values = (measurement.values.get(&x), measurement.values.get(&y));
            if let (Some(a), Some(b)) = values {
                body.push_str(&circle(across.at(*a), up.at(*b), 1.8, "class=\"each\""));
            }
        }
        if let (Some(a), Some(b)) = (predicted(row, x), predicted(row, y)) {
            body.push_str(&circle(across.at(a), up.at(b), 6.0, "class=\"ring\""));
        }
        let mean = |means: &[Option<f64>]| means.get(position).copied().flatten();
        let (Some(a), Some(b)) = (mean(&of_x), mean(&of_y)) else { continue };
        let (left, top) = (across.at(a), up.at(b));
        let class = if outcome.front.contains(&position) { "front" } else { "dot" };
        body.push_str(&format!(
            "<g><title>{}: {} {}, {} {}</title>{}</g>",
            escaped(&row.label()),
            x,
            escaped(&value(x, a)),
            y,
            escaped(&value(y, b)),
            circle(left, top, 4.0, &format!("class=\"{class}\""))
        ));
        // Labels turn inwards at the right edge.
        let (anchor, shift) = if left > WIDTH * 0.7 { ("end", -8.0) } else { ("start", 8.0) };
        body.push_str(&label(left + shift, top - 5.0, anchor, &row.label()));
    }
    frame(HEIGHT, &body)
}

fn bars(outcome: &Outcome, objective: Objective) -> String {
    let rows = &outcome.found.rows;
    let means = means(outcome, objective);
    let each = rows.iter().flat_map(|row| &row.measured);
    let highest = means
        .iter()
        .copied()
        .flatten()
        .chain(rows.iter().filter_map(|row| predicted(row, objective)))
        .chain(each.filter_map(|m| m.values.get(&objective).copied()))
        .fold(0.0, f64::max);
    let across = |value: f64| BAR_LEFT + value / highest.max(1e-12) * (WIDTH - BAR_LEFT - 110.0);
    let mut body = label(BAR_LEFT, 18.0, "start", &heading(objective));
    body.push_str(&label(WIDTH - RIGHT, 18.0, "end", LEGEND));
    for (position, row) in rows.iter().enumerate() {
        let top = 30.0 + BAR_STEP * position as f64;
        let middle = top + BAR_STEP * 0.4;
        body.push_str(&label(BAR_LEFT - 8.0, middle + 4.0, "end", &row.label()));
        if let Some(mean) = means.get(position).copied().flatten() {
            let class = if outcome.best == Some(position) { "front" } else { "dot" };
            body.push_str(&format!(
                "<rect class=\"{class}\" x=\"{BAR_LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                across(mean) - BAR_LEFT,
                BAR_STEP * 0.7
            ));
            body.push_str(&label(
                across(highest) + 14.0,
                middle + 4.0,
                "start",
                &value(objective, mean),
            ));
        }
        for measurement in &row.measured {
            if let Some(found) = measurement.values.get(&objective) {
                body.push_str(&circle(across(*found), middle, 1.8, "class=\"each\""));
            }
        }
        if let Some(found) = predicted(row, objective) {
            body.push_str(&circle(across(found), middle, 6.0, "class=\"ring\""));
        }
    }
    frame(40.0 + BAR_STEP * rows.len() as f64, &body)
}

fn axes(across: Axis, up: Axis, x: Objective, y: Objective) -> String {
    let mut body = String::new();
    for tick in across.ticks() {
        let at = across.at(tick);
        body.push_str(&line(at, TOP, at, HEIGHT - BOTTOM));
        body.push_str(&label(at, HEIGHT - BOTTOM + 16.0, "middle", &value(x, tick)));
    }
    for tick in up.ticks() {
        let at = up.at(tick);
        body.push_str(&line(LEFT, at, WIDTH - RIGHT, at));
        body.push_str(&label(LEFT - 6.0, at + 4.0, "end", &value(y, tick)));
    }
    body.push_str(&label((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0, "middle", &heading(x)));
    body.push_str(&label(8.0, 16.0, "start", &heading(y)));
    body.push_str(&label(WIDTH - RIGHT, 16.0, "end", LEGEND));
    body
}

fn heading(objective: Objective) -> String {
    let better = if objective.better() == Better::Higher { "higher" } else { "lower" };
    format!("{objective} ({better} is better)")
}

fn circle(x: f64, y: f64, radius: f64, class: &str) -> String {
    format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" {class}/>")
}

fn line(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>")
}

fn label(x: f64, y: f64, anchor: &str, words: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(words))
}

fn frame(height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\
         <title>Settings of a sweep</title><style>text{{font:12px system-ui,sans-serif;fill:#333}}\
         line{{stroke:#ddd}}.dot{{fill:#8a94a6}}.front{{fill:{FRONT}}}.each{{fill:#333;opacity:.5}}\
         .ring{{fill:none;stroke:#c2571a;stroke-width:1.5}}</style>\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>{body}</svg>\n"
    )
}

/// Text that cannot be markup: settings come from the command line, but runs have names.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 44.0;
const BAR_LEFT: f64 = 250.0;
const BAR_STEP: f64 = 26.0;
/// What is drawn how.
const LEGEND: &str = "ring: predicted; dot or bar: measured; small dots: each replay";
/// Settings of the front, and the line through them.
const FRONT: &str = "#1f6f54";
