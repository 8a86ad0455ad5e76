//! The `retake` command line.
fn main() {}
