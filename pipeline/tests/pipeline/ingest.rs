//! Ingesting folders.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use retake_pipeline::ingest::{
    DocumentOutcome, IngestDeps, IngestProgress, IngestReport, IngestRequest, Silent, ingest,
};
use retake_schemas::settings::RagSettings;
use tokio_util::sync::CancellationToken;

use crate::capture::{self, named};
use crate::fixtures::{Backend, corpus, deps, document, settings, spec, write_document};

fn request(folder: &std::path::Path, id: &str) -> IngestRequest {
    IngestRequest {
        roots: vec![folder.to_owned()],
        request_id: Some(id.to_owned()),
        ..IngestRequest::default()
    }
}

async fn run(folder: &std::path::Path, deps: &IngestDeps, id: &str) -> IngestReport {
    ingest(request(folder, id), deps, &Silent, CancellationToken::new()).await.unwrap()
}

/// Scenario: sixty documents, then the same again, then one of them changed.
/// Guarantees: the second run embeds nothing; the third embeds the chunks of the changed document
/// and no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_changed_is_done_again() {
    for backend in Backend::all("resume") {
        let folder = corpus(60);
        let (deps, embedder) = deps(&backend, &settings()).await;
        let first = run(folder.path(), &deps, "resume-1").await;
        assert_eq!((first.found, first.committed, first.failed), (60, 60, 0));
        assert_eq!(first.chunks, embedder.take_count() as u64);
        assert_eq!(deps.store.stats().await.unwrap().chunks, first.chunks);

        let second = run(folder.path(), &deps, "resume-2").await;
        assert_eq!((second.committed, second.unchanged), (0, 60), "{}", backend.name);
        assert_eq!((embedder.take_count(), second.batches), (0, 0));
        assert_eq!(second.corpus, first.corpus);

        write_document(folder.path(), 7, "second");
        let third = run(folder.path(), &deps, "resume-3").await;
        assert_eq!((third.committed, third.unchanged), (1, 59));
        assert_eq!(embedder.take_count() as u64, third.chunks);
        assert!(third.chunks < 10 && third.corpus != first.corpus);
        assert_eq!(deps.store.stats().await.unwrap().documents, 60);

        std::fs::remove_file(folder.path().join("doc008.md")).unwrap();
        let fourth = run(folder.path(), &deps, "resume-4").await;
        assert_eq!((fourth.unchanged, fourth.committed), (59, 0));
        assert_eq!(deps.store.stats().await.unwrap().documents, 60, "what vanished is left alone");
    }
}

#[tokio::test]
async fn other_chunking_is_another_version() {
    let backend = Backend::sqlite();
    let folder = corpus(5);
    let (deps_before, _) = deps(&backend, &settings()).await;
    run(folder.path(), &deps_before, "chunking-1").await;
    let smaller = RagSettings { chunk: smaller_chunks(), ..settings() };
    let (deps_after, _) = deps(&backend, &smaller).await;
    let report = run(folder.path(), &deps_after, "chunking-2").await;
    assert_eq!((report.committed, report.unchanged), (5, 0));
    assert_eq!(deps_after.store.stats().await.unwrap().chunks, report.chunks);
}

fn smaller_chunks() -> retake_schemas::settings::ChunkSettings {
    retake_schemas::settings::ChunkSettings { size: 12, overlap: 2 }
}

/// Ends the ingest after some documents.
struct CancelAfter {
    documents: AtomicU64,
    cancel: CancellationToken,
}

impl IngestProgress for CancelAfter {
    fn document_done(&self, _: &DocumentOutcome<'_>) {
        if self.documents.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancel.cancel();
        }
    }
}

/// Scenario: an ingest is cancelled in the middle, and run again.
/// Guarantees: it ends soon, what is committed is whole, and the second run does the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_ingest_is_finished_by_the_next() {
    capture::install();
    for backend in Backend::all("cancel") {
        let folder = corpus(80);
        let (deps, embedder) = deps(&backend, &settings()).await;
        *embedder.delay.lock() = Duration::from_millis(20);
        let cancel = CancellationToken::new();
        let progress = CancelAfter { documents: AtomicU64::new(20), cancel: cancel.clone() };
        let began = std::time::Instant::now();
        let report =
            ingest(request(folder.path(), "cancel-1"), &deps, &progress, cancel).await.unwrap();
        assert!(report.is_cancelled && report.committed >= 20 && report.committed < 80);
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(deps.store.stats().await.unwrap().documents, report.committed);
        let spans = capture::trace("cancel-1");
        assert!(
            named(&spans, "ingest").iter().all(|root| root.fields["retake.cancelled"] == "true")
        );

        *embedder.delay.lock() = Duration::ZERO;
        let rest = run(folder.path(), &deps, "cancel-2").await;
        assert_eq!(rest.unchanged, report.committed, "{}", backend.name);
        assert_eq!((rest.committed + rest.unchanged, rest.is_cancelled), (80, false));
    }
}

/// Scenario: among good documents there are a binary file, one that is too large, and one that
/// is no UTF-8.
/// Guarantees: they are counted, named, and have error spans; the others are committed.
#[tokio::test]
async fn bad_files_stop_nothing() {
    capture::install();
    let backend = Backend::sqlite();
    let folder = corpus(10);
    std::fs::write(folder.path().join("binary.md"), b"PK\x03\x04\0\0binary").unwrap();
    std::fs::write(folder.path().join("latin.txt"), b"caf\xe9").unwrap();
    std::fs::write(folder.path().join("large.txt"), "x".repeat(5000)).unwrap();
    std::fs::write(folder.path().join("empty.txt"), "").unwrap();
    let mut settings = settings();
    settings.load.file_bytes_max = 4096;
    let (deps, _) = deps(&backend, &settings).await;
    let report = run(folder.path(), &deps, "bad-files").await;
    assert_eq!((report.found, report.committed, report.failed), (14, 11, 3));
    let ids: Vec<&str> = report.failures.iter().map(|failure| failure.id.as_str()).collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["binary.md", "large.txt", "latin.txt"]);
    assert!(report.failures.iter().all(|failure| failure.error_type == "not_text"));

    let spans = capture::trace("bad-files");
    let failed: Vec<_> = spans
        .iter()
        .filter(|span| span.fields.get("otel.status_code").is_some_and(|code| code == "ERROR"))
        .collect();
    assert_eq!(failed.len(), 3);
    for span in failed {
        assert_eq!((span.name, span.fields["error.type"].as_str()), ("load", "not_text"));
        assert!(span.fields["otel.status_description"].contains("read "));
    }
    let again = run(folder.path(), &deps, "bad-files-2").await;
    assert_eq!((again.unchanged, again.failed), (11, 3), "an empty document is seen, too");
}

/// Scenario: the service fails every call that has a certain word in it.
/// Guarantees: only documents in those calls fail; the next run makes up for them.
#[tokio::test]
async fn a_failed_batch_fails_its_documents_only() {
    let backend = Backend::sqlite();
    let folder = corpus(30);
    let (deps, embedder) = deps(&backend, &settings()).await;
    *embedder.poison.lock() = Some("subject13");
    let report = run(folder.path(), &deps, "poison-1").await;
    assert!((1..=9).contains(&report.failed), "{}", report.failed);
    assert_eq!(report.committed + report.failed, 30);
    assert!(report.failures.iter().any(|failure| failure.id == "doc013.md"));
    assert!(report.failures.iter().all(|failure| failure.error_type == "service_unavailable"));
    *embedder.poison.lock() = None;
    let rest = run(folder.path(), &deps, "poison-2").await;
    assert_eq!((rest.committed, rest.unchanged), (report.failed, report.committed));
}

/// Guarantees: what would fail for every document stops the run with that error.
#[tokio::test]
async fn another_model_or_a_missing_root_stops() {
    let backend = Backend::sqlite();
    let folder = corpus(3);
    let made = backend.open_with(&spec("default", 2)).await;
    made.commit(&[document("d", &[("d", &[1.0, 0.0])])]).await.unwrap();
    let (mut deps, _) = deps(&backend, &settings()).await;
    let cancel = CancellationToken::new();
    let error =
        ingest(request(folder.path(), "stops"), &deps, &Silent, cancel.clone()).await.unwrap_err();
    assert_eq!(error.error_type(), "model_mismatch");
    deps.settings.vectors.collection = "other".to_owned();
    let missing = folder.path().join("missing");
    let error = ingest(request(&missing, "stops"), &deps, &Silent, cancel).await.unwrap_err();
    assert_eq!(error.error_type(), "not_found");
}

/// Scenario: an ingest with four workers and small batches.
/// Guarantees: one tree; the root covers its children; every embedding call names its members, and
/// together they are all chunks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn spans_of_an_ingest_are_one_tree() {
    capture::install();
    let backend = Backend::sqlite();
    let folder = corpus(25);
    let settings = RagSettings { workers: 4, ..settings() };
    let (deps, _) = deps(&backend, &settings).await;
    let report = run(folder.path(), &deps, "tree").await;
    let spans = capture::trace("tree");
    let root = &spans[0];
    assert!(spans.iter().skip(1).all(|span| span.parent == Some(0)), "{}", capture::tree(&spans));
    assert!(spans.iter().skip(1).all(|span| span.ended < root.ended && span.ended.is_some()));
    for (name, count) in [("load", 25), ("chunk", 25), ("index", 1)] {
        assert_eq!(named(&spans, name).len(), count, "{name}");
    }
    assert_eq!(root.fields["retake.kind"], "ingest");
    assert_eq!(root.fields["retake.operation"], "ingest");
    assert_eq!(root.fields["retake.document.count"], "25");
    assert_eq!(root.fields["retake.corpus.digest"], report.corpus.to_string());
    let input: serde_json::Value = serde_json::from_str(&root.fields["input.value"]).unwrap();
    assert_eq!(input["roots"][0].as_str(), folder.path().to_str());
    assert_eq!(input["collection"], "default");

    let mut members: Vec<String> = Vec::new();
    let embeds = named(&spans, "embed");
    for embed in &embeds {
        let batch: Vec<_> =
            embed.events.iter().filter(|(target, _)| target == "retake::document").collect();
        assert_eq!(embed.fields["retake.batch.size"], batch.len().to_string());
        assert_eq!(embed.fields["retake.embedding.count"], batch.len().to_string());
        assert_eq!(embed.fields["gen_ai.operation.name"], "embeddings");
        assert_eq!(embed.fields["gen_ai.embeddings.dimension.count"], "64");
        assert_eq!(embed.fields["retake.tokens.source"], "tokenizer");
        for field in ["retake.queue_ns", "retake.batch.index", "gen_ai.usage.input_tokens"] {
            assert!(embed.fields[field].parse::<u64>().is_ok(), "{field}");
        }
        for (rank, (_, fields)) in batch.iter().enumerate() {
            assert_eq!(fields["role"], "batch_member");
            assert_eq!(fields["rank"], rank.to_string());
            members.push(fields["id"].clone());
        }
    }
    members.sort_unstable();
    members.dedup();
    assert_eq!(members.len() as u64, report.chunks);
    assert_eq!(embeds.len() as u64, report.batches);
    let rows: u64 = named(&spans, "insert")
        .iter()
        .map(|insert| insert.fields["retake.batch.size"].parse::<u64>().unwrap())
        .sum();
    assert_eq!(rows, report.chunks);
    check_unchanged(folder.path(), &deps).await;
}

async fn check_unchanged(folder: &std::path::Path, deps: &IngestDeps) {
    run(folder, deps, "tree-again").await;
    let spans = capture::trace("tree-again");
    assert_eq!(named(&spans, "load").len(), 25);
    assert!(named(&spans, "load").iter().all(|load| load.fields["retake.cache_hit"] == "true"));
    assert_eq!(spans.len(), 27, "root, loads, index: {}", capture::tree(&spans));
}

/// Counts what a person would see.
#[derive(Default)]
struct Counted {
    found: AtomicU64,
    done: AtomicU64,
    chunks: AtomicU64,
}

impl IngestProgress for Counted {
    fn discovered(&self, documents: u64) {
        self.found.store(documents, Ordering::Relaxed);
    }

    fn document_done(&self, _: &DocumentOutcome<'_>) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn batch_done(&self, chunks: u64) {
        self.chunks.fetch_add(chunks, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn progress_adds_up() {
    let backend = Backend::sqlite();
    let folder = corpus(12);
    let (deps, _) = deps(&backend, &settings()).await;
    let progress = Arc::new(Counted::default());
    let cancel = CancellationToken::new();
    let report =
        ingest(request(folder.path(), "progress"), &deps, &*progress, cancel).await.unwrap();
    assert_eq!(progress.found.load(Ordering::Relaxed), 12);
    assert_eq!(progress.done.load(Ordering::Relaxed), 12);
    assert_eq!(progress.chunks.load(Ordering::Relaxed), report.chunks);
}
