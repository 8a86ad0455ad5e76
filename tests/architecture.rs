//! The rules of the house that no compiler checks: which crate may know which, where DataFusion
//! lives, and that what is generated from the code agrees with it.
//!
//! `UPDATE_DOCS=1` writes `docs/tables.md` and `docs/sql.md` anew, `UPDATE_GOLDEN=1` the schemas
//! in `tests/golden/schemas`. Neither lets an existing column change or move.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use retake_schemas::tables::TableName;
use serde_json::Value;

/// Which crate of the workspace may depend on which; what is not here is refused.
const ARROWS: [(&str, &[&str]); 7] = [
    ("retake-schemas", &[]),
    ("retake-recorder", &["retake-schemas"]),
    ("retake-replay", &["retake-schemas", "retake-recorder"]),
    ("retake-pipeline", &["retake-schemas", "retake-replay", "retake-recorder"]),
    ("retake-analyzer", &["retake-schemas", "retake-recorder"]),
    ("retake-server", &["retake-schemas", "retake-recorder", "retake-analyzer"]),
    (
        "retake",
        &[
            "retake-schemas",
            "retake-recorder",
            "retake-replay",
            "retake-pipeline",
            "retake-analyzer",
            "retake-server",
        ],
    ),
];

/// Scenario: someone adds a dependency from one crate of the workspace to another.
/// Guarantees: the arrows point one way, as `ARCHITECTURE.md` draws them, in tests too.
#[test]
fn crates_depend_only_on_those_below_them() {
    let mut seen = BTreeSet::new();
    for package in packages() {
        let name = text(&package["name"]);
        let (_, allowed) = ARROWS
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("crate {name} has no place in the table of arrows"));
        for dependency in dependencies(&package) {
            let target = text(&dependency["name"]);
            let is_ours = dependency["path"].is_string();
            assert!(
                !is_ours || allowed.contains(&target.as_str()),
                "{name} depends on {target}; allowed are {allowed:?}"
            );
        }
        seen.insert(name);
    }
    let known: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(seen, known, "the table of arrows names crates that are not there");
}

/// Scenario: someone uses DataFusion outside the analyzer.
/// Guarantees: one crate compiles DataFusion, so the others build in seconds.
#[test]
fn only_the_analyzer_depends_on_datafusion() {
    let users: Vec<String> = packages()
        .iter()
        .filter(|package| {
            dependencies(package).iter().any(|d| text(&d["name"]).starts_with("datafusion"))
        })
        .map(|package| text(&package["name"]))
        .collect();
    assert_eq!(users, ["retake-analyzer"]);
}

/// Scenario: someone adds a crate from outside.
/// Guarantees: each has a reason on its line of the workspace's `Cargo.toml`.
#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = read(&root().join("Cargo.toml"));
    let section = manifest.split("[workspace.dependencies]").nth(1).expect("the section");
    let section = section.split("\n[").next().unwrap_or_default();
    let silent: Vec<&str> = section
        .lines()
        .filter(|line| line.contains('=') && !line.trim_start().starts_with('#'))
        .filter(|line| !line.contains("path = "))
        .filter(|line| line.rsplit_once(" # ").is_none_or(|(_, why)| why.trim().len() < 4))
        .collect();
    assert!(silent.is_empty(), "no reason for {silent:#?}");
}

/// Scenario: someone adds a dependency with a version of its own.
/// Guarantees: every version stands once, in the workspace's `Cargo.toml`.
#[test]
fn versions_stand_only_in_the_workspace_manifest() {
    for folder in CRATES {
        let manifest = root().join(folder).join("Cargo.toml");
        let content = read(&manifest);
        let content = content.split("[workspace.dependencies]").next().unwrap_or_default();
        let own = if folder == "." { String::new() } else { content.to_owned() };
        let versioned: Vec<&str> = own
            .lines()
            .filter(|line| line.contains("version = \"") || line.contains("= \"="))
            .collect();
        assert!(versioned.is_empty(), "{}: {versioned:?}", manifest.display());
    }
}

/// Scenario: someone opens any source file.
/// Guarantees: its first line says what it is for.
#[test]
fn every_source_file_begins_with_its_documentation() {
    let mut files = Vec::new();
    for folder in CRATES {
        for part in ["src", "tests", "benches", "examples"] {
            let folder = root().join(folder).join(part);
            if folder.is_dir() {
                rust_files(&folder, &mut files);
            }
        }
    }
    assert!(files.len() > 50, "only {} files found", files.len());
    let bare: Vec<_> = files.iter().filter(|path| !read(path).starts_with("//! ")).collect();
    assert!(bare.is_empty(), "no `//!` at the top of {bare:#?}");
}

/// Scenario: a column, view or function changes.
/// Guarantees: the reference in `docs` is the code's own words.
#[test]
fn the_generated_documents_agree_with_the_code() {
    let generated = [
        ("docs/tables.md", retake_schemas::tables::markdown()),
        ("docs/sql.md", retake_analyzer::sql_reference_markdown()),
    ];
    for (file, expected) in generated {
        let path = root().join(file);
        if is_set("UPDATE_DOCS") {
            std::fs::write(&path, &expected).expect("write the document");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "{file} is not what the code says; UPDATE_DOCS=1 cargo test --workspace --test \
             architecture writes it anew{}",
            first_difference(&found, &expected)
        );
    }
}

/// Scenario: someone adds, changes, or removes a column.
/// Guarantees: J10 - columns are only ever added, and last; other people's SQL depends on them.
#[test]
fn columns_are_only_added_and_last() {
    for table in TableName::ALL {
        let path = root().join(format!("tests/golden/schemas/{table}.txt"));
        let schema = table.schema();
        let found: Vec<String> = schema
            .fields()
            .iter()
            .map(|f| format!("{} {} {}", f.name(), f.data_type(), null_word(f.is_nullable())))
            .collect();
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        let golden: Vec<&str> = golden.lines().collect();
        for (position, line) in golden.iter().enumerate() {
            assert_eq!(
                found.get(position).map(String::as_str),
                Some(*line),
                "column {position} of {table} changed or moved; new columns go last"
            );
        }
        if is_set("UPDATE_GOLDEN") {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("make it");
            std::fs::write(&path, format!("{}\n", found.join("\n"))).expect("write the schema");
        } else {
            assert_eq!(
                found.len(),
                golden.len(),
                "{table} has new columns {:?}; UPDATE_GOLDEN=1 takes them in",
                found.get(golden.len()..)
            );
        }
        for added in found.get(golden.len()..).unwrap_or_default() {
            assert!(
                golden.is_empty() || added.ends_with(" null"),
                "{table}: {added} must be nullable, older files do not have it"
            );
        }
    }
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--no-deps"])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn dependencies(package: &Value) -> Vec<Value> {
    package["dependencies"].as_array().expect("dependencies").clone()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("list a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn first_difference(found: &str, expected: &str) -> String {
    let differing = found.lines().zip(expected.lines()).find(|(a, b)| a != b);
    differing.map_or_else(String::new, |(a, b)| format!("\n- {a}\n+ {b}"))
}

fn null_word(nullable: bool) -> &'static str {
    if nullable { "null" } else { "not_null" }
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every crate of the workspace; the root one is the command line.
const CRATES: [&str; 7] = [".", "schemas", "recorder", "replay", "pipeline", "analyzer", "server"];
