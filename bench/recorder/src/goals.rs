//! The goals and their bars: what retake promises, judged by what was just measured.
//!
//! `value` is retake's, `peer_value` the peer's, both medians over rounds. `ratio` is the median
//! of the ratios within rounds, taken the way the goal's name says (`otel_vs_layer` is the peer's
//! cost over ours). A row that cannot be judged says why and is never left out.

use serde::Serialize;

use crate::case::{Case, Measure, Section, Variant};
use crate::gathered::{Figure, Gathered};
use crate::work::SPAN_NS;

/// One goal, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// The goal.
    pub(crate) goal: String,
    /// retake's figure.
    pub(crate) value: Option<f64>,
    /// Unit of both figures.
    pub(crate) unit: &'static str,
    /// Who it is compared with.
    pub(crate) peer: String,
    /// The peer's figure.
    pub(crate) peer_value: Option<f64>,
    /// See the module.
    pub(crate) ratio: Option<f64>,
    /// The bar; `None` for a row that only informs.
    pub(crate) bar: Option<f64>,
    /// Which side of the bar is good, and what is held against it.
    pub(crate) bar_is: &'static str,
    /// Whether the goal is reached.
    pub(crate) holds: Option<bool>,
    /// Smallest and largest `value` over rounds.
    pub(crate) spread: Option<[f64; 2]>,
    /// Why it could not be judged or does not hold in spite of the figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// Judges the goals of `sections`.
pub(crate) fn judge(sections: &[Section], gathered: &Gathered) -> Vec<Row> {
    let goals = sections.iter().flat_map(|section| goals(*section, gathered));
    goals.map(|goal| goal.judge(gathered)).collect()
}

fn goals(section: Section, gathered: &Gathered) -> Vec<Goal> {
    match section {
        Section::Hot => hot_goals(),
        Section::E2e => e2e_goals(gathered),
        Section::Paced => paced_goals(),
        Section::Bytes => bytes_goals(),
        // Read beside the others; nothing is promised about them.
        Section::Limits | Section::Sync => Vec::new(),
    }
}

fn hot_goals() -> Vec<Goal> {
    use Variant::{Direct, Fastrace, Layer, Micromegas, Otel, Registry, Subscriber};
    let goals = [
        ("layer_vs_registry", Layer, Registry, Bar::RatioAtMost(1.2)),
        ("subscriber_vs_registry", Subscriber, Registry, Bar::RatioAtMost(0.42)),
        ("direct_vs_registry", Direct, Registry, Bar::RatioAtMost(0.22)),
        ("otel_vs_layer", Layer, Otel, Bar::InverseAtLeast(10.0)),
        ("otel_vs_subscriber", Subscriber, Otel, Bar::InverseAtLeast(30.0)),
        ("layer_vs_fastrace", Layer, Fastrace, Bar::RatioBelow(1.0)),
        ("subscriber_vs_fastrace", Subscriber, Fastrace, Bar::RatioBelow(1.0)),
        ("layer_vs_micromegas", Layer, Micromegas, Bar::RatioBelow(1.0)),
        ("subscriber_vs_micromegas", Subscriber, Micromegas, Bar::RatioBelow(1.0)),
    ];
    let figure = |variant| (Case::new(Measure::Hot, variant), SPAN_NS);
    goals
        .map(|(name, door, peer, bar)| Goal {
            name: name.to_owned(),
            unit: "ns/span",
            mine: figure(door),
            peer: figure(peer),
            peer_name: peer.title(),
            bar,
        })
        .into()
}

fn e2e_goals(gathered: &Gathered) -> Vec<Goal> {
    let figure = |case| (case, "spans_per_s");
    let goal = |name: String, case: Case| Goal {
        name,
        unit: "spans/s",
        mine: figure(case),
        peer: figure(Case::new(Measure::E2e, Variant::Otel)),
        peer_name: "tracing-opentelemetry, batch, OTLP file",
        bar: Bar::ValueAtLeast(1.5e6),
    };
    let doors = Variant::DOORS.map(|door| Case::new(Measure::E2e, door));
    let speed = |case: &Case| gathered.median(*case, "spans_per_s").unwrap_or_default();
    let all = doors.iter().copied().chain(doors.map(|case| case.on_threads(2)));
    let best = all.max_by(|a, b| speed(a).total_cmp(&speed(b)));
    let best = best.filter(|case| speed(case) > 0.0);
    let layer = Case::new(Measure::E2e, Variant::Layer);
    let mut goals = vec![goal("e2e_spans_per_s".to_owned(), best.unwrap_or(layer))];
    goals.extend(doors.map(|case| {
        let door = crate::case::word(&case.variant);
        goal(format!("e2e_spans_per_s_{door}"), case)
    }));
    goals
}

fn paced_goals() -> Vec<Goal> {
    let quantiles =
        [("p99", "p99_us", Bar::RatioAtMost(1.3)), ("p999", "p999_us", Bar::RatioAtMost(3.0))];
    let goals = quantiles.iter().flat_map(|(short, figure, bar)| {
        Variant::DOORS.map(|door| {
            // The Layer stands on the same Registry as the reference: it is the goal's own door.
            let suffix = match door {
                Variant::Layer => String::new(),
                _ => format!("_{}", crate::case::word(&door)),
            };
            Goal {
                name: format!("paced_{short}_vs_registry{suffix}"),
                unit: "us/request",
                mine: (Case::new(Measure::Paced, door), *figure),
                peer: (Case::new(Measure::Paced, Variant::Registry), *figure),
                peer_name: Variant::Registry.title(),
                bar: *bar,
            }
        })
    });
    goals.collect()
}

fn bytes_goals() -> Vec<Goal> {
    let case = Case::new(Measure::Bytes, Variant::Layer);
    let peers = [
        ("bytes_per_span", "otlp_zstd_bytes_per_span", "OTLP, zstd", Bar::ValueAtMost(18.0)),
        ("bytes_vs_otlp", "otlp_bytes_per_span", "OTLP", Bar::None),
        ("bytes_vs_json_zstd", "json_zstd_bytes_per_span", "JSON lines, zstd", Bar::None),
        ("bytes_vs_json", "json_bytes_per_span", "JSON lines", Bar::None),
    ];
    peers
        .map(|(name, figure, peer_name, bar)| Goal {
            name: name.to_owned(),
            unit: "B/span",
            mine: (case, "retake_bytes_per_span"),
            peer: (case, figure),
            peer_name,
            bar,
        })
        .into()
}

/// What is to be reached, and against whom.
#[derive(Debug, Clone)]
struct Goal {
    name: String,
    unit: &'static str,
    mine: Figure,
    peer: Figure,
    peer_name: &'static str,
    bar: Bar,
}

#[derive(Debug, Clone, Copy)]
enum Bar {
    ValueAtMost(f64),
    ValueAtLeast(f64),
    /// Ours over theirs.
    RatioAtMost(f64),
    /// The same, and a tie is not enough.
    RatioBelow(f64),
    /// Theirs over ours.
    InverseAtLeast(f64),
    None,
}

impl Goal {
    fn judge(&self, gathered: &Gathered) -> Row {
        let ratio = match self.bar {
            Bar::InverseAtLeast(_) => gathered.ratio(self.peer, self.mine),
            _ => gathered.ratio(self.mine, self.peer),
        };
        let value = gathered.median(self.mine.0, self.mine.1);
        let lost = lost(gathered, self.mine.0);
        let holds = self.bar.holds(value, ratio).map(|holds| holds && lost.is_none());
        Row {
            goal: self.name.clone(),
            value,
            unit: self.unit,
            peer: self.peer_name.to_owned(),
            peer_value: gathered.median(self.peer.0, self.peer.1),
            ratio,
            bar: self.bar.bar(),
            bar_is: self.bar.word(),
            holds,
            spread: gathered.spread(self.mine.0, self.mine.1),
            why: lost
                .or_else(|| missing(gathered, self.mine.0))
                .or_else(|| missing(gathered, self.peer.0)),
        }
    }
}

/// A fast recorder that loses something is not fast.
fn lost(gathered: &Gathered, case: Case) -> Option<String> {
    let dropped = gathered.worst(case, "dropped").filter(|count| *count > 0.0)?;
    Some(format!("{dropped} records were dropped in one round"))
}

fn missing(gathered: &Gathered, case: Case) -> Option<String> {
    if gathered.cases().any(|measured| measured == case) {
        return None;
    }
    if !case.variant.is_built() {
        return Some(format!("{}: built without --features new-doors", case.variant.title()));
    }
    let failure = gathered.failure(case).map(str::to_owned);
    Some(failure.unwrap_or_else(|| format!("{case} was not asked for")))
}

impl Bar {
    fn holds(self, value: Option<f64>, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::ValueAtMost(bar) => value.map(|value| value <= bar),
            Self::ValueAtLeast(bar) => value.map(|value| value >= bar),
            Self::RatioAtMost(bar) => ratio.map(|ratio| ratio <= bar),
            Self::RatioBelow(bar) => ratio.map(|ratio| ratio < bar),
            Self::InverseAtLeast(bar) => ratio.map(|ratio| ratio >= bar),
            Self::None => None,
        }
    }

    const fn bar(self) -> Option<f64> {
        match self {
            Self::ValueAtMost(bar)
            | Self::ValueAtLeast(bar)
            | Self::RatioAtMost(bar)
            | Self::RatioBelow(bar)
            | Self::InverseAtLeast(bar) => Some(bar),
            Self::None => None,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::ValueAtMost(_) => "value at most",
            Self::ValueAtLeast(_) => "value at least",
            Self::RatioAtMost(_) => "ratio at most",
            Self::RatioBelow(_) => "ratio below",
            Self::InverseAtLeast(_) => "ratio at least",
            Self::None => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gathered::of_spans;

    fn row(rows: &[Row], goal: &str) -> Row {
        rows.iter().find(|row| row.goal == goal).cloned().unwrap()
    }

    fn hot(variant: Variant) -> Case {
        Case::new(Measure::Hot, variant)
    }

    /// Scenario: a Layer at 1.18 of the Registry, and a peer at 13 times the Layer.
    #[test]
    fn ratios_are_taken_the_way_the_goal_is_named() {
        let gathered = of_spans(&[
            (hot(Variant::Registry), SPAN_NS, &[150.0]),
            (hot(Variant::Layer), SPAN_NS, &[177.0]),
            (hot(Variant::Otel), SPAN_NS, &[2301.0]),
        ]);
        let rows = judge(&[Section::Hot], &gathered);
        let layer = row(&rows, "layer_vs_registry");
        assert_eq!((layer.ratio, layer.holds, layer.why), (Some(1.18), Some(true), None));
        let otel = row(&rows, "otel_vs_layer");
        assert_eq!((otel.value, otel.ratio, otel.holds), (Some(177.0), Some(13.0), Some(true)));
    }

    /// Scenario: a peer failed, a door is missing.
    #[test]
    fn a_row_that_cannot_be_judged_says_why_and_stays() {
        let gathered = of_spans(&[(hot(Variant::Layer), SPAN_NS, &[177.0])]);
        let rows = judge(&[Section::Hot], &gathered);
        assert_eq!(rows.len(), hot_goals().len());
        let layer = row(&rows, "layer_vs_registry");
        assert_eq!((layer.peer_value, layer.holds), (None, None));
        assert!(layer.why.is_some_and(|why| why.contains("not asked for")));
        assert!(row(&rows, "subscriber_vs_registry").why.is_some());
    }

    /// Scenario: fast enough, but a record was lost in one round.
    #[test]
    fn a_goal_does_not_hold_if_anything_was_dropped() {
        let case = Case::new(Measure::E2e, Variant::Layer);
        let gathered = of_spans(&[
            (case, "spans_per_s", &[2e6, 2e6, 2e6]),
            (case, "dropped", &[0.0, 1.0, 0.0]),
        ]);
        let layer = row(&judge(&[Section::E2e], &gathered), "e2e_spans_per_s_layer");
        assert_eq!(layer.holds, Some(false));
        assert!(layer.why.is_some_and(|why| why.contains("dropped")));
    }
}
