//! Keeping a store in order: removing runs that nobody needs, and merging small segments.
//!
//! Everything here changes a store so that a crash at any point leaves it readable: what is to go
//! gets a name that no reader looks at before its first byte is removed, and what is new is
//! complete before a manifest names it. [`sweep`] finishes what a crash left half done.

pub mod compact;
pub mod gc;
mod gone;
mod repair;
mod sweep;
#[cfg(test)]
pub(crate) mod testing;

pub use gone::remove_run;
pub use repair::{Repair, repair};
#[cfg(feature = "remote")]
pub(crate) use sweep::PULL_PREFIX;
pub use sweep::{Swept, sweep};
