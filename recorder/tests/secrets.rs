//! Secrets in what a program records: 40 canaries of different shapes, and a search for them in
//! every file and every output. The recording program runs as a child, so that its stderr counts.

use std::path::Path;
use std::process::Command;

use retake_recorder::{Recorder, RecorderBuilder, RunReader, Store};
use retake_schemas::event::{Capture, RunStatus};
use retake_schemas::settings::RecordSettings;
use retake_schemas::tables::{DocumentRow, EventRow, MeasureRow, PayloadRow, SpanRow};
use tracing_subscriber::layer::SubscriberExt;

/// The shapes; `@` is where the canary itself stands.
const SHAPES: [&str; 40] = [
    "sk-proj-@",
    "sk-@",
    "sk-ant-api03-@",
    "AKIA@",
    "aws_secret_access_key=@",
    "AWS_SECRET_ACCESS_KEY: '@'",
    "AIzaSy01234567890123456@",
    "ya29.0123456789@",
    "ghp_0123456789@",
    "gho_0123456789@",
    "github_pat_0123456789@",
    "glpat-0123456789@",
    "xoxb-0123456789-@",
    "xapp-1-0123456789@",
    "https://hooks.slack.com/services/T00000000/B00000000/@",
    "sk_live_@",
    "rk_live_@",
    "whsec_0123456789@",
    "hf_0123456789@",
    "gsk_0123456789@",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.@",
    "Authorization: Bearer @",
    "authorization: Basic @",
    "{\"authorization\": \"Bearer @\"}",
    "Cookie: theme=dark; sid=@",
    "Set-Cookie: sid=@; HttpOnly",
    "-----BEGIN RSA PRIVATE KEY-----\n@\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----\\n@",
    "postgres://app:@@db.example/x",
    "redis://:@@cache:6379",
    "https://@@git.example/r.git",
    "https://api.example/v1?key=@&page=2",
    "/items?page=2&access_token=@",
    "https://s3.example/o?X-Amz-Signature=@",
    "PASSWORD=@",
    "{\"api_key\": \"@\"}",
    "Config { password: Some(\"@\"), port: 1 }",
    "run --api-key @ --verbose",
    "X-Api-Key: @",
    "client_secret=@",
];

/// What is secret in the text of a shape: unique, and of a form all shapes allow.
fn canary(index: usize) -> String {
    format!("CANARYQ7ZX{index:02}90VB")
}

fn secrets() -> Vec<String> {
    // Two at signs in a row: the second one is the URL's own.
    let fill = |(index, shape): (usize, &&str)| shape.replacen('@', &canary(index), 1);
    SHAPES.iter().enumerate().map(fill).collect()
}

fn start(folder: &Path, capture: Capture) -> (Store, Recorder) {
    let store = Store::create(folder).unwrap();
    let settings = RecordSettings { capture, ..RecordSettings::default() };
    let recorder = RecorderBuilder::new("t", "svc").record_settings(settings);
    let recorder = recorder.start(&store).unwrap();
    (store, recorder)
}

/// Copies the journal as it is while the run goes on: what a killed process would leave.
fn copy_journal(store: &Store, recorder: &Recorder, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let journal = store.run_dir(recorder.run_id()).join("journal");
    for entry in std::fs::read_dir(journal).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Every place a canary is in: files as they are, and every table decoded.
fn leaks(store: &Store, folder: &Path) -> Vec<String> {
    let mut leaks = Vec::new();
    let mut search = |place: &str, bytes: &[u8]| {
        let hits = bytes.windows(CANARY.len()).enumerate().filter(|(_, part)| *part == CANARY);
        for (at, _) in hits {
            let near = &bytes[at.saturating_sub(40)..bytes.len().min(at + 24)];
            leaks.push(format!("{place}: {}", String::from_utf8_lossy(near)));
        }
    };
    let mut folders = vec![folder.to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files += 1;
                search(&path.display().to_string(), &std::fs::read(&path).unwrap());
            }
        }
    }
    assert!(files >= 3, "{files} files");
    for run_id in store.run_ids().unwrap() {
        let reader = RunReader::open(store, &run_id).unwrap();
        let spans: Vec<SpanRow> = reader.rows().unwrap();
        assert!(spans.len() >= SHAPES.len(), "{} spans", spans.len());
        search("spans", format!("{spans:?}").as_bytes());
        search("events", format!("{:?}", reader.rows::<EventRow>().unwrap()).as_bytes());
        search("payloads", format!("{:?}", reader.rows::<PayloadRow>().unwrap()).as_bytes());
        search("documents", format!("{:?}", reader.rows::<DocumentRow>().unwrap()).as_bytes());
        search("measures", format!("{:?}", reader.rows::<MeasureRow>().unwrap()).as_bytes());
        search("run", format!("{:?}", reader.run_row()).as_bytes());
    }
    leaks
}

/// Scenario: 40 canaries in prompts, answers and documents, under the policies that are no `full`.
/// Guarantees: P1 - content capture needs a flag: by default, and with `redacted`, none is in any
/// file of the run, not even in the journal while it is being written.
#[test]
fn canaries_in_content_stay_out() {
    for capture in [Capture::default(), Capture::Off, Capture::Redacted] {
        let folder = tempfile::tempdir().unwrap();
        let (store, recorder) = start(folder.path(), capture);
        let subscriber = tracing_subscriber::registry().with(recorder.layer());
        tracing::subscriber::with_default(subscriber, || {
            for text in secrets() {
                let span = tracing::info_span!(
                    "llm",
                    gen_ai.input.messages = format!("[{{\"content\": {text:?}}}]"),
                    output.value = text,
                );
                span.in_scope(|| {
                    tracing::info!(target: "retake::document", role = "retrieved", rank = 0,
                        id = "d", content = format!("before {text} after"));
                });
            }
        });
        copy_journal(&store, &recorder, &folder.path().join("journal-copy"));
        let _ = recorder.finish(RunStatus::Finished);
        assert_eq!(leaks(&store, folder.path()), Vec::<String>::new(), "{capture:?}");
        let reader = RunReader::open(&store, store.run_ids().unwrap().first().unwrap()).unwrap();
        let payloads: Vec<PayloadRow> = reader.rows().unwrap();
        let texts = payloads.iter().filter(|payload| payload.content.is_some()).count();
        assert_eq!(texts > 0, capture == Capture::Redacted, "{capture:?} kept {texts} texts");
    }
}

/// A value whose `Debug` fails with a secret in the message.
struct Panicking(String);

impl std::fmt::Debug for Panicking {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("cannot show {}", self.0)
    }
}

/// A value that shows a secret in front of much else, and may fail after it.
struct Shows {
    secret: String,
    more: usize,
    fails: bool,
}

impl std::fmt::Debug for Shows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.secret)?;
        for _ in 0..self.more {
            f.write_str(" and so on")?;
        }
        assert!(!self.fails, "after it was shown");
        Ok(())
    }
}

/// Scenario: values are formatted straight into the journal: the last thing recorded shows a
/// secret, or fails after it showed one, or does not fit what is left of the chunk.
/// Guarantees: P1 - what was taken out is not in the mapped files either, not even where no record
/// counts.
#[test]
fn what_is_taken_out_leaves_no_trace_in_the_memory_it_was_formatted_into() {
    for (more, fails, times) in [(0, false, 1), (50, false, 1), (5, true, 1), (700, false, 40)] {
        let folder = tempfile::tempdir().unwrap();
        let (store, recorder) = start(folder.path(), Capture::default());
        tracing::subscriber::with_default(recorder.subscriber(), || {
            for _ in 0..times {
                // Nothing but the secret's own text may be taken for it.
                let secret = format!("password={} {}", canary(7), "-".repeat(300));
                drop(tracing::info_span!("shows", value = ?Shows { secret, more, fails }));
            }
        });
        let journal = store.run_dir(recorder.run_id()).join("journal");
        for entry in std::fs::read_dir(journal).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let found = bytes.windows(CANARY.len()).filter(|part| *part == CANARY).count();
            assert_eq!(found, 0, "{more} more, fails: {fails}");
        }
        assert_eq!(recorder.finish(RunStatus::Finished).dropped, 0);
    }
}

/// The program of [`canaries_outside_content_stay_out`].
fn record_as_a_child(folder: &Path) {
    let (store, recorder) = start(folder, Capture::default());
    let subscriber = tracing_subscriber::registry().with(recorder.layer());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    for text in secrets() {
        let span = tracing::info_span!(
            "call",
            otel.name = format!("GET {text}"),
            http.request.header = text,
            url.full = text,
            env = ?[("HOME", "/root"), ("KEY", text.as_str())],
            bad = ?Panicking(text.clone()),
            late = tracing::field::Empty,
        );
        span.record("late", format!("late {text}"));
        span.in_scope(|| {
            tracing::info!(header = text, "sent {text}");
            let error = std::io::Error::other(format!("refused: {text}"));
            tracing::error!(error = &error as &dyn std::error::Error, "failed: {error}");
        });
    }
    copy_journal(&store, &recorder, &folder.join("journal-copy"));
    recorder.seal().unwrap();
    let _ = recorder.finish(RunStatus::Finished);
}

/// Scenario: 40 canaries in span names, attribute values, headers, URLs, dumps of the
/// environment, log messages, errors, and the message of a `Debug` that panics.
/// Guarantees: P1 - none is in a file, a decoded table, the journal, or on stderr.
#[test]
fn canaries_outside_content_stay_out() {
    if let Some(folder) = std::env::var_os(CHILD_FOLDER) {
        return record_as_a_child(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["canaries_outside_content_stay_out", "--exact", "--nocapture"])
        .env(CHILD_FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let said = [child.stdout, child.stderr].concat();
    std::fs::write(folder.path().join("said"), said).unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(leaks(&store, folder.path()), Vec::<String>::new());
}

/// How every canary begins.
const CANARY: &[u8] = b"CANARYQ7ZX";
const CHILD_FOLDER: &str = "RETAKE_TEST_SECRETS_FOLDER";
