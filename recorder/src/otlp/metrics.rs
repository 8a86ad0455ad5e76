//! Metric points: a number each, into `measures`. Of a histogram, count and sum.
//!
//! Points of a series follow each other: each with all before it (`cumulative`, what most SDKs
//! send), or each by itself (`delta`). Adding them up needs to know which, of which series they
//! are, and since when it counts; attributes say so.

use std::borrow::Cow;

use retake_schemas::event::Measured;
use retake_schemas::{Attributes, Digest, convention};

use super::model::{Metric, Point};

/// Who a point is of, beside its own attributes.
pub(super) struct Source<'a> {
    /// What tells its resource from others.
    pub(super) resource: [u8; 16],
    pub(super) scope: &'a str,
}

/// The samples of a metric's point, with its time.
pub(super) fn translate(
    metric: &Metric<'_>,
    point: &Point<'_>,
    source: &Source<'_>,
    now_unix_ns: i64,
) -> (i64, Vec<Measured>) {
    let mut attributes: Attributes = point
        .attributes
        .iter()
        .map(|(key, value)| (Cow::Owned(key.to_string()), value.to_value()))
        .collect();
    let temporality = match metric.temporality {
        DELTA => Some("delta"),
        CUMULATIVE => Some("cumulative"),
        _ => None,
    };
    if let Some(temporality) = temporality {
        attributes.push((convention::METRIC_TEMPORALITY.into(), temporality.into()));
        attributes.push((convention::METRIC_SERIES.into(), series(metric, point, source).into()));
        if let Ok(start @ 1..) = i64::try_from(point.start_unix_ns) {
            attributes.push((convention::METRIC_START.into(), start.into()));
        }
    }
    let sample = |suffix: &str, unit: &str, value: f64| Measured {
        name: format!("{}{suffix}", metric.name),
        unit: unit.to_owned(),
        value,
        attributes: attributes.clone(),
    };
    let mut samples = Vec::new();
    samples.extend(point.value.map(|value| sample("", &metric.unit, value)));
    samples.extend(point.count.map(|count| sample(".count", "{count}", count as f64)));
    // A histogram's sum has the unit of what it measures.
    samples.extend(point.sum.map(|sum| sample(".sum", &metric.unit, sum)));
    let time = i64::try_from(point.time_unix_ns).ok().filter(|time| *time > 0);
    (time.unwrap_or(now_unix_ns), samples)
}

/// A name for the series that a point belongs to: who sends it, what it counts, and since when (a
/// program that was started again begins a new series).
fn series(metric: &Metric<'_>, point: &Point<'_>, source: &Source<'_>) -> String {
    let start = if metric.temporality == CUMULATIVE { point.start_unix_ns } else { 0 };
    let Source { resource, scope } = source;
    let identity = format!("{resource:?}{scope}\0{}{:?}{start}", metric.name, point.attributes);
    Digest::of(identity.as_bytes()).to_string().chars().take(SERIES_CHARS).collect()
}

const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;
/// 64 bits: series of a run are few.
const SERIES_CHARS: usize = 16;
