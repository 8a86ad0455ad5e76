//! Bodies of real exporters, and of none.

use std::path::{Path, PathBuf};

use retake_schemas::event::{Capture, RunStatus, TokensSource};
use retake_schemas::settings::RecordSettings;
use retake_schemas::tables::{DocumentRow, EventRow, MeasureRow, PayloadRow, SpanRow, TokenRow};

mod log_events;

use super::{DecodeError, Encoding, Intake, IntakeSettings, Signal, Taken};
use crate::{RecorderBuilder, RunReader, Store};

/// What is in a run after some bodies.
#[derive(Debug, Default, PartialEq)]
struct Found {
    spans: Vec<SpanRow>,
    tokens: Vec<TokenRow>,
    documents: Vec<DocumentRow>,
    events: Vec<EventRow>,
    measures: Vec<MeasureRow>,
    payloads: Vec<PayloadRow>,
}

/// Records bodies into a run of their own.
fn record(bodies: &[(Signal, Encoding, &[u8])]) -> (Vec<Result<Taken, DecodeError>>, Found) {
    record_with(IntakeSettings::default(), bodies)
}

fn record_with(
    settings: IntakeSettings,
    bodies: &[(Signal, Encoding, &[u8])],
) -> (Vec<Result<Taken, DecodeError>>, Found) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let record = RecordSettings {
        capture: Capture::Full,
        when_full: retake_schemas::settings::WhenFull::Block,
        block_ms_max: 60_000,
        sample_ms: 0,
        ..RecordSettings::default()
    };
    let recorder =
        RecorderBuilder::new("otlp", "test").record_settings(record).start(&store).unwrap();
    let intake = Intake::new(recorder.dispatcher(), "test", settings);
    let answers = bodies
        .iter()
        .map(|(signal, encoding, body)| intake.take(*signal, *encoding, body))
        .collect();
    let run_id = recorder.run_id().clone();
    let _ = recorder.finish(RunStatus::Finished);
    let reader = RunReader::open(&store, &run_id).unwrap();
    let mut measures: Vec<MeasureRow> = reader.rows().unwrap();
    measures.retain(|measure| !measure.name.starts_with("process."));
    let mut found = Found {
        spans: reader.rows().unwrap(),
        tokens: reader.rows().unwrap(),
        documents: reader.rows().unwrap(),
        events: reader.rows().unwrap(),
        measures,
        payloads: reader.rows().unwrap(),
    };
    // Runs differ in their ids, and in when they were.
    found.spans.iter_mut().for_each(|row| row.run_id.clear());
    found.tokens.iter_mut().for_each(|row| row.run_id.clear());
    found.documents.iter_mut().for_each(|row| row.run_id.clear());
    found.events.retain(|row| row.name != "otel.resource");
    found.events.iter_mut().for_each(|row| row.run_id.clear());
    found.measures.iter_mut().for_each(|row| row.run_id.clear());
    found.payloads.iter_mut().for_each(|row| {
        row.run_id.clear();
        row.time_unix_ns = 0;
    });
    (answers, found)
}

fn shared(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/otlp").join(name);
    if !folder.is_dir() {
        eprintln!("skipped: {} is not here", folder.display());
        return None;
    }
    Some(folder)
}

/// The bodies of a folder in order: signal, encoding, bytes.
fn bodies(folder: &Path) -> Vec<(Signal, Encoding, Vec<u8>)> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".meta.json"))
        .collect();
    names.sort();
    let body = |meta: PathBuf| {
        let described: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&meta).unwrap()).unwrap();
        let signal = match described["path"].as_str().unwrap() {
            "/v1/traces" => Signal::Traces,
            "/v1/metrics" => Signal::Metrics,
            "/v1/logs" => Signal::Logs,
            other => panic!("{other}"),
        };
        let base = meta.to_string_lossy().replace(".meta.json", "");
        match std::fs::read(format!("{base}.pb")) {
            Ok(bytes) => (signal, Encoding::Protobuf, bytes),
            Err(_) => (signal, Encoding::Json, std::fs::read(format!("{base}.json")).unwrap()),
        }
    };
    names.into_iter().map(body).collect()
}

/// The figures of a line like `Totals over the trace files: 238 spans, 18 traces, 8 spans with …`.
fn stated(readme: &str) -> (usize, usize, usize, [i64; 2]) {
    let totals = readme.lines().find(|line| line.starts_with("Totals")).unwrap();
    let before = |word: &str| {
        let (left, _) = totals.split_once(word).unwrap();
        left.split_whitespace().next_back().unwrap().parse().unwrap()
    };
    let tokens = readme.lines().find(|line| line.starts_with("Token attributes")).unwrap();
    let leaf = tokens.rsplit_once("token spans [").unwrap().1;
    let (input, output) = leaf.split_once(']').unwrap().0.split_once(", ").unwrap();
    (
        before(" spans,"),
        before(" traces"),
        before(" spans with status ERROR"),
        [input.parse().unwrap(), output.parse().unwrap()],
    )
}

fn borrowed(bodies: &[(Signal, Encoding, Vec<u8>)]) -> Vec<(Signal, Encoding, &[u8])> {
    bodies.iter().map(|(signal, encoding, body)| (*signal, *encoding, body.as_slice())).collect()
}

fn token_sum(spans: &[SpanRow]) -> [i64; 2] {
    let counted = || spans.iter().filter(|span| span.tokens_counted);
    [
        counted().filter_map(|span| span.input_tokens).sum(),
        counted().filter_map(|span| span.output_tokens).sum(),
    ]
}

/// Scenario: everything six real clients sent, once and once more.
/// Guarantees: the totals are those the captures state; sending it again changes nothing.
#[test]
fn real_clients_give_the_totals_they_counted() {
    let Some(root) = shared("") else { return };
    for client in std::fs::read_dir(root).unwrap() {
        let folder = client.unwrap().path();
        if !folder.is_dir() || folder.ends_with("edge") {
            continue;
        }
        let (spans, traces, errors, tokens) =
            stated(&std::fs::read_to_string(folder.join("README.md")).unwrap());
        let once = bodies(&folder);
        let (answers, found) = record(&borrowed(&once));
        assert!(answers.iter().all(Result::is_ok), "{}: {answers:?}", folder.display());
        let ids: std::collections::HashSet<&str> =
            found.spans.iter().map(|span| span.trace_id.as_str()).collect();
        let failed = found.spans.iter().filter(|span| span.status == "error").count();
        assert_eq!(
            (found.spans.len(), ids.len(), failed),
            (spans, traces, errors),
            "{}",
            folder.display()
        );
        assert_eq!(token_sum(&found.spans), tokens, "{}", folder.display());
        let flagged: Vec<_> = found.spans.iter().filter_map(|span| span.flags.as_deref()).collect();
        eprintln!("{}: {flagged:?}", folder.display());

        let twice = borrowed(&once).into_iter().chain(borrowed(&once)).collect::<Vec<_>>();
        let (answers, again) = record(&twice);
        let repeats: u64 = answers.iter().map(|taken| taken.as_ref().unwrap().repeated).sum();
        assert!(repeats >= spans as u64);
        assert_eq!(again.spans, found.spans, "{}", folder.display());
        assert_eq!(again.tokens, found.tokens);
        assert_eq!(again.documents, found.documents);
        assert_eq!(again.measures.len(), found.measures.len());
        assert_eq!(again.events, found.events);
    }
}

/// Scenario: the same twelve spans as protobuf and in several spellings of OTLP/JSON.
/// Guarantees: identical rows.
#[test]
fn both_encodings_give_the_same_rows() {
    let Some(edge) = shared("edge") else { return };
    let read = |name: &str| std::fs::read(edge.join(name)).unwrap();
    let (_, expected) = record(&[(Signal::Traces, Encoding::Protobuf, &read("valid.pb"))]);
    assert_eq!(expected.spans.len(), 12);
    for name in [
        "valid.json",
        "valid_pretty_charset.json",
        "int64_as_numbers.json",
        "unknown_keys.json",
        "enum_as_name.json",
    ] {
        let (answers, found) = record(&[(Signal::Traces, Encoding::Json, &read(name))]);
        assert!(answers[0].is_ok(), "{name}: {answers:?}");
        assert_eq!(found, expected, "{name}");
    }
}

/// Scenario: bodies that are not what they should be, and spans that are odd.
/// Guarantees: what is no OTLP is refused whole; what is odd is kept and flagged.
#[test]
fn odd_bodies_get_the_answers_they_are_due() {
    let Some(edge) = shared("edge") else { return };
    let read = |name: &str| std::fs::read(edge.join(name)).unwrap();
    let take = |name: &str, encoding| {
        let (mut answers, found) = record(&[(Signal::Traces, encoding, &read(name))]);
        (answers.remove(0), found)
    };
    for (name, encoding) in [
        ("truncated.pb", Encoding::Protobuf),
        ("garbage.pb", Encoding::Protobuf),
        ("json_as_protobuf.json", Encoding::Protobuf),
        ("not_gzip.pb.gz", Encoding::Json),
        ("truncated.json", Encoding::Json),
        ("deep_nesting_60.pb", Encoding::Protobuf),
        // Its last byte is missing.
        ("invalid_utf8_name.pb", Encoding::Protobuf),
    ] {
        let (answer, found) = take(name, encoding);
        assert!(answer.is_err(), "{name}: {answer:?}");
        assert_eq!(found, Found::default(), "{name}");
    }
    for (name, encoding) in
        [("empty.pb", Encoding::Protobuf), ("empty_object.json", Encoding::Json)]
    {
        assert_eq!(take(name, encoding).0, Ok(Taken::default()), "{name}");
    }
    for name in ["no_ids.pb", "zero_trace_id.pb"] {
        assert_eq!(take(name, Encoding::Protobuf).0.unwrap().rejected, 1, "{name}");
    }
    let flags = |name: &str| {
        let (_, found) = take(name, Encoding::Protobuf);
        assert!(!found.spans.is_empty(), "{name}");
        found.spans.iter().filter_map(|span| span.flags.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(flags("end_before_start.pb"), "end_before_start");
    assert_eq!(flags("zero_times.pb"), "bad_time");
    assert_eq!(flags("orphan.pb"), "orphan");
    assert_eq!(flags("negative_tokens.pb"), "bad_tokens");
    let spans = |name: &str| take(name, Encoding::Protobuf).1.spans;
    assert_eq!(spans("self_parent.pb").len(), 1);
    assert_eq!(spans("duplicate_span_id.pb").len(), 1, "the first is kept");
    assert_eq!(spans("negative_tokens.pb")[0].input_tokens, None);
    assert_eq!(token_sum(&spans("rolled_up_tokens.pb")), [30, 12]);
    assert_eq!(token_sum(&spans("token_counts_wrong_types.pb")), [12, 3]);
    let parent = spans("child_outlives_parent.pb").into_iter().find(|s| s.parent_span_id.is_none());
    assert_eq!(parent.unwrap().self_ns, Some(5_000_000));
    assert_eq!(spans("end_before_start.pb")[0].duration_ns, 0);
}

/// Scenario: one app, recorded through three instrumentations of the same client.
/// Guarantees: tokens, calls and kinds are the same whoever instrumented it.
#[test]
fn instrumentations_of_one_app_agree() {
    let mut seen = Vec::new();
    for client in ["openai-openinference-http", "openai-otel-genai-http", "openai-traceloop-json"] {
        let Some(folder) = shared(client) else { return };
        let (_, found) = record(&borrowed(&bodies(&folder)));
        let mut kinds = std::collections::BTreeMap::new();
        for span in &found.spans {
            *kinds.entry(span.kind.clone()).or_insert(0) += 1;
        }
        let cached: i64 = found.spans.iter().filter_map(|span| span.cache_read_tokens).sum();
        let failed = found.spans.iter().filter(|span| span.is_error_origin).count();
        let streamed = found.spans.iter().filter(|span| span.ttft_ns.is_some()).count();
        seen.push((token_sum(&found.spans), kinds, cached, failed, streamed));
    }
    eprintln!("{seen:?}");
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:#?}");
}

/// A span as OTLP/JSON.
fn json_span(id: u8, parent: Option<u8>, attributes: &str) -> String {
    let parent = parent
        .map_or_else(String::new, |id| format!(r#""parentSpanId":"00000000000000{id:02x}","#));
    format!(
        r#"{{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"00000000000000{id:02x}",{parent}
        "name":"span {id}","startTimeUnixNano":"1790000000000000000","endTimeUnixNano":1790000000500000000,
        "attributes":[{attributes}]}}"#
    )
}

fn json_body(service: &str, spans: &[String]) -> String {
    format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[
            {{"key":"service.name","value":{{"stringValue":"{service}"}}}}]}},
        "scopeSpans":[{{"scope":{{"name":"app"}},"spans":[{}]}}]}}]}}"#,
        spans.join(",")
    )
}

fn text(key: &str, value: &str) -> String {
    let value = serde_json::Value::from(value);
    format!(r#"{{"key":"{key}","value":{{"stringValue":{value}}}}}"#)
}

fn spans_of(body: &str) -> Vec<SpanRow> {
    let (answers, found) = record(&[(Signal::Traces, Encoding::Json, body.as_bytes())]);
    assert!(answers[0].is_ok(), "{answers:?}");
    found.spans
}

/// Scenario: flattened messages, documents and embeddings of OpenInference.
/// Guarantees: each is put together again: one prompt, one row per document, one count of vectors.
#[test]
fn flattened_attributes_become_what_they_were() {
    let attributes = [
        text("openinference.span.kind", "RETRIEVER"),
        text("retrieval.documents.1.document.id", "b"),
        text("retrieval.documents.0.document.id", "a"),
        text("retrieval.documents.0.document.content", "first text"),
        text("retrieval.documents.0.document.metadata", r#"{"file_path":"a.md"}"#),
        r#"{"key":"retrieval.documents.0.document.score","value":{"doubleValue":0.5}}"#.to_owned(),
        text("llm.input_messages.0.message.role", "user"),
        text("llm.input_messages.0.message.content", "why?"),
        text("embedding.embeddings.0.embedding.text", "why?"),
        r#"{"key":"embedding.embeddings.0.embedding.vector","value":{"arrayValue":{"values":[{"doubleValue":1},{"doubleValue":2}]}}}"#.to_owned(),
    ];
    let body = json_body("test", &[json_span(1, None, &attributes.join(","))]);
    let (_, found) = record(&[(Signal::Traces, Encoding::Json, body.as_bytes())]);
    let span = &found.spans[0];
    assert_eq!((span.kind.as_str(), span.document_count), ("retriever", Some(2)));
    assert_eq!((span.embedding_count, span.embedding_dim), (Some(1), Some(2)));
    let prompt = r#"[{"message":{"role":"user","content":"why?"}}]"#;
    assert_eq!(span.input_ref, Some(retake_schemas::Digest::of(prompt.as_bytes()).to_string()));
    let documents: Vec<_> = found
        .documents
        .iter()
        .map(|row| (row.rank, row.document_id.as_str(), row.score, row.source.as_deref()))
        .collect();
    assert_eq!(documents, [(0, "a", Some(0.5), Some("a.md")), (1, "b", None, None)]);
}

/// Scenario: a receiver is killed after it answered, or before, and started again; the sender
/// repeats its batch.
/// Guarantees: O2 - the repeated spans are known, new ones are not.
#[test]
fn what_a_crash_cut_short_is_known_after_a_restart() {
    use super::{Collector, CollectorSettings};

    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let body = json_body("shop", &[json_span(1, None, ""), json_span(2, Some(1), "")]);
    let settings = || CollectorSettings {
        record: RecordSettings { sample_ms: 0, ..RecordSettings::default() },
        ..CollectorSettings::default()
    };
    let take = |collector: &Collector, body: &str| {
        let taken = collector.take(Signal::Traces, Encoding::Json, body.as_bytes()).unwrap();
        (taken.accepted, taken.repeated)
    };
    let first = Collector::new(&store, settings());
    assert_eq!(take(&first, &body), (2, 0));
    // As after a kill: nobody ends the run. Its copy in another place is what recovery finds.
    let copy = tempfile::tempdir().unwrap();
    copy_folder(folder.path(), copy.path());
    let _ = first.finish();
    let store = Store::open(copy.path()).unwrap();
    assert_eq!(store.recover().unwrap().repaired.len(), 1);
    let second = Collector::new(&store, settings());
    assert_eq!(take(&second, &body), (0, 2));
    assert_eq!(take(&second, &json_body("shop", &[json_span(3, Some(1), "")])), (1, 0));
    let _ = second.finish();
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Scenario: three services send to one receiver, one of them under the name of an experiment.
/// Guarantees: a run each, by service and `retake.run`; a silent one ends.
#[test]
fn services_get_runs_of_their_own() {
    use super::{Collector, CollectorSettings};

    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let settings = CollectorSettings {
        idle_max: std::time::Duration::ZERO,
        runs_max: 2,
        ..CollectorSettings::default()
    };
    let collector = Collector::new(&store, settings);
    for (service, id) in [("a", 1), ("b", 2), ("c", 3), ("a", 4)] {
        let body = json_body(service, &[json_span(id, None, "")]);
        collector.take(Signal::Traces, Encoding::Json, body.as_bytes()).unwrap();
    }
    let names: Vec<_> =
        collector.runs().into_iter().map(|run| (run.name, run.counts.spans)).collect();
    let expected = [("a".to_owned(), 2), ("b".to_owned(), 1), ("other".to_owned(), 1)];
    assert_eq!(names, [expected[0].clone(), expected[1].clone(), expected[2].clone()]);
    assert_eq!(collector.end_idle().len(), 3);
    assert_eq!((collector.runs().len(), collector.counts().spans), (0, 4));
}

/// Scenario: an instrumentation states no tokens, but the texts; the application has names of its
/// own for what it counts.
/// Guarantees: a tokenizer counts, said as the source; names of `[record.alias]` are understood.
#[test]
fn tokens_come_from_a_tokenizer_or_by_an_alias() {
    let settings = IntakeSettings {
        count_tokens: Some(std::sync::Arc::new(|_, text| {
            (text.split_whitespace().count() as u64, TokensSource::Tokenizer)
        })),
        aliases: super::Aliases::new(
            [("app.in".to_owned(), "gen_ai.usage.input_tokens".to_owned())].into(),
        ),
        ..IntakeSettings::default()
    };
    let counted = [
        text("openinference.span.kind", "LLM"),
        text("llm.prompts", "one two three"),
        text("output.value", "four"),
    ];
    let named = [
        text("openinference.span.kind", "LLM"),
        r#"{"key":"app.in","value":{"intValue":"7"}}"#.to_owned(),
    ];
    let body = json_body(
        "test",
        &[json_span(1, None, &counted.join(",")), json_span(2, None, &named.join(","))],
    );
    let (_, found) = record_with(settings, &[(Signal::Traces, Encoding::Json, body.as_bytes())]);
    let seen: Vec<_> = found
        .spans
        .iter()
        .map(|span| (span.input_tokens, span.output_tokens, span.tokens_source.as_str()))
        .collect();
    assert_eq!(seen, [(Some(3), Some(1), "tokenizer"), (Some(7), None, "provider")]);
}

/// Scenario: statuses, exceptions and times that contradict each other.
/// Guarantees: an exception that was handled is no failure, `error.type` is one; impossible times
/// are replaced and flagged.
#[test]
fn failures_and_times_are_read_as_they_are_meant() {
    let exception = r#","events":[{"name":"exception","timeUnixNano":"1790000000100000000","attributes":[{"key":"exception.type","value":{"stringValue":"Timeout"}}]}]}"#;
    let handled = json_span(1, None, "").trim_end_matches('}').to_owned() + exception;
    let failed = json_span(2, None, "").trim_end_matches('}').to_owned()
        + r#","status":{"code":2,"message":"no"}"#
        + exception;
    let typed = json_span(3, None, &text("error.type", "RateLimit"));
    let late = json_span(4, None, "").replace("1790000000500000000", "18446744073709551615");
    let rows = spans_of(&json_body("test", &[handled, failed, typed, late]));
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.status.as_str(), row.error_type.as_deref(), row.flags.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [
            ("ok", None, None),
            ("error", Some("Timeout"), None),
            ("error", Some("RateLimit"), None),
            ("ok", None, Some("bad_time")),
        ]
    );
    assert_eq!(rows[3].duration_ns, 0);
}

/// Scenario: bodies made to become large in memory.
/// Guarantees: O1 - refused before they do, whatever the encoding.
#[test]
fn small_bodies_that_would_become_large_are_refused() {
    let take = |encoding, body: &[u8]| record(&[(Signal::Traces, encoding, body)]).0.remove(0);
    // A million empty attributes: 2 MB of protobuf.
    let varint = |mut n: usize| {
        let mut bytes = Vec::new();
        while n >= 0x80 {
            bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        bytes.push(n as u8);
        bytes
    };
    let field = |number: u8, content: &[u8]| {
        let mut bytes = vec![number << 3 | 2];
        bytes.extend(varint(content.len()));
        bytes.extend_from_slice(content);
        bytes
    };
    let attributes = [9 << 3 | 2, 0].repeat(1_000_000);
    let body = field(1, &field(2, &field(2, &attributes)));
    assert_eq!(take(Encoding::Protobuf, &body), Err(DecodeError::TooLarge));
    let spans = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}{{}}]}}]}}]}}"#,
        "{},".repeat(1_000_000)
    );
    assert_eq!(take(Encoding::Json, spans.as_bytes()), Err(DecodeError::TooLarge));
    let deep = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"a","value":{}{}}}]}}}}]}}"#,
        r#"{"arrayValue":{"values":["#.repeat(10_000),
        "]}}".repeat(10_000)
    );
    assert!(matches!(
        take(Encoding::Json, deep.as_bytes()),
        Err(DecodeError::TooDeep | DecodeError::Malformed(_))
    ));
    let mut nested = Vec::new();
    for _ in 0..10_000 {
        nested = field(5, &field(1, &nested));
    }
    let body = field(1, &field(1, &field(1, &field(2, &nested))));
    assert_eq!(take(Encoding::Protobuf, &body), Err(DecodeError::TooDeep));
}

/// Scenario: one call as a JavaScript SDK, MLflow and former GenAI span events state it.
/// Guarantees: the same columns, and no text among the attributes.
#[test]
fn other_conventions_fill_the_same_columns() {
    let number =
        |key: &str, value: i64| format!(r#"{{"key":"{key}","value":{{"intValue":"{value}"}}}}"#);
    let vercel = [
        text("ai.operationId", "ai.streamText.doStream"),
        text("ai.model.id", "m"),
        text("ai.prompt.messages", "secret prompt"),
        text("ai.response.text", "secret answer"),
        number("ai.usage.promptTokens", 5),
        number("ai.usage.completionTokens", 2),
        number("ai.response.msToFirstChunk", 40),
    ];
    let mlflow = [
        text("mlflow.spanType", "CHAT_MODEL"),
        text("gen_ai.request.model", "m"),
        text("mlflow.spanInputs", "secret prompt"),
        text("mlflow.spanOutputs", "secret answer"),
        text("mlflow.chat.tokenUsage", r#"{"input_tokens": 5, "output_tokens": 2}"#),
        r#"{"key":"gen_ai.server.time_to_first_token","value":{"doubleValue":0.04}}"#.to_owned(),
    ];
    let former = [
        text("gen_ai.system", "openai"),
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.request.model", "m"),
        number("gen_ai.usage.prompt_tokens", 5),
        number("gen_ai.usage.completion_tokens", 2),
        r#"{"key":"gen_ai.server.time_to_first_token","value":{"doubleValue":0.04}}"#.to_owned(),
    ];
    let events = r#","events":[
        {"name":"gen_ai.content.prompt","timeUnixNano":"1790000000000000000","attributes":[{"key":"gen_ai.prompt","value":{"stringValue":"secret prompt"}}]},
        {"name":"gen_ai.content.completion","timeUnixNano":"1790000000000000000","attributes":[{"key":"gen_ai.completion","value":{"stringValue":"secret answer"}}]},
        {"name":"gen_ai.user.message","timeUnixNano":"1790000000000000000","attributes":[{"key":"content","value":{"stringValue":"secret prompt"}}]}]}"#;
    let former = json_span(3, None, &former.join(",")).trim_end_matches('}').to_owned() + events;
    let spans =
        [json_span(1, None, &vercel.join(",")), json_span(2, None, &mlflow.join(",")), former];
    let (_, found) =
        record(&[(Signal::Traces, Encoding::Json, json_body("test", &spans).as_bytes())]);
    for span in &found.spans {
        let facts = (span.kind.as_str(), span.model_request.as_deref(), span.ttft_ns);
        assert_eq!(facts, ("llm", Some("m"), Some(40_000_000)), "{span:?}");
        assert_eq!((span.input_tokens, span.output_tokens), (Some(5), Some(2)), "{span:?}");
        assert_eq!(span.input_ref, found.spans[0].input_ref);
        assert_eq!(span.output_ref, found.spans[0].output_ref);
        assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    }
    assert!(!format!("{:?}", found.events).contains("secret"), "{:?}", found.events);
    assert_eq!(found.events.len(), 1, "what only carries attributes is no log line");
}

/// Scenario: an instrumentation nests two or three spans of one kind around each call.
/// Guarantees: one of them is the call, whatever stands between.
#[test]
fn calls_are_counted_once() {
    let kind = |kind| text("openinference.span.kind", kind);
    let body = json_body(
        "test",
        &[
            json_span(1, None, &kind("LLM")),
            json_span(2, Some(1), &kind("CHAIN")),
            json_span(3, Some(2), &kind("LLM")),
            json_span(4, Some(1), &kind("RETRIEVER")),
        ],
    );
    let calls: Vec<_> = spans_of(&body).iter().map(|span| span.is_call).collect();
    assert_eq!(calls, [Some(false), None, Some(true), Some(true)]);

    let Some(folder) = shared("llamaindex-openinference-http") else { return };
    let (_, found) = record(&borrowed(&bodies(&folder)));
    let calls = |kind: &str| {
        found.spans.iter().filter(|span| span.kind == kind && span.is_call == Some(true)).count()
    };
    assert_eq!(calls("llm"), 16, "the client made so many");
    assert_eq!(calls("retriever"), 16, "one a query");
}
