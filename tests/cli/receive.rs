//! Other programs, recorded by what they send: `record`, `serve`, `import`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use crate::support::{Bench, text};

pub(crate) const TRACE: &str = "0102030405060708090a0b0c0d0e0f10";

pub(crate) fn span(id: u8, parent: Option<u8>, kind: &str) -> String {
    let parent = parent
        .map_or_else(String::new, |id| format!(r#""parentSpanId":"00000000000000{id:02x}","#));
    format!(
        r#"{{"traceId":"{TRACE}","spanId":"00000000000000{id:02x}",{parent}"name":"step {id}","startTimeUnixNano":"1790000000000000000","endTimeUnixNano":"1790000000500000000","attributes":[{{"key":"openinference.span.kind","value":{{"stringValue":"{kind}"}}}},{{"key":"llm.token_count.prompt","value":{{"intValue":"12"}}}},{{"key":"app.colour","value":{{"stringValue":"red"}}}}]}}"#
    )
}

/// A request with these spans, on one line.
pub(crate) fn request(service: &str, spans: &[String]) -> String {
    format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{service}"}}}}]}},"scopeSpans":[{{"scope":{{"name":"test"}},"spans":[{}]}}]}}]}}"#,
        spans.join(",")
    )
}

/// A program that sends one request to wherever an OpenTelemetry SDK would, and ends with 7.
fn program(body: &str) -> String {
    format!(
        r#"# Every line of a request's head ends with carriage return and line feed.
address="${{OTEL_EXPORTER_OTLP_ENDPOINT#http://}}"
body='{body}'
exec 3<>"/dev/tcp/${{address%:*}}/${{address#*:}}"
printf 'POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' "${{#body}}" "$body" >&3
read -r _ status _ <&3
echo "hello $1, answered $status, $OTEL_SERVICE_NAME, $OTEL_RESOURCE_ATTRIBUTES"
exit 7
"#
    )
}

/// Scenario: a program that was not changed is recorded; one of its spans never arrives.
/// Guarantees: its output and exit code are its own; the run has its spans, the breakdown is shown
/// with what is missing and what has no column.
#[test]
fn a_program_is_recorded_as_it_is() {
    let bench = Bench::new();
    let body = request("shop", &[span(1, Some(9), "CHAIN"), span(2, Some(1), "LLM")]);
    bench.write("app.sh", program(&body));
    let outcome = bench.retake(["record", "--label", "env=test", "--", "bash", "app.sh", "you"]);
    let outcome = outcome.expect_code(7).expect_message(&[
        "llm",
        "1 spans never came",
        "app.colour (2)",
        "retake trace slowest",
    ]);
    assert_eq!(outcome.stdout, "hello you, answered 200, app, retake.run=app\n");
    let rows = bench.rows("select name, kind, service, flags, input_tokens, tokens_counted from spans order by span_id");
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (text(&rows[0]["flags"]), text(&rows[0]["service"])),
        ("orphan".into(), "shop".into())
    );
    assert_eq!(
        (text(&rows[1]["kind"]), rows[1]["tokens_counted"].as_bool()),
        ("llm".into(), Some(true))
    );
    let run = bench.runs().remove(0);
    assert_eq!((text(&run["name"]), text(&run["status"])), ("app".into(), "interrupted".into()));
}

/// Scenario: programs that send nothing, that a signal ends, and that do not exist.
/// Guarantees: the exit code is the program's, or says that there is none; the run is readable.
#[test]
fn a_program_ends_as_it_ends() {
    let bench = Bench::new();
    bench
        .retake(["record", "--", "true"])
        .expect_code(0)
        .expect_message(&["no span came", "docs/otlp.md"]);
    bench.retake(["record", "--run", "k", "--", "sh", "-c", "kill -TERM $$"]).expect_code(143);
    let missing = bench.retake(["record", "--", "./no-such-program"]);
    missing.expect_code(3).expect_message(&["no-such-program"]);
    bench.retake(["record"]).expect_code(2);
    let names: Vec<_> = bench.runs().iter().map(|run| text(&run["status"])).collect();
    assert_eq!(names.len(), 3);
    bench.retake(["verify"]).expect_code(0);
}

/// A receiver that runs until it is told to end.
pub(crate) struct Receiver {
    child: Child,
    address: String,
    errors: BufReader<std::process::ChildStderr>,
}

impl Receiver {
    pub(crate) fn start(bench: &Bench, options: &[&str]) -> Self {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
        let mut command = bench.command([arguments.as_slice(), options].concat());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut errors = BufReader::new(child.stderr.take().expect("its errors"));
        let mut line = String::new();
        while !line.contains("receiving OTLP at") {
            line.clear();
            assert_ne!(errors.read_line(&mut line).expect("a line"), 0, "it ended early");
        }
        let (_, rest) = line.split_once("http://").expect("an address");
        let address = rest.split_whitespace().next().expect("an address").to_owned();
        Self { child, address, errors }
    }

    /// Sends a request; gives status line and body of the answer.
    pub(crate) fn post(&self, path: &str, head: &str, body: &str) -> String {
        self.post_bytes(path, head, body.as_bytes())
    }

    /// The same with any body; what is binary in the answer is replaced.
    fn post_bytes(&self, path: &str, head: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        // A receiver may answer and hang up before it has read a body it refuses.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Asks for a page; gives the whole answer.
    pub(crate) fn get(&self, path: &str, head: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        let address = &self.address;
        let asked =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{head}Connection: close\r\n\r\n");
        stream.write_all(asked.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What it says next on stderr.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.errors.read_line(&mut line).expect("a line");
        line
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill").success());
    }

    pub(crate) fn end(mut self, signal: &str) -> (Option<i32>, String) {
        self.signal(signal);
        let mut said = String::new();
        self.errors.read_to_string(&mut said).expect("its errors");
        (self.child.wait().expect("its end").code(), said)
    }
}

pub(crate) const JSON: &str = "Content-Type: application/json\r\n";

/// Scenario: two services send to one receiver, one of them twice; it is ended by a signal.
/// Guarantees: a run each, nothing twice, everything sealed.
#[test]
fn a_receiver_cuts_runs_by_service() {
    let bench = Bench::new();
    let receiver = Receiver::start(&bench, &["--label", "env=test"]);
    let body = request("a", &[span(1, None, "CHAIN"), span(2, Some(1), "LLM")]);
    for _ in 0..2 {
        assert!(receiver.post("/v1/traces", JSON, &body).starts_with("HTTP/1.1 200"));
    }
    let bad = request("b", &[span(3, None, "CHAIN"), span(4, None, "LLM").replace(TRACE, "00")]);
    let answer = receiver.post("/v1/traces", JSON, &bad);
    assert!(
        answer.contains(r#""rejectedSpans":"1""#) || answer.contains(r#""rejectedSpans":1"#),
        "{answer}"
    );
    assert!(receiver.post("/v1/traces", JSON, "{").starts_with("HTTP/1.1 400"));
    assert!(receiver.post("/v1/logs", JSON, "{}").starts_with("HTTP/1.1 200"));
    let (code, said) = receiver.end("-INT");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("3 spans taken, 2 repeated, 1 without ids"), "{said}");
    let rows = bench.rows("select r.name, count(*) as spans from spans s join runs r on r.run_id = s.run_id group by r.name order by r.name");
    assert_eq!((text(&rows[0]["name"]), rows[0]["spans"].as_i64()), ("a".into(), Some(2)));
    assert_eq!((text(&rows[1]["name"]), rows[1]["spans"].as_i64()), ("b".into(), Some(1)));
}

/// Scenario: the receiver is killed right after it answered, again and again; the sender repeats
/// its last batch to the one that is started next.
/// Guarantees: O2 - what was acknowledged is there, once.
#[test]
fn what_was_acknowledged_survives_the_receiver() {
    let bench = Bench::new();
    for round in 0..8_u8 {
        let receiver = Receiver::start(&bench, &[]);
        if round > 0 {
            let again = request("a", &[span(round, None, "LLM")]);
            assert!(receiver.post("/v1/traces", JSON, &again).starts_with("HTTP/1.1 200"));
        }
        let body = request("a", &[span(round + 1, None, "LLM")]);
        assert!(receiver.post("/v1/traces", JSON, &body).starts_with("HTTP/1.1 200"));
        receiver.end("-KILL");
    }
    assert_eq!(bench.number("select count(*) as n from spans"), 8);
    assert_eq!(bench.number("select count(distinct span_id) as n from spans"), 8);
}

/// Scenario: an address that other machines reach, without a token.
#[test]
fn a_receiver_is_not_open_to_strangers() {
    let bench = Bench::new();
    let exposed = bench.retake(["serve", "--listen", "0.0.0.0:0", "--grpc", "127.0.0.1:0"]);
    exposed.expect_code(2).expect_message(&["token", "RETAKE_TOKEN"]);
    let receiver = Receiver::start(&bench, &[]);
    let foreign = format!("{JSON}Origin: http://evil.example\r\n");
    assert!(receiver.post("/v1/traces", &foreign, "{}").starts_with("HTTP/1.1 403"));
    assert_eq!(receiver.end("-TERM").0, Some(0));
}

/// Scenario: files of the Collector's exporter, with a broken line; files that are none.
/// Guarantees: what is OTLP is taken, what is not is named; wrong input has its exit code.
#[test]
fn files_are_imported() {
    let bench = Bench::new();
    let lines = [
        request("a", &[span(1, None, "CHAIN")]),
        "no json".to_owned(),
        request("b", &[span(2, Some(1), "LLM")]),
    ];
    bench.write("traces.jsonl", lines.join("\n"));
    let imported = bench.retake(["import", "traces.jsonl"]).expect_code(0);
    imported.expect_message(&["line 2 was left out", "2 taken"]);
    assert_eq!(text(&bench.runs()[0]["name"]), "traces");
    assert_eq!(bench.number("select count(*) as n from spans where flags is null"), 2);
    bench.write("notes.txt", "nothing of the kind");
    bench.retake(["import", "notes.txt"]).expect_code(2).expect_message(&["notes.txt", "OTLP"]);
    bench.retake(["import", "absent.pb"]).expect_code(3).expect_message(&["absent.pb"]);
    bench.retake(["import", "."]).expect_code(2).expect_message(&["folder"]);
}

/// Scenario: bodies of a real program that counted its tokens in metrics too, flushed twice; one
/// stream was broken off, which its instrumentation does not put into the metrics.
/// Guarantees: what metrics count is in SQL, each series once; the breakdown names the difference.
#[test]
fn tokens_that_metrics_count_are_held_against_the_spans() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/otlp/openai-traceloop-json");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} is not here", folder.display());
        return;
    };
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path().to_string_lossy().into_owned())
        .filter(|path| {
            path.ends_with(".json")
                && ![".meta.json", "expected.json"].iter().any(|end| path.ends_with(end))
        })
        .collect();
    files.sort();
    let bench = Bench::new();
    bench.retake(["import".to_owned()].into_iter().chain(files)).expect_code(0);
    let rows = bench.rows(
        "select metric, token_type, sum(tokens) as tokens from token_metrics group by 1, 2 order by 2",
    );
    let seen: Vec<_> =
        rows.iter().map(|row| (text(&row["token_type"]), row["tokens"].as_i64())).collect();
    assert_eq!(seen, [("input".to_owned(), Some(526)), ("output".to_owned(), Some(208))]);
    let note = "the program's metrics count 526 + 208 tokens (in + out), its spans 530 + 224";
    let shown = bench.retake(["breakdown", "--format", "table"]).expect_code(0);
    assert!(shown.stdout.contains(note), "{}", shown.stdout);
}

/// Scenario: a run goes out as OpenTelemetry's files and comes back; it goes out as timelines.
/// Guarantees: the spans that come back are those that went; a timeline is a whole file.
#[test]
fn a_run_goes_out_and_comes_back() {
    let bench = Bench::new();
    let body = request("shop", &[span(1, Some(9), "CHAIN"), span(2, Some(1), "LLM")]);
    bench.write("traces.jsonl", body);
    bench.retake(["import", "traces.jsonl", "--run", "first"]).expect_code(0);
    for (format, file) in [("otlp", "a.jsonl"), ("otlp-proto", "b.pb"), ("otlp-proto-body", "c.pb")]
    {
        bench.retake(["export", "first", "--to", format, "-o", file]).expect_code(0);
        bench.retake(["import", file, "--run", format]).expect_code(0).expect_message(&["2 taken"]);
        let columns = "select trace_id, span_id, parent_span_id, name, kind, service, start_unix_ns, duration_ns, \
             self_ns, status, input_tokens, tokens_counted, flags, attr(attributes, 'app.colour') as colour from spans";
        let of = |run: &str| {
            let sql = format!(
                "{columns} where run_id = (select run_id from runs where name = '{run}') order by span_id"
            );
            bench.rows(&sql)
        };
        assert_eq!(of(format), of("first"), "{format}");
    }
    bench.retake(["export", "first", "--to", "chrome", "-o", "run.json"]).expect_code(0);
    let chrome = std::fs::read(bench.path("run.json")).expect("a file");
    let events: serde_json::Value = serde_json::from_slice(&chrome).expect("JSON");
    assert!(events["traceEvents"].as_array().is_some_and(|events| events.len() > 2), "{events}");
    let perfetto = bench.retake(["export", "first", "-o", "-"]).expect_code(0);
    assert!(perfetto.bytes().len() > 100);
    bench.retake(["export", "first", "--to", "svg"]).expect_code(2).expect_message(&["perfetto"]);
    bench.retake(["export", "first", "-o", "no/such/folder/x"]).expect_code(4);
}

/// The statuses that a description of an edge case allows.
fn allowed(expect: &str) -> Vec<&'static str> {
    let named: Vec<&str> =
        ["200", "400", "413", "415"].into_iter().filter(|code| expect.contains(code)).collect();
    match named.as_slice() {
        // What is kept, or rejected in part, is taken.
        [] => vec!["200"],
        _ if expect.contains("lenient accept") => [named.as_slice(), &["200"]].concat(),
        _ if expect.contains("or kept") => [named.as_slice(), &["200"]].concat(),
        _ => named,
    }
}

/// Scenario: every body of the captured edge cases, sent as it was, to a receiver of its own.
/// Guarantees: each gets an answer it names, the spans and tokens it names, and the receiver lives.
#[test]
fn captured_edge_cases_get_the_answers_they_name() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/otlp/edge");
    let Ok(manifest) = std::fs::read(folder.join("manifest.json")) else {
        eprintln!("skipped: {} is not here", folder.display());
        return;
    };
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&manifest).expect("a list");
    for case in &cases {
        let name = text(&case["file"]);
        let bench = Bench::new();
        let receiver = Receiver::start(&bench, &[]);
        let mut head = String::new();
        for (header, key) in
            [("Content-Type", "content_type"), ("Content-Encoding", "content_encoding")]
        {
            if let Some(value) = case[key].as_str() {
                head.push_str(&format!("{header}: {value}\r\n"));
            }
        }
        let body = std::fs::read(folder.join(&name)).expect("a body");
        let answer = receiver.post_bytes("/v1/traces", &head, &body);
        let status = answer.split_whitespace().nth(1).unwrap_or_default();
        let allowed = allowed(&text(&case["expect"]));
        assert!(allowed.contains(&status), "{name}: {status}, not one of {allowed:?}");
        let (code, said) = receiver.end("-INT");
        assert_eq!(code, Some(0), "{name}: {said}");
        if let Some(rejected) = case["rejected"].as_u64() {
            assert!(said.contains(&format!("{rejected} without ids")), "{name}: {said}");
        }
        if status == "200" && !said.contains("no run") {
            let total = "select count(*) as spans, \
                sum(input_tokens) filter (where tokens_counted) as input, \
                sum(output_tokens) filter (where tokens_counted) as output, \
                count(*) filter (where duration_ns < 0 or self_ns < 0 or input_tokens < 0) as odd \
                from spans";
            let found = match case["spans"].as_u64() {
                Some(0) => continue,
                _ => bench.rows(total).remove(0),
            };
            assert_eq!(found["odd"], 0, "{name}: {found}");
            if let Some(spans) = case["spans"].as_u64() {
                assert_eq!(found["spans"], spans, "{name}");
            }
            if let Some([input, output]) = case["tokens"].as_array().map(Vec::as_slice) {
                assert_eq!((&found["input"], &found["output"]), (input, output), "{name}");
            }
        }
    }
}

/// Scenario: every body of spans that a real client sent.
/// Guarantees: the attributed times of a run's stages, and its critical path, add up to the wall
/// time of its traces, which SQL computes from the spans alone, to the nanosecond.
#[test]
fn times_of_captured_traces_add_up_to_the_nanosecond() {
    let shared = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/otlp");
    let Ok(entries) = std::fs::read_dir(&shared) else {
        eprintln!("skipped: {} is not here", shared.display());
        return;
    };
    let mut folders: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    folders.retain(|path| path.is_dir() && !path.ends_with("edge"));
    folders.sort();
    assert!(!folders.is_empty(), "{}", shared.display());
    for folder in folders {
        let bench = Bench::new();
        let files = trace_bodies(&folder);
        assert!(!files.is_empty(), "{}", folder.display());
        bench.retake(["import".to_owned()].into_iter().chain(files)).expect_code(0);
        let sums =
            "select sum(wall_ns) as wall, sum(critical_ns) as critical from self_time('last')";
        let traces = "select sum(ns) as wall from (select max(start_unix_ns + duration_ns) - \
                      min(start_unix_ns) as ns from spans group by trace_id)";
        let (sums, traces) = (bench.rows(sums), bench.rows(traces));
        let wall = traces[0]["wall"].as_i64();
        assert!(wall > Some(0), "{}", folder.display());
        let name = folder.display();
        assert_eq!(
            (sums[0]["wall"].as_i64(), sums[0]["critical"].as_i64()),
            (wall, wall),
            "{name}"
        );
    }
}

/// The bodies of a captured session that hold spans.
fn trace_bodies(folder: &std::path::Path) -> Vec<String> {
    let mut bodies = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path().to_string_lossy().into_owned();
        let Some(base) = path.strip_suffix(".meta.json") else { continue };
        let meta = std::fs::read(&path).expect("a file");
        let meta: serde_json::Value = serde_json::from_slice(&meta).expect("JSON");
        if text(&meta["path"]).contains("trace") {
            let file = text(&meta["file"]);
            let folder = std::path::Path::new(base).parent().expect("a folder");
            bodies.push(folder.join(file).to_string_lossy().into_owned());
        }
    }
    bodies.sort();
    bodies
}
