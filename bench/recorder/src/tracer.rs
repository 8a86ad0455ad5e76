//! The one face of everybody who records, retake and peers alike.

use std::path::Path;

use crate::case::Variant;
use crate::error::BenchError;
use crate::peers::{chrome, fastrace, fmt_json, micromegas, otel, reference};
use crate::work::{Load, Request};
use crate::{doors, work};

/// A variant at work in this process.
pub(crate) trait Tracer {
    /// What to repeat for the hot path.
    fn loads(&self) -> Vec<Load> {
        work::tracing_loads()
    }

    /// A realistic request.
    fn request(&self) -> Request {
        std::sync::Arc::new(work::request)
    }

    /// Lets background work finish, so that a sample does not pay for the one before.
    fn settle(&mut self) -> Result<(), BenchError> {
        Ok(())
    }

    /// Ends recording: returns when every span is where it is meant to go.
    fn finish(self: Box<Self>) -> Result<Kept, BenchError> {
        Ok(Kept::default())
    }
}

/// What reached its destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Spans, if there is anything to count.
    pub(crate) spans: Option<u64>,
    /// Bytes on disk.
    pub(crate) bytes: Option<u64>,
    /// Records the tracer itself says it lost.
    pub(crate) dropped: Option<u64>,
}

/// Where finished spans go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    /// As little as the variant allows: retake and tracing-chrome write files all the same.
    Least,
    /// A file, in the form its users would read.
    File,
}

/// What to do when the recorder cannot keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// What the variant does by default.
    Default,
    /// Make the application wait, if the variant can.
    Block,
}

/// How a variant is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// Folder for its files.
    pub(crate) folder: &'a Path,
    /// Where spans go.
    pub(crate) sink: Sink,
    /// When it is too much.
    pub(crate) pressure: Pressure,
    /// `record.sync_ms`; retake's default if `None`.
    pub(crate) sync_ms: Option<u64>,
}

/// Starts `variant` in this process, for good: a process can have one global subscriber only.
///
/// # Errors
/// It is not compiled in, or cannot start.
pub(crate) fn install(variant: Variant, setup: &Setup<'_>) -> Result<Box<dyn Tracer>, BenchError> {
    match variant {
        Variant::Nothing => Ok(Box::new(reference::Nothing)),
        Variant::Registry => reference::install(),
        Variant::Layer | Variant::Subscriber | Variant::Direct => doors::install(variant, setup),
        Variant::Fastrace => Ok(fastrace::install(fastrace::Properties::Strings)),
        Variant::FastraceStatic => Ok(fastrace::install(fastrace::Properties::Static)),
        Variant::FastraceBare => Ok(fastrace::install(fastrace::Properties::None)),
        Variant::FastraceRoots => Ok(fastrace::install(fastrace::Properties::StringsAndRoots)),
        Variant::MicromegasBare => micromegas::install(micromegas::Properties::None),
        Variant::Micromegas => micromegas::install(micromegas::Properties::Three),
        Variant::Otel => otel::install(setup, otel::Queue::Default),
        Variant::OtelBigQueue => otel::install(setup, otel::Queue::TwoMillion),
        Variant::Chrome => chrome::install(setup),
        Variant::FmtJson => fmt_json::install(setup),
    }
}

/// Makes `subscriber` the one of this process.
///
/// # Errors
/// There is one already.
pub(crate) fn set_global(
    peer: &'static str,
    subscriber: impl tracing::Subscriber + Send + Sync,
) -> Result<(), BenchError> {
    tracing::subscriber::set_global_default(subscriber).map_err(BenchError::peer(peer))
}
