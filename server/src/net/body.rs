//! Reading a body: whole, bounded, and in time.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::net::budget::{Buffer, Full};
use crate::settings::Timeouts;

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// No room for it.
    Full(Full),
    /// Nothing came for too long.
    Idle,
    /// It took too long as a whole.
    Slow,
    /// It came in too many parts.
    Crumbled,
    /// The client broke it off, or it was framed wrongly.
    Broken,
}

/// Reads `body` to its end into `buffer`, which holds what came also when it fails.
pub(crate) async fn read(
    body: &mut Incoming,
    buffer: &mut Buffer,
    bytes_max: usize,
    timeouts: &Timeouts,
) -> Result<(), ReadError> {
    // A stated length over the limit is refused before the client was told to go on.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(ReadError::Full(Full::TooLarge));
    }
    let end = Instant::now() + timeouts.body_total;
    for _ in 0..PARTS_MAX {
        let idle = Instant::now() + timeouts.body_idle;
        let Ok(frame) = timeout_at(idle.min(end), body.frame()).await else {
            return Err(if idle < end { ReadError::Idle } else { ReadError::Slow });
        };
        match frame {
            None => return Ok(()),
            Some(Err(_)) => return Err(ReadError::Broken),
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    buffer.append(bytes).map_err(ReadError::Full)?;
                }
            }
        }
    }
    Err(ReadError::Crumbled)
}

/// Reads and forgets what is left of a body that was refused.
///
/// Closing a connection on which bytes still arrive resets it, and the client never sees why it
/// was refused. Many clients read only when they have sent all.
pub(crate) async fn drain(mut body: Incoming, bytes_max: usize) {
    let mut left = bytes_max;
    let forget = async {
        while let Some(Ok(frame)) = body.frame().await {
            let came = frame.data_ref().map_or(0, |bytes| bytes.len());
            match left.checked_sub(came) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Longer than this is not worth the place it takes.
    let _ = tokio::time::timeout(DRAIN_MAX, forget).await;
}

/// Parts of one body: a quarter of a kibibyte each for the largest. A chunk of one byte costs as
/// much time as one of thousands.
const PARTS_MAX: usize = 1 << 16;
/// A body of 64 MiB takes a tenth of this over loopback.
const DRAIN_MAX: Duration = Duration::from_millis(750);
