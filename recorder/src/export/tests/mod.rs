//! Exports read back by decoders of their own, and by retake itself.

mod decode;
mod edges;
mod fixture;
mod golden;
mod placing;
mod round_trip;
