//! The network faces of retake.
//!
//! ```text
//!            ┌ net/ ─ limits, timeouts, who may ask ┐
//! client ──► │ accept ─► connection ─► request      │ ─► otlp/  whole bodies  ─► Ingest
//!            └──────────────────────────────────────┘
//! ```
//!
//! What arrives from a network is hostile until shown otherwise, so everything here has a limit:
//! connections, bytes of a head, bytes of a body before and after decompression, bytes of all bodies
//! together, requests, and the time for each of these. What is over a limit is refused with an
//! answer that says so, and never waits in a queue without end.
//!
//! The receiver does not know what telemetry means: a whole, decompressed body goes to an
//! [`Ingest`], which answers when it is durable. Who looks at its address with a browser gets what
//! [`Pages`] make. The [`proxy`] stands between a program and a
//! service with OpenAI's interface, and records the calls that pass.

mod collect;
pub mod ingest;
mod net;
mod otlp;
mod pages;
pub mod proxy;
pub mod settings;

pub use collect::{Collecting, IntoRun};
pub use ingest::{Accepted, Encoding, Health, Ingest, Refused, Signal};
pub use net::access::{Token, TokenError};
pub use otlp::server::{ServeReport, Server};
pub use pages::{Page, PageRequest, Pages};
pub use settings::{Limits, ServeError, ServerSettings, Timeouts};
