//! A model server that is none: OpenAI's interface on loopback, with the latency, the failures and
//! the limits of a real service, and the same answers every time.
//!
//! For tests, demos and load. It answers chat, completions, embeddings and rerank requests. Answers
//! mean something: embeddings are feature hashes, so that a search finds what it should; answers to
//! a prompt of this pipeline are sentences of its passages; and replies to other prompts can be
//! given. What goes wrong is drawn from the seed, the request's bytes, and how often these bytes
//! were sent before: it does not depend on the order in which requests arrive, and a retry draws
//! anew.
//!
//! It listens on loopback only: it knows no keys, and an address that others reach would lend them
//! this machine.

mod answer;
mod draw;
mod server;
mod settings;

pub use self::server::{FakeServer, ServeError, Served};
pub use self::settings::{FailureKind, FakeSettings, Latency, Reply, SettingError};
