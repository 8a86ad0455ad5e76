//! The sweep that a run belongs to: its settings in the plane of two objectives, what was predicted
//! of each, and those that no other beats in everything.

use maud::{Markup, html};

use super::facts::Facts;
use super::plots::anchor;
use super::scale::{decimal, percent_of};
use super::text;
use super::units::{self, length, signed_whole};
use crate::model::{SweepData, SweepObjective, SweepSetting};

/// The section; empty where the run belongs to no sweep.
pub(super) fn section(facts: &Facts<'_>) -> Markup {
    let Some(sweep) = &facts.data.sweep else { return html! {} };
    let plane = Plane::of(sweep);
    html! {
        section id="sweep" aria-labelledby="sweep-h" {
            h2 id="sweep-h" { "Settings tried" (super::tables::sql_link(facts, "sweep")) }
            p class="hint" { (basis(facts, sweep, plane.as_ref())) }
            @if let Some(plane) = &plane {
                figure { (picture(sweep, plane)) }
            }
            (table(sweep))
        }
    }
}

fn basis(facts: &Facts<'_>, sweep: &SweepData, plane: Option<&Plane>) -> Markup {
    let settings = units::plural(sweep.settings.len() as u64, "setting");
    let replays: u64 = sweep.settings.iter().map(|one| one.measured.len() as u64).sum();
    html! {
        "Sweep " (link(facts, &sweep.run_id)) " replayed run " (link(facts, &sweep.source))
        " under " (settings) ", " (units::plural(replays, "replay")) " in all."
        @if plane.is_some() {
            " Numbered dots are means, small ones single replays, rings what was predicted before. "
            "Filled dots are on the front: no other setting is as good in everything and better in "
            "something."
        }
    }
}

fn link(facts: &Facts<'_>, run_id: &str) -> Markup {
    let shown = html! { span class="mono" { (text::label(run_id)) } };
    match super::live::run_path(run_id).filter(|_| facts.is_live) {
        Some(path) => html! { a href=(path) { (shown) } },
        None => shown,
    }
}

/// What lies across and up: two objectives, or one and the settings in their order.
#[derive(Debug)]
struct Plane {
    across: usize,
    up: Option<usize>,
    x: Axis,
    y: Axis,
}

impl Plane {
    fn of(sweep: &SweepData) -> Option<Self> {
        let telling: Vec<usize> =
            (0..sweep.objectives.len()).filter(|at| differs(sweep, *at)).collect();
        let across = telling.first().copied().or_else(|| {
            (0..sweep.objectives.len()).find(|at| means(sweep, *at).next().is_some())
        })?;
        let up = telling.get(1).copied();
        let x = Axis::holding(values(sweep, across))?;
        let y = match up {
            Some(up) => Axis::holding(values(sweep, up))?,
            None => Axis::holding((0..sweep.settings.len()).map(length))?,
        };
        Some(Self { across, up, x, y })
    }

    /// Where a pair of values lies: share of the width, pixels from the top.
    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        (LEFT + self.x.at(x) * (1.0 - LEFT - RIGHT), TOP + (1.0 - self.y.at(y)) * PLOT)
    }

    /// Where the settings stand that have no second objective: the first one highest.
    fn height(&self, sweep: &SweepData, setting: usize, value: Option<f64>) -> Option<f64> {
        match self.up {
            Some(_) => value,
            None => Some(length(sweep.settings.len().saturating_sub(setting + 1))),
        }
    }
}

/// A linear axis with some room at both ends.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn holding(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        let room = ((high - low) * 0.1).max(high.abs() * 0.01).max(1e-9);
        (low <= high).then_some(Self { low: low - room, high: high + room })
    }

    fn at(self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Round values within, about five of them.
    fn ticks(self) -> Vec<f64> {
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough);
        let step = step.unwrap_or(10.0) * power;
        let first = (self.low / step).ceil();
        let tick = |n: u32| (first + f64::from(n)) * step;
        (0..TICKS_MAX).map(tick).take_while(|value| *value <= self.high).collect()
    }
}

fn picture(sweep: &SweepData, plane: &Plane) -> Markup {
    let [across, up] = [Some(plane.across), plane.up].map(|at| sweep.objectives.get(at?));
    let Some(across) = across else { return html! {} };
    let title = match up {
        Some(up) => {
            format!(
                "{} against {} of each setting",
                text::label(&across.name),
                text::label(&up.name)
            )
        }
        None => format!("{} of each setting", text::label(&across.name)),
    };
    html! {
        svg class="chart sweep" width="100%" height=(decimal(HEIGHT)) role="img" aria-label=(title) {
            title { (title) }
            desc { (front_in_words(sweep)) }
            (grid(plane, across, up))
            (front(sweep, plane))
            @for (position, setting) in sweep.settings.iter().enumerate() {
                (marks(sweep, plane, position, setting))
            }
        }
    }
}

fn front_in_words(sweep: &SweepData) -> String {
    let front = sweep.settings.iter().enumerate().filter(|(_, setting)| setting.is_on_front);
    let named: Vec<String> = front
        .take(NAMED_MAX)
        .map(|(position, setting)| format!("{} {}", position + 1, text::label(&setting.label)))
        .collect();
    format!("On the front: {}.", named.join("; "))
}

fn grid(plane: &Plane, across: &SweepObjective, up: Option<&SweepObjective>) -> Markup {
    let bottom = TOP + PLOT;
    html! {
        @for value in plane.x.ticks() {
            @let (x, _) = plane.place(value, 0.0);
            line class="grid" x1=(percent_of(x)) x2=(percent_of(x)) y1=(decimal(TOP))
                y2=(decimal(bottom)) {}
            text class="tick" x=(percent_of(x)) y=(decimal(bottom + 16.0)) text-anchor=(anchor(x)) {
                (shown(across, value))
            }
        }
        @if let Some(up) = up {
            @for value in plane.y.ticks() {
                @let (_, y) = plane.place(0.0, value);
                line class="grid" x2="100%" y1=(decimal(y)) y2=(decimal(y)) {}
                text class="tick" x="0" y=(decimal(y - 4.0)) { (shown(up, value)) }
            }
            text class="tick" x="0" y="12" { (direction(up)) " \u{2191}" }
        }
        line class="axis" x2="100%" y1=(decimal(bottom)) y2=(decimal(bottom)) {}
        text class="tick" x="100%" y=(decimal(bottom + 34.0)) text-anchor="end" {
            (direction(across)) " \u{2192}"
        }
    }
}

/// A line through the front, from left to right.
fn front(sweep: &SweepData, plane: &Plane) -> Markup {
    let Some(up) = plane.up else { return html! {} };
    let mut points: Vec<(f64, f64)> = sweep
        .settings
        .iter()
        .filter(|setting| setting.is_on_front)
        .filter_map(|setting| Some(plane.place(setting.mean(plane.across)?, setting.mean(up)?)))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let path: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{} {}", decimal(x * STRETCH_WIDTH), decimal(*y)))
        .collect();
    html! {
        @if path.len() > 1 {
            svg width="100%" height=(decimal(HEIGHT)) preserveAspectRatio="none"
                viewBox={ "0 0 " (STRETCH_WIDTH) " " (decimal(HEIGHT)) } {
                path class="line" d={ "M" (path.join("L")) } {}
            }
        }
    }
}

/// Of one setting: each replay, what was predicted, and the mean with its number.
fn marks(sweep: &SweepData, plane: &Plane, position: usize, setting: &SweepSetting) -> Markup {
    let of = |values: &[Option<f64>]| {
        let x = values.get(plane.across).copied().flatten()?;
        let y = plane.up.and_then(|up| values.get(up).copied().flatten());
        Some(plane.place(x, plane.height(sweep, position, y)?))
    };
    let count = sweep.objectives.len();
    let means: Vec<Option<f64>> = (0..count).map(|at| setting.mean(at)).collect();
    let predicted: Vec<Option<f64>> = (0..count)
        .map(|at| setting.predicted.get(at).copied().flatten().map(|[p, ..]| p))
        .collect();
    let class = match (setting.is_on_front, setting.is_shown) {
        (true, true) => "dot front shown",
        (true, false) => "dot front",
        (false, true) => "dot shown",
        (false, false) => "dot",
    };
    html! {
        @for one in setting.measured.iter().take(REPLAYS_MAX) {
            @if let Some((x, y)) = of(&one.values) {
                circle class="each" cx=(percent_of(x)) cy=(decimal(y)) r="2" {}
            }
        }
        @if let Some((x, y)) = of(&predicted) {
            circle class="ring" cx=(percent_of(x)) cy=(decimal(y)) r="8" {
                title { (text::label(&setting.label)) ", predicted" }
            }
        }
        @if let Some((x, y)) = of(&means) {
            circle class=(class) cx=(percent_of(x)) cy=(decimal(y)) r="5" {
                title { (in_words(sweep, setting)) }
            }
            text class="number" x=(percent_of(x)) y=(decimal(y)) dx="8" dy="-7" { (position + 1) }
        }
    }
}

fn in_words(sweep: &SweepData, setting: &SweepSetting) -> String {
    let said: Vec<String> = sweep
        .objectives
        .iter()
        .enumerate()
        .filter_map(|(at, objective)| {
            let name = text::label(&objective.name);
            Some(format!("{name} {}", shown(objective, setting.mean(at)?)))
        })
        .collect();
    format!("{}: {}", text::label(&setting.label), said.join(", "))
}

fn table(sweep: &SweepData) -> Markup {
    html! {
        div class="scroll" role="region" aria-label="Settings of the sweep" tabindex="0" {
            table class="sweep" {
                thead { tr {
                    th scope="col" class="num" { "No." }
                    th scope="col" { "Setting" }
                    @for objective in &sweep.objectives {
                        th scope="col" class="num" { (text::label(&objective.name)) }
                    }
                    th scope="col" class="num" { "Replays" }
                    th scope="col" {}
                } }
                tbody {
                    @for (position, setting) in sweep.settings.iter().enumerate().take(SETTINGS_MAX) {
                        tr {
                            td class="num dim" { (position + 1) }
                            th scope="row" { bdi { (text::label_or_unnamed(&setting.label)) } }
                            @for (at, objective) in sweep.objectives.iter().enumerate() {
                                (value(setting, at, objective))
                            }
                            td class="num" { (setting.measured.len()) }
                            td { (names(setting)) }
                        }
                    }
                }
            }
        }
        @if sweep.settings.len() > SETTINGS_MAX {
            p class="hint" {
                (units::plural((sweep.settings.len() - SETTINGS_MAX) as u64, "more setting"))
                " not shown."
            }
        }
    }
}

/// The mean of what was measured, with what was predicted below it.
fn value(setting: &SweepSetting, at: usize, objective: &SweepObjective) -> Markup {
    let predicted = setting.predicted.get(at).copied().flatten();
    html! {
        td class="num" {
            @match setting.mean(at) {
                Some(mean) => (shown(objective, mean)),
                None => (units::ABSENT),
            }
            @if let Some([estimate, low, high]) = predicted {
                span class="note" title={
                    "95 % interval " (shown(objective, low)) " to " (shown(objective, high))
                } { "predicted " (shown(objective, estimate)) }
            }
        }
    }
}

fn names(setting: &SweepSetting) -> String {
    let names = [
        (setting.is_shown, "this run"),
        (setting.is_as_recorded, "as recorded"),
        (setting.is_on_front, "front"),
    ];
    let named: Vec<&str> = names.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    named.join(", ")
}

fn direction(objective: &SweepObjective) -> String {
    let better = if objective.is_more_better { "more" } else { "less" };
    format!("{} ({better} is better)", text::label(&objective.name))
}

/// A value in the unit of its objective.
fn shown(objective: &SweepObjective, value: f64) -> String {
    match objective.unit.as_str() {
        "ns" => units::duration(signed_whole(value)),
        "1/s" => format!("{}/s", units::number(value)),
        "USD" => units::usd(value),
        _ => units::number(value),
    }
}

fn means(sweep: &SweepData, at: usize) -> impl Iterator<Item = f64> {
    sweep.settings.iter().filter_map(move |setting| setting.mean(at))
}

/// All that is drawn of an objective.
fn values(sweep: &SweepData, at: usize) -> impl Iterator<Item = f64> {
    let each = sweep.settings.iter().flat_map(|setting| &setting.measured);
    let each = each.filter_map(move |one| one.values.get(at).copied().flatten());
    let predicted = sweep.settings.iter().filter_map(move |setting| {
        setting.predicted.get(at).copied().flatten().map(|[estimate, ..]| estimate)
    });
    each.chain(predicted)
}

/// Whether an objective tells settings apart; where all cost the same there is nothing to trade.
fn differs(sweep: &SweepData, at: usize) -> bool {
    let first = means(sweep, at).next().unwrap_or(0.0);
    means(sweep, at).any(|value| (value - first).abs() > 1e-9 * first.abs())
}

/// Pixels above the plot, of the plot, and of all.
const TOP: f64 = 26.0;
const PLOT: f64 = 260.0;
const HEIGHT: f64 = TOP + PLOT + 42.0;
/// Shares of the width left for labels of the vertical axis, and for numbers at the right.
const LEFT: f64 = 0.1;
const RIGHT: f64 = 0.03;
const STRETCH_WIDTH: f64 = 1000.0;
/// Labels of an axis.
const TICKS_MAX: u32 = 12;
/// Settings in the table; a sweep has fewer.
const SETTINGS_MAX: usize = 200;
/// Settings of the front that are read out.
const NAMED_MAX: usize = 12;
/// Replays drawn of a setting.
const REPLAYS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: ticks are round and within the axis, however small or large values are.
    #[test]
    fn ticks_are_round_and_within() {
        for (low, high) in [(0.93, 1.17), (1.2e6, 8.9e8), (-3.0, 4.0), (5.0, 5.0), (0.0, 1e-7)] {
            let axis = Axis::holding([low, high].into_iter()).unwrap();
            let ticks = axis.ticks();
            assert!((1..=TICKS_MAX as usize).contains(&ticks.len()), "{low} {high}: {ticks:?}");
            assert!(ticks.iter().all(|tick| (0.0..=1.0).contains(&axis.at(*tick))), "{ticks:?}");
        }
        assert!(Axis::holding(std::iter::empty()).is_none());
        assert!(Axis::holding([f64::NAN].into_iter()).is_none());
    }
}
