//! Mapped files of lanes, as recovery reads them.

#![no_main]

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("ring_file"), |bytes: &[u8]| retake_recorder::fuzzing::ring_file(bytes));
