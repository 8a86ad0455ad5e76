//! Work on many items at once, within limits: how many at a time, how many a minute, and how often
//! again.
//!
//! * [`pool`] works on a stream of items with a bounded number of tasks. Results come as they are
//!   ready, so one slow item holds up nobody; every item has a result of its own, a panic included.
//! * [`gate`] is what a provider allows: calls at the same time, requests and tokens a minute.
//! * [`retry`] calls again what may succeed later, with full jitter, after the time the provider
//!   asks for, and with its place in the gate given to somebody else meanwhile.
//! * [`fetch`] gets many URLs, each with a result of its own.

pub mod fetch;
pub mod gate;
pub mod pool;
pub mod retry;
