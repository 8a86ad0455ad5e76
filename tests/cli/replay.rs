//! `retake replay`: the recorded workload again, as it was and with other settings.

use serde_json::Value;

use crate::corpus::write_lighthouses;
use crate::support::{Bench, assert_fields, int, text};

/// Scenario: a replay is planned, with settings that make recorded answers invalid and without.
/// Guarantees: the plan runs nothing, and says for each stage where its results would come from.
#[test]
fn a_plan_says_what_a_replay_would_do() {
    let bench = recorded();
    let outcome = bench.retake(["replay", "plan", "last", "--format", "json"]).expect_code(0);
    let plan = outcome.json();
    assert_fields(&plan, &["operations", "stages", "changes"]);
    assert_eq!(plan["operations"]["query"], QUESTIONS);
    let changed = ["replay", "plan", "last", "--set", "retrieve.top_k=2", "--llm", "recorded"];
    let outcome = bench.retake(changed).expect_code(30);
    outcome.expect_message(&["retrieve.top_k", "--llm live"]);
    let table = bench.retake(["replay", "plan", "last", "--format", "table"]).expect_code(0).stdout;
    for part in ["embed_query", "as recorded", "recorded+model", "duration: about"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert_eq!(bench.runs().len(), 2, "a plan made a run");
}

/// Scenario: a plan with one changed setting of each reach.
/// Guarantees: the JSON contract; the closure reaches the stages it must and says why; calls, tokens
/// and time are those of the recording.
#[test]
fn a_plan_follows_a_setting_through_the_stages() {
    let bench = recorded();
    let arguments = ["replay", "plan", "last", "--set", "retrieve.top_k=2", "--format", "json"];
    let plan = bench.retake(arguments).expect_code(0).json();
    let stages = plan["stages"].as_array().expect("stages");
    let stage = |name: &str| {
        stages
            .iter()
            .find(|stage| stage["stage"] == name)
            .unwrap_or_else(|| panic!("{name}: {plan}"))
    };
    assert_eq!(stage("embed_query")["invalidated_by"], serde_json::json!([]));
    for invalid in ["retrieve", "llm"] {
        assert_eq!(stage(invalid)["invalidated_by"], serde_json::json!(["retrieve.top_k"]));
    }
    assert!(text(&stage("llm")["reason"]).contains("changes retrieve, which comes before it"));
    assert_eq!(int(&stage("llm")["expected"]["calls"]), QUESTIONS);
    assert_eq!(int(&stage("llm")["cutoff"]["of"]), QUESTIONS);
    assert!(int(&stage("llm")["expected"]["busy_ns"]) > 0);
    assert!(int(&plan["expected_wall_ns"]) > 0, "{plan}");
    assert_eq!((&plan["missing"], &plan["refusal"]), (&serde_json::json!([]), &Value::Null));
    let stage_of = |set: &str| ["replay", "plan", "last", "--stage", set].map(str::to_owned);
    bench.retake(stage_of("embed=model")).expect_code(2);
    bench.retake(stage_of("retrieve=recorded")).expect_code(2).expect_message(&["virtual"]);
    bench.retake(stage_of("nothing=live")).expect_code(2).expect_message(&["embed_query"]);
}

/// Scenario: every search gave all there is; more passages are asked for, and recorded answers.
/// Guarantees: early cutoff - the plan proves that no request changes, and no call is live; with fewer
/// passages only the requests that changed are.
#[test]
fn a_request_that_stays_the_same_is_answered_from_the_recording() {
    let bench = Bench::with_documents();
    let lines = (0..QUESTIONS).map(|n| format!("{{\"question\":\"Who is keeper {n}?\"}}\n"));
    bench.write("q.jsonl", lines.collect::<String>());
    let eval = ["rag", "eval", "q.jsonl", "--capture", "full", "--set", "retrieve.top_k=500"];
    bench.retake(eval).expect_code(0);
    let more = ["--llm", "recorded", "--concurrency", "1", "--set", "retrieve.top_k=600"];
    let report = replay(&bench, &more, 0);
    assert_eq!(int(&report["ok"]), QUESTIONS, "{report}");
    assert_eq!(
        (int(&report["llm_answers"]["recorded"]), int(&report["llm_answers"]["missed"])),
        (QUESTIONS, 0)
    );
    let run = ["replay", "run", "last~1", "--format", "json", "--llm", "recorded"];
    let fewer = ["--on-miss", "live", "--concurrency", "1", "--set", "retrieve.top_k=1"];
    let report = bench.retake([run.as_slice(), &fewer].concat()).expect_code(0).json();
    assert_eq!((int(&report["ok"]), int(&report["llm_answers"]["missed"])), (QUESTIONS, QUESTIONS));
    let sources = bench.rows(&format!(
        "select distinct stage_source from spans where kind = 'llm' and run_id = '{}'",
        text(&report["run_id"])
    ));
    assert_eq!((sources.len(), &sources[0]["stage_source"]), (1, &"live".into()), "never silently");
}

/// Scenario: the documents that a run ingested are no longer on the disk.
/// Guarantees: a plan says so, with what to type, before anything runs.
#[test]
fn documents_that_are_gone_are_missed_by_the_plan() {
    let bench = Bench::new();
    write_lighthouses(&bench.path("docs"));
    bench.retake(["rag", "ingest", "docs", "--capture", "full"]).expect_code(0);
    std::fs::rename(bench.path("docs"), bench.path("elsewhere")).expect("rename");
    let plan = ["replay", "plan", "last", "--format", "json"];
    let outcome = bench.retake(plan).expect_code(30);
    let missing = &outcome.json()["missing"];
    assert!(text(&missing[0]["what"]).contains("docs"), "{missing}");
    assert!(text(&missing[0]["help"]).contains("retake rag ingest"), "{missing}");
}

/// Scenario: a closed replay keeps two operations under way.
/// Guarantees: the JSON contract; every operation is accounted for; the run links to its source.
#[test]
fn a_closed_replay_accounts_for_every_operation() {
    let bench = recorded();
    let report = replay(&bench, &["--concurrency", "2"], 0);
    assert_accounts(&report);
    assert_eq!(int(&report["ok"]), QUESTIONS, "{report}");
    assert_eq!((&report["valid"], &report["verdict"]), (&true.into(), &"VALID".into()));
    assert_eq!(report["settings_diff"], serde_json::json!({}));

    let runs = bench.runs();
    let (source, made) = (&runs[1], &runs[2]);
    assert_eq!((&report["run_id"], &report["replay_of"]), (&made["run_id"], &source["run_id"]));
    assert_eq!(made["replay_of"], source["run_id"]);
    assert_eq!(made["capture"], "full");
    let pairs = format!(
        "select count(*) as n from replay_pairs where run_id = '{}'",
        text(&made["run_id"])
    );
    assert_eq!(bench.number(&pairs), QUESTIONS);
}

/// Scenario: an open replay fires at the recorded arrival times, fifty times as fast.
/// Guarantees: whether the machine kept the schedule is said, with the exit code for it; the
/// accounting closes either way; each operation knows when it was due.
#[test]
fn an_open_replay_says_whether_it_kept_its_schedule() {
    let bench = recorded();
    let arguments = ["replay", "run", "last", "--speed", "50", "--format", "json"];
    let outcome = bench.retake(arguments);
    let report = outcome.json();
    assert_accounts(&report);
    let (verdict, code) = if report["valid"] == true { ("VALID", 0) } else { ("INVALID", 31) };
    assert_eq!((&report["verdict"], outcome.code()), (&verdict.into(), Some(code)), "{report}");
    assert_eq!(report["valid"] == true, report["objection"].is_null(), "{report}");
    assert_fields(
        &report["fidelity"],
        &["fire_error_p50_ns", "fire_error_p99_ns", "fire_error_max_ns", "late_share"],
    );
    let due = bench.rows(&format!(
        "select count(*) as n, count(due_unix_ns) as due from spans \
         where parent_span_id is null and run_id = '{}'",
        text(&report["run_id"])
    ));
    assert_eq!((int(&due[0]["n"]), int(&due[0]["due"])), (QUESTIONS, QUESTIONS));
}

/// Scenario: nothing is changed, and the recorded answers of the language model are used.
/// Guarantees: R1, R3 - every operation succeeds, each answer is the recorded one, byte for byte,
/// and no call of the model is live.
#[test]
fn recorded_answers_come_back_as_they_were() {
    let bench = recorded();
    let report = replay(&bench, &["--llm", "recorded", "--concurrency", "1"], 0);
    assert_accounts(&report);
    assert_eq!(int(&report["ok"]), QUESTIONS, "{report}");
    let run_id = text(&report["run_id"]);
    let pairs = bench.rows(&format!(
        "select count(*) as n, count(*) filter (where c.output_ref = s.output_ref) as same, \
         count(*) filter (where c.input_ref = s.input_ref) as same_input \
         from replay_pairs p \
         join spans c on c.run_id = p.run_id and c.trace_id = p.trace_id and c.span_id = p.span_id \
         join spans s on s.run_id = p.source_run_id and s.trace_id = p.source_trace_id \
         and s.span_id = p.source_span_id where p.run_id = '{run_id}'"
    ));
    let row = &pairs[0];
    assert_eq!(int(&row["n"]), QUESTIONS, "{row}");
    assert_eq!((&row["same"], &row["same_input"]), (&row["n"], &row["n"]), "{row}");
    let sources = bench.rows(&format!(
        "select distinct stage_source from spans where kind = 'llm' and run_id = '{run_id}'"
    ));
    assert_eq!(sources.len(), 1, "{sources:?}");
    assert_eq!(sources[0]["stage_source"], "recorded");
}

/// Scenario: a run is replayed 200 times with recorded answers, and once where there is no network at
/// all, not even to itself.
/// Guarantees: R1 - the same events each time: spans, their order, contents, tokens and documents; R2 -
/// a replay from the recording touches nothing outside.
#[test]
fn two_hundred_replays_are_one() {
    let bench = recorded();
    let source = bench.runs().last().expect("a run")["run_id"].clone();
    let source = text(&source);
    let run = ["replay", "run", &source, "--llm", "recorded", "--concurrency", "1", "--quiet"];
    for _ in 0..2 {
        bench.retake([&run[..], &["--repeat", "100"]].concat()).expect_code(0);
    }
    // Without times and ids, which are each run's own.
    let kinds = "with happened as (
            select s.run_id, string_agg(concat_ws('|', s.name, s.stage, s.kind, s.status, s.source_span_id,
                s.input_ref, s.output_ref, s.input_tokens, s.output_tokens, s.tokens_source,
                s.stage_source, s.model_request, s.batch_size), ';' order by s.start_unix_ns, s.span_id) as spans
            from spans s join runs r on r.run_id = s.run_id where r.replay_of is not null group by s.run_id),
        found as (
            select d.run_id, string_agg(concat_ws('|', d.role, d.rank, d.document_id, d.score, d.content_ref),
                ';' order by d.time_unix_ns, d.role, d.rank) as documents
            from documents d join runs r on r.run_id = d.run_id where r.replay_of is not null group by d.run_id)
        select count(*) as replays, count(distinct h.spans) as different,
            count(distinct f.documents) as different_documents, min(length(h.spans)) as size
        from happened h join found f on f.run_id = h.run_id";
    let row = bench.rows(kinds).remove(0);
    assert_eq!((int(&row["replays"]), int(&row["different"])), (200, 1), "{row}");
    assert_eq!(int(&row["different_documents"]), 1, "{row}");
    assert!(int(&row["size"]) > 1_000, "{row}");

    let isolated = |command: &[&str]| {
        let mut unshare = bench.program("unshare");
        unshare.args(["-rn", "--"]).args(command).output().expect("unshare")
    };
    if !isolated(&["true"]).status.success() {
        eprintln!("skipped: this system makes no network namespace for a user (unshare -rn)");
        return;
    }
    let program = env!("CARGO_BIN_EXE_retake");
    let store = bench.store().display().to_string();
    let command = [&[program, "--store", &store], &run[..]].concat();
    let output = isolated(&command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Scenario: settings that change what the model is asked, with recorded answers.
/// Guarantees: R3 - exit 30 before anything runs, with the setting and the way out.
#[test]
fn a_changed_request_is_never_answered_from_the_recording() {
    let bench = recorded();
    for (change, way_out) in [
        ("retrieve.top_k=8", "--llm live"),
        ("synthesize.max_sentences=1", "--llm live"),
        ("chunk.size=64", "record a run that ingests"),
        ("embed.dim=128", "record a run that ingests"),
    ] {
        let arguments = ["replay", "run", "last", "--set", change, "--llm", "recorded"];
        let name = change.split('=').next().expect("a name");
        bench.retake(arguments).expect_code(30).expect_message(&[name, way_out]);
    }
    assert_eq!(bench.runs().len(), 2);
}

/// Scenario: a run that kept no content is to be replayed.
/// Guarantees: exit 30, and how to record one that can be.
#[test]
fn a_run_without_content_cannot_be_replayed() {
    let bench = Bench::with_documents();
    for capture in ["digest", "off"] {
        let ask = ["rag", "ask", "Who guards Esha?", "--capture", capture];
        bench.retake(ask).expect_code(0);
        let message = ["--capture full", capture];
        bench.retake(["replay", "run", "last"]).expect_code(30).expect_message(&message);
        bench.retake(["replay", "plan", "last"]).expect_code(30).expect_message(&message);
    }
    assert_eq!(bench.runs().len(), 3);
}

/// Scenario: two runs with `--capture redacted`: one whose question had something taken out, one
/// whose had not.
/// Guarantees: R1 - the first is refused with exit 30 and the reason; the second is replayed, and
/// the replay keeps no more than its source.
#[test]
fn a_redacted_question_is_not_replayed_as_another() {
    let bench = Bench::with_documents();
    let ask = |question| ["rag", "ask", question, "--capture", "redacted"];
    bench.retake(ask("Who guards Esha, jane@example.org?")).expect_code(0);
    let message = ["redact", "1 of 1", "--capture full"];
    bench.retake(["replay", "run", "last"]).expect_code(30).expect_message(&message);
    bench.retake(["replay", "plan", "last"]).expect_code(30).expect_message(&message);
    bench.retake(ask("Who guards Esha?")).expect_code(0);
    // Without a schedule to keep, so that a busy machine decides nothing.
    bench.retake(["replay", "run", "last", "--concurrency", "1"]).expect_code(0);
    let captures: Vec<_> = bench.runs().iter().map(|run| text(&run["capture"])).collect();
    assert_eq!(captures, ["digest", "redacted", "redacted", "redacted"]);
}

/// Scenario: ingest and questions are replayed with another chunk size, batch size and workers.
/// Guarantees: R2 - the replay works in a scratch collection: the documents of the store are as
/// they were, and no scratch folder is left; the changed settings are told and recorded.
#[test]
fn a_replay_with_other_settings_leaves_the_documents_alone() {
    let bench = Bench::new();
    write_lighthouses(&bench.path("docs"));
    let local = ["--set", "embed.provider=hashing"];
    let demo = ["demo", "--docs", "docs", "--out", "out"];
    bench.retake([&demo[..], &local].concat()).expect_code(0);
    let store = bench.path("out/store").display().to_string();
    let ask = ["rag", "ask", "What was the keeper of Skerryvore called?", "--format", "json"];
    let in_store = |arguments: &[&str]| {
        bench.retake([["--store", store.as_str()].as_slice(), arguments].concat()).expect_code(0)
    };
    let before = in_store(&ask).json();
    let changes =
        ["--set", "chunk.size=32", "--set", "chunk.overlap=0", "--set", "embed.batch_size=4"];
    let run = ["replay", "run", "demo", "--concurrency", "2", "--format", "json"];
    let report = in_store(&[run.as_slice(), &changes].concat()).json();
    assert_accounts(&report);
    assert_eq!(report["settings_diff"]["chunk.size"]["to"], 32, "{report}");
    assert_eq!(report["valid"], true, "{report}");
    let show = ["runs", "show", "last", "--format", "json"];
    assert_eq!(in_store(&show).json()["settings"]["chunk.size"], 32);
    let after = in_store(&ask).json();
    assert_eq!((&after["answer"], &after["hits"]), (&before["answer"], &before["hits"]));
    let scratch = bench.path("out/store/runs").join(text(&report["run_id"])).join("scratch");
    assert!(!scratch.exists(), "scratch is left");
}

/// Scenario: the documents of the source run have changed since.
/// Guarantees: that is another experiment, and the replay says so with exit 31.
#[test]
fn a_replay_of_other_documents_is_not_valid() {
    let bench = Bench::new();
    write_lighthouses(&bench.path("docs"));
    let ingest = ["rag", "ingest", "docs", "--capture", "full"];
    bench.retake(ingest).expect_code(0);
    replay(&bench, &["--concurrency", "1"], 0);
    bench.write("docs/skerryvore.md", "Another text altogether.");
    let arguments = ["replay", "run", "last~1", "--concurrency", "1", "--format", "json"];
    let report = bench.retake(arguments).expect_code(31).json();
    assert_eq!((&report["valid"], &report["verdict"]), (&false.into(), &"INVALID".into()));
    assert!(text(&report["objection"]).contains("documents"), "{report}");
}

/// Scenario: a replay is compared with another replay of the same run.
/// Guarantees: the operations are paired; the JSON contract; `--fail-on-regression` turns the
/// verdict into its exit code.
#[test]
fn two_replays_are_compared_pairwise() {
    let bench = recorded();
    replay(&bench, &["--concurrency", "1"], 0);
    replay(&bench, &["--concurrency", "1", "--set", "workers=1"], 0);
    let diff = ["diff", "last~1", "last", "--format", "json"];
    let report = bench.retake(diff).expect_code(0).json();
    assert_eq!((&report["paired"], int(&report["pairs"])), (&true.into(), QUESTIONS), "{report}");
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows[0]["stage"], "(end to end)");
    for row in rows {
        assert_fields(
            row,
            &[
                "stage",
                "metric",
                "unit",
                "base",
                "candidate",
                "effect",
                "effect_ci",
                "p_adjusted",
                "n_base",
                "n_candidate",
                "verdict",
                "explains_share",
            ],
        );
    }
    let code = match text(&report["verdict"]).as_str() {
        "better" | "same" => 0,
        "worse" => 10,
        "inconclusive" => 20,
        other => panic!("verdict {other}"),
    };
    bench.retake(["diff", "last~1", "last", "--fail-on-regression"]).expect_code(code);
}

/// A store with documents and a run that asked questions and kept everything.
fn recorded() -> Bench {
    let bench = Bench::with_documents();
    let lines = (0..QUESTIONS)
        .map(|n| format!("{{\"id\":\"q{n}\",\"question\":\"Who is keeper {n}?\"}}\n"));
    bench.write("q.jsonl", lines.collect::<String>());
    bench.retake(["rag", "eval", "q.jsonl", "--capture", "full"]).expect_code(0);
    bench
}

fn replay(bench: &Bench, options: &[&str], code: i32) -> Value {
    let run = ["replay", "run", "last", "--format", "json"];
    bench.retake([run.as_slice(), options].concat()).expect_code(code).json()
}

/// The contract's fields, and that planned = ok + error + cancelled + refused.
fn assert_accounts(report: &Value) {
    assert_fields(
        report,
        &["run_id", "replay_of", "settings_diff", "planned", "valid", "fidelity", "verdict"],
    );
    let parts = ["ok", "error", "cancelled", "refused"].map(|part| int(&report[part]));
    assert_eq!(int(&report["planned"]), parts.iter().sum::<i64>(), "{report}");
    assert!(int(&report["planned"]) > 0, "{report}");
}

/// Enough for a comparison.
const QUESTIONS: i64 = 12;
