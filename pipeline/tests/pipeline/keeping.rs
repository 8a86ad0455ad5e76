//! What an ingest keeps, finds again, leaves out and deletes: the cache and the strategies.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use retake_pipeline::cache::VectorCache;
use retake_pipeline::ingest::{IngestDeps, IngestReport, IngestRequest, Silent, ingest};
use retake_schemas::settings::{DocumentStrategy, RagSettings};
use tokio_util::sync::CancellationToken;

use crate::capture;
use crate::fixtures::{Backend, Watched, corpus, deps, settings, write_document};

async fn run(folder: &Path, deps: &IngestDeps, id: &str) -> IngestReport {
    let request = IngestRequest {
        roots: vec![folder.to_owned()],
        request_id: Some(id.to_owned()),
        ..IngestRequest::default()
    };
    ingest(request, deps, &Silent, CancellationToken::new()).await.unwrap()
}

/// What an ingest into a new store needs, with a cache that may have been filled before.
async fn cached(
    backend: &Backend,
    settings: &RagSettings,
    cache: &Path,
) -> (IngestDeps, Arc<Watched>) {
    let (deps, embedder) = deps(backend, settings).await;
    let cache = Arc::new(VectorCache::open(cache, 1 << 30).await.unwrap());
    (IngestDeps { cache: Some(cache), ..deps }, embedder)
}

/// Scenario: a thousand documents are ingested; then, into a new store, the same with one changed.
/// LlamaIndex has one key for the whole batch and makes all 1,000 again.
/// Guarantees: the chunks of the changed document are made again, and no others, over a restart of
/// the cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_changed_document_of_a_thousand_recomputes_one() {
    let (folder, caches) = (corpus(1_000), tempfile::tempdir().unwrap());
    let cache = caches.path().join("cache.sqlite");
    let first = {
        let backend = Backend::sqlite();
        let (deps, _) = cached(&backend, &settings(), &cache).await;
        run(folder.path(), &deps, "thousand-1").await
    };
    assert_eq!((first.committed, first.chunks_cached), (1_000, 0));

    write_document(folder.path(), 7, "second");
    let backend = Backend::sqlite();
    let (deps, embedder) = cached(&backend, &settings(), &cache).await;
    let second = run(folder.path(), &deps, "thousand-2").await;
    assert_eq!((second.committed, second.chunks), (1_000, first.chunks));
    let made = embedder.take_count() as u64;
    assert_eq!(made, second.chunks_embedded);
    assert!((1..=second.chunks / 1_000 + 2).contains(&made), "{made} chunks made again");
    assert_eq!(second.chunks_cached, second.chunks - made);
    assert_eq!(deps.store.stats().await.unwrap().chunks, second.chunks);
    let vector = retake_pipeline::embed::hashing::HashingEmbedder::new(64).unwrap();
    let hits = deps.store.search(&vector.vector("subject500 topic 500"), 1).await.unwrap();
    assert_eq!(hits[0].chunk.document_id, "doc500.md", "cached vectors are those of their texts");
}

/// Scenario: documents are ingested by one worker in batches of 8, then by eight in batches of 3.
/// LlamaIndex's workers slice the batch, and the slices have other keys.
/// Guarantees: how the work is shared out changes no key: nothing is made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_and_batches_share_one_cache() {
    let (folder, caches) = (corpus(30), tempfile::tempdir().unwrap());
    let cache = caches.path().join("cache.sqlite");
    let mut made = Vec::new();
    for (workers, batch_size) in [(1, 8), (8, 3)] {
        let mut settings = settings();
        settings.workers = workers;
        settings.embed.batch_size = batch_size;
        let backend = Backend::sqlite();
        let (deps, embedder) = cached(&backend, &settings, &cache).await;
        let report = run(folder.path(), &deps, "shared").await;
        assert_eq!(report.committed, 30);
        made.push(embedder.take_count() as u64);
        assert_eq!(report.chunks, made[0]);
    }
    assert_eq!(made[1], 0);
}

/// Scenario: the cache's file is damaged while it is used.
/// Guarantees: the ingest goes on without it.
#[tokio::test]
async fn a_cache_that_fails_costs_time_and_nothing_else() {
    let (folder, caches) = (corpus(5), tempfile::tempdir().unwrap());
    let cache = caches.path().join("cache.sqlite");
    let backend = Backend::sqlite();
    let (deps, embedder) = cached(&backend, &settings(), &cache).await;
    let held = deps.cache.as_ref().unwrap();
    held.clear(None).await.unwrap();
    held.flush().await.unwrap();
    std::fs::write(&cache, b"no database").unwrap();
    let request =
        IngestRequest { roots: vec![folder.path().to_owned()], ..IngestRequest::default() };
    // Emptying its log at the end may tell of the damage; the documents are committed by then.
    let _ = ingest(request, &deps, &Silent, CancellationToken::new()).await;
    assert_eq!(deps.store.stats().await.unwrap().documents, 5);
    assert!(embedder.take_count() > 0);
}

/// Scenario: embedding fails in the middle of an update of documents that are in the collection.
/// LlamaIndex deletes the old vectors first (4 -> 0) and takes the failed document as seen.
/// Guarantees: every old version stays searchable, and the next run does what is missing.
#[tokio::test]
async fn a_failed_ingestion_loses_nothing_and_is_retried() {
    for backend in Backend::all("keep_failed") {
        let folder = corpus(12);
        let (deps, embedder) = deps(&backend, &settings()).await;
        let first = run(folder.path(), &deps, "fail-1").await;
        let before = deps.store.stats().await.unwrap();
        for number in 0..12 {
            write_document(folder.path(), number, "second");
        }
        *embedder.poison.lock() = Some("document");
        let second = run(folder.path(), &deps, "fail-2").await;
        assert_eq!((second.failed, second.committed), (12, 0), "{}", backend.name);
        assert_eq!(deps.store.stats().await.unwrap(), before, "nothing is lost");
        *embedder.poison.lock() = None;
        let third = run(folder.path(), &deps, "fail-3").await;
        assert_eq!((third.committed, third.unchanged), (12, 0), "{}", backend.name);
        assert_ne!(third.corpus, first.corpus);
    }
}

/// Scenario: twenty documents, of which half are copies under other names; some fail to embed.
/// Guarantees: with `duplicates_only` each content is in the collection once, even when the first
/// document that has it fails; copies that come later are left out too.
#[tokio::test]
async fn a_content_is_kept_once_when_duplicates_are_not_wanted() {
    for backend in Backend::all("keep_duplicates") {
        let folder = corpus(10);
        for number in 0..10 {
            let from = folder.path().join(format!("doc{number:03}.md"));
            std::fs::copy(from, folder.path().join(format!("copy{number:03}.md"))).unwrap();
        }
        let mut settings = settings();
        settings.ingest.strategy = DocumentStrategy::DuplicatesOnly;
        let (deps, _) = deps(&backend, &settings).await;
        let first = run(folder.path(), &deps, "dup-1").await;
        assert_eq!((first.committed, first.duplicates), (10, 10), "{}", backend.name);
        assert_eq!(deps.store.stats().await.unwrap().documents, 10);
        std::fs::write(
            folder.path().join("later.md"),
            std::fs::read(folder.path().join("doc003.md")).unwrap(),
        )
        .unwrap();
        let second = run(folder.path(), &deps, "dup-2").await;
        assert_eq!((second.unchanged, second.duplicates, second.committed), (10, 11, 0));
    }
}

/// Scenario: of three documents with the same content the first cannot be committed.
/// Guarantees: the next takes its place; the content is not lost with the first.
#[tokio::test]
async fn a_copy_takes_the_place_of_a_document_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.md", "b.md", "c.md"] {
        std::fs::write(folder.path().join(name), "The same words in all of them.").unwrap();
    }
    let backend = Backend::sqlite();
    let mut settings = settings();
    settings.ingest.strategy = DocumentStrategy::DuplicatesOnly;
    let (deps, embedder) = deps(&backend, &settings).await;
    *embedder.poison.lock() = Some("same words");
    let failing = run(folder.path(), &deps, "twin-1").await;
    assert_eq!((failing.failed, failing.duplicates, failing.committed), (3, 0, 0));
    *embedder.poison.lock() = None;
    let second = run(folder.path(), &deps, "twin-2").await;
    assert_eq!((second.committed, second.duplicates), (1, 2));
}

/// Scenario: documents vanish from the disk.
/// Guarantees: with `upserts_and_delete` they go with their vectors, and those of another root
/// stay.
#[tokio::test]
async fn what_vanished_is_deleted_with_its_vectors() {
    for backend in Backend::all("keep_delete") {
        let (folder, other) = (corpus(8), corpus(3));
        for number in 0..3 {
            let from = other.path().join(format!("doc{number:03}.md"));
            std::fs::rename(from, other.path().join(format!("other{number}.md"))).unwrap();
        }
        let mut settings = settings();
        settings.ingest.strategy = DocumentStrategy::UpsertsAndDelete;
        let (deps, _) = deps(&backend, &settings).await;
        run(folder.path(), &deps, "del-1").await;
        let both = run(other.path(), &deps, "del-2").await;
        assert_eq!(both.deleted, 0, "documents of another root stay");
        let before = deps.store.stats().await.unwrap();
        std::fs::remove_file(folder.path().join("doc002.md")).unwrap();
        let third = run(folder.path(), &deps, "del-3").await;
        assert_eq!((third.deleted, third.unchanged), (1, 7), "{}", backend.name);
        let after = deps.store.stats().await.unwrap();
        assert_eq!(after.documents, before.documents - 1);
        assert!(after.chunks < before.chunks);
        let left = deps.store.documents().await.unwrap();
        assert!(left.iter().all(|held| held.id != "doc002.md"));
    }
}

/// Scenario: every call takes longer than the target.
/// Guarantees: the batch shrinks, and every change is an event of the ingest.
#[tokio::test]
async fn every_change_of_the_batch_size_is_an_event() {
    capture::install();
    let folder = corpus(40);
    let backend = Backend::sqlite();
    let mut settings = settings();
    settings.embed.adaptive = true;
    settings.embed.latency_target_ms = 1;
    settings.workers = 1;
    let (deps, embedder) = deps(&backend, &settings).await;
    *embedder.delay.lock() = Duration::from_millis(3);
    let report = run(folder.path(), &deps, "adaptive-1").await;
    assert_eq!(report.committed, 40);
    assert_eq!(report.batch_changes, 3, "8 -> 4 -> 2 -> 1");
    let spans = capture::trace("adaptive-1");
    let is_change = |fields: &capture::Fields| {
        fields.get("message").is_some_and(|text| text.contains("batch size changed"))
            && fields.get("reason").is_some_and(|reason| reason == "latency")
    };
    let changes = spans[0].events.iter().filter(|(_, fields)| is_change(fields)).count();
    assert_eq!(changes as u64, report.batch_changes, "{:?}", spans[0].events);
}
