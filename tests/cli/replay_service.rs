//! `retake replay run --target`: what programs asked a model, recorded from outside, asked again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{Bench, int, text};

/// A service with OpenAI's interface that notes every request: route, authorization, body.
pub(crate) struct Service {
    port: u16,
    seen: Arc<Mutex<Vec<(String, String, Value)>>>,
}

impl Service {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        // Ends with the test's process.
        let _ = std::thread::Builder::new().name("service".to_owned()).spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let noted = Arc::clone(&noted);
                let serve = move || serve(stream, &noted);
                let _ = std::thread::Builder::new().name("call".to_owned()).spawn(serve);
            }
        });
        Self { port, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Requests since the last time, in an order that does not depend on threads.
    fn take(&self) -> Vec<(String, String, Value)> {
        let mut seen = std::mem::take(&mut *self.seen.lock().expect("the list"));
        seen.sort_by_key(|(route, _, body)| format!("{route} {body}"));
        seen
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<(String, String, Value)>>) {
    let mut reader = BufReader::new(stream);
    let Some((route, authorization, body)) = request(&mut reader) else { return };
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (is_stream, is_bad) = (body["stream"] == true, body["model"] == "error-503");
    let usage = json!({ "prompt_tokens": 5, "completion_tokens": 2 });
    let (status, kind, answer) = if is_bad {
        let error = json!({ "error": { "message": "asked to fail" } });
        ("503 Unavailable", "application/json", error.to_string())
    } else if is_stream {
        let delta = |text| json!({ "model": "m-1", "choices": [{ "delta": { "content": text } }] });
        let last = json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }], "usage": usage });
        let events = [delta("blue"), delta(" sky"), last].map(|event| format!("data: {event}\n\n"));
        ("200 OK", "text/event-stream", format!("{}data: [DONE]\n\n", events.concat()))
    } else {
        let message = json!({ "message": { "content": "blue sky" }, "finish_reason": "stop" });
        let answer = json!({ "model": "m-1", "choices": [message], "usage": usage });
        ("200 OK", "application/json", answer.to_string())
    };
    seen.lock().expect("the list").push((route, authorization, body));
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    let _ = reader.get_mut().write_all(format!("{head}{answer}").as_bytes());
}

/// Route, authorization, and body of a request.
fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, String, Vec<u8>)> {
    let (mut length, mut route, mut authorization) = (0, String::new(), String::new());
    for line in reader.by_ref().lines().map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(' ')?;
        match name.to_ascii_lowercase().as_str() {
            "post" => route = value.split(' ').next()?.to_owned(),
            "content-length:" => length = value.trim().parse().ok()?,
            "authorization:" => authorization = value.trim().to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((route, authorization, body))
}

/// Posts a body to a place that listens; gives the whole answer.
fn post(address: &str, route: &str, body: &Value) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    let body = body.to_string();
    let head = format!(
        "POST {route} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Authorization: Bearer sk-of-the-app\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// What a program asks: streamed with settings, whole, and an embedding.
fn questions() -> [(&'static str, Value); 3] {
    let ask = |text: &str| json!([{ "role": "user", "content": text }]);
    [
        (
            "/v1/chat/completions",
            json!({ "model": "m", "messages": ask("Why is the sky blue?"), "stream": true,
                    "temperature": 0.5, "max_tokens": 9, "top_p": 0.9, "seed": 7 }),
        ),
        ("/v1/chat/completions", json!({ "model": "m", "messages": ask("And at dusk?") })),
        ("/v1/embeddings", json!({ "model": "e", "input": ["sky", "dusk"] })),
    ]
}

/// Records a program's calls through the proxy.
pub(crate) fn record_through_proxy(bench: &Bench, service: &Service) {
    let upstream = service.url();
    let arguments = [
        "proxy",
        "--to",
        &upstream,
        "--listen",
        "127.0.0.1:0",
        "--capture",
        "full",
        "--run",
        "app",
    ];
    let mut command = bench.command(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut proxy = command.spawn().expect("the proxy starts");
    let mut errors = BufReader::new(proxy.stderr.take().expect("its errors"));
    let mut line = String::new();
    while !line.contains("OPENAI_BASE_URL=http://") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).expect("a line"), 0, "it ended early");
    }
    let (_, rest) = line.split_once("OPENAI_BASE_URL=http://").expect("an address");
    let address = rest.split('/').next().expect("an address");
    for (route, body) in questions() {
        assert!(post(address, route, &body).contains(" 200 "), "{route}");
    }
    let ended = std::process::Command::new("kill").args(["-INT", &proxy.id().to_string()]).status();
    assert!(ended.expect("kill").success());
    assert_eq!(proxy.wait().expect("its end").code(), Some(0));
}

fn replay(bench: &Bench, source: &str, options: &[&str], code: i32) -> Value {
    let run = ["replay", "run", source, "--arrival", "closed:2", "--format", "json"];
    bench.retake([run.as_slice(), options].concat()).expect_code(code).json()
}

/// Scenario: a program that knows nothing of retake asks through the proxy; its run is replayed
/// against the service, as it was, with another model, and then the replay is replayed.
/// Guarantees: the service is asked exactly what the program asked, except for what was set; the
/// accounting closes; every operation links to its source; tokens are recorded as they came.
#[test]
fn a_run_of_the_proxy_is_asked_again() {
    let (bench, service) = (Bench::new(), Service::start());
    record_through_proxy(&bench, &service);
    let asked: Vec<_> = service.take().into_iter().map(|(route, _, body)| (route, body)).collect();
    assert_eq!(asked.len(), 3);
    let again = |source: &str, options: &[&str]| {
        let target = service.url();
        let options = [&["--target", target.as_str()], options].concat();
        let report = replay(&bench, source, &options, 0);
        let seen: Vec<_> =
            service.take().into_iter().map(|(route, _, body)| (route, body)).collect();
        (report, seen)
    };
    let (report, seen) = again("app", &[]);
    assert_eq!(seen, asked);
    assert_eq!((int(&report["planned"]), int(&report["ok"])), (3, 3), "{report}");
    let run_id = text(&report["run_id"]);
    let pairs = format!("select count(*) as n from replay_pairs where run_id = '{run_id}'");
    assert_eq!(bench.number(&pairs), 3);
    let streamed = bench.rows(&format!(
        "select ttft_ns is not null as timed, input_tokens, output_tokens, tokens_source \
         from spans where run_id = '{run_id}' and stream"
    ));
    assert_eq!(streamed.len(), 1);
    assert_eq!(
        (&streamed[0]["timed"], &streamed[0]["tokens_source"]),
        (&true.into(), &"provider".into())
    );
    let tokens = format!("select sum(token_count) as n from tokens where run_id = '{run_id}'");
    assert_eq!(bench.number(&tokens), 2, "pieces that come together are one row");

    let (report, seen) = again("app", &["--set", "model=m-2", "--set", "temperature=0"]);
    assert_eq!(report["settings_diff"]["model"]["to"], "m-2");
    for ((route, before), (_, after)) in asked.iter().zip(&seen) {
        assert_eq!(
            (&after["model"], &after["input"]),
            (&"m-2".into(), &before["input"]),
            "{route}"
        );
        let is_chat = !after["messages"].is_null();
        assert_eq!(after["temperature"] == 0, is_chat, "{after}");
    }
    let (_, once_more) = again("last", &[]);
    assert_eq!(once_more, seen, "a replay of a replay asks the same");
}

/// Scenario: settings, addresses, and targets that cannot be; a service that fails.
/// Guarantees: R2 - refused before anything is asked, with what is known; failures are counted and
/// not retried.
#[test]
fn what_a_service_cannot_do_is_said() {
    let (bench, service) = (Bench::new(), Service::start());
    record_through_proxy(&bench, &service);
    service.take();
    let url = service.url();
    let run = |target: &str, set: &str| {
        bench.retake(["replay", "run", "app", "--target", target, "--set", set])
    };
    run(&url, "embed.batch_size=8").expect_code(2).expect_message(&["temperature", "timeout_ms"]);
    run("file:///etc/passwd", "seed=1").expect_code(2).expect_message(&["http://"]);
    run("http://user:secret@127.0.0.1", "seed=1").expect_code(2);
    assert_eq!((service.take().len(), bench.runs().len()), (0, 1));
    let options = ["--target", url.as_str(), "--set", "model=error-503"];
    let report = replay(&bench, "app", &options, 4);
    assert_eq!((int(&report["planned"]), int(&report["error"])), (3, 3), "{report}");
    assert_eq!(service.take().len(), 3, "nothing is retried");
    let errors = "select count(*) as n from spans where error_type = '503'";
    assert_eq!(bench.number(errors), 3);
}

/// Scenario: calls recorded by OTLP, and a public trace without any text.
/// Guarantees: both can be sent to a service; made-up prompts have the recorded lengths; a key comes
/// from the environment and is nowhere in the store.
#[test]
fn traces_of_others_can_be_sent_to_a_service() {
    let bench = Bench::new().with_variable("OPENAI_API_KEY", "sk-canary-77aa");
    let service = Service::start();
    let attribute =
        |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let messages = json!([{ "role": "user", "content": "Who guards Esha?" }]).to_string();
    let span = json!({
        "traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "0000000000000001", "name": "chat",
        "startTimeUnixNano": "1790000000000000000", "endTimeUnixNano": "1790000000500000000",
        "attributes": [
            attribute("gen_ai.operation.name", "chat"), attribute("gen_ai.request.model", "m"),
            attribute("gen_ai.input.messages", &messages),
        ],
    });
    let body = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] });
    bench.write("otlp.json", body.to_string());
    bench.retake(["import", "otlp.json", "--capture", "full", "--run", "foreign"]).expect_code(0);
    let url = service.url();
    replay(&bench, "foreign", &["--target", &url], 0);
    let (route, authorization, asked) = service.take().remove(0);
    assert_eq!(
        (route.as_str(), authorization.as_str()),
        ("/v1/chat/completions", "Bearer sk-canary-77aa")
    );
    assert_eq!(asked["messages"][0]["content"], "Who guards Esha?");

    bench.write(
        "t.jsonl",
        "{\"timestamp\":0,\"input_length\":700,\"output_length\":3,\"hash_ids\":[1,2]}\n",
    );
    bench.retake(["workload", "import", "t.jsonl", "-o", "t.parquet"]).expect_code(0);
    // Without a schedule to keep, so that a busy machine decides nothing.
    let closed = ["replay", "run", "t.parquet", "--concurrency", "1", "--target", &url];
    let no_model = bench.retake(closed);
    no_model.expect_code(4).expect_message(&["--set model="]);
    replay(&bench, "t.parquet", &["--target", &url, "--set", "model=m"], 0);
    let (_, _, asked) = service.take().remove(0);
    let words = text(&asked["messages"][0]["content"]).split_whitespace().count();
    assert_eq!((words, int(&asked["max_tokens"])), (700, 3));
    for file in crate::support::files_below(&bench.store()) {
        let bytes = std::fs::read(&file).expect("a file");
        let canary = b"sk-canary-77aa";
        assert!(!bytes.windows(canary.len()).any(|part| part == canary), "{}", file.display());
    }
}
