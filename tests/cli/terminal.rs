//! Results on terminals of all widths, in pipes, with and without colours.

use std::process::Command;

use crate::support::Bench;

/// What the command shows on a terminal of so many columns; `None` where there is no `script`.
fn on_terminal(bench: &Bench, columns: u32, arguments: &str) -> Option<String> {
    Command::new("script").arg("--version").output().ok().filter(|out| out.status.success())?;
    let program = env!("CARGO_BIN_EXE_retake");
    let line = format!("stty cols {columns}; '{program}' {arguments}");
    let mut command = bench.program("script");
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm-256color");
    command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env_remove("COLUMNS");
    let output = command.stdin(std::process::Stdio::null()).output().expect("script");
    Some(String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n"))
}

/// The text without colours.
fn plain(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escape, rest) = part.split_once('m').unwrap_or((part, ""));
        assert!(escape.trim_start_matches(['[', ';']).len() <= 12, "no colour: {escape:?}");
        out.push_str(rest);
    }
    out
}

/// The lines of a table or a waterfall.
fn rows(text: &str) -> Vec<&str> {
    let is_row =
        |line: &&str| line.starts_with([' ', '\u{2500}', '\u{2550}']) || line.contains('|');
    text.lines().filter(is_row).collect()
}

fn recorded() -> Bench {
    let bench = Bench::with_documents();
    let question = "{\"question\": \"Which keeper lit the lantern?\"}\n";
    bench.write("q.jsonl", question.repeat(3));
    for name in ["nightly-of-the-main-branch", "nightly-of-the-main-branch", "after-the-change"] {
        bench.retake(["rag", "eval", "q.jsonl", "--run", name, "--quiet"]).expect_code(0);
    }
    bench
}

/// Scenario: every view for people, on terminals from narrow to wide.
/// Guarantees: no row is folded, none is wider than the terminal, and what was left out is said;
/// there are colours, and what they say stands in words too.
#[test]
fn views_fit_the_terminal() {
    let bench = recorded();
    for columns in [64, 90, 200] {
        for verb in ["breakdown", "diff last~1 last", "trend 'p95(e2e)'", "trace slowest", "runs"] {
            let Some(shown) = on_terminal(&bench, columns, verb) else {
                eprintln!("views_fit_the_terminal: skipped: there is no `script`");
                return;
            };
            assert!(shown.contains("\u{1b}["), "{verb}: no colour in {shown}");
            let shown = plain(&shown);
            let rows = rows(&shown);
            assert!(rows.len() >= 2, "{verb} at {columns}: {shown}");
            for row in rows {
                let width = row.chars().count();
                assert!(width <= columns as usize, "{verb} at {columns}: {width}: {row}\n{shown}");
            }
            if verb == "breakdown" {
                assert_eq!(shown.contains("left out to fit"), columns < 200, "{shown}");
                assert!(shown.contains("retrieve") && shown.contains("share"), "{shown}");
            }
        }
    }
}

/// Scenario: the same in a pipe, as CI systems and other programs read it.
/// Guarantees: without a terminal there is no colour unless it is asked for, by option or by
/// CLICOLOR_FORCE; NO_COLOR is kept, and the option is above both; COLUMNS says how wide it is.
#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let bench = recorded();
    let shown = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = bench.command(["breakdown"].iter().chain(arguments));
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env_remove("COLUMNS");
        command.envs(variables.iter().copied());
        let output = command.output().expect("the program starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let has_colour = |arguments: &[&str], variables: &[(&str, &str)]| {
        shown(arguments, variables).contains('\u{1b}')
    };
    assert!(!has_colour(&[], &[]));
    assert!(has_colour(&["--color", "always"], &[]));
    assert!(has_colour(&["--color", "always"], &[("NO_COLOR", "1")]));
    assert!(has_colour(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!has_colour(&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    assert!(!has_colour(&["--color", "never"], &[("CLICOLOR_FORCE", "1")]));
    assert!(!has_colour(&["--format", "markdown", "--color", "always"], &[]));
    let colored = shown(&["--color", "always"], &[("NO_COLOR", "1")]);
    assert!(colored.contains("\u{1b}[1m"), "the table has no bold title: {colored:?}");
    assert_eq!(plain(&colored), shown(&[], &[]), "colours change no letter");

    let longest = |text: &str| rows(text).iter().map(|row| row.chars().count()).max();
    assert!(longest(&shown(&[], &[])) <= Some(100));
    assert!(longest(&shown(&[], &[("COLUMNS", "70")])) <= Some(70));
    assert!(shown(&[], &[("COLUMNS", "300")]).contains("counted by"));
    bench.retake(["breakdown", "--color", "sometimes"]).expect_code(2);
}

/// Scenario: messages on stderr, with a terminal that has none of its own.
/// Guarantees: errors are painted by the same rule, and say the same.
#[test]
fn errors_keep_the_same_rule() {
    let bench = Bench::new();
    let forced = bench.retake(["breakdown", "--color", "always"]).expect_code(3);
    assert!(forced.stderr.contains("\u{1b}[31merror:\u{1b}[0m failed to"), "{:?}", forced.stderr);
    let silent = bench.retake(["breakdown"]).expect_code(3);
    assert_eq!(plain(&forced.stderr), silent.stderr);
}
