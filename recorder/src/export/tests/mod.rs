mod decode;
mod edges;
mod fixture;
mod golden;
mod placing;
mod round_trip;
