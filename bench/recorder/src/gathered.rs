//! The readings of all rounds, and what can be said about them.

use std::collections::BTreeMap;

use crate::case::Case;
use crate::error::BenchError;
use crate::reading::Reading;
use crate::stats::{median, spread};

/// A figure of a case, by name.
pub(crate) type Figure = (Case, &'static str);

/// Readings by case and round, and what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    readings: BTreeMap<Case, BTreeMap<u32, Reading>>,
    failures: BTreeMap<Case, String>,
}

impl Gathered {
    /// Adds what a child said or why it said nothing.
    pub(crate) fn add(&mut self, case: Case, round: u32, read: Result<Reading, BenchError>) {
        match read {
            Ok(reading) => {
                self.readings.entry(case).or_default().insert(round, reading);
            }
            Err(error) => {
                self.failures.insert(case, error.to_string());
            }
        }
    }

    /// Cases with at least one reading.
    pub(crate) fn cases(&self) -> impl Iterator<Item = Case> {
        self.readings.keys().copied()
    }

    /// Why a case has no reading, if it was tried.
    pub(crate) fn failure(&self, case: Case) -> Option<&str> {
        self.failures.get(&case).map(String::as_str)
    }

    /// Every case that failed in some round.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (Case, &str)> {
        self.failures.iter().map(|(case, why)| (*case, why.as_str()))
    }

    /// Names of the figures of a case.
    pub(crate) fn figures(&self, case: Case) -> Vec<String> {
        let rounds = self.readings.get(&case).into_iter().flat_map(BTreeMap::values);
        rounds.last().map(|r| r.figures.keys().cloned().collect()).unwrap_or_default()
    }

    /// The median over rounds.
    pub(crate) fn median(&self, case: Case, figure: &str) -> Option<f64> {
        median(&self.values(case, figure))
    }

    /// The smallest and largest over rounds.
    pub(crate) fn spread(&self, case: Case, figure: &str) -> Option<[f64; 2]> {
        spread(&self.values(case, figure))
    }

    /// The largest over rounds, for what must never happen.
    pub(crate) fn worst(&self, case: Case, figure: &str) -> Option<f64> {
        self.spread(case, figure).map(|[_, largest]| largest)
    }

    /// The median of the ratios within each round: a slow moment of the machine hits both sides.
    pub(crate) fn ratio(&self, figure: Figure, to: Figure) -> Option<f64> {
        let (mine, theirs) = (self.readings.get(&figure.0)?, self.readings.get(&to.0)?);
        let ratios: Vec<f64> = mine
            .iter()
            .filter_map(|(round, reading)| {
                Some(reading.get(figure.1)? / theirs.get(round)?.get(to.1)?)
            })
            .filter(|ratio| ratio.is_finite())
            .collect();
        median(&ratios)
    }

    fn values(&self, case: Case, figure: &str) -> Vec<f64> {
        let rounds = self.readings.get(&case).into_iter().flat_map(BTreeMap::values);
        rounds.filter_map(|reading| reading.get(figure)).collect()
    }
}

#[cfg(test)]
pub(crate) fn of_spans(values: &[(Case, &str, &[f64])]) -> Gathered {
    let mut gathered = Gathered::default();
    for (case, figure, rounds) in values {
        for (round, value) in (0..).zip(*rounds) {
            let readings = gathered.readings.entry(*case).or_default();
            readings.entry(round).or_default().put(*figure, *value);
        }
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Measure, Variant};

    /// Scenario: the machine is twice as slow in one round.
    #[test]
    fn a_slow_round_does_not_move_the_ratio() {
        let layer = Case::new(Measure::Hot, Variant::Layer);
        let registry = Case::new(Measure::Hot, Variant::Registry);
        let gathered = of_spans(&[
            (layer, "span_ns", &[180.0, 360.0, 180.0, 360.0]),
            (registry, "span_ns", &[150.0, 300.0, 150.0, 300.0]),
        ]);
        assert_eq!(gathered.ratio((layer, "span_ns"), (registry, "span_ns")), Some(1.2));
        assert_eq!(gathered.spread(layer, "span_ns"), Some([180.0, 360.0]));
    }

    /// Scenario: the reference failed in the first of two rounds.
    #[test]
    fn a_round_without_the_reference_gives_no_ratio() {
        let layer = Case::new(Measure::Hot, Variant::Layer);
        let registry = Case::new(Measure::Hot, Variant::Registry);
        let mut gathered = of_spans(&[(layer, "span_ns", &[500.0, 180.0])]);
        let mut reading = Reading::default();
        reading.put("span_ns", 150.0);
        gathered.add(registry, 1, Ok(reading));
        assert_eq!(gathered.ratio((layer, "span_ns"), (registry, "span_ns")), Some(1.2));
    }
}
