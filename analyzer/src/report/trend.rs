//! The history: a line per stage over the runs like this one, and where its level changed.

use maud::{Markup, html};

use super::facts::Facts;
use super::scale::{decimal, percent_of};
use super::text;
use super::units::{self, change, duration, length, signed_whole};
use crate::model::{ReportData, Trend, TrendChange, TrendSeries};

/// The section; empty where there are too few runs.
pub(super) fn section(facts: &Facts<'_>) -> Markup {
    let Some(trend) = &facts.data.trend else { return html! {} };
    let order = facts.stages_by_wall();
    let mut series: Vec<&TrendSeries> = trend
        .series
        .iter()
        .filter(|one| one.is_same_machine && one.points.iter().any(|point| point.value.is_some()))
        .collect();
    series.sort_by_key(|one| {
        order.iter().position(|row| row.stage == one.group).unwrap_or(usize::MAX)
    });
    html! {
        @if !series.is_empty() {
            section id="trend" aria-labelledby="trend-h" {
                h2 id="trend-h" { "Over the runs" (super::tables::sql_link(facts, "trend")) }
                p class="hint" { (basis(trend, &series)) }
                div class="scroll" role="region" aria-label="Trend by stage" tabindex="0" {
                    table class="trend" {
                        thead { tr {
                            th scope="col" { "Stage" }
                            th scope="col" class="plot" { "Oldest run to youngest" }
                            th scope="col" class="num" { "Lowest" }
                            th scope="col" class="num" { "Highest" }
                            th scope="col" class="num" { "This run" }
                            th scope="col" { "Where the level changed" }
                        } }
                        tbody {
                            @for one in series.iter().take(SERIES_MAX) { (row(facts, one)) }
                        }
                    }
                }
                @if series.len() > SERIES_MAX {
                    p class="hint" {
                        (units::plural((series.len() - SERIES_MAX) as u64, "more stage"))
                        " not shown."
                    }
                }
            }
        }
    }
}

/// Whether there is a line to draw.
pub(super) fn has_lines(data: &ReportData) -> bool {
    let is_drawn = |one: &TrendSeries| {
        one.is_same_machine && one.points.iter().any(|point| point.value.is_some())
    };
    data.trend.as_ref().is_some_and(|trend| trend.series.iter().any(is_drawn))
}

fn basis(trend: &Trend, series: &[&TrendSeries]) -> Markup {
    let runs = series.iter().map(|one| one.points.len()).max().unwrap_or(0) as u64;
    html! {
        "95th percentile of each stage in the last " (units::plural(runs, "run"))
        " of the same name, service and machine. "
        @if runs < trend.runs_min {
            "Changes of level are looked for from " (units::plural(trend.runs_min, "run")) " on."
        } @else {
            "A dashed line is where the level changed, with the commits that bound the cause."
        }
    }
}

fn row(facts: &Facts<'_>, series: &TrendSeries) -> Markup {
    let values: Vec<f64> = series.points.iter().filter_map(|point| point.value).collect();
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let of_run = |run_id: &str| {
        series.points.iter().find(|point| point.run_id == run_id).and_then(|point| point.value)
    };
    html! {
        tr {
            th scope="row" { (facts.palette.name(&series.group)) }
            td class="plot" { (line(facts, series, low, high)) }
            td class="num" { (ns_text(Some(low))) }
            td class="num" { (ns_text(Some(high))) }
            td class="num strong" { (ns_text(of_run(&facts.data.run.run_id))) }
            td {
                @if series.changes.is_empty() { span class="dim" { "no change found" } }
                @for one in series.changes.iter().rev().take(CHANGES_MAX) { (change_note(one)) }
            }
        }
    }
}

fn ns_text(value: Option<f64>) -> String {
    let value = value.filter(|value| value.is_finite());
    value.map_or_else(|| units::ABSENT.to_owned(), |ns| duration(signed_whole(ns)))
}

fn change_note(one: &TrendChange) -> Markup {
    let class = if one.median_after > one.median_before { "worse" } else { "better" };
    let sign = if one.median_after > one.median_before { "\u{25b2}" } else { "\u{25bc}" };
    html! {
        span class="nowrap" {
            span class=(class) {
                (sign) "\u{a0}"
                @if let Some(by) = one.change { (change(by)) } @else { "changed" }
            }
            " from run " span class="mono" { (text::id_start(&one.run, RUN_CHARS)) }
        }
        @if let (Some(before), Some(after)) = (&one.sha_before_earliest, &one.sha_latest) {
            @if before != after {
                span class="note" {
                    "commits " span class="mono" {
                        (text::id_start(before, SHA_CHARS)) ".." (text::id_start(after, SHA_CHARS))
                    }
                }
            }
        }
    }
}

/// A line from 0 up, so that noise looks as small as it is.
fn line(facts: &Facts<'_>, series: &TrendSeries, low: f64, high: f64) -> Markup {
    let runs = series.points.len();
    let across = |at: usize| if runs < 2 { 0.5 } else { length(at) / length(runs - 1) };
    let inset = |share: f64| 0.01 + share * 0.98;
    let top = if high > 0.0 { high } else { 1.0 };
    let y = |value: f64| HEIGHT - 3.0 - (value / top).clamp(0.0, 1.0) * (HEIGHT - 8.0);
    let mut path = String::new();
    let mut is_open = false;
    for (at, point) in series.points.iter().enumerate() {
        match point.value {
            Some(value) if value.is_finite() => {
                let letter = if is_open { 'L' } else { 'M' };
                let x = inset(across(at)) * 1000.0;
                path.push_str(&format!("{letter}{x:.1} {:.1}", y(value)));
                is_open = true;
            }
            // A run without the stage breaks the line.
            _ => is_open = false,
        }
    }
    let said = format!(
        "{}: from {} to {}",
        units::plural(runs as u64, "run"),
        ns_text(Some(low)),
        ns_text(Some(high))
    );
    html! {
        svg class="spark" width="100%" height=(decimal(HEIGHT)) role="img" aria-label=(said) {
            title { (said) }
            line class="grid" x2="100%" y1=(decimal(HEIGHT - 3.0)) y2=(decimal(HEIGHT - 3.0)) {}
            @for one in series.changes.iter().take(MARKS_MAX) {
                @let at = usize::try_from(one.index).unwrap_or(0);
                @let x = percent_of(inset((across(at) + across(at.saturating_sub(1))) / 2.0));
                line class="mark" x1=(x) x2=(x) y2=(decimal(HEIGHT)) {}
            }
            svg width="100%" height=(decimal(HEIGHT)) preserveAspectRatio="none"
                viewBox={ "0 0 1000 " (decimal(HEIGHT)) } {
                path class=(facts.palette.class(&series.group)) d=(path) {}
            }
            @for (at, point) in series.points.iter().enumerate() {
                @if let Some(value) = point.value.filter(|value| value.is_finite()) {
                    @if runs <= DOTS_MAX || point.run_id == facts.data.run.run_id {
                        circle class=(facts.palette.class(&series.group))
                            cx=(percent_of(inset(across(at)))) cy=(decimal(y(value)))
                            r=(if point.run_id == facts.data.run.run_id { "4" } else { "2" }) {
                            title { (point_text(point.run_id.as_str(), value, point.git_sha.as_deref())) }
                        }
                    }
                }
            }
        }
    }
}

fn point_text(run_id: &str, ns: f64, sha: Option<&str>) -> String {
    let commit = sha.map(|sha| format!(", commit {}", text::id_start(sha, SHA_CHARS)));
    format!("{}: {}{}", text::label(run_id), ns_text(Some(ns)), commit.unwrap_or_default())
}

/// Height of a line, pixels.
const HEIGHT: f64 = 40.0;
/// Stages shown.
const SERIES_MAX: usize = 16;
/// Changes said in words; the youngest.
const CHANGES_MAX: usize = 2;
/// Changes marked in a line.
const MARKS_MAX: usize = 12;
/// With more runs, dots would be a band.
const DOTS_MAX: usize = 60;
/// Characters of a run's id: date, time and the start of what tells runs of a second apart.
const RUN_CHARS: usize = 20;
/// Characters of a commit.
const SHA_CHARS: usize = 10;
