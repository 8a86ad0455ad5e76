//! The recording proxy between a client and an upstream, both over real sockets.

mod calls;
mod failures;
mod passing;
mod secrets;
mod streams;
mod support;
