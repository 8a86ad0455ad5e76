//! Files of the store that somebody or something has changed.

use std::path::PathBuf;

use crate::support::{Bench, files_below};

/// Scenario: one byte in the middle of a sealed file is flipped.
/// Guarantees: J5 - whatever needs the file ends with exit 5 and names it; `verify` does too.
#[test]
fn a_flipped_byte_is_reported_and_never_used() {
    let bench = Bench::with_documents();
    let run_id = bench.last_run();
    let segment = segment(&bench, &run_id, "spans-");
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    let mut bytes = std::fs::read(&segment).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&segment, bytes).expect("write");

    for arguments in [
        ["breakdown"].as_slice(),
        &["verify"],
        &["trace"],
        &["report"],
        &["sql", "select count(*) from spans where duration_ns > 0"],
    ] {
        let outcome = bench.retake(arguments);
        assert_eq!(outcome.code(), Some(5), "{arguments:?}: {}{}", outcome.stdout, outcome.stderr);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains(&name) && said.contains(&run_id), "{arguments:?}: {said}");
    }
    assert!(!bench.path("report.html").exists(), "a report was made of damaged data");
    let outcome = bench.retake(["verify", "--format", "json"]).expect_code(5);
    assert_eq!(outcome.json()["runs"][0]["sound"], false);
}

/// Scenario: one of two runs is damaged.
/// Guarantees: each run is its own fault domain: the other is read, listed and verified.
#[test]
fn a_damaged_run_does_not_hide_the_others() {
    let bench = Bench::with_documents();
    let damaged = bench.last_run();
    bench.retake(["rag", "ask", "Who guards Esha?"]).expect_code(0);
    std::fs::remove_file(segment(&bench, &damaged, "spans-")).expect("remove");

    bench.retake(["breakdown", "last"]).expect_code(0);
    bench.retake(["verify", "last"]).expect_code(0);
    bench.retake(["breakdown", &damaged]).expect_code(5).expect_message(&["spans-"]);
    bench.retake(["verify"]).expect_code(5);

    std::fs::write(bench.run_folder(&damaged).join("manifest.json"), "{\"torn").expect("write");
    let outcome = bench.retake(["runs", "--format", "json"]).expect_code(0);
    assert_eq!(outcome.json()["runs"].as_array().map(Vec::len), Some(1));
    outcome.expect_message(&["warning", &damaged]);
    let outcome = bench.retake(["sql", "select count(*) as n from runs", "--format", "csv"]);
    let outcome = outcome.expect_code(0).expect_message(&["warning", &damaged]);
    assert_eq!(outcome.stdout, "n\n1\n");
    bench.retake(["breakdown", &damaged]).expect_code(5).expect_message(&["manifest"]);
}

/// Scenario: a sealed file is cut short, emptied, or replaced by one of another run.
/// Guarantees: J5 - each is found by its digest before a reader sees a byte of it.
#[test]
fn a_cut_or_exchanged_file_is_found() {
    let bench = Bench::with_documents();
    let first = bench.last_run();
    bench.retake(["rag", "ask", "Who guards Esha?"]).expect_code(0);
    let target = segment(&bench, &first, "spans-");
    let whole = std::fs::read(&target).expect("read");
    let other = std::fs::read(segment(&bench, &bench.last_run(), "spans-")).expect("read");
    for content in [whole[..whole.len() - 1].to_vec(), Vec::new(), other] {
        std::fs::write(&target, &content).expect("write");
        bench.retake(["verify", &first]).expect_code(5);
        bench.retake(["breakdown", &first]).expect_code(5);
    }
    std::fs::write(&target, &whole).expect("write");
    bench.retake(["verify", &first]).expect_code(0);
    bench.retake(["breakdown", &first]).expect_code(0);
}

/// Scenario: a run was written by a retake of the future.
/// Guarantees: J10 - it is refused with a message that says so, and left as it was.
#[test]
fn a_run_of_a_newer_major_version_is_refused() {
    let bench = Bench::with_documents();
    let path = bench.run_folder(&bench.last_run()).join("manifest.json");
    let file = std::fs::read_to_string(&path).expect("read");
    let (_, body) = file.split_once("\"manifest\":").expect("a manifest");
    let body = body.strip_suffix('}').expect("the end");
    let newer = body.replacen("\"major\": 1", "\"major\": 2", 1);
    assert_ne!(newer, body, "the manifest does not say its version");
    let digest = retake_schemas::Digest::of(newer.as_bytes());
    let newer = format!("{{\"blake3\":\"{digest}\",\"manifest\":{newer}}}");
    std::fs::write(&path, &newer).expect("write");
    for arguments in [["breakdown", "last"].as_slice(), &["verify"], &["runs", "show", "last"]] {
        let outcome = bench.retake(arguments);
        assert_ne!(outcome.code(), Some(0), "{arguments:?}");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains("2.0") && said.contains("at least as new"), "{arguments:?}: {said}");
    }
    assert_eq!(std::fs::read_to_string(&path).expect("read"), newer);
}

/// Scenario: files of the store are looked at by another user of the machine.
/// Guarantees: P3 - what is recorded is readable by its owner only.
#[test]
fn recorded_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::with_documents();
    for path in files_below(&bench.store().join("runs")) {
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

fn segment(bench: &Bench, run_id: &str, prefix: &str) -> PathBuf {
    let is_wanted = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    files_below(&bench.run_folder(run_id)).into_iter().find(is_wanted).expect("a sealed file")
}
