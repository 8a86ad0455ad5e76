//! Arbitrary attributes through the built-in mapping.

#![no_main]

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("attributes"), |bytes: &[u8]| retake_recorder::fuzzing::attributes(bytes));
