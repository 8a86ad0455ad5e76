//! What retake says about itself: help, settings, completions and manual pages.

use crate::support::Bench;

/// Scenario: a newcomer asks for help.
/// Guarantees: the verbs and their one-line meaning are what they were; a change here is a change
/// for the changelog.
#[test]
fn help_lists_the_verbs() {
    let help = Bench::new().retake(["--help"]).expect_code(0).stdout;
    let (_, rest) = help.split_once("Commands:\n").expect("the commands");
    let (commands, _) = rest.split_once("\n\nOptions:").expect("the options");
    insta::assert_snapshot!(commands);
}

/// Scenario: a script's author looks up the exit codes.
/// Guarantees: they are in the help, and never change their meaning.
#[test]
fn help_lists_the_exit_codes() {
    let help = Bench::new().retake(["--help"]).expect_code(0).stdout;
    let (_, codes) = help.split_once("Exit codes:\n").expect("the exit codes");
    insta::assert_snapshot!(codes.trim_end());
}

/// Scenario: help of every verb.
/// Guarantees: each verb that does work shows one example.
#[test]
fn every_verb_shows_an_example() {
    let bench = Bench::new();
    for verb in [
        ["demo"].as_slice(),
        &["rag", "ingest"],
        &["rag", "ask"],
        &["rag", "eval"],
        &["rag", "fetch"],
        &["rag", "cache"],
        &["rag", "save"],
        &["rag", "restore"],
        &["breakdown"],
        &["trace"],
        &["diff"],
        &["check"],
        &["trend"],
        &["sql"],
        &["replay", "plan"],
        &["replay", "run"],
        &["sweep"],
        &["workload", "import"],
        &["workload", "cut"],
        &["workload", "sample"],
        &["workload", "scale"],
        &["workload", "stats"],
        &["report"],
        &["verify"],
        &["recover"],
        &["compact"],
        &["gc"],
        &["push"],
        &["pull"],
        &["completions"],
    ] {
        let help = bench.retake([verb, &["--help"]].concat()).expect_code(0).stdout;
        let example = help.lines().find_map(|line| {
            line.strip_prefix("Example: ").or_else(|| line.strip_prefix("Examples: "))
        });
        let begins = format!("retake {}", verb.join(" "));
        assert!(example.is_some_and(|line| line.starts_with(&begins)), "{verb:?}: {help}");
    }
}

/// Scenario: settings without a file and without variables.
/// Guarantees: names and defaults are what they were.
#[test]
fn the_default_settings_are_known() {
    let config = Bench::new().retake(["config", "--format", "json"]).expect_code(0).json();
    let settings = config["settings"].as_object().expect("settings");
    let lines: Vec<String> = settings
        .iter()
        .filter(|(name, _)| *name != "store")
        .map(|(name, setting)| format!("{name} = {}", setting["value"]))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
    let table = Bench::new().retake(["config"]).expect_code(0).stdout;
    assert!(settings.keys().all(|name| table.contains(name.as_str())), "{table}");
}

/// Scenario: completions for each shell, and manual pages into a folder that is not there.
/// Guarantees: they are written; what they offer is tested in the shells themselves.
#[test]
fn completions_and_manual_pages_are_written() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.retake(["completions", shell]).expect_code(0).stdout;
        assert!(script.contains("RETAKE_COMPLETE") && script.contains("retake"), "{shell}");
    }
    bench.retake(["man", "pages/man1"]).expect_code(0);
    let page = std::fs::read_to_string(bench.path("pages/man1/retake.1")).expect("a page");
    assert!(page.contains("breakdown"), "{page}");
    assert!(bench.path("pages/man1/retake-rag-ingest.1").exists());
    let version = bench.retake(["--version"]).expect_code(0).stdout;
    assert_eq!(version.trim(), format!("retake {}", env!("CARGO_PKG_VERSION")));
}
