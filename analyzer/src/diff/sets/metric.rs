//! What runs are compared by.

use serde::{Deserialize, Serialize};

/// A measure of a run. More of it is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Metric {
    /// Median duration of operations that succeeded.
    Latency,
    /// Their 95th percentile.
    LatencyP95,
    /// Median time to the first output token.
    Ttft,
    /// Mean cost of an operation.
    Cost,
    /// Mean input tokens of an operation.
    InputTokens,
    /// Mean output tokens of an operation.
    OutputTokens,
    /// Share of operations that failed.
    Errors,
    /// Mean attributed wall time of a stage in an operation.
    Wall,
}

/// Something that is compared run by run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measure<'a> {
    /// As it is shown.
    pub(crate) name: &'a str,
    /// Its unit.
    pub(crate) unit: &'a str,
    /// Whether it is compared by its ratio. Shares are compared by their difference: from none to
    /// one failure there is no ratio.
    pub(crate) is_ratio: bool,
}

impl Metric {
    /// What is measured end to end, in the order of the report.
    pub(super) const WHOLE: [Self; 7] = [
        Self::Latency,
        Self::LatencyP95,
        Self::Ttft,
        Self::Cost,
        Self::InputTokens,
        Self::OutputTokens,
        Self::Errors,
    ];

    /// As it is shown.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::LatencyP95 => "latency p95",
            Self::Ttft => "ttft",
            Self::Cost => "cost",
            Self::InputTokens => "input tokens",
            Self::OutputTokens => "output tokens",
            Self::Errors => "errors",
            Self::Wall => "wall",
        }
    }

    /// How it is compared.
    pub(super) fn measure(self) -> Measure<'static> {
        let unit = match self {
            Self::Latency | Self::LatencyP95 | Self::Ttft | Self::Wall => "ns",
            Self::Cost => "usd",
            Self::InputTokens | Self::OutputTokens => "tokens",
            Self::Errors => "share",
        };
        Measure { name: self.name(), unit, is_ratio: self != Self::Errors }
    }
}
