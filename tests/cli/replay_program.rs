//! `retake replay run --target-cmd`: operations handed to a program, one JSON object a line.

use serde_json::{Value, json};

use crate::support::{Bench, int, text};

/// A program in the words of the protocol: answers in the order that suits it, says tokens, and
/// behaves badly when the question says so.
const PROGRAM: &str = r#"
import json, os, sys, time
hello = json.loads(sys.stdin.readline())
known = {"top_k": 4, "style": "short", "delay_ms": 10}
unknown = [name for name in hello["settings"] if name not in known and name != "ignored"]
if unknown:
    print(json.dumps({"type": "refused", "message": f"no setting {unknown[0]}; there are delay_ms, style, top_k"}), flush=True)
    sys.exit(0)
known.update({k: v for k, v in hello["settings"].items() if k in known})
print("a library says hello", flush=True)
print(json.dumps({"type": "ready", "name": "scripted", "settings": known}), flush=True)
def say(**message):
    print(json.dumps(message), flush=True)
for line in sys.stdin:
    op = json.loads(line)
    if op["type"] != "operation":
        continue
    question = op["input"] if isinstance(op["input"], str) else op["input"]["question"]
    if question == "die":
        os._exit(7)
    elif question == "fail":
        say(type="result", id=op["id"], error={"type": "Overloaded", "message": "too busy"})
    elif question == "unknown":
        say(type="result", id=op["id"], refused="I do not know how")
    elif question == "garbled":
        print('{"type": "result", "id": %d, "output_tokens": "many"}' % op["id"], flush=True)
    else:
        say(type="token", id=op["id"])
        time.sleep(known["delay_ms"] / 1000)
        say(type="token", id=op["id"], count=2)
        say(type="result", id=op["id"], output=question.upper(), model="m-1", input_tokens=3, output_tokens=3)
"#;

/// A run of a program that knows nothing of retake: root spans with what they were asked.
fn record(bench: &Bench, questions: &[&str]) {
    let attribute =
        |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let span = |(index, question): (usize, &&str)| {
        json!({
            "traceId": format!("{:032x}", index + 1), "spanId": format!("{:016x}", index + 1),
            "name": "app.ask",
            "startTimeUnixNano": (1_790_000_000_000_000_000_u64 + index as u64 * 5_000_000).to_string(),
            "endTimeUnixNano": (1_790_000_000_003_000_000_u64 + index as u64 * 5_000_000).to_string(),
            "attributes": [attribute("openinference.span.kind", "CHAIN"), attribute("input.value", question)],
        })
    };
    let spans: Vec<Value> = questions.iter().enumerate().map(span).collect();
    let body = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] });
    bench.write("otlp.json", body.to_string());
    bench.retake(["import", "otlp.json", "--capture", "full", "--run", "app"]).expect_code(0);
    bench.write("program.py", PROGRAM);
}

const COMMAND: &str = "python3 program.py";

/// Scenario: what an app was asked is asked of a program, as it was and with a setting; the replay is
/// replayed; a chatty library prints in between.
/// Guarantees: every operation is one row that links to its source and has its tokens as they came;
/// the program's settings are the run's; a replay of the replay asks the same.
#[test]
fn a_program_answers_what_an_app_was_asked() {
    let bench = Bench::new();
    record(&bench, &["why?", "{\"question\": \"how?\"}"]);
    let plan = bench.retake(["replay", "plan", "app", "--target-cmd", COMMAND]).expect_code(0);
    assert!(plan.stdout.contains("2 app.ask for python3 program.py"), "{}", plan.stdout);
    // Without a schedule to keep, so that a busy machine decides nothing.
    let closed = ["--target-cmd", COMMAND, "--format", "json", "--concurrency", "2"];
    let run = [&["replay", "run", "app"], &closed[..]].concat();
    let report = bench.retake([&run[..], &["--set", "top_k=2"]].concat()).expect_code(0).json();
    assert_eq!((int(&report["planned"]), int(&report["ok"])), (2, 2), "{report}");
    let run_id = text(&report["run_id"]);
    let rows = bench.rows(&format!(
        "select s.name, s.stage, i.content as asked, p.content as answer, s.input_tokens, s.output_tokens, s.ttft_ns > 0 as timed,
                s.model_response, s.source_span_id is not null as linked
         from spans s join payloads p on p.digest = s.output_ref and p.run_id = s.run_id
         join payloads i on i.digest = s.input_ref and i.run_id = s.run_id
         where s.run_id = '{run_id}' order by answer"
    ));
    let answers: Vec<_> = rows.iter().map(|row| text(&row["answer"])).collect();
    assert_eq!(answers, ["HOW?", "WHY?"]);
    for row in &rows {
        assert_eq!((&row["name"], &row["stage"]), (&"app.ask".into(), &"program".into()));
        assert_eq!((&row["timed"], &row["linked"]), (&true.into(), &true.into()));
        assert_eq!((int(&row["input_tokens"]), int(&row["output_tokens"])), (3, 3));
    }
    let tokens = format!("select sum(token_count) as n from tokens where run_id = '{run_id}'");
    assert_eq!(bench.number(&tokens), 6);
    let settings = bench.retake(["runs", "show", &run_id, "--format", "json"]).json();
    let settings = settings.to_string();
    assert!(settings.contains("top_k") && settings.contains("style"), "{settings}");
    assert_eq!(
        bench.number(&format!("select count(*) as n from replay_pairs where run_id = '{run_id}'")),
        2
    );

    let again =
        bench.retake([&["replay", "run", &run_id], &closed[..]].concat()).expect_code(0).json();
    assert_eq!(int(&again["ok"]), 2, "{again}");
}

/// Scenario: settings that the program refuses, and one that it does not say it uses; a program that
/// is not there, one that ends at once, one that speaks another language.
/// Guarantees: each is told with what to do next, nothing hangs, and no run is left behind.
#[test]
fn a_program_that_cannot_be_used_leaves_no_run() {
    let bench = Bench::new();
    record(&bench, &["why?"]);
    let run = |command: &str, set: &[&str]| {
        bench.retake([&["replay", "run", "app", "--target-cmd", command], set].concat())
    };
    run(COMMAND, &["--set", "nosuch=1"])
        .expect_code(2)
        .expect_message(&["no setting nosuch", "top_k"]);
    run(COMMAND, &["--set", "ignored=1"]).expect_code(2).expect_message(&["ignored=1", "top_k=4"]);
    run("./nosuch", &[]).expect_code(4).expect_message(&["nosuch", "before it was ready"]);
    run("sh -c 'exit 3'", &[]).expect_code(4).expect_message(&["exit status: 3"]);
    // It says back what it was told.
    run("cat", &[]).expect_code(2).expect_message(&["cannot be read", "`start`"]);
    assert_eq!(bench.runs().len(), 1);
    let other = ["replay", "run", "app", "--target-cmd", COMMAND, "--kind", "nosuch"];
    bench.retake(other).expect_code(2).expect_message(&["nosuch", "app.ask"]);
}

/// Scenario: operations that fail, are refused, are answered with what is no message; and a program
/// that dies in the middle.
/// Guarantees: the accounting closes, each failure is a row with its class, and nothing waits for a
/// program that is gone.
#[test]
fn failures_of_a_program_are_results() {
    let bench = Bench::new();
    record(&bench, &["why?", "fail", "unknown", "garbled"]);
    let run =
        ["replay", "run", "app", "--target-cmd", COMMAND, "--format", "json", "--concurrency", "1"];
    let report = bench.retake(run).expect_code(4).json();
    let parts = ["planned", "ok", "error", "cancelled", "refused"].map(|name| int(&report[name]));
    assert_eq!(parts, [4, 1, 2, 0, 1], "{report}");
    let run_id = text(&report["run_id"]);
    let kinds = bench.rows(&format!(
        "select error_type from spans where run_id = '{run_id}' and status = 'error' order by 1"
    ));
    let kinds: Vec<_> = kinds.iter().map(|row| text(&row["error_type"])).collect();
    assert_eq!(kinds, ["Overloaded", "protocol", "refused"]);

    let bench = Bench::new();
    record(&bench, &["why?", "die", "why?"]);
    let report = bench.retake(run).expect_code(4).json();
    let parts = ["planned", "ok", "error", "cancelled", "refused"].map(|name| int(&report[name]));
    assert_eq!(parts, [3, 1, 2, 0, 0], "{report}");
    assert!(report.to_string().is_ascii());
    assert_eq!(bench.number("select count(*) as n from spans where error_type = 'exited'"), 2);
}

/// Scenario: a setting of a program that makes it twenty times slower, swept; and one that it does not
/// have.
/// Guarantees: every setting is measured in interleaved order, the fast one is best, its replays are
/// runs that say which setting they had; a setting that cannot be ends the sweep at the first replay.
#[test]
fn settings_of_a_program_are_swept() {
    let bench = Bench::new();
    record(&bench, &["why?", "how?", "when?"]);
    let sweep = ["sweep", "app", "--target-cmd", COMMAND, "--repeat", "2", "--format", "json"];
    let outcome = bench.retake([&sweep[..], &["--set", "delay_ms=100,5"]].concat());
    // 32 says that the machine was too noisy to decide, which is an answer too.
    assert!(matches!(outcome.code(), Some(0 | 32)), "{}", outcome.stderr);
    let found = outcome.json();
    assert_eq!(found["best"], "delay_ms=5", "{found}");
    let settings = found["settings"].as_array().expect("settings");
    assert_eq!(settings.len(), 2);
    let measured = "select count(*) as n from measures where name = 'retake.measured'
         and attr(attributes, 'retake.sweep.metric') = 'latency_p50'";
    assert_eq!(bench.number(measured), 4, "two settings, two blocks");
    let replays = "select count(distinct run_id) as n from spans where stage = 'program'";
    assert_eq!(bench.number(replays), 5, "and one that warmed up");

    let before = bench.runs().len();
    let wrong = bench.retake([&sweep[..], &["--set", "nosuch=1,2"]].concat());
    wrong.expect_code(2).expect_message(&["no setting nosuch"]);
    assert_eq!(bench.runs().len(), before + 1, "the sweep, and no replay");
    let both = ["--set", "delay_ms=1,2", "--predict-only"];
    bench.retake([&sweep[..], &both].concat()).expect_code(2);
}
