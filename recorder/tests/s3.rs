//! Copies of runs on a server that speaks S3, reached as a user reaches it: by a URL and the
//! environment.
//!
//! `RETAKE_TEST_S3_SERVER` names a program that takes a port and answers there as S3 does; without
//! it the test skips and says so. A process cannot change its own environment safely, so the test
//! starts itself once more with the variables set.
#![cfg(feature = "cloud")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use retake_recorder::remote::{Remote, RemoteError};
use retake_recorder::{RecorderBuilder, RunReader, Store};
use retake_schemas::event::{EventBody, Payload, RunStatus};
use retake_schemas::tables::PayloadRow;
use retake_schemas::{Digest, RunId};

const TEST: &str = "runs_go_to_s3_and_back";
const SECRET: &str = "test-secret-that-must-not-be-shown";

/// Scenario: a run with a file of more than 8 MiB goes to S3 and comes back; then it is labelled
/// and pushed again, the push is repeated, and credentials are missing.
/// Guarantees: the rows are the same, large files go in parts, put-if-absent and the newer
/// manifest work on S3, and P1 - no credential is in any message.
#[test]
fn runs_go_to_s3_and_back() {
    if std::env::var_os("RETAKE_TEST_S3_CHILD").is_some() {
        return there_and_back();
    }
    let Some(program) = std::env::var_os("RETAKE_TEST_S3_SERVER") else {
        eprintln!("{TEST}: skipped: RETAKE_TEST_S3_SERVER names no S3 server");
        return;
    };
    let server = Server::start(&program);
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args([TEST, "--exact", "--nocapture"])
        .env("RETAKE_TEST_S3_CHILD", "1")
        .env("AWS_ACCESS_KEY_ID", "test-key")
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", server.port))
        .env("AWS_ALLOW_HTTP", "true")
        .output()
        .expect("the test starts itself");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(SECRET));
}

fn there_and_back() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (here, there) = (Scratch::new(), Scratch::new());
        let run_id = large_run(&here.store);
        let remote = Remote::create("s3://runs/team/a").expect("a remote");
        let pushed = remote.push(&here.store, &run_id, &|_| {}).await.expect("pushed");
        assert!(pushed.bytes_sent > 8 << 20, "{pushed:?}");
        assert!(remote.push(&here.store, &run_id, &|_| {}).await.expect("again").was_complete);

        remote.pull(&there.store, &run_id, &|_| {}).await.expect("pulled");
        assert_eq!(payloads(&there.store, &run_id), payloads(&here.store, &run_id));
        assert!(there.store.verify(&run_id).expect("verified").is_sound());

        let label = ("ci".to_owned(), "x".to_owned());
        here.store
            .update_manifest(&run_id, |manifest| manifest.facts.labels.extend([label]))
            .expect("labelled");
        let pushed = remote.push(&here.store, &run_id, &|_| {}).await.expect("the newer one");
        assert_eq!(pushed.files_sent, 0, "{pushed:?}");
        let listing = remote.runs_there().await.expect("listed");
        let labels = listing.runs.iter().map(|(_, m)| m.as_ref().expect("read").facts.labels.len());
        assert_eq!(labels.collect::<Vec<_>>(), [1]);
        let error = remote.push(&there.store, &run_id, &|_| {}).await.expect_err("an older one");
        assert!(matches!(error, RemoteError::Conflict { .. }), "{error}");

        let nowhere = Remote::create("s3://no-such-bucket").expect("a remote");
        let error = nowhere.push(&here.store, &run_id, &|_| {}).await.expect_err("no bucket");
        let said = error.to_string();
        assert!(!said.contains(SECRET) && !said.contains("Signature="), "{said}");
    });
}

/// A run whose payloads do not compress well: their file has more than one part.
fn large_run(store: &Store) -> RunId {
    let recorder = RecorderBuilder::new("large", "svc").start(store).expect("a recorder");
    for n in 0..24_u64 {
        let mut text = String::new();
        let mut digest = Digest::of(&n.to_le_bytes());
        while text.len() < 1 << 20 {
            text.push_str(&digest.to_string());
            digest = Digest::of(digest.as_bytes());
        }
        recorder.dispatcher().emit(&EventBody::Payload(Payload {
            digest: Digest::of(text.as_bytes()),
            bytes: text.len() as u64,
            media_type: "text/plain".to_owned(),
            content: Some(text),
            truncated: false,
        }));
    }
    let run_id = recorder.run_id().clone();
    let summary = recorder.finish(RunStatus::Finished);
    assert_eq!((summary.dropped, summary.unsealed), (0, None));
    run_id
}

fn payloads(store: &Store, run_id: &RunId) -> Vec<PayloadRow> {
    let rows: Vec<PayloadRow> =
        RunReader::open(store, run_id).expect("opens").rows().expect("rows");
    assert_eq!(rows.len(), 24);
    rows
}

struct Scratch {
    _folder: tempfile::TempDir,
    store: Store,
}

impl Scratch {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("scratch");
        let store = Store::create(folder.path()).expect("a store");
        Self { _folder: folder, store }
    }
}

/// An S3 server with a bucket `runs`; it stops with the value.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(program: &std::ffi::OsStr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        drop(listener);
        let mut command = Command::new(program);
        command.arg(port.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { child: command.spawn().expect("the server starts"), port };
        let until = Instant::now() + START_MAX;
        while !server.made_bucket() {
            assert!(Instant::now() < until, "the server does not answer");
            std::thread::sleep(Duration::from_millis(200));
        }
        server
    }

    fn made_bucket(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            let host = format!("127.0.0.1:{}", self.port);
            write!(
                stream,
                "PUT /runs HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Python server on a busy machine takes its time to start.
const START_MAX: Duration = Duration::from_secs(60);
