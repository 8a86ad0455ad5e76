//! Good journals with known damage: never silent, never other data.

#![no_main]

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("damaged_journal"), |bytes: &[u8]| retake_recorder::fuzzing::damaged_journal(bytes));
