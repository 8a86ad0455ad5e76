//! The tables of the runs in scope as DataFusion sees them.

mod checked;
mod prune;
mod sealed;
mod segments;
mod stored;

pub(crate) use checked::RunSource;
pub(crate) use sealed::SealedTable;
