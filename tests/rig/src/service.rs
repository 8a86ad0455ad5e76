//! A service on loopback that speaks as much of OpenAI's interface as the app needs, and counts.
//!
//! A token is a word. The model `error-503` fails with that status. A question that comes with tools
//! is answered by a call of the first one, for the place it names, and once its result is there by a
//! text.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

/// What a model answers.
pub const ANSWER: &str = "Light of short waves is scattered more than light of long waves is";

/// The longest request that is read.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What the service has stated in its answers so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Chat calls answered.
    pub calls: i64,
    /// Chat calls refused.
    pub refused: i64,
    /// Tokens of prompts, cached ones included.
    pub input: i64,
    /// Tokens of answers, reasoning included.
    pub output: i64,
    /// Tokens of prompts that were in the cache.
    pub cached: i64,
    /// Tokens of answers that were reasoning.
    pub reasoning: i64,
    /// Calls for embeddings.
    pub embedding_calls: i64,
    /// Tokens of texts that were embedded.
    pub embedded: i64,
}

/// A service that runs until the process ends.
#[derive(Debug)]
pub struct Service {
    base_url: String,
    counted: Arc<Mutex<Counted>>,
}

impl Service {
    /// Listens on a free port of loopback.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let base_url = format!("http://{}/v1", listener.local_addr()?);
        let counted = Arc::new(Mutex::new(Counted::default()));
        let shared = Arc::clone(&counted);
        named("service", move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                let served = named("connection", move || {
                    // A client may go away at any time.
                    let _ = serve(&connection, &shared);
                });
                if served.is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { base_url, counted })
    }

    /// Where it listens, as `OPENAI_BASE_URL` states it.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// What it has counted so far.
    #[must_use]
    pub fn counted(&self) -> Counted {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// Answers the requests of a connection, one after the other.
fn serve(connection: &TcpStream, counted: &Mutex<Counted>) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    while let Some((path, request)) = read(&mut reader)? {
        let answer = {
            let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
            answer(&path, &request, &mut counted)
        };
        let (status, kind, body) = match answer {
            Answer::Json(status, body) => (status, "application/json", body.to_string()),
            Answer::Stream(body) => (200, "text/event-stream", body),
        };
        let length = body.len();
        let whole = format!(
            "HTTP/1.1 {status} Answer\r\ncontent-type: {kind}\r\nx-request-id: req-1\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        // In one piece: the kernel holds the second of two small ones back for 40 ms.
        let mut connection = connection;
        connection.write_all(whole.as_bytes())?;
    }
    Ok(())
}

/// Reads a request: its path and its body; `None` when the client has no more.
fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<(String, Value)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header == "\r\n" {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length.min(BODY_BYTES_MAX)];
    reader.read_exact(&mut body)?;
    Ok(Some((path, serde_json::from_slice(&body)?)))
}

enum Answer {
    Json(u16, Value),
    Stream(String),
}

fn answer(path: &str, request: &Value, counted: &mut Counted) -> Answer {
    let model = request["model"].as_str().unwrap_or_default();
    if model == "error-503" {
        counted.refused += 1;
        let error = json!({"message": "asked to fail with 503", "type": "server_error"});
        return Answer::Json(503, json!({"error": error}));
    }
    match path {
        "/v1/chat/completions" if request["stream"] == true => stream(model, request, counted),
        "/v1/chat/completions" => chat(model, request, counted),
        "/v1/embeddings" => embeddings(model, request, counted),
        _ => Answer::Json(404, json!({"error": {"message": format!("no such path {path}")}})),
    }
}

fn chat(model: &str, request: &Value, counted: &mut Counted) -> Answer {
    let tool = wanted_tool(request);
    let (message, reason) = match &tool {
        Some(name) => {
            let is_told = request["messages"].to_string().contains("Kiruna");
            let arguments = if is_told { json!({"place": "Kiruna"}) } else { json!({}) };
            let function = json!({"name": name, "arguments": arguments.to_string()});
            let call = json!({"id": "call-1", "type": "function", "function": function});
            (json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
        }
        None => (json!({"role": "assistant", "content": ANSWER}), "stop"),
    };
    let output = if tool.is_some() { 5 } else { words(&json!(ANSWER)) };
    let choice = json!({"index": 0, "message": message, "finish_reason": reason});
    let usage = usage(request, output, counted);
    Answer::Json(
        200,
        json!({
            "id": format!("chatcmpl-{}", counted.calls), "object": "chat.completion",
            "created": 1_700_000_000, "model": format!("{model}-2026"),
            "choices": [choice], "usage": usage,
        }),
    )
}

fn stream(model: &str, request: &Value, counted: &mut Counted) -> Answer {
    let usage = usage(request, words(&json!(ANSWER)), counted);
    let head = json!({
        "id": format!("chatcmpl-{}", counted.calls), "object": "chat.completion.chunk",
        "created": 1_700_000_000, "model": format!("{model}-2026"),
    });
    let chunk = |choices: Value, usage: Option<&Value>| {
        let mut chunk = head.clone();
        chunk["choices"] = choices;
        if let Some(usage) = usage {
            chunk["usage"] = usage.clone();
        }
        format!("data: {chunk}\n\n")
    };
    let mut body = String::new();
    for word in ANSWER.split_inclusive(' ') {
        let delta = json!({"role": "assistant", "content": word});
        body += &chunk(json!([{"index": 0, "delta": delta}]), None);
    }
    body += &chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]), None);
    if request["stream_options"]["include_usage"] == true {
        body += &chunk(json!([]), Some(&usage));
    }
    Answer::Stream(body + "data: [DONE]\n\n")
}

/// The tool a question came with, until its result is there.
fn wanted_tool(request: &Value) -> Option<&str> {
    let has_result = request["messages"].as_array()?.iter().any(|m| m["role"] == "tool");
    let name = request["tools"][0]["function"]["name"].as_str()?;
    (!has_result).then_some(name)
}

fn usage(request: &Value, output: i64, counted: &mut Counted) -> Value {
    let input = words(&request["messages"]);
    // The system prompt is as good as always in the cache.
    let (cached, reasoning) = (input / 2, 2);
    counted.calls += 1;
    counted.input += input;
    counted.output += output;
    counted.cached += cached;
    counted.reasoning += reasoning;
    json!({
        "prompt_tokens": input,
        "completion_tokens": output,
        "total_tokens": input + output,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    })
}

fn embeddings(model: &str, request: &Value, counted: &mut Counted) -> Answer {
    let texts = request["input"].as_array().cloned().unwrap_or_default();
    let rows: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(at, text)| json!({"object": "embedding", "index": at, "embedding": vector(text)}))
        .collect();
    let used = words(&request["input"]);
    counted.embedding_calls += 1;
    counted.embedded += used;
    let usage = json!({"prompt_tokens": used, "total_tokens": used});
    let model = format!("{model}-2026");
    Answer::Json(200, json!({"object": "list", "data": rows, "model": model, "usage": usage}))
}

/// How often each of some letters occurs: near for texts with the same words.
fn vector(text: &Value) -> Vec<f64> {
    let text = text.as_str().unwrap_or_default().to_lowercase();
    let count = |letter| text.chars().filter(|c| *c == letter).count() as f64 + 0.01;
    "aeioubdklmnrst".chars().map(count).collect()
}

fn words(value: &Value) -> i64 {
    match value {
        Value::String(text) => i64::try_from(text.split_whitespace().count()).unwrap_or(i64::MAX),
        Value::Array(items) => items.iter().map(words).sum(),
        Value::Object(fields) => fields.get("content").or(fields.get("text")).map_or(0, words),
        _ => 0,
    }
}
