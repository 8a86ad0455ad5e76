//! Bodies of OTLP requests.

#![no_main]

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("otlp_json"), |bytes: &[u8]| retake_recorder::fuzzing::otlp_json(bytes));
