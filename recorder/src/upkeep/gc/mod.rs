//! Removing whole runs: by age, by number, by size.
//!
//! Three steps, so that what will happen can be shown before it does: [`survey`] looks at the
//! store, [`plan`] decides about every run and says why, [`carry_out`] removes.

mod carry_out;
mod criteria;
mod plan;
mod quarantine;
mod survey;

pub use carry_out::{Removal, carry_out};
pub use criteria::{BASELINE_LABEL, Criteria, Filter};
pub use plan::{Decision, KeepReason, RemoveReason, Verdict, plan};
pub use quarantine::{Quarantine, old_quarantines, remove_quarantine};
pub use survey::{RunState, StoredRun, survey};
