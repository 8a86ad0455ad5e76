//! One small run in every format, as it is to look. `UPDATE_GOLDEN=1` takes changes in.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::decode::{Kind, Trace, perfetto};
use super::fixture::{Scratch, T0, everything, export};
use crate::RunReader;
use crate::export::{Format, OtlpFraming};

fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/export/tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (golden, now)) in golden.lines().zip(text.lines()).enumerate() {
        assert_eq!(golden, now, "{name}, line {}; UPDATE_GOLDEN=1 takes it in", line + 1);
    }
    assert_eq!(golden.lines().count(), text.lines().count(), "{name}");
}

/// Scenario: a run with everything a run can hold becomes a Perfetto file.
/// Guarantees: an independent reader of the format finds these tracks and events.
#[test]
fn perfetto_looks_like_this() {
    let scratch = Scratch::new();
    let run = everything(&scratch);
    let trace = perfetto(&export(&run, Format::Perfetto).0);
    assert_eq!(trace.facts["retake.run_id"], run.run_id().as_str());
    assert_eq!(trace.facts["retake.base_unix_ns"], T0.to_string());
    check("perfetto.txt", &described(&trace));
}

fn described(trace: &Trace) -> String {
    let path = |track: u64| {
        let mut names = Vec::new();
        let mut next = Some(track);
        while let Some(track) = next.and_then(|uuid| trace.tracks.get(&uuid)) {
            names.push(track.process.as_ref().map_or(track.name.as_str(), |(_, name)| name));
            next = track.parent;
        }
        names.reverse();
        names.join(" / ")
    };
    let flows: Vec<u64> = trace.events.iter().flat_map(|event| event.flows.clone()).collect();
    let flow = |id: &u64| flows.iter().position(|flow| flow == id).unwrap();
    let mut text = String::new();
    let mut events: Vec<_> = trace.events.iter().collect();
    events.sort_by_key(|event| (path(event.track), event.unix_ns));
    let mut current = String::new();
    for event in events {
        let track = path(event.track);
        if track != current {
            writeln!(text, "\n{track} {:?}", trace.tracks[&event.track].unit).unwrap();
            current = track;
        }
        let at = event.unix_ns - u64::try_from(T0).unwrap();
        match event.kind {
            Kind::End => writeln!(text, "  {at} end").unwrap(),
            Kind::Counter => writeln!(text, "  {at} {}", event.value.unwrap()).unwrap(),
            Kind::Begin | Kind::Instant => {
                let (out, into): (Vec<_>, Vec<_>) = (
                    event.flows.iter().map(flow).collect(),
                    event.ends_flows.iter().map(flow).collect(),
                );
                let kind = if event.kind == Kind::Begin { "begin" } else { "mark" };
                let (name, categories) = (&event.name, event.categories.join(","));
                writeln!(text, "  {at} {kind} {name:?} {categories} out {out:?} in {into:?}")
                    .unwrap();
                for (name, value) in &event.args {
                    writeln!(text, "    {name} = {value:?}").unwrap();
                }
            }
        }
    }
    text
}

/// Scenario: the same as Trace Event JSON.
/// Guarantees: one JSON object with these events.
#[test]
fn chrome_looks_like_this() {
    let scratch = Scratch::new();
    let run = everything(&scratch);
    let text = String::from_utf8(export(&run, Format::Chrome).0).unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["otherData"]["retake.run_id"], run.run_id().as_str());
    assert!(text.contains("\"ts\":1000.000,\"dur\":1000.001,"), "ns are exact: {text}");
    let mut flows = Vec::new();
    let mut lines = String::new();
    for event in document["traceEvents"].as_array_mut().unwrap() {
        if event["pid"] == run.manifest().facts.host.pid {
            event["pid"] = "OWN".into();
        }
        if let Some(id) = event.get("id").cloned() {
            let number = flows.iter().position(|flow| *flow == id).unwrap_or(flows.len());
            if number == flows.len() {
                flows.push(id);
            }
            event["id"] = number.into();
        }
        writeln!(lines, "{}", named(&run, &event.to_string())).unwrap();
    }
    check("chrome.jsonl", &lines);
}

fn named(run: &RunReader, text: &str) -> String {
    text.replace(run.run_id().as_str(), "RUN")
}

/// Scenario: the same as OTLP/JSON.
/// Guarantees: these spans, in OpenTelemetry's words.
#[test]
fn otlp_looks_like_this() {
    let scratch = Scratch::new();
    let run = everything(&scratch);
    let (bytes, summary) = export(&run, Format::Otlp(OtlpFraming::JsonLines));
    assert_eq!((summary.spans, summary.traces), (10, 3));
    // Four samples, a line of no span, and a line of a span that is not there.
    assert_eq!((summary.left_out, summary.samples), (6, 0));
    let mut document: Value = serde_json::from_slice(&bytes).unwrap();
    for resource in document["resourceSpans"].as_array_mut().unwrap() {
        let of_machine = ["host.", "os.", "process.", "vcs."];
        resource["resource"]["attributes"].as_array_mut().unwrap().retain(|attribute| {
            let key = attribute["key"].as_str().unwrap();
            !of_machine.iter().any(|prefix| key.starts_with(prefix))
        });
    }
    check("otlp.json", &named(&run, &(serde_json::to_string_pretty(&document).unwrap() + "\n")));
}
