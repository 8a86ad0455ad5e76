//! Real Python apps with other people's instrumentation, under `retake record`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Bench, text};

/// Where the apps' Python and packages are; `None` (said) where they are not.
pub(crate) fn python() -> Option<(String, String)> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let found = variable("RETAKE_TEST_APPS_PYTHON").zip(variable("RETAKE_TEST_APPS_PYTHONPATH"));
    if found.is_none() {
        eprintln!("skipped: RETAKE_TEST_APPS_PYTHON names no python; `make test` installs one");
    }
    found
}

/// Records an app; gives its own totals.
fn record(bench: &Bench, python: &str, app: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(app);
    let path = path.display().to_string();
    let outcome = bench.retake(["record", "--", python, &path]).expect_code(0);
    let last = outcome.stdout.lines().last().expect("its totals");
    serde_json::from_str(last).expect("its totals are JSON")
}

const TOTALS: &str = "select count(*) as spans, count(distinct trace_id) as traces,
    sum(input_tokens) filter (where kind = 'llm' and tokens_counted) as input,
    sum(output_tokens) filter (where kind = 'llm' and tokens_counted) as output,
    sum(input_tokens) filter (where kind = 'embedding' and tokens_counted) as embedded,
    sum(cache_read_tokens) filter (where tokens_counted) as cached,
    count(*) filter (where kind = 'llm' and is_call) as calls,
    count(*) filter (where is_error_origin) as errors,
    count(*) filter (where flags like '%orphan%') as orphans from spans";

/// Scenario: an unmodified LlamaIndex app: an index, three questions, a stream, a failure.
/// Guarantees: one tree a question, the stages of retrieval, and the tokens its own counter has.
#[test]
fn a_llamaindex_app_is_recorded_as_it_is() {
    let Some((python, packages)) = python() else { return };
    let bench = Bench::new().with_variable("PYTHONPATH", &packages);
    let own = record(&bench, &python, "llamaindex_app.py");
    let found = bench.rows(TOTALS).remove(0);
    assert_eq!(found["input"], own["prompt_tokens"], "{own} {found}");
    assert_eq!(found["output"], own["completion_tokens"], "{own} {found}");
    assert_eq!(found["embedded"], own["embedding_tokens"], "{own} {found}");
    assert_eq!((&found["errors"], &found["orphans"]), (&1.into(), &0.into()), "{found}");
    let kinds = bench.rows("select distinct kind from spans order by kind");
    let kinds: Vec<_> = kinds.iter().map(|row| text(&row["kind"])).collect();
    assert_eq!(kinds, ["chain", "embedding", "llm", "retriever"]);
    let trees =
        "select count(*) as n from spans where parent_span_id is null and name like '%query'";
    assert_eq!(bench.number(trees), 5, "three questions, a stream, a failure");
    assert!(bench.number("select count(*) as n from documents where role = 'retrieved'") > 0);
}

/// Scenario: a LlamaIndex app is recorded, and what it was asked is asked again of the app itself, with
/// fewer passages, by the adapter in `examples/llamaindex`; then the recording is checked.
/// Guarantees: the app's own spans are parts of the replayed operations; the setting is in force; the
/// recording is its own replay, a hundred times, on eight threads.
#[test]
fn a_llamaindex_app_is_replayed_with_another_setting() {
    let Some((python, packages)) = python() else { return };
    let bench = Bench::new().with_variable("PYTHONPATH", &packages);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/llamaindex");
    let app = example.join("app.py").display().to_string();
    bench
        .retake(["record", "--capture", "full", "--run", "app", "--", &python, &app])
        .expect_code(0);
    let command = format!("'{python}' '{}'", example.join("replay_app.py").display());
    let run = ["replay", "run", "app", "--target-cmd", &command, "--run", "one"];
    let query = ["--kind", "RetrieverQueryEngine.query", "--concurrency", "1"];
    bench.retake([&run[..], &query, &["--set", "top_k=1"]].concat()).expect_code(0);
    let found = |run: &str| {
        bench.number(&format!(
            "select count(*) as n from documents d join runs r on r.run_id = d.run_id
             where r.name = '{run}' and d.role = 'retrieved'"
        ))
    };
    assert_eq!((found("app"), found("one")), (6, 3));
    let inside = "select count(*) as n from spans s join spans p on p.run_id = s.run_id
         and p.trace_id = s.trace_id and p.span_id = s.parent_span_id
         where p.stage = 'program' and s.name like '%query'";
    assert_eq!(bench.number(inside), 3, "each question's own trace is under its operation");
    let pairs = "select count(*) as n from replay_pairs";
    assert_eq!(bench.number(pairs), 3);
    let wrong = ["replay", "run", "app", "--target-cmd", &command, "--set", "topk=1"];
    bench.retake(wrong).expect_code(2).expect_message(&["no setting topk", "top_k"]);

    let verify =
        ["replay", "verify", "app", "--threads", "8", "--repeat", "100", "--format", "json"];
    let report = bench.retake(verify).expect_code(0).json();
    assert_eq!((&report["identical"], &report["same"]), (&true.into(), &100.into()), "{report}");
    assert!(report["rows"]["spans"].as_u64() > Some(40), "{report}");
}

/// Scenario: a LangChain app: questions, a batch on threads, a stream, a failure.
/// Guarantees: tokens and calls are what its model stated; one failure is one error.
#[test]
fn a_langchain_app_is_recorded_as_it_is() {
    let Some((python, packages)) = python() else { return };
    let bench = Bench::new().with_variable("PYTHONPATH", &packages);
    let own = record(&bench, &python, "langchain_app.py");
    let stated = TOTALS.replace("tokens_counted", "tokens_counted and tokens_source = 'provider'");
    let found = bench.rows(&stated).remove(0);
    assert_eq!(found["input"], own["prompt_tokens"], "{own} {found}");
    assert_eq!(found["output"], own["completion_tokens"], "{own} {found}");
    assert_eq!(found["calls"], own["llm_calls"], "{own} {found}");
    assert_eq!((&found["errors"], &found["orphans"]), (&1.into(), &0.into()), "{found}");
}

/// Scenario: the OpenAI client with OpenTelemetry's own instrumentation, against a service that
/// counts: questions, a stream, one broken off, two failures.
/// Guarantees: tokens, cached ones and calls are what the service answered.
#[test]
fn an_openai_app_is_recorded_as_it_is() {
    let Some((python, packages)) = python() else { return };
    let service = Service::start(&python);
    let bench = Bench::new()
        .with_variable("PYTHONPATH", &packages)
        .with_variable("OPENAI_BASE_URL", &format!("http://127.0.0.1:{}/v1", service.port))
        .with_variable("OPENAI_API_KEY", "none");
    let own = record(&bench, &python, "openai_app.py");
    let stated = TOTALS.replace("tokens_counted", "tokens_counted and tokens_source = 'provider'");
    let found = bench.rows(&stated).remove(0);
    assert_eq!(found["input"], own["prompt_tokens"], "{own} {found}");
    assert_eq!(found["output"], own["completion_tokens"], "{own} {found}");
    assert_eq!(found["embedded"], own["embedding_tokens"], "{own} {found}");
    assert_eq!(found["cached"], own["cached_tokens"], "{own} {found}");
    assert_eq!(found["calls"], own["llm_calls"], "{own} {found}");
    assert_eq!((&found["errors"], &found["orphans"]), (&2.into(), &0.into()), "{found}");
}

struct Service {
    child: Child,
    port: String,
}

impl Service {
    fn start(python: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/fake_openai.py");
        let mut command = Command::new(python);
        command.arg("-u").arg(path).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the service starts");
        let mut port = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("its output"));
        lines.read_line(&mut port).expect("its port");
        Self { child, port: port.trim().to_owned() }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Scenario: the same client without any instrumentation, through the recording proxy.
/// Guarantees: tokens, cached ones and calls are what the service answered; the key is nowhere.
#[test]
fn a_program_without_instrumentation_is_recorded_by_the_proxy() {
    let Some((python, packages)) = python() else { return };
    let service = Service::start(&python);
    let bench = Bench::new();
    let upstream = format!("http://127.0.0.1:{}", service.port);
    let arguments = ["proxy", "--to", &upstream, "--listen", "127.0.0.1:0"];
    let mut command = bench.command(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut proxy = command.spawn().expect("the proxy starts");
    let mut errors = BufReader::new(proxy.stderr.take().expect("its errors"));
    let mut line = String::new();
    while !line.contains("OPENAI_BASE_URL=") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).expect("a line"), 0, "it ended early");
    }
    let (_, rest) = line.split_once("OPENAI_BASE_URL=").expect("an address");
    let base = rest.split_whitespace().next().expect("an address");
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/openai_app.py");
    let output = Command::new(&python)
        .arg(app)
        .env("PYTHONPATH", &packages)
        .env("OPENAI_BASE_URL", base)
        .env("OPENAI_API_KEY", "sk-canary-5e3d9a1f7c2b4d6e8f0a1b2c3d4e5f60")
        .env("OTEL_SDK_DISABLED", "true")
        .output()
        .expect("the app runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let own: Value = serde_json::from_str(said.lines().last().expect("totals")).expect("JSON");
    let ended = Command::new("kill").args(["-INT", &proxy.id().to_string()]).status();
    assert!(ended.expect("kill").success());
    assert_eq!(proxy.wait().expect("its end").code(), Some(0));
    let stated = TOTALS.replace("tokens_counted", "tokens_counted and tokens_source = 'provider'");
    let found = bench.rows(&stated).remove(0);
    assert_eq!(found["input"], own["prompt_tokens"], "{own} {found}");
    assert_eq!(found["output"], own["completion_tokens"], "{own} {found}");
    assert_eq!(found["calls"], own["llm_calls"], "{own} {found}");
    for file in crate::support::files_below(&bench.store()) {
        let bytes = std::fs::read(&file).expect("a file");
        let canary = b"sk-canary-5e3d9a1f";
        assert!(!bytes.windows(canary.len()).any(|part| part == canary), "{}", file.display());
    }
}
