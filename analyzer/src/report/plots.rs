//! Small charts of durations over a logarithmic axis.
//!
//! A chart is an `svg` as wide as its box and of fixed height: text and markers are placed by
//! percentages, curves live in a nested `svg` that stretches. Nothing needs a script, and text
//! keeps its size at any width.

use maud::{Markup, html};

use super::scale::{LogScale, bin_counts, decimal, percent_of, percentile};
use super::units::{self, float, length};

/// A sample to draw, and perhaps one to compare it with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Series<'a> {
    /// What is measured, for the chart's accessible name.
    pub(super) title: &'a str,
    /// What one value belongs to, such as `trace`.
    pub(super) noun: &'a str,
    /// Durations, ns, sorted.
    pub(super) values_ns: &'a [i64],
    /// The baseline's, sorted; empty when there is none.
    pub(super) base_ns: &'a [i64],
}

impl Series<'_> {
    fn scale(&self) -> Option<LogScale> {
        LogScale::holding(self.values_ns.iter().chain(self.base_ns).copied())
    }

    fn description(&self) -> String {
        let at = |percent| units::duration_or_absent(percentile(self.values_ns, percent));
        let (p50, p95, p99) = (at(50), at(95), at(99));
        let of = units::plural(self.values_ns.len() as u64, self.noun);
        format!("{of}: median {p50}, 95th percentile {p95}, 99th percentile {p99}.")
    }
}

/// How the values are spread: a histogram, the baseline as an outline, percentiles as lines.
pub(super) fn histogram(series: Series<'_>) -> Markup {
    let Some(scale) = series.scale() else { return html! {} };
    let bins = bins_for(series.values_ns.len());
    let counts = bin_counts(&scale, series.values_ns, bins);
    let shares = shares(&counts);
    let base_shares = shares_of_base(&scale, series.base_ns, bins);
    let top = shares.iter().chain(&base_shares).copied().fold(0.0, f64::max);
    let height = |share: f64| if top > 0.0 { share / top * (HISTOGRAM_PLOT - 1.0) } else { 0.0 };
    let filled = counts.iter().zip(&shares).enumerate().filter(|(_, (count, _))| **count > 0);
    let bars = html! {
        @for (bin, (&count, &share)) in filled {
            rect class="bar" x=(percent_of(length(bin) / length(bins)))
                y=(decimal(HISTOGRAM_TOP + HISTOGRAM_PLOT - height(share).max(1.0)))
                width=(percent_of(1.0 / length(bins))) height=(decimal(height(share).max(1.0))) {
                title { (bin_text(&scale, bin, bins, count, series.noun)) }
            }
        }
    };
    html! {
        svg class="chart" width="100%" height="212" role="img" aria-label=(series.title) {
            title { (series.title) }
            desc { "Histogram over a logarithmic axis. " (series.description()) }
            (axis(&scale, HISTOGRAM_TOP, HISTOGRAM_TOP + HISTOGRAM_PLOT, bars))
            @if !base_shares.is_empty() {
                (stretched(HISTOGRAM_TOP, HISTOGRAM_PLOT, html! {
                    path class="base" d=(outline(&base_shares, height)) {}
                }))
            }
            (percentile_lines(&scale, series.values_ns))
        }
    }
}

/// Which share of the values is at most so long: the empirical distribution function.
pub(super) fn ecdf(series: Series<'_>) -> Markup {
    let Some(scale) = series.scale() else { return html! {} };
    html! {
        svg class="chart" width="100%" height="212" role="img" aria-label=(series.title) {
            title { (series.title) }
            desc { "Cumulative distribution over a logarithmic axis. " (series.description()) }
            (axis(&scale, ECDF_TOP, ECDF_TOP + ECDF_PLOT, html! {}))
            @for (share, name) in ECDF_LINES {
                line class="grid" x2="100%" y1=(decimal(ecdf_y(share)))
                    y2=(decimal(ecdf_y(share))) {}
                text class="tick" x="0"
                    y=(decimal(ecdf_y(share) + if share > 0.99 { -4.0 } else { 11.0 })) {
                    (name)
                }
            }
            (stretched(ECDF_TOP, ECDF_PLOT, html! {
                @if !series.base_ns.is_empty() {
                    path class="base" d=(staircase(&scale, series.base_ns)) {}
                }
                path class="curve" d=(staircase(&scale, series.values_ns)) {}
            }))
            @for percent in [50_u8, 95, 99] {
                @if let Some(ns) = percentile(series.values_ns, percent.into()) {
                    circle class="dot" cx=(percent_of(scale.at(ns)))
                        cy=(decimal(ecdf_y(f64::from(percent) / 100.0)))
                        r="3.5" {
                        title { (percent) "\u{a0}% within " (units::duration(ns)) }
                    }
                }
            }
        }
    }
}

/// One stage on a shared axis: where its durations lie, with its percentiles as marks.
pub(super) fn strip(
    scale: &LogScale,
    class: &str,
    values_ns: &[i64],
    percentiles: [i64; 3],
) -> Markup {
    let [p50, p95, p99] = percentiles;
    let counts = bin_counts(scale, values_ns, STRIP_BINS);
    let top = float(counts.iter().copied().max().unwrap_or(0).max(1));
    let mut area = format!("M0 {STRIP_HEIGHT}");
    for (bin, &count) in counts.iter().enumerate() {
        let x = (length(bin) + 0.5) / length(STRIP_BINS) * STRETCH_WIDTH;
        let y = STRIP_HEIGHT - float(count) / top * (STRIP_HEIGHT - 3.0);
        area.push_str(&format!("L{x:.0} {y:.1}"));
    }
    area.push_str(&format!("L{STRETCH_WIDTH} {STRIP_HEIGHT}z"));
    let [x50, x95, x99] = [p50, p95, p99].map(|ns| percent_of(scale.at(ns)));
    let said = format!(
        "Median {}, 95th percentile {}, 99th percentile {}",
        units::duration(p50),
        units::duration(p95),
        units::duration(p99)
    );
    html! {
        svg class="strip" width="100%" height="28" role="img" aria-label=(said) {
            title { (said) }
            @for (share, _) in scale.ticks(STRIP_TICKS) {
                line class="grid" x1=(percent_of(share)) x2=(percent_of(share)) y2="100%" {}
            }
            (stretched(0.0, STRIP_HEIGHT, html! { path class={ (class) " pale" } d=(area) {} }))
            line class={ (class) " whisker" } x1=(x50) x2=(x99) y1="19" y2="19" {}
            line class={ (class) " whisker" } x1=(x99) x2=(x99) y1="15" y2="23" {}
            circle class={ (class) " ring" } cx=(x95) cy="19" r="3.5" {}
            circle class=(class) cx=(x50) cy="19" r="4.5" {}
        }
    }
}

/// The axis over a column of strips.
pub(super) fn strip_axis(scale: &LogScale) -> Markup {
    html! {
        svg class="strip" width="100%" height="16" aria-hidden="true" {
            @for (share, ns) in scale.ticks(STRIP_TICKS) {
                text class="tick" x=(percent_of(share)) y="12" text-anchor=(anchor(share)) {
                    (units::tick(ns))
                }
            }
        }
    }
}

/// Ticks of a logarithmic axis with lines from `top` to `bottom`; bars stand on it, over its
/// lines but behind its base.
fn axis(scale: &LogScale, top: f64, bottom: f64, bars: Markup) -> Markup {
    html! {
        @for (share, ns) in scale.ticks(CHART_TICKS) {
            line class="grid" x1=(percent_of(share)) x2=(percent_of(share)) y1=(decimal(top))
                y2=(decimal(bottom)) {}
            text class="tick" x=(percent_of(share)) y=(decimal(bottom + 16.0))
                text-anchor=(anchor(share)) {
                (units::tick(ns))
            }
        }
        (bars)
        line class="axis" x2="100%" y1=(decimal(bottom)) y2=(decimal(bottom)) {}
    }
}

/// Keeps a label at either end of an axis inside the chart.
pub(super) fn anchor(share: f64) -> &'static str {
    if share < 0.04 {
        "start"
    } else if share > 0.96 {
        "end"
    } else {
        "middle"
    }
}

/// A part of a chart whose curves use 0 to 1000 across and pixels down.
fn stretched(top: f64, height: f64, curves: Markup) -> Markup {
    html! {
        svg y=(decimal(top)) width="100%" height=(decimal(height)) preserveAspectRatio="none"
            viewBox={ "0 0 " (STRETCH_WIDTH) " " (decimal(height)) } { (curves) }
    }
}

fn percentile_lines(scale: &LogScale, values_ns: &[i64]) -> Markup {
    let bottom = decimal(HISTOGRAM_TOP + HISTOGRAM_PLOT);
    html! {
        @for (percent, y) in [(50, 10), (95, 24), (99, 38)] {
            @if let Some(ns) = percentile(values_ns, percent) {
                @let share = scale.at(ns);
                @let (dx, side) = if share > 0.8 { ("-5", "end") } else { ("5", "start") };
                line class="mark" x1=(percent_of(share)) x2=(percent_of(share)) y1=(y - 8)
                    y2=(bottom) {}
                text class="value" x=(percent_of(share)) dx=(dx) y=(y) text-anchor=(side) {
                    tspan class="tick" { "p" (percent) " " } (units::duration(ns))
                }
            }
        }
    }
}

fn bin_text(scale: &LogScale, bin: usize, bins: usize, count: u64, noun: &str) -> String {
    let edge = |at: usize| units::duration(scale.value(length(at) / length(bins)));
    format!("{} from {} to {}", units::plural(count, noun), edge(bin), edge(bin + 1))
}

/// More values show more detail; few would leave a comb.
fn bins_for(values: usize) -> usize {
    let bins = units::whole(length(values).sqrt() * 2.5);
    usize::try_from(bins).unwrap_or(BINS_MAX).clamp(16, BINS_MAX)
}

fn shares(counts: &[u64]) -> Vec<f64> {
    let all = float(counts.iter().sum::<u64>().max(1));
    counts.iter().map(|&count| float(count) / all).collect()
}

fn shares_of_base(scale: &LogScale, values_ns: &[i64], bins: usize) -> Vec<f64> {
    if values_ns.is_empty() { Vec::new() } else { shares(&bin_counts(scale, values_ns, bins)) }
}

fn outline(shares: &[f64], height: impl Fn(f64) -> f64) -> String {
    let mut path = format!("M0 {HISTOGRAM_PLOT}");
    for (bin, &share) in shares.iter().enumerate() {
        let end = length(bin + 1) / length(shares.len()) * STRETCH_WIDTH;
        path.push_str(&format!("V{:.1}H{end:.0}", HISTOGRAM_PLOT - height(share)));
    }
    path.push_str(&format!("V{HISTOGRAM_PLOT}"));
    path
}

/// The distribution as steps, thinned to what a screen can show.
fn staircase(scale: &LogScale, sorted_ns: &[i64]) -> String {
    let steps = sorted_ns.len().min(STAIRS_MAX);
    let mut path = format!("M0 {ECDF_PLOT}");
    for step in 1..=steps {
        let rank = (sorted_ns.len() * step).div_ceil(steps.max(1));
        let Some(&ns) = sorted_ns.get(rank.saturating_sub(1)) else { continue };
        let y = ECDF_PLOT * (1.0 - length(rank) / length(sorted_ns.len()));
        path.push_str(&format!("H{:.1}V{y:.1}", scale.at(ns) * STRETCH_WIDTH));
    }
    path.push_str(&format!("H{STRETCH_WIDTH}"));
    path
}

fn ecdf_y(share: f64) -> f64 {
    ECDF_TOP + ECDF_PLOT * (1.0 - share)
}

/// Width of a stretched part, in its own units; a thousand is finer than a pixel.
const STRETCH_WIDTH: f64 = 1000.0;
/// Room above a histogram for three rows of labels, pixels.
const HISTOGRAM_TOP: f64 = 46.0;
/// Height of a histogram's bars, pixels.
const HISTOGRAM_PLOT: f64 = 142.0;
/// Shares with a line across a distribution.
const ECDF_LINES: [(f64, &str); 5] =
    [(1.0, "100\u{a0}%"), (0.95, "95"), (0.75, "75"), (0.5, "50"), (0.25, "25")];
/// Room above a distribution, pixels.
const ECDF_TOP: f64 = 18.0;
/// Height of a distribution, pixels.
const ECDF_PLOT: f64 = 170.0;
/// Height of a strip, pixels.
const STRIP_HEIGHT: f64 = 28.0;
/// Bins of a strip; it is about 300 pixels wide.
const STRIP_BINS: usize = 60;
/// Labels that fit over a strip.
const STRIP_TICKS: usize = 5;
/// Labels that fit under a chart at 700 pixels.
const CHART_TICKS: usize = 6;
/// Bars that can be told apart in half the page.
const BINS_MAX: usize = 48;
/// Steps of a distribution; a chart is about 500 pixels wide.
const STAIRS_MAX: usize = 400;
