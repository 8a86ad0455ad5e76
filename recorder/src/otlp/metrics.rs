//! Metric points: a number each, into `measures`. Of a histogram, count and sum.

use std::borrow::Cow;

use retake_schemas::event::Measured;

use super::model::{Metric, Point};

/// The samples of a metric's point, with its time.
pub(super) fn translate(
    metric: &Metric<'_>,
    point: &Point<'_>,
    now_unix_ns: i64,
) -> (i64, Vec<Measured>) {
    let time = i64::try_from(point.time_unix_ns).ok().filter(|time| *time > 0);
    let sample = |suffix: &str, unit: &str, value: f64| Measured {
        name: format!("{}{suffix}", metric.name),
        unit: unit.to_owned(),
        value,
        attributes: point
            .attributes
            .iter()
            .map(|(key, value)| (Cow::Owned(key.to_string()), value.to_value()))
            .collect(),
    };
    let mut samples = Vec::new();
    samples.extend(point.value.map(|value| sample("", &metric.unit, value)));
    samples.extend(point.count.map(|count| sample(".count", "{count}", count as f64)));
    // A histogram's sum has the unit of what it measures.
    samples.extend(point.sum.map(|sum| sample(".sum", &metric.unit, sum)));
    (time.unwrap_or(now_unix_ns), samples)
}
