//! `retake sweep`: settings predicted, measured, and judged.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::corpus::{write_lighthouses, write_many};
use crate::fake_server::Server;
use crate::support::{Bench, assert_fields, int, text};

/// Scenario: the documents changed since they were ingested.
/// Guarantees: the first replay says so, with what to type, and no further one is made.
#[test]
fn changed_documents_end_a_sweep_at_once() {
    let bench = Bench::new();
    write_lighthouses(&bench.path("docs"));
    let ingest = ["rag", "ingest", "docs", "--capture", "full", "--run", "load"];
    bench.retake(ingest).expect_code(0);
    bench.write("docs/new.md", "# New\n\nA document that was not there.\n");
    let sweep = ["sweep", "load", "--set", "embed.batch_size=1,4,16"];
    let said = ["the documents are not the ones", "retake rag ingest"];
    bench.retake(sweep).expect_code(31).expect_message(&said);
    assert_eq!(bench.runs().len(), 3, "the ingest, the sweep and one replay");
    assert!(bench.runs().iter().all(|run| text(&run["status"]) != "recording"));
}

/// Scenario: an ingest, recorded with batches of 8, whose calls take 15 ms and 1 ms a thousand tokens;
/// batches of 2, 8, 16 and 64, twice each.
/// Guarantees: two sizes are learnt from, and the others predicted before they are measured; the
/// prediction names the best setting or one near it; verdicts follow from their intervals; the
/// document, the picture, and the SQL view say so; no scratch is left.
#[test]
fn batch_sizes_are_predicted_measured_and_told_apart() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--ttft-ms", "15", "--input-ms", "1"]);
    let source = ingested(&bench, &server);
    let arguments = [
        "sweep",
        &source,
        "--set",
        "embed.batch_size=2,8,16,64",
        "--objective",
        "throughput,wall",
        "--repeat",
        "2",
        "-o",
        "sweep.svg",
        "--format",
        "json",
    ];
    let outcome = bench.retake(arguments);
    // 32 says that the machine was too noisy to decide, which is an answer too.
    assert!(matches!(outcome.code(), Some(0 | 32)), "{}", outcome.stderr);
    let outcome = outcome.expect_message(&["learning from embed.batch_size=2", "model of embed"]);
    let sweep = outcome.json();
    assert_fields(
        &sweep,
        &["run_id", "source", "objectives", "settings", "base", "best", "front", "regret", "model"],
    );
    let settings = sweep["settings"].as_array().expect("settings");
    assert_eq!(settings.len(), 4, "{sweep}");
    for setting in settings {
        assert_fields(&setting["predicted"]["throughput"], &["estimate", "low", "high"]);
        let values = setting["measured"]["throughput"]["values"].as_array().expect("values");
        assert_eq!((values.len(), setting["replays"].as_array().map(Vec::len)), (2, Some(2)));
    }
    assert_eq!(sweep["base"], "embed.batch_size=8", "the one as recorded");
    reports_show_it(&bench, &sweep);
    // Other tests run beside this one, so the width of an interval is not asked for, only what each
    // verdict must follow from.
    for (at, low, high) in [(0, 0.0, 0.7), (3, 1.5, 99.0)] {
        let ratio = settings[at]["to_base"]["ratio"].as_f64().expect("a ratio");
        assert!((low..high).contains(&ratio), "{sweep}");
    }
    for setting in settings {
        let to_base = &setting["to_base"];
        let Some(interval) = to_base["ratio_ci"].as_array() else {
            assert_eq!(
                (&to_base["verdict"], &setting["label"]),
                (&"itself".into(), &sweep["base"])
            );
            continue;
        };
        let (low, high) = (interval[0].as_f64().expect("low"), interval[1].as_f64().expect("high"));
        let follows = match text(&to_base["verdict"]).as_str() {
            "better" => low > 1.0,
            "worse" => high < 1.0,
            "same" => low > 1.0 / 1.05 && high < 1.05,
            "not_distinguishable" => low <= 1.0 && high >= 1.0,
            other => panic!("verdict {other}"),
        };
        assert!(follows, "{setting}");
    }
    let regret = &sweep["regret"];
    assert_eq!(int(&regret["predictions"]), 4, "{regret}");
    // 3 % is the goal on a quiet machine; here others build and test at the same time.
    assert!(regret["regret"].as_f64().expect("a share") < 0.10, "{sweep}");
    let best = text(&sweep["best"]);
    assert!(best == "embed.batch_size=64" || best == "embed.batch_size=16", "{sweep}");

    let log = bench.rows(
        "select setting, metric, predicted, measured, error, is_inside, predicted_unix_ns, \
         r.started_unix_ns from prediction_log p join runs r on r.run_id = p.replay_run_id \
         where metric = 'throughput'",
    );
    assert_eq!(log.len(), 8, "{log:?}");
    for row in &log {
        assert!(int(&row["predicted_unix_ns"]) < int(&row["started_unix_ns"]), "{row}");
        let (predicted, measured) = (row["predicted"].as_f64(), row["measured"].as_f64());
        let error = measured.expect("a rate") / predicted.expect("a rate") - 1.0;
        assert!((row["error"].as_f64().expect("a share") - error).abs() < 1e-9, "{row}");
    }
    let tree = format!(
        "select count(*) as n from replay_tree where root_run_id = '{source}' and depth = 1"
    );
    // Two that it learnt from, and eight that it measured.
    assert_eq!(bench.number(&tree), 10);
    let picture = std::fs::read_to_string(bench.path("sweep.svg")).expect("a picture");
    assert!(picture.starts_with("<svg ") && picture.contains("embed.batch_size=64"), "{picture}");
    let scratch = std::fs::read_dir(bench.store().join("runs")).expect("runs");
    for run in scratch.flatten() {
        assert!(!run.path().join("scratch").exists(), "scratch is left in {:?}", run.path());
    }
}

/// Guarantees: a report on the sweep, on one of its replays, and on the run that was replayed shows
/// every setting, the one as recorded, and the front that the sweep itself found.
fn reports_show_it(bench: &Bench, sweep: &Value) {
    let replay = text(&sweep["settings"][2]["replays"][0]);
    for (run, own) in [(text(&sweep["run_id"]), 0), (replay, 1), (text(&sweep["source"]), 0)] {
        bench.retake(["report", &run, "--output", "sweep.html"]).expect_code(0);
        let page = std::fs::read_to_string(bench.path("sweep.html")).expect("a report");
        let (_, section) = page.split_once("id=\"sweep\"").expect("the section");
        let section = section.split("</section>").next().expect("its end");
        let count = |part: &str| section.matches(part).count();
        for setting in sweep["settings"].as_array().expect("settings") {
            let label = text(&setting["label"]);
            assert!(count(&format!("<bdi>{label}</bdi>")) == 1, "{label}: {section}");
        }
        assert_eq!(count("class=\"ring\""), 4, "a prediction each: {section}");
        assert_eq!(count("as recorded"), 1, "{section}");
        assert_eq!(count("this run"), own, "{run}: {section}");
        let front = sweep["front"].as_array().map_or(0, Vec::len);
        assert_eq!(count("dot front"), front, "{section}");
    }
}

/// Scenario: a run with one batch size, and what it says of others, without a replay.
/// Guarantees: nothing is replayed; what is not identified is refused with the reason, and the table
/// and a page can be had all the same.
#[test]
fn what_a_run_cannot_tell_is_not_predicted() {
    let bench = Bench::new();
    crate::corpus::write_lighthouses(&bench.path("docs"));
    let ingest = ["rag", "ingest", "docs", "--capture", "full", "--set", "embed.batch_size=2"];
    bench.retake(ingest).expect_code(0);
    let sweep = ["sweep", "last", "--set", "embed.batch_size=2,64", "--predict-only"];
    let outcome =
        bench.retake([&sweep[..], &["-o", "s.html", "--format", "table"]].concat()).expect_code(0);
    assert!(outcome.stdout.contains("embed.batch_size=64"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("nothing was measured"), "{}", outcome.stdout);
    assert_eq!(bench.runs().len(), 2, "the ingest and the sweep's own run");
    let page = std::fs::read_to_string(bench.path("s.html")).expect("a page");
    assert!(page.contains("Content-Security-Policy") && page.contains("<svg "), "{page}");
}

/// Scenario: grids, objectives and names that make no sense; settings that a recording does not
/// support.
/// Guarantees: refused before anything runs, with what was meant, and the documented codes.
#[test]
fn a_sweep_that_makes_no_sense_is_refused() {
    let bench = Bench::with_documents();
    bench.retake(["rag", "ask", "Who guards Esha?", "--capture", "full"]).expect_code(0);
    let runs = bench.runs().len();
    let recorded = ["--llm", "recorded", "--set", "retrieve.top_k=2,8"];
    for (arguments, code, part) in [
        (&["--set", "workers"][..], 2, "NAME=V1,V2"),
        (&["--set", "workers=2"], 2, "nothing to compare"),
        (&["--set", "workers=1,2", "--set", "workers=3"], 2, "given twice"),
        (&["--set", "nothing=1,2"], 2, "no such setting"),
        (&["--set", "workers=1,2", "--objective", "beauty"], 2, "throughput"),
        (&["--set", "workers=1,2", "--objective", "recall"], 30, "--questions"),
        (&["--set", "workers=1,2", "--objective", "cost"], 30, "[prices]"),
        (&["--set", "workers=1,2", "-o", "sweep.png"], 2, ".svg or .html"),
        (&recorded, 30, "--on-miss live"),
        (&["--set", "chunk.size=32,64"], 30, "record a run that ingests"),
    ] {
        let all = [&["sweep", "last"], arguments].concat();
        bench.retake(all).expect_code(code).expect_message(&[part]);
    }
    assert_eq!(bench.runs().len(), runs, "a refused sweep made a run");
}

/// Scenario: questions under two numbers of passages, with references to what is relevant.
/// Guarantees: latency and quality are measured in one table, and the front has what is best in either.
#[test]
fn quality_stands_beside_latency() {
    let bench = Bench::with_documents();
    let keeper = "{\"question\":\"What was the keeper of Skerryvore called?\",\"references\":\
                  [{\"document\":\"skerryvore\",\"start_index\":16,\"end_index\":60}]}\n";
    bench.write("q.jsonl", keeper);
    let eval = ["rag", "eval", "q.jsonl", "--capture", "full", "--set", "retrieve.top_k=1"];
    bench.retake(eval).expect_code(0);
    let sweep = bench.retake([
        "sweep",
        "last",
        "--set",
        "retrieve.top_k=1,8",
        "--objective",
        "latency_p50,recall,agreement",
        "--questions",
        "q.jsonl",
        "--repeat",
        "2",
        "--format",
        "json",
    ]);
    // Whether the latencies can be told apart is the machine's matter, and 32 says that they cannot.
    assert!(matches!(sweep.code(), Some(0 | 32)), "{}", sweep.stderr);
    let sweep = sweep.json();
    let settings = sweep["settings"].as_array().expect("settings");
    let mean =
        |at: usize, name: &str| settings[at]["measured"][name]["mean"].as_f64().expect("a mean");
    assert_eq!(mean(0, "agreement"), 1.0, "the same search finds the same");
    assert_eq!(mean(1, "agreement"), 1.0, "more passages hold the first");
    assert!(mean(1, "recall") >= mean(0, "recall"), "{sweep}");
    assert!(mean(0, "latency_p50") > 0.0);
    assert!(!sweep["front"].as_array().expect("a front").is_empty());
    assert!(text(&settings[1]["predicted"]["latency_p50"]["refused"]).contains("retrieve.top_k"));
}

/// Scenario: ten settings, on documents that take no time.
/// Guarantees: the worse half is measured less often; the base and the best are measured to the end;
/// every replay of a setting is in another block.
#[test]
fn many_settings_are_halved() {
    let bench = Bench::new();
    crate::corpus::write_lighthouses(&bench.path("docs"));
    let ingest = ["rag", "ingest", "docs", "--capture", "full", "--set", "embed.batch_size=4"];
    bench.retake(ingest).expect_code(0);
    let arguments = ["sweep", "last", "--set", "embed.batch_size=1..10", "--repeat", "2"];
    let sweep = bench.retake([&arguments[..], &["--format", "json"]].concat());
    // What a lookup table does in no time need not differ.
    assert!(matches!(sweep.code(), Some(0 | 32)), "{}", sweep.stderr);
    let sweep = sweep.json();
    let settings = sweep["settings"].as_array().expect("settings");
    let measured = |setting: &Value| setting["replays"].as_array().expect("replays").len();
    let mut counts: Vec<usize> = settings.iter().map(measured).collect();
    let of =
        |label: &Value| settings.iter().find(|setting| &setting["label"] == label).map(measured);
    assert_eq!((of(&sweep["base"]), &sweep["base"]), (Some(6), &"embed.batch_size=4".into()));
    counts.sort_unstable();
    // Ten, then five, then four, two blocks each.
    assert_eq!(counts, [2, 2, 2, 2, 2, 4, 6, 6, 6, 6], "{sweep}");
    let twice = "select count(*) as n from (select setting, block, count(*) as n from prediction_log \
                 where metric = 'throughput' and measured is not null group by setting, block) \
                 where n > 1";
    assert_eq!(bench.number(twice), 0);
}

/// Scenario: Ctrl-C in the middle of a sweep.
/// Guarantees: code 130, what was measured so far as a document, the sweep's run says `interrupted`.
#[test]
fn ctrl_c_ends_a_sweep_with_what_was_measured() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--ttft-ms", "10"]);
    let source = ingested(&bench, &server);
    let set = "embed.batch_size=8,16,32";
    let mut command =
        bench.command(["sweep", &source, "--set", set, "--repeat", "60", "--format", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start");
    let begun = Instant::now();
    let measured =
        || bench.number("select count(*) as n from measures where name = 'retake.measured'");
    while measured() < 4 {
        assert!(begun.elapsed() < Duration::from_secs(100), "nothing is measured");
        std::thread::sleep(Duration::from_millis(50));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    let mut said = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("its end").code(), Some(130));
    let sweep: Value = serde_json::from_str(&said).expect("a document");
    let settings = sweep["settings"].as_array().expect("settings");
    assert!(
        settings.iter().any(|setting| !setting["replays"].as_array().expect("list").is_empty())
    );
    let show = ["runs", "show", &text(&sweep["run_id"]), "--format", "json"];
    assert_eq!(bench.retake(show).expect_code(0).json()["status"], "interrupted");
}

fn ingested(bench: &Bench, server: &Server) -> String {
    write_many(&bench.path("docs"), 12);
    let url = format!("embed.url={}", server.url);
    let ingest = [
        "rag",
        "ingest",
        "docs",
        "--capture",
        "full",
        "--set",
        "embed.provider=openai",
        "--set",
        &url,
        "--set",
        "embed.batch_size=8",
        "--set",
        "workers=1",
        "--set",
        "chunk.size=48",
        "--set",
        "chunk.overlap=0",
        "--set",
        "embed.model=fake",
    ];
    bench.retake(ingest).expect_code(0);
    bench.last_run()
}

/// Scenario: a sweep of three settings is killed in its second block, and gone on with, after others
/// asked for it with other options or for what is no sweep.
/// Guarantees: the finished block is taken over and the half one measured anew; every block has every
/// setting once; predictions are those of the first; the log has each replay once.
#[test]
fn a_killed_sweep_is_gone_on_with() {
    let bench = Bench::new();
    write_lighthouses(&bench.path("docs"));
    let ingest = ["rag", "ingest", "docs", "--capture", "full", "--run", "load"];
    bench.retake([&ingest[..], &["--set", "embed.batch_size=4"]].concat()).expect_code(0);
    let sweep = ["sweep", "load", "--set", "embed.batch_size=1,4,16", "--objective", "wall"];
    let repeat = ["--repeat", "4", "--format", "json"];
    let mut first = bench.start([&sweep[..], &repeat].concat());
    // The ingest, the sweep, two to learn from, three of the first block, two of the second.
    let folders = || std::fs::read_dir(bench.store().join("runs")).map_or(0, Iterator::count);
    let began = Instant::now();
    while folders() < 9 {
        assert!(began.elapsed() < Duration::from_secs(120), "{} runs", folders());
        std::thread::sleep(Duration::from_millis(1));
    }
    first.kill().expect("kill it");
    first.wait().expect("its end");
    let measured = "select count(distinct attr(attributes, 'retake.sweep.replay')) as n from measures \
                    where name = 'retake.measured'";
    let done = bench.number(measured);
    assert!((3..9).contains(&done), "{done} replays were measured");
    let of_sweeps = "select run_id as id from runs where service = 'retake-sweep'";
    let sweeps: Vec<String> = bench.rows(of_sweeps).iter().map(|row| text(&row["id"])).collect();
    let [killed] = &sweeps[..] else { panic!("{sweeps:?}") };
    let predicted = format!(
        "select setting, predicted from prediction_log where run_id = '{killed}' group by all \
         order by setting"
    );
    let before = bench.rows(&predicted);

    let resume = ["--resume", killed.as_str()];
    let other = ["sweep", "load", "--set", "embed.batch_size=1,4", "--objective", "wall"];
    let refused = bench.retake([&other[..], &repeat, &resume].concat());
    refused.expect_code(2).expect_message(&["other options"]);
    let no_sweep = bench.retake([&sweep[..], &repeat, &["--resume", "load"]].concat());
    no_sweep.expect_code(2).expect_message(&["no sweep"]);

    let outcome = bench.retake([&sweep[..], &repeat, &resume].concat());
    assert!(matches!(outcome.code(), Some(0 | 32)), "{}", outcome.stderr);
    let outcome = outcome.expect_message(&["going on with", "warming up"]);
    let document = outcome.json();
    let resumed = text(&document["run_id"]);
    let log = bench.rows(
        "select p.run_id as id, setting, block, count(distinct replay_run_id) as n, \
         max(predicted) as predicted, bool_or(r.name is null) as is_lost from prediction_log p \
         left join runs r on r.run_id = replay_run_id group by all order by block, setting",
    );
    assert!(log.iter().all(|row| text(&row["id"]) == resumed), "{log:?}");
    assert_eq!(log.len(), 3 * 4, "{log:?}");
    for (at, row) in log.iter().enumerate() {
        assert_eq!((int(&row["block"]), int(&row["n"])), (at as i64 / 3, 1), "{log:?}");
        assert_eq!(
            (&row["predicted"], &row["is_lost"]),
            (&before[at % 3]["predicted"], &false.into())
        );
    }
    // Whole blocks were taken over, and one warmed up.
    let again = bench.rows(&format!(
        "select count(*) as n from runs where attr(labels, 'retake.sweep') = '{resumed}'"
    ));
    assert_eq!(int(&again[0]["n"]), 12 - done / 3 * 3 + 1);
}
