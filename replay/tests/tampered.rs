//! A recording that somebody, or a disk, has changed.

use std::path::{Path, PathBuf};

use retake_recorder::capture::CapturePolicy;
use retake_recorder::{Dispatcher, RecorderBuilder, RunReader, Store};
use retake_replay::cassette::{Cassette, RecordedAnswer, RunCassette};
use retake_replay::rng::Rng;
use retake_schemas::event::{
    Capture, EventBody, Level, RunStatus, SpanClosed, SpanOpened, SpanUpdated, Status, Token,
};
use retake_schemas::settings::RecordSettings;
use retake_schemas::{RunId, SpanKey, TraceId, Value};

fn call(dispatcher: &Dispatcher, request: &str, answer: &str) {
    let span = SpanKey { trace_id: TraceId::generate(), span_id: dispatcher.new_span_id() };
    let kept = |text: &str| {
        CapturePolicy::reference(dispatcher.keep_content("text/plain", text).expect("a digest"))
    };
    dispatcher.emit(&EventBody::SpanOpened(Box::new(SpanOpened {
        span,
        parent: None,
        name: "chat".to_owned(),
        target: String::new(),
        level: Level::Info,
        source_file: None,
        source_line: None,
        thread: None,
        attributes: vec![
            ("gen_ai.operation.name".into(), Value::from("chat")),
            ("gen_ai.input.messages".into(), kept(request)),
        ],
    })));
    for index in 0..3 {
        dispatcher.emit(&EventBody::Token(Token { span, index, count: 1 }));
    }
    let attributes = vec![("gen_ai.output.messages".into(), kept(answer))];
    dispatcher.emit(&EventBody::SpanUpdated(SpanUpdated { span, attributes }));
    let closed = SpanClosed { span, busy_ns: None, status: Status::Ok, message: None };
    dispatcher.emit(&EventBody::SpanClosed(closed));
}

fn request(n: usize) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"question {n}"}}]}}"#)
}

fn record(store: &Store) -> RunId {
    let settings = RecordSettings { capture: Capture::Full, ..RecordSettings::default() };
    let recorder =
        RecorderBuilder::new("tape", "test").record_settings(settings).start(store).unwrap();
    for n in 0..CALLS {
        call(recorder.dispatcher(), &request(n), &format!("answer {n}"));
    }
    recorder.finish(RunStatus::Finished).run_id
}

/// Every recorded answer, or why the recording is not read.
fn answers(store: &Store, run_id: &RunId) -> Result<Vec<Option<RecordedAnswer>>, String> {
    let reader = RunReader::open(store, run_id).map_err(|error| error.to_string())?;
    let cassette = RunCassette::load(&reader).map_err(|error| error.to_string())?;
    Ok((0..CALLS).map(|n| cassette.take(&request(n)).ok()).collect())
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Scenario: one bit of a recorded run flips, 5,000 times another one of any of its files.
/// Guarantees: R3 - the recording is refused and says which file, or every answer is the one that was
/// recorded; never another answer, never fewer of them without a word.
#[test]
fn a_flipped_bit_in_a_recording_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let run_id = record(&store);
    let recorded = answers(&store, &run_id).unwrap();
    assert!(recorded.iter().all(Option::is_some));
    let files = files_of(&store.run_dir(&run_id));
    let mut rng = Rng::new(11);
    let (mut refused, mut harmless) = (0, 0);
    for _ in 0..5_000 {
        let file = &files[rng.below(files.len() as u64) as usize];
        let sound = std::fs::read(file).unwrap();
        if sound.is_empty() {
            continue;
        }
        let mut damaged = sound.clone();
        let at = rng.below(damaged.len() as u64) as usize;
        damaged[at] ^= 1 << rng.below(8);
        std::fs::write(file, &damaged).unwrap();
        match answers(&store, &run_id) {
            Err(reason) => {
                refused += 1;
                assert!(!reason.is_empty());
            }
            Ok(found) => {
                harmless += 1;
                assert_eq!(found, recorded, "bit of byte {at} of {}", file.display());
            }
        }
        std::fs::write(file, &sound).unwrap();
    }
    assert_eq!(answers(&store, &run_id).unwrap(), recorded);
    println!("{refused} refused, {harmless} without effect");
    assert!(refused > 1_000, "{refused} refused");
}

const CALLS: usize = 12;
