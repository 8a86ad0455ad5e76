//! The measures: each turns one case, in a process of its own, into one reading.

mod bytes;
mod e2e;
mod hot;
mod limits;
mod paced;
pub(crate) mod synthetic;

use std::path::Path;

use crate::case::{Case, Measure};
use crate::error::BenchError;
use crate::reading::Reading;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Samples of a hot load.
    pub(crate) samples: usize,
    /// Seconds of load end to end and paced.
    pub(crate) load_secs: f64,
    /// Requests in the synthetic workload for bytes.
    pub(crate) synthetic_requests: u64,
}

impl Effort {
    /// Enough for figures that are written down.
    pub(crate) const FULL: Self = Self { samples: 21, load_secs: 5.0, synthetic_requests: 20_000 };
    /// Enough to see that everything works.
    pub(crate) const QUICK: Self = Self { samples: 7, load_secs: 1.0, synthetic_requests: 4_000 };
}

/// Measures one case in this process.
///
/// # Errors
/// Its variant cannot be started or finished.
pub(crate) fn measure(case: Case, effort: Effort, folder: &Path) -> Result<Reading, BenchError> {
    match case.measure {
        Measure::Hot => hot::measure(case, effort, folder),
        Measure::Limits => Ok(limits::measure(effort)),
        Measure::E2e => e2e::measure(case, effort, folder),
        Measure::Paced => paced::measure(case, effort, folder),
        Measure::Bytes => bytes::measure(effort, folder),
    }
}
