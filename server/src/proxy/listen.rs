//! Bodies that are listened to while they pass.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::net::reply::BodyError;
use crate::proxy::call::{Call, End};

/// A request's body on its way to the upstream.
pub(crate) struct Asking {
    body: Incoming,
    call: Option<Arc<Call>>,
    /// A client that stops in the middle holds a connection to the upstream too.
    idle_max: Duration,
    idle: Pin<Box<Sleep>>,
}

impl Asking {
    pub(crate) fn new(body: Incoming, mut call: Option<Arc<Call>>, idle_max: Duration) -> Self {
        // A body that is not there is not polled.
        if let Some(call) = call.take_if(|_| body.is_end_stream()) {
            call.has_asked();
        }
        Self { body, call, idle_max, idle: Box::pin(tokio::time::sleep(idle_max)) }
    }
}

impl Body for Asking {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            ready!(this.idle.as_mut().poll(context));
            return Poll::Ready(Some(
                Err("the client stopped in the middle of its request".into()),
            ));
        };
        let next = Instant::now() + this.idle_max;
        this.idle.as_mut().reset(next);
        if let (Some(call), Some(Ok(frame))) = (&this.call, &frame)
            && let Some(bytes) = frame.data_ref()
        {
            call.asked(bytes);
        }
        // A body of a stated length is not polled for its end.
        let has_ended = frame.is_none() || this.body.is_end_stream();
        if let Some(call) = this.call.take_if(|_| has_ended) {
            call.has_asked();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body on its way to the client. One that is dropped before its end was not wanted any
/// more.
pub(crate) struct Answering {
    body: reqwest::Body,
    call: Option<Arc<Call>>,
    /// Bytes to come, if the upstream said.
    left: Option<u64>,
    tokens: u32,
}

impl Answering {
    pub(crate) fn new(body: reqwest::Body, call: Option<Arc<Call>>, length: Option<u64>) -> Self {
        let answering = Self { body, call, left: length, tokens: 0 };
        if answering.has_ended() {
            answering.end(End::Whole);
        }
        answering
    }

    fn has_ended(&self) -> bool {
        self.left == Some(0) || self.body.is_end_stream()
    }

    fn end(&self, end: End) {
        if let Some(call) = &self.call {
            call.end(end);
        }
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    this.left = this.left.map(|left| left.saturating_sub(bytes.len() as u64));
                    if let Some(call) = &this.call {
                        call.answered(bytes, &mut this.tokens);
                    }
                }
                // A body of a stated length is not polled for its end.
                if this.has_ended() {
                    this.end(End::Whole);
                }
            }
            None => this.end(End::Whole),
            Some(Err(_)) => {
                this.end(End::Failed(
                    "broken_stream",
                    "the answer ended before its end".to_owned(),
                ));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| error.without_url().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let is_done = self.call.as_ref().is_some_and(|call| call.is_done());
        self.end(if is_done { End::Whole } else { End::Cancelled });
    }
}
