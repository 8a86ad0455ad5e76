//! Records what a program does into crash-safe journals and digest-checked Parquet.
//!
//! ```text
//! tracing span/event ─► RecorderLayer or RecorderSubscriber ─┐
//! span!, Dispatcher::emit ───────────────────────────────────┴► lanes (mapped) ─► writer thread
//!                                        handlers ◄─ drain ─► fold ─► seal ─► Parquet
//! ```
//!
//! What the instrumented program pays is copying the fields into a lane of its own thread, in a
//! memory-mapped file; from then on a killed process cannot lose them. Folding, sealing and handlers
//! run on threads of the recorder. A recording failure never breaks the program: it is counted,
//! stated in the run as a `Gap`, and shown.
//!
//! Reading goes through [`reader::RunReader`], which checks every sealed file's digest before
//! anyone sees a byte of it, and also shows what is not sealed yet.

pub(crate) mod attrs;
pub mod capture;
pub mod clock;
pub(crate) mod columns;
#[cfg(test)]
mod crash_tests;
pub mod direct;
pub(crate) mod disk;
pub mod dispatcher;
pub(crate) mod door;
pub mod export;
pub(crate) mod fold;
pub(crate) mod fork;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod handlers;
pub(crate) mod hex;
pub mod host;
pub mod journal;
pub mod layer;
pub mod otlp;
pub(crate) mod priority;
pub mod reader;
pub mod recorder;
pub mod recover;
pub mod redact;
#[cfg(feature = "remote")]
pub mod remote;
pub mod sampler;
pub mod scope;
pub mod seal;
mod sealed_file;
pub mod store;
pub mod subscriber;
pub(crate) mod symbols;
pub(crate) mod sync;
pub mod upkeep;
pub mod verify;
pub(crate) mod writer;

pub use dispatcher::{Dispatcher, Handler, Interest};
pub use layer::RecorderLayer;
pub use reader::RunReader;
pub use recorder::{Recorder, RecorderBuilder};
pub use scope::{OpenSpan, Scope};
pub use sealed_file::SealedFile;
pub use store::Store;
pub use subscriber::RecorderSubscriber;
