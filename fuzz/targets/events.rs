//! Sequences of events through the fold.

#![no_main]

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("events"), |bytes: &[u8]| retake_recorder::fuzzing::events(bytes));
