//! What is odd, damaged, unfinished, or hostile.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use retake_schemas::event::{Capture, EventBody, RunStatus, Token};
use retake_schemas::tables::TableName;
use serde_json::Value;

use super::decode::{Kind, perfetto, slices};
use super::fixture::{Made, PROMPT, Scratch, T0, everything, export, key, run_of, try_export};
use crate::RunReader;
use crate::export::{ExportError, ExportOptions, Format, write};

/// Scenario: a run is exported while spans of it are open and nothing is sealed.
/// Guarantees: every format is whole and shows the spans so far.
#[test]
fn a_run_that_is_being_recorded_can_be_exported() {
    let scratch = Scratch::new();
    let recorder = scratch.recorder(Capture::Digest);
    let root = Made::new(1, 1, None, "root", (0, 100));
    let child = Made::new(1, 2, Some(1), "child", (10, 20));
    root.open(recorder.dispatcher());
    child.open(recorder.dispatcher());
    child.close(recorder.dispatcher());
    recorder.flush().unwrap();
    let run = RunReader::open(&scratch.store, recorder.run_id()).unwrap();
    for format in Format::ALL {
        assert_eq!(export(&run, format).1.spans, 2, "{format}");
    }
    let trace = perfetto(&export(&run, Format::Perfetto).0);
    let seen = slices(&trace);
    let root = seen.iter().find(|slice| slice.event.name == "root").unwrap();
    assert_eq!(root.event.args["status"], "unfinished");
    drop(recorder);
}

/// Scenario: a trace goes on for three segments, its tokens stand in the first two, and another
/// trace begins and ends in between.
/// Guarantees: both come out whole and once, and on lanes by time, not by segment.
#[test]
fn a_trace_may_go_through_many_segments() {
    let scratch = Scratch::new();
    let recorder = scratch.recorder(Capture::Digest);
    let to = recorder.dispatcher();
    let root = Made::new(1, 1, None, "long", (0, 100));
    let calls = [2, 3, 4].map(|id| {
        let at = i64::try_from(id).unwrap() * 10;
        Made::new(1, id, Some(1), "call", (at, at + 5))
    });
    let other = Made::new(2, 1, None, "short", (200, 201));
    root.open(to);
    for (at, call) in calls.iter().enumerate() {
        call.open(to);
        if at < 2 {
            let token = Token { span: key(1, 4), index: u32::try_from(at).unwrap(), count: 1 };
            to.emit_at(T0 + 41 + i64::try_from(at).unwrap(), &EventBody::Token(token));
        }
        call.close(to);
        if at == 1 {
            other.open(to);
            other.close(to);
        }
        recorder.seal().unwrap();
    }
    root.close(to);
    let run = scratch.finish(recorder);
    assert_eq!(run.segments(TableName::Spans).count(), 4);
    let (bytes, summary) = export(&run, Format::Perfetto);
    assert_eq!((summary.spans, summary.traces, summary.instants), (5, 2, 2));
    let trace = perfetto(&bytes);
    let seen = slices(&trace);
    let inside = seen.iter().filter(|s| s.inside.as_deref() == Some("0000000000000001")).count();
    assert_eq!(inside, 3);
    let tracks: Vec<_> = trace.tracks.values().map(|track| track.name.as_str()).collect();
    assert_eq!(tracks, ["", "lane 1"], "they do not touch, so they share a lane");
}

/// Scenario: spans without times, before the epoch, at the end of time, their own parents, in
/// circles, and twice.
/// Guarantees: no format breaks, and every row is there.
#[test]
fn odd_rows_break_no_format() {
    let scratch = Scratch::new();
    let spans = [
        Made::new(1, 1, None, "no time", (-T0, -T0)),
        Made::new(1, 2, Some(1), "before the epoch", (-T0 - 5, -T0 + 5)),
        Made::new(1, 3, Some(3), "itself", (0, 10)),
        Made::new(1, 4, Some(5), "circle", (0, 10)),
        Made::new(1, 5, Some(4), "circle", (1, 9)),
        Made::new(1, 6, None, "ends before it starts", (10, 5)),
        Made::new(2, 1, None, "for ever", (3, i64::MAX - T0)),
        Made::new(3, 1, None, "normal", (5, 6)),
    ];
    let run = run_of(&scratch, &spans);
    for format in Format::ALL {
        let (bytes, summary) = export(&run, format);
        assert_eq!(summary.spans, 8, "{format}");
        if format.extension() == "json" {
            let _: Value = serde_json::from_slice(&bytes).unwrap();
        }
    }
    let trace = perfetto(&export(&run, Format::Perfetto).0);
    let seen = slices(&trace);
    assert_eq!(seen.len(), 8);
    let normal = seen.iter().find(|slice| slice.event.name == "normal").unwrap();
    assert_eq!(normal.event.unix_ns, u64::try_from(T0).unwrap() + 5, "odd times move nobody else");
}

/// Scenario: names, messages, and attributes with quotes, controls, other scripts, and markup;
/// attributes called like columns.
/// Guarantees: every JSON output is read back by two parsers to the very same texts.
#[test]
fn hostile_names_come_back_as_they_were() {
    let hostile = "\"}],\\\u{0}\u{1b}[31m\u{202e}\u{2028}</script>\u{10ffff}\n\r\t'";
    let scratch = Scratch::new();
    let spans = [Made::new(1, 1, None, hostile, (0, 10))
        .with("span_id", hostile)
        .with("attributes", 1_i64)
        .with("app.x", hostile)];
    let run = run_of(&scratch, &spans);
    for format in Format::ALL.into_iter().filter(|format| format.extension().starts_with("json")) {
        let (bytes, _) = export(&run, format);
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        let text = document.to_string();
        let escaped = Value::from(hostile).to_string();
        assert!(text.matches(escaped.as_str()).count() >= 3, "{format}: {text}");
        parsed_by_python(format, &bytes, &document);
    }
    let trace = perfetto(&export(&run, Format::Perfetto).0);
    let begun = trace.events.iter().find(|event| event.kind == Kind::Begin).unwrap();
    assert_eq!(begun.name, hostile);
    assert_eq!(begun.args["span_id"], "0000000000000001");
    assert_eq!(begun.args["attributes.span_id"], hostile);
}

/// Python's own parser reads the same document, if there is a Python.
fn parsed_by_python(format: Format, bytes: &[u8], document: &Value) {
    let python = std::env::var_os("RETAKE_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let program = "import json, sys; json.dump(json.load(sys.stdin.buffer), sys.stdout)";
    let child = Command::new(python)
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("hostile_names_come_back_as_they_were: {format}: no Python to ask as well");
        return;
    };
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{format}");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), *document, "{format}");
}

/// Scenario: a run that kept its texts is exported without asking for them, and then with.
/// Guarantees: P1 - texts are in the file only when asked for; then they are whole.
#[test]
fn texts_are_in_the_file_only_when_asked_for() {
    let scratch = Scratch::new();
    let run = everything(&scratch);
    for format in Format::ALL {
        let holds = |bytes: &[u8]| {
            [PROMPT, "scattering"]
                .map(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
        };
        assert_eq!(holds(&export(&run, format).0), [false; 2], "{format}");
        let options = ExportOptions { with_text: true };
        let (bytes, _) = try_export(&run, format, options).unwrap();
        assert_eq!(holds(&bytes), [true; 2], "{format}");
    }
}

/// Scenario: a sealed file has a flipped bit.
/// Guarantees: the export fails before the first byte is written.
#[test]
fn a_damaged_run_costs_an_error_and_not_half_a_file() {
    let scratch = Scratch::new();
    let run = everything(&scratch);
    for table in [TableName::Spans, TableName::Measures] {
        let segment = run.segments(table).next().unwrap();
        let path = scratch.store.run_dir(run.run_id()).join(&segment.file);
        let sound = std::fs::read(&path).unwrap();
        let mut damaged = sound.clone();
        damaged[sound.len() / 2] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let mut out = Vec::new();
        let result = write(&run, Format::Chrome, &ExportOptions::default(), &mut out, &mut |_| {});
        assert!(matches!(result, Err(ExportError::Read(_))), "{result:?}");
        assert!(out.is_empty());
        std::fs::write(&path, sound).unwrap();
    }
}

/// Takes so many bytes and then fails, as a full disk does.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Scenario: the disk fills up at some byte of the file.
/// Guarantees: the export says so, whichever byte it is.
#[test]
fn a_full_disk_is_said() {
    let scratch = Scratch::new();
    let run = everything(&scratch);
    for format in Format::ALL {
        let bytes = export(&run, format).0.len();
        for room in [0, 1, bytes / 2, bytes - 1] {
            let options = ExportOptions::default();
            let result = write(&run, format, &options, &mut Full(room), &mut |_| {});
            assert!(matches!(result, Err(ExportError::Write(_))), "{format}, {room} bytes");
        }
    }
}

/// Scenario: a run without a span.
/// Guarantees: every format is whole.
#[test]
fn an_empty_run_is_a_whole_file() {
    let scratch = Scratch::new();
    let recorder = scratch.recorder(Capture::Off);
    let summary = recorder.finish(RunStatus::Finished);
    let run = RunReader::open(&scratch.store, &summary.run_id).unwrap();
    for format in Format::ALL {
        let (bytes, summary) = export(&run, format);
        assert_eq!(summary.spans, 0);
        if format.extension() == "json" {
            let _: Value = serde_json::from_slice(&bytes).unwrap();
        }
    }
    assert!(perfetto(&export(&run, Format::Perfetto).0).events.is_empty());
}

/// Scenario: every span has a name and a value of its own, more than the interning table holds.
/// Guarantees: the table is begun anew, and every name is still read back.
#[test]
fn more_names_than_the_table_holds_are_still_names() {
    let scratch = Scratch::new();
    let long = "n".repeat(20_000);
    let spans: Vec<Made> = (1..=1000)
        .map(|id| {
            let at = i64::try_from(id).unwrap();
            Made::new(1, id, None, &format!("{long}{id}"), (at * 10, at * 10 + 5))
        })
        .collect();
    let run = run_of(&scratch, &spans);
    let trace = perfetto(&export(&run, Format::Perfetto).0);
    assert!(trace.clears > 1, "{}", trace.clears);
    let mut names: Vec<_> = slices(&trace).into_iter().map(|slice| slice.event.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 1000);
}
