//! A run's folder of arbitrary files: opened, verified, recovered twice.

#![no_main]

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("run_folder"), |bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("make a folder");
    retake_recorder::fuzzing::run_folder(folder.path(), bytes);
});
