//! `manifest.json`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("manifest"), |bytes: &[u8]| retake_recorder::fuzzing::manifest(bytes));
