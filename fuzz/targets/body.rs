//! Events in their general form, as MessagePack.

#![no_main]

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("body"), |bytes: &[u8]| retake_recorder::fuzzing::body(bytes));
