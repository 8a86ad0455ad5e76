//! `retake init`: what a project gets to begin with.

use crate::support::Bench;

/// Scenario: a Python project with a git folder is prepared, twice.
/// Guarantees: settings, budgets and workflow are written for what it is, the store is kept out of
/// git, retake reads what it wrote, and nothing that is there is replaced unless asked.
#[test]
fn a_project_is_prepared_for_what_it_is() {
    let bench = Bench::new();
    bench.write("pyproject.toml", "[project]\nname = \"shop-assistant\"\n");
    bench.write(".git/HEAD", "ref: refs/heads/main\n");
    bench.write(".gitignore", "dist");
    let first = bench.retake(["init"]).expect_code(0);
    assert!(first.stderr.contains("a Python project"), "{}", first.stderr);
    for file in ["retake.toml", "budgets.toml", ".github/workflows/retake.yml", ".gitignore"] {
        assert!(first.stdout.lines().any(|line| line == file), "{file}: {}", first.stdout);
    }
    let read = |name: &str| std::fs::read_to_string(bench.path(name)).expect("a file");
    assert_eq!(read(".gitignore"), "dist\n/.retake\n");
    assert!(read("retake.toml").contains("shop-assistant"));
    let workflow = read(".github/workflows/retake.yml");
    assert!(workflow.contains("-- python eval.py"), "{workflow}");
    assert!(!workflow.contains("{setup}") && !workflow.contains("{command}"), "{workflow}");
    assert!(workflow.contains("pip install -r requirements.txt"), "{workflow}");

    bench.retake(["config"]).expect_code(0);
    bench.write("docs/a.md", "# Lamp\nThe lamp of the lighthouse burns oil.\n");
    bench.retake(["rag", "ingest", "docs"]).expect_code(0);
    bench.retake(["check", "last", "--budgets", "budgets.toml"]).expect_code(0);

    bench.write("budgets.toml", "mine");
    let again = bench.retake(["init"]).expect_code(0);
    assert!(
        again.stdout.is_empty() && again.stderr.contains("left as they are"),
        "{}",
        again.stderr
    );
    assert_eq!(read("budgets.toml"), "mine");
    bench.retake(["init", "--force"]).expect_code(0);
    assert_ne!(read("budgets.toml"), "mine");
    bench.retake(["init", "no-such-folder"]).expect_code(3);
}

/// Scenario: every comment of the written settings that shows a default is taken at its word.
/// Guarantees: the settings are then exactly those without any file, so the file and the page it
/// comes from tell the truth; and no setting is missing from it.
#[test]
fn written_settings_are_the_defaults() {
    let bench = Bench::new();
    let settings = |bench: &Bench| {
        let document = bench.retake(["config", "--format", "json"]).expect_code(0).json();
        let settings = document["settings"].as_object().expect("settings").clone();
        settings.into_iter().map(|(name, one)| (name, one["value"].clone())).collect::<Vec<_>>()
    };
    let defaults = settings(&bench);
    bench.retake(["init"]).expect_code(0);
    let written = std::fs::read_to_string(bench.path("retake.toml")).expect("settings");
    // A default stands as `# name = value`; what only shows how has no default, and stands alike in
    // the documentation, with its own `#`.
    let (mut section, mut missing) = (String::new(), defaults.clone());
    for line in written.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = format!("{name}.");
        }
        let Some((name, _)) = line.trim_start_matches(['#', ' ']).split_once(" = ") else {
            continue;
        };
        missing.retain(|(known, _)| *known != format!("{section}{name}"));
    }
    let names: Vec<_> = missing
        .iter()
        .filter(|(name, value)| {
            !value.is_null()
                && !name.starts_with("record.redact")
                && !name.starts_with("record.alias")
        })
        .map(|(name, _)| name)
        .collect();
    assert!(names.is_empty(), "docs/configuration.md does not show {names:?}");

    let uncommented: String = written
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.split_once(" = ").is_some_and(|(name, _)| is_name(name))
                    && !rest.starts_with('#') =>
            {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .filter(|line| !EXAMPLES.iter().any(|name| line.starts_with(name)))
        .collect();
    bench.write("retake.toml", uncommented);
    assert_eq!(settings(&bench), defaults);
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Settings that have no default; the documentation shows what they look like.
const EXAMPLES: [&str; 11] = [
    "store =",
    "model_dir =",
    "url =",
    "judge_url =",
    "filter =",
    "upload =",
    "input_tokens =",
    "output_tokens =",
    "total_tokens =",
    "on_exceeded =",
    "\"app.",
];
