//! Frames of durable journals and carry files.

#![no_main]

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("frame"), |bytes: &[u8]| retake_recorder::fuzzing::frame(bytes));
