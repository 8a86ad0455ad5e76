//! Durable journals, as recovery reads them.

#![no_main]

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("durable_file"), |bytes: &[u8]| retake_recorder::fuzzing::durable_file(bytes));
