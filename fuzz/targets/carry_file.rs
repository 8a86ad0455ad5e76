//! What outlives a seal.

#![no_main]

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("carry_file"), |bytes: &[u8]| retake_recorder::fuzzing::carry_file(bytes));
