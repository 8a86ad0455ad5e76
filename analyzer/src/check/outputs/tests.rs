//! What other programs read of a check.

use super::sample::report;
use super::{annotations, junit, markdown, sarif, shown};

/// Names as strangers may choose them.
const HOSTILE: [&str; 6] = [
    "<script>alert(1)</script>",
    "a\n::error file=x::b",
    "| cell | `code` @everyone",
    "\u{1b}[31mred\u{7}",
    "\"quotes\" & ]]> 'more'",
    "![image](https://example.org/a.png)",
];

#[test]
fn a_command_is_one_line_at_the_line_of_source() {
    let text = annotations(&report("rerank"), Some("ci/budgets.toml"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(
        lines[0]
            .starts_with("::error file=src/my rerank%2C1.rs,line=42,title=retake%3A regression::"),
        "{text}"
    );
    assert!(lines[0].contains("rerank adds 25.0 ms to the mean operation"), "{text}");
    assert!(lines[1].starts_with("::error file=ci/budgets.toml,line=7,"), "{text}");
    assert!(lines[2].starts_with("::warning ") && lines[3].starts_with("::notice "), "{text}");
}

/// Guarantees: P2 - no name from a trace becomes a command, markup, or a broken document.
#[test]
fn hostile_names_stay_text() {
    for name in HOSTILE {
        let report = report(name);
        let commands = annotations(&report, None);
        assert_eq!(commands.lines().count(), 4, "{commands}");
        let page = markdown(&report, 65_000);
        assert!(!page.contains("<script") && !page.contains("@everyone"), "{page}");
        assert!(!page.contains('\u{1b}') && !page.contains("!["), "{page}");
        // Cells stay cells: every row of a table has as many bars as its head.
        for table in page.split("\n\n").filter(|part| part.starts_with('|')) {
            let bars = |line: &str| line.replace("\\|", "").matches('|').count();
            let head = bars(table.lines().next().unwrap());
            assert!(table.lines().all(|line| bars(line) == head), "{table}");
        }
        let xml = junit(&report).unwrap();
        let read = quick_junit::Report::deserialize_from_str(&xml).unwrap();
        assert_eq!(read.test_suites.len(), 2);
        let log = sarif(&report, Some("budgets.toml")).to_string();
        let log: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert_eq!(log["runs"][0]["results"].as_array().unwrap().len(), 4);
    }
}

#[test]
fn junit_has_a_case_for_every_budget_and_row() {
    let xml = junit(&report("rerank")).unwrap();
    let read = quick_junit::Report::deserialize_from_str(&xml).unwrap();
    let counts: Vec<(usize, usize)> =
        read.test_suites.iter().map(|suite| (suite.tests, suite.failures)).collect();
    assert_eq!(counts, [(4, 1), (3, 2)]);
}

/// Scenario: the fields that code scanning needs.
#[test]
fn sarif_names_rule_place_and_fingerprint() {
    let log = sarif(&report("rerank"), Some("budgets.toml"));
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules: Vec<&str> = run["tool"]["driver"]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["id"].as_str().unwrap())
        .collect();
    for result in run["results"].as_array().unwrap() {
        assert!(rules.contains(&result["ruleId"].as_str().unwrap()), "{result}");
        assert!(result["partialFingerprints"]["retake/v1"].is_string(), "{result}");
        assert!(result["message"]["text"].is_string(), "{result}");
    }
    let place = &run["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "src/my%20rerank%2C1.rs");
    assert_eq!(place["region"]["startLine"], 42);
}

/// Scenario: hundreds of budgets, and GitHub's limit on a comment.
#[test]
fn a_page_keeps_its_limit_and_says_what_is_left_out() {
    let mut report = report("rerank");
    let one = report.budgets[1].clone();
    report.budgets = vec![one; 2_000];
    let page = markdown(&report, 10_000);
    assert!(page.len() <= 10_000, "{}", page.len());
    assert!(page.contains("more lines"), "{page}");
    assert!(markdown(&report, 10_000_000).len() > 100_000);
}

#[test]
fn numbers_are_shown_in_their_unit() {
    for (value, unit, text) in [
        (82_400_000.0, "ns", "82.4 ms"),
        (999.0, "ns", "999 ns"),
        (1.5e9, "ns", "1.50 s"),
        (0.0041, "usd", "$0.0041"),
        (0.125, "share", "12.5 %"),
        (1234.0, "number", "1234"),
        (533.9, "tokens", "533.9"),
        (0.75, "number", "0.7500"),
    ] {
        assert_eq!(shown(value, unit), text);
    }
}
