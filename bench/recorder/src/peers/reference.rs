//! What everything is compared with: `tracing` alone, and the Registry with a Layer that does
//! nothing.

use tracing::Subscriber;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;

use crate::error::BenchError;
use crate::tracer::{Tracer, set_global};

/// No subscriber.
pub(crate) struct Nothing;

impl Tracer for Nothing {}

/// Installs the Registry with an empty Layer.
///
/// # Errors
/// There is a subscriber already.
pub(crate) fn install() -> Result<Box<dyn Tracer>, BenchError> {
    set_global("Registry", registry().with(Empty))?;
    Ok(Box::new(Nothing))
}

struct Empty;

impl<S: Subscriber> Layer<S> for Empty {}
