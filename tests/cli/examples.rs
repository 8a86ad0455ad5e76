//! The examples, run as their own words say.

use std::path::Path;

use crate::support::{Bench, int, text};

/// Runs an example of the workspace on the bench's store.
fn example(bench: &Bench, name: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_retake")).with_file_name("examples").join(name);
    if !program.exists() {
        // `cargo test` builds examples, unless it is told which tests to build.
        let built = std::process::Command::new(env!("CARGO"))
            .args(["build", "--locked", "--quiet", "--example", name])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.expect("cargo").success(), "{name} does not build");
    }
    let mut command = bench.program(program);
    command.arg(bench.store());
    let output = command.output().expect("the example starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Scenario: the example service is run, then replayed by the example target.
/// Guarantees: the run has its stages, streamed tokens and documents; the replay repeats each request
/// and is compared with it in pairs, and the stage that was made faster is found.
#[test]
fn a_service_is_recorded_and_replayed_by_its_own_target() {
    let bench = Bench::new();
    assert!(example(&bench, "service").contains("9 spans, 0 events dropped"));
    assert_eq!(bench.number("select count(*) from tokens"), 15);
    assert_eq!(bench.number("select count(*) from documents where role = 'retrieved'"), 6);
    let counted =
        "select sum(output_tokens) from spans where tokens_counted and tokens_source = 'provider'";
    assert_eq!(bench.number(counted), 15);

    assert!(example(&bench, "target").contains("3 planned = 3 ok + 0 failed"));
    assert_eq!(bench.number("select count(*) from replay_pairs"), 3);
    let diff = bench.retake(["diff", "last~1", "last", "--format", "json"]).expect_code(0).json();
    assert_eq!((&diff["paired"], int(&diff["pairs"])), (&true.into(), 3), "{diff}");
    let rows = diff["rows"].as_array().expect("rows");
    let search = rows.iter().find(|row| text(&row["stage"]) == "retrieve").expect("the search");
    assert!(search["candidate"].as_f64() < search["base"].as_f64(), "{search}");
    bench.retake(["report", "last", "last~1", "--output", "r.html"]).expect_code(0);
}

/// Scenario: a newcomer copies the Rust program out of README.
/// Guarantees: it is the example that compiles here, word for word, and it records.
#[test]
fn the_program_of_the_readme_is_an_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect(name);
    let source = read("examples/smallest.rs");
    let (_, code) = source.split_once("\n\n").expect("its words, then its code");
    assert!(read("README.md").contains(&format!("```rust\n{code}```")), "{code}");
    let bench = Bench::new();
    // It records into the folder where it runs.
    assert!(example(&bench, "smallest").contains("2 spans, 0 dropped"));
    let store = bench.path(".retake").display().to_string();
    let found = bench.retake(["breakdown", "last", "--store", &store, "--format", "json"]);
    let rows = found.expect_code(0).json();
    assert!(rows["rows"].as_array().is_some_and(|rows| rows.len() == 2), "{rows}");
}
