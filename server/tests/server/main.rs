//! The receiver as its clients see it, over real sockets of the loopback address.

mod access;
mod bombs;
mod grpc;
mod kills;
mod operators;
mod shutdown;
mod slow;
mod support;
mod table;
