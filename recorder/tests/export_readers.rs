//! Exports of a run, read by the formats' own libraries.
//!
//! `RETAKE_TEST_APPS_PYTHON` names a Python and `RETAKE_TEST_APPS_PYTHONPATH` where it finds `perfetto`
//! and `opentelemetry-proto`; without them the test skips and says so.

use std::path::Path;
use std::process::Command;

use retake_recorder::export::{self, ExportOptions, Format, OtlpFraming};
use retake_recorder::{RecorderBuilder, RunReader, Store};
use retake_schemas::event::RunStatus;

const TEST: &str = "other_libraries_read_the_same_spans";

/// Scenario: a program's spans, nested, side by side, and failed, are exported in every format.
/// Guarantees: the Python packages of Perfetto and OpenTelemetry decode the files, find no field
/// they do not know, and see the same spans.
#[test]
fn other_libraries_read_the_same_spans() {
    let names = ["RETAKE_TEST_APPS_PYTHON", "RETAKE_TEST_APPS_PYTHONPATH"];
    let variables = names.map(std::env::var_os);
    let [Some(python), Some(packages)] = variables else {
        eprintln!("{TEST}: skipped: {names:?} are not set");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = RecorderBuilder::new("nightly", "svc").start(&store).unwrap();
    tracing::subscriber::with_default(recorder.subscriber(), work);
    let run_id = recorder.finish(RunStatus::Finished).run_id;
    let run = RunReader::open(&store, &run_id).unwrap();
    for (file, format) in [
        ("run.pftrace", Format::Perfetto),
        ("run.json", Format::Chrome),
        ("run.jsonl", Format::Otlp(OtlpFraming::JsonLines)),
        ("run.pb", Format::Otlp(OtlpFraming::ProtobufBody)),
    ] {
        let mut out = std::fs::File::create(folder.path().join(file)).unwrap();
        export::write(&run, format, &ExportOptions::default(), &mut out, &mut |_| {}).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/apps/read_export.py");
    let output = Command::new(python)
        .arg(script)
        .arg(folder.path())
        .env("PYTHONPATH", packages)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let spans = serde_json::json!(["call", "call", "call", "request", "request", "request"]);
    for format in ["perfetto", "chrome", "otlp", "otlp_json"] {
        assert_eq!(read[format], spans, "{format}");
    }
    assert_eq!(read["clocks"]["64"], 0);
    let wall = read["clocks"]["1"].as_i64().unwrap();
    assert!(wall >= run.manifest().facts.started_unix_ns, "the earliest span, by wall time");
}

fn work() {
    for number in 0..3_i64 {
        let _request =
            tracing::info_span!("request", number, "gen_ai.operation.name" = "chat").entered();
        let call = tracing::info_span!("call", url = "http://x/\"\u{1f}").entered();
        tracing::error!(error = "no answer", "failed");
        drop(call);
        tracing::info!(target: "retake::token", index = number, count = 1);
    }
}
