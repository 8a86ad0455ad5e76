//! Sweeps: one workload under a grid of settings, predicted first, then measured.
//!
//! The settings of a [`grid`] are predicted by the cost model, measured in an interleaved order
//! ([`schedule`]) so that a machine that gets slower or faster harms all alike, thinned out by
//! successive halving when there are many ([`halving`]), and judged by [`objective`]s, of which none
//! is made up: what cannot be measured is not an objective. [`pareto`] keeps the settings that no
//! other beats in everything.

pub mod grid;
pub mod halving;
pub mod objective;
pub mod pareto;
pub mod predict;
pub mod schedule;

pub use grid::{Axis, GridError, Point, grid};
pub use objective::{Better, Objective, measure};
