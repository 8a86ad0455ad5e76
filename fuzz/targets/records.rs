//! Sequences of records through the fold.

#![no_main]

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("records"), |bytes: &[u8]| retake_recorder::fuzzing::records(bytes));
