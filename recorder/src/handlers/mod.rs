//! What listens to a run while it is recorded: ready-made [`Handler`](crate::Handler)s.
//!
//! Both keep running figures off the hot path and hand out a cheap handle to read them by:
//!
//! * [`tokens`]: how many tokens the calls used, and whether a budget is crossed;
//! * [`progress`]: what a live line shows, such as spans a second and the slowest stage.

mod open;
pub mod progress;
pub mod tokens;
