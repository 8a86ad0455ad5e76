//! The OTLP receiver: requests in, whole bodies out, answers back.

mod entry;
mod failure;
mod grpc;
mod http;
mod inflate;
mod metrics;
mod receiver;
pub(crate) mod server;
mod wire;
