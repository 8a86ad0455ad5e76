//! Bodies of real exporters, and of none.

use std::path::{Path, PathBuf};

use retake_schemas::event::{Capture, RunStatus};
use retake_schemas::settings::RecordSettings;
use retake_schemas::tables::{DocumentRow, EventRow, MeasureRow, SpanRow, TokenRow};

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
    };
    // Runs differ in their ids, and in when they were.
    found.spans.iter_mut().for_each(|row| row.run_id.clear());
    found.tokens.iter_mut().for_each(|row| row.run_id.clear());
    found.documents.iter_mut().for_each(|row| row.run_id.clear());
    found.events.retain(|row| row.name != "otel.resource");
    found.events.iter_mut().for_each(|row| row.run_id.clear());
    found.measures.iter_mut().for_each(|row| row.run_id.clear());
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
