//! What one child process tells its parent: one JSON line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Figures of one case in one round, by name; names end in their unit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// The figures.
    pub(crate) figures: BTreeMap<String, f64>,
}

impl Reading {
    /// Adds a figure.
    pub(crate) fn put(&mut self, name: impl Into<String>, value: f64) {
        self.figures.insert(name.into(), value);
    }

    /// A figure, if it was measured.
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied()
    }
}
