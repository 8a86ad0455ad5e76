//! The receiver as its clients see it, over real sockets of the loopback address.

mod access;
mod bombs;
mod grpc;
mod operators;
mod shutdown;
mod slow;
mod support;
mod table;
