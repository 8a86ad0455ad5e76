//! `retake demo`: the main job end to end, without a network or a model file.

use std::collections::HashSet;

use crate::corpus::write_lighthouses;
use crate::support::{Bench, Outcome, assert_fields, files_below, int, text};

fn demo() -> (Bench, Outcome) {
    let bench = Bench::new();
    write_lighthouses(&bench.path("docs"));
    let outcome = bench.retake(["demo", "--docs", "docs", "--out", "out"]).expect_code(0);
    (bench, outcome)
}

/// The demo's own store.
fn in_demo_store<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [["--store", "out/store"].as_slice(), arguments].concat()
}

/// Scenario: a newcomer runs the demo on a folder of Markdown, HTML and text.
/// Guarantees: the whole chain runs offline, answers at least 20 questions, replays the workload
/// with the recorded settings and with changed ones, and says what to do next.
#[test]
fn the_demo_ingests_asks_replays_and_compares() {
    let (bench, outcome) = demo();
    let answered = outcome
        .stderr
        .lines()
        .find_map(|line| line.strip_suffix(" questions answered")?.parse::<u32>().ok())
        .expect("the number of questions");
    assert!(answered >= 20, "{answered} questions");
    assert!(outcome.stdout.contains("; VALID"), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("INVALID"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("verdict:"), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("retake --store"), "{}", outcome.stderr);

    let document = bench.retake(in_demo_store(&["runs", "--format", "json"])).expect_code(0).json();
    let runs = document["runs"].as_array().expect("runs");
    let (production, replays) = runs.split_first().expect("runs");
    assert!(replays.len() >= 2, "{runs:?}");
    assert!(production["replay_of"].is_null());
    for run in replays {
        assert_eq!(run["replay_of"], production["run_id"]);
        assert_eq!(run["traces"], production["traces"]);
        assert_eq!(run["workload"], replays[0]["workload"]);
        assert_eq!((&run["events_dropped"], &run["status"]), (&0.into(), &"finished".into()));
    }
    let lane = |lane: &str| replays.iter().find(|run| run["labels"]["demo"] == lane).expect("lane");
    assert_eq!(lane("baseline")["settings"], production["settings"]);
    for setting in ["embed.batch_size", "workers"] {
        let changed = &lane("candidate")["settings"][setting];
        assert_ne!(*changed, production["settings"][setting], "{setting}");
    }
}

/// Scenario: the numbers of the demo's breakdowns are added up.
/// Guarantees: the wall time of the stages sums to the wall time of the traces, exactly.
#[test]
fn the_wall_time_of_the_stages_adds_up_exactly() {
    let (bench, _) = demo();
    for run in ["demo", "label:demo=baseline", "label:demo=candidate"] {
        let arguments = in_demo_store(&["breakdown", run, "--format", "json"]);
        let document = bench.retake(arguments).expect_code(0).json();
        assert_fields(
            &document,
            &["run_id", "traces", "spans", "wall_ns", "lost_spans", "rows", "tokens", "errors"],
        );
        let rows = document["rows"].as_array().expect("rows");
        let sum: i64 = rows.iter().map(|row| int(&row["wall_ns"])).sum();
        assert!(sum > 0);
        assert_eq!(sum, int(&document["wall_ns"]), "{run}");
        let share: f64 = rows.iter().filter_map(|row| row["wall_share"].as_f64()).sum();
        assert!((share - 1.0).abs() < 1e-9, "{run}: shares sum to {share}");
        let stages: HashSet<String> = rows.iter().map(|row| text(&row["stage"])).collect();
        for stage in ["load", "chunk", "embed", "retrieve", "llm"] {
            assert!(stages.contains(stage), "{run} has no stage {stage}: {stages:?}");
        }
        assert_fields(
            &rows[0],
            &[
                "stage",
                "kind",
                "calls",
                "errors",
                "total_ns",
                "self_ns",
                "wall_ns",
                "wall_share",
                "critical_share",
                "p50_ns",
                "p95_ns",
                "p99_ns",
                "input_tokens",
                "output_tokens",
                "tokens_source",
                "cost_usd",
            ],
        );
    }
}

/// Scenario: a replayed operation is looked up in the run it repeats.
/// Guarantees: every root of a replay joins exactly one operation of the source run, and no two
/// roots of a replay join the same.
#[test]
fn every_replayed_operation_links_to_its_source() {
    let (bench, _) = demo();
    let rows = |sql: &str| {
        let arguments = in_demo_store(&["sql", sql, "--format", "json"]);
        let document = bench.retake(arguments).expect_code(0).json();
        document["rows"].as_array().expect("rows").clone()
    };
    let replays = int(&rows("select count(*) as n from runs where replay_of is not null")[0]["n"]);
    assert!(replays >= 2);
    let pairs = rows("select run_id, count(*) as n from replay_pairs group by run_id");
    assert_eq!(pairs.len() as i64, replays, "{pairs:?}");
    let roots = rows(
        "select c.run_id, count(*) as roots, count(s.span_id) as joined, \
         count(distinct c.source_span_id) as sources \
         from spans c left join spans s on c.source_run_id = s.run_id \
         and c.source_trace_id = s.trace_id and c.source_span_id = s.span_id \
         where c.parent_span_id is null and c.run_id in \
         (select run_id from runs where replay_of is not null) group by c.run_id",
    );
    assert_eq!(roots.len() as i64, replays, "{roots:?}");
    for row in roots {
        assert!(int(&row["roots"]) >= 21, "{row}");
        assert_eq!(row["roots"], row["joined"], "{row}");
        assert_eq!(row["roots"], row["sources"], "{row}");
    }
}

/// Scenario: the report is opened on a machine without a network.
/// Guarantees: P2 - the report is one file that loads nothing, and runs nothing but its one script.
#[test]
fn the_report_is_one_inert_file() {
    let (bench, outcome) = demo();
    let html = std::fs::read_to_string(bench.path("out/report.html")).expect("a report");
    assert!(outcome.stdout.contains("report.html"), "{}", outcome.stdout);
    assert!(html.contains("<html") && html.contains("</html>"), "not a whole page");
    let lower = html.to_lowercase();
    assert_eq!(lower.matches("<script").count(), 1);
    let (before, rest) = lower.split_once("<script>").expect("a script without attributes");
    let lower = format!("{before}{}", rest.split_once("</script>").expect("it ends").1);
    for refused in ["<iframe", "<object", "<embed", "<link", "@import", "javascript:"] {
        assert!(!lower.contains(refused), "{refused} in the report");
    }
    for tag in tags(&lower) {
        assert!(!tag.contains("http://") && !tag.contains("https://"), "address in {tag}");
        assert!(!tag.split_whitespace().any(|word| word.starts_with("on")), "handler in {tag}");
    }
    for style in lower.split("<style").skip(1) {
        let style = style.split("</style").next().unwrap_or_default();
        assert!(!style.contains("url("), "a style loads something");
    }
}

/// Scenario: the demo has written its files.
/// Guarantees: nothing is written outside `--out`.
#[test]
fn the_demo_writes_only_where_it_is_told() {
    let (bench, _) = demo();
    let outside: Vec<_> = files_below(&bench.path(""))
        .into_iter()
        .filter(|path| {
            !path.starts_with(bench.path("out")) && !path.starts_with(bench.path("docs"))
        })
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
}

/// Everything between `<` and `>`: text content may hold an address, a tag may not.
fn tags(html: &str) -> impl Iterator<Item = &str> {
    html.split('<').skip(1).filter_map(|rest| rest.split('>').next())
}
