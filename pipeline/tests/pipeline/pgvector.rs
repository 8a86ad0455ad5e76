//! What only PostgreSQL can do, and only PostgreSQL can do wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use retake_pipeline::document::Hit;
use retake_pipeline::store::postgres::{PostgresStore, SearchMode};
use retake_pipeline::store::{EmbeddedDocument, StoreStats, VectorStore as _, Wanted};
use retake_schemas::settings::{VectorIndex, VectorSettings};
use sqlx::{Connection as _, Executor as _};

use crate::fixtures::{Backend, Random, document, spec};

const TOP_K: usize = 10;

async fn store(backend: &Backend, collection: &str, dim: usize) -> PostgresStore {
    let url = backend.settings.url.as_deref().unwrap();
    let store = PostgresStore::connect(url, &backend.settings).await.unwrap();
    store.open_collection(&spec(collection, dim)).await.unwrap();
    store
}

async fn admin(backend: &Backend) -> sqlx::PgConnection {
    sqlx::PgConnection::connect(backend.settings.url.as_deref().unwrap()).await.unwrap()
}

/// `count` vectors around 40 centres, in documents of 50 chunks.
fn clustered(count: usize, dim: usize) -> Vec<EmbeddedDocument> {
    let mut random = Random(7);
    let mut point = |spread: f32, around: &[f32]| -> Vec<f32> {
        around.iter().map(|centre| centre + spread * (random.next() - 0.5)).collect()
    };
    let centres: Vec<Vec<f32>> = (0..40).map(|_| point(2.0, &vec![0.0; dim])).collect();
    let vectors: Vec<Vec<f32>> = (0..count).map(|n| point(0.6, &centres[n % 40])).collect();
    vectors
        .chunks(50)
        .enumerate()
        .map(|(number, vectors)| {
            let chunks: Vec<(&str, &[f32])> =
                vectors.iter().map(|vector| ("t", vector.as_slice())).collect();
            document(&format!("d{number:03}"), &chunks)
        })
        .collect()
}

fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.chunk.id.as_str()).collect()
}

/// Scenario: 2,000 clustered vectors, 100 queries near them, narrow vectors and wide ones that
/// only fit an index of half precision; both kinds of index.
/// Guarantees: V3 - recall@10 of the index against the exact scan is at least 0.95, the index is
/// really used, and results are in order.
#[tokio::test]
async fn the_index_finds_what_an_exact_scan_finds() {
    let Some(mut backend) = Backend::postgres("recall") else { return };
    for (collection, dim, count, index) in [
        ("recall", 64, 2000, VectorIndex::Hnsw),
        ("recall-wide", 2100, 1200, VectorIndex::Hnsw),
        ("recall-lists", 64, 2000, VectorIndex::Ivfflat),
        ("recall-lists-wide", 2100, 1200, VectorIndex::Ivfflat),
    ] {
        backend.settings.index = index;
        let store = store(&backend, collection, dim).await;
        let documents = clustered(count, dim);
        store.commit(&documents).await.unwrap();
        assert_eq!(store.search_mode(), SearchMode::Exact);
        store.finish_load().await.unwrap();
        assert_eq!(store.search_mode(), SearchMode::Indexed);
        let recall = recall(&store, &documents).await;
        eprintln!("{collection}: recall@10 = {recall:.4} over 100 queries of {count} x {dim}");
        assert!(recall >= 0.95, "{recall}");
        // More than the candidates an index scan looks at by default.
        assert_eq!(store.search(&documents[0].chunks[0].1, 1100).await.unwrap().len(), 1100);
    }
    assert!(index_scans(&backend, "hnsw").await >= 200, "the graph is not used");
    assert!(index_scans(&backend, "ivfflat").await >= 200, "the lists are not used");
}

/// Recall@10 of the index over 100 queries near the vectors of `documents`.
async fn recall(store: &PostgresStore, documents: &[EmbeddedDocument]) -> f64 {
    let (mut found, mut wanted) = (0, 0);
    let mut random = Random(8);
    let ten = Wanted::of_all(TOP_K);
    for number in 0..100 {
        let (_, near) = &documents[number % documents.len()].chunks[number % 50];
        let query: Vec<f32> = near.iter().map(|v| v + 0.2 * (random.next() - 0.5)).collect();
        let exact = store.search_by(SearchMode::Exact, &query, ten).await.unwrap();
        let indexed = store.search_by(SearchMode::Indexed, &query, ten).await.unwrap();
        assert_eq!((exact.len(), indexed.len()), (TOP_K, TOP_K));
        assert!(indexed.is_sorted_by(|a, b| a.similarity >= b.similarity));
        let exact = ids(&exact);
        found += ids(&indexed).iter().filter(|id| exact.contains(id)).count();
        wanted += exact.len();
    }
    f64::from(found as u32) / f64::from(wanted as u32)
}

/// Scenario: a collection whose settings ask for another index, for other parameters, for none,
/// and whose lists were laid when it was a tenth as large.
/// Guarantees: the next load builds what is asked for, and only if it is not there; searches by one
/// list find less than those by all, so parameters reach the database.
#[tokio::test]
async fn another_kind_of_index_is_built_by_the_next_load() {
    let Some(mut backend) = Backend::postgres("kinds") else { return };
    let backend_url = backend.settings.url.clone().unwrap();
    let documents = clustered(3000, 32);
    let first = store(&backend, "kinds", 32).await;
    first.commit(&documents[..24]).await.unwrap();
    drop(first);
    let load = |settings: VectorSettings| {
        let url = backend_url.clone();
        async move {
            let store = PostgresStore::connect(&url, &settings).await.unwrap();
            store.open_collection(&spec("kinds", 32)).await.unwrap();
            store.finish_load().await.unwrap();
            store
        }
    };
    let mut before = String::new();
    for (change, expected) in [
        (VectorSettings::default(), "hnsw {m=16,ef_construction=64}"),
        (VectorSettings { hnsw_m: 8, ..Default::default() }, "hnsw {m=8,ef_construction=64}"),
        (
            VectorSettings { index: VectorIndex::Ivfflat, ..Default::default() },
            "ivfflat {lists=10}",
        ),
        (
            VectorSettings { index: VectorIndex::Ivfflat, ivfflat_lists: 40, ..Default::default() },
            "ivfflat {lists=40}",
        ),
        (VectorSettings { index: VectorIndex::None, ..Default::default() }, ""),
        (VectorSettings::default(), "hnsw {m=16,ef_construction=64}"),
    ] {
        let settings = VectorSettings { pool_size: 2, ..change };
        let store = load(settings.clone()).await;
        let built = index_of(&backend, "kinds").await;
        let (shape, file) = built.split_once('#').unwrap_or_default();
        assert_eq!(shape, expected);
        let is_exact = store.search_mode() == SearchMode::Exact;
        assert_eq!(is_exact, expected.is_empty());
        assert!(expected.is_empty() || before != file, "{expected}: it is another index");
        load(settings).await;
        assert_eq!(index_of(&backend, "kinds").await, built, "built once");
        before = file.to_owned();
    }
    // Lists of a collection that has grown since are laid anew.
    backend.settings.index = VectorIndex::Ivfflat;
    let store = load(backend.settings.clone()).await;
    let lists = index_of(&backend, "kinds").await;
    store.commit(&documents).await.unwrap();
    store.finish_load().await.unwrap();
    assert_eq!(index_of(&backend, "kinds").await, lists, "3,000 vectors take as many lists");

    backend.settings.ivfflat_lists = 40;
    backend.settings.ivfflat_probes = 1;
    let narrow = recall(&load(backend.settings.clone()).await, &documents).await;
    backend.settings.ivfflat_probes = 40;
    let whole = recall(&load(backend.settings.clone()).await, &documents).await;
    eprintln!("kinds: recall@10 by 1 list of 40 = {narrow:.3}, by all = {whole:.3}");
    assert!(whole > 0.999 && narrow < whole, "{narrow} {whole}");
}

/// Access method, parameters and file of the vector index of a collection; empty without one.
async fn index_of(backend: &Backend, collection: &str) -> String {
    let found: Option<String> = sqlx::query_scalar(
        "SELECT format('%s %s#%s', am.amname, c.reloptions, pg_relation_filenode(c.oid))
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam
         JOIN retake.collections held ON i.indrelid = to_regclass('retake.chunks_' || held.id)
         WHERE held.name = $1 AND am.amname IN ('hnsw', 'ivfflat')",
    )
    .bind(collection)
    .fetch_optional(&mut admin(backend).await)
    .await
    .unwrap();
    found.unwrap_or_default()
}

/// Statistics arrive up to a second late.
async fn index_scans(backend: &Backend, method: &str) -> i64 {
    let mut admin = admin(backend).await;
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let scans: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_indexes
             WHERE indexrelname LIKE 'chunks%' || $1",
        )
        .bind(method)
        .fetch_one(&mut admin)
        .await
        .unwrap();
        if scans >= 200 || Instant::now() > deadline {
            return scans;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Scenario: while documents of 50 chunks are committed and searched, every connection of ours is
/// terminated again and again, 100 times.
/// Guarantees: V1 - each failure is a typed error, no batch is there by half, the store works on,
/// and never opens more connections than the pool allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn terminated_connections_give_errors_and_no_half_batch() {
    let Some(backend) = Backend::postgres("terminate") else { return };
    let backend = backend.in_database("terminate").await;
    let store = Arc::new(store(&backend, "terminate", 384).await);
    let documents = Arc::new(clustered(100, 384));
    let is_over = Arc::new(AtomicBool::new(false));
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..6 {
        let (store, documents) = (Arc::clone(&store), Arc::clone(&documents));
        let is_over = Arc::clone(&is_over);
        workers.spawn(async move {
            let (mut done, mut failed) = (0_u32, 0_u32);
            while !is_over.load(Ordering::Relaxed) {
                let result = if worker % 2 == 0 {
                    store.commit(&documents).await
                } else {
                    store.search(&documents[0].chunks[0].1, TOP_K).await.map(drop)
                };
                match result {
                    Ok(()) => done += 1,
                    Err(error) => {
                        assert_eq!(error.error_type(), "store", "{error}");
                        failed += 1;
                    }
                }
            }
            (done, failed)
        });
    }
    let connections_max = connections_max(&backend).await;
    let kills = terminate(&backend, 100).await;
    is_over.store(true, Ordering::Relaxed);
    let (mut done, mut failed) = (0, 0);
    while let Some(worker) = workers.join_next().await {
        let (worker_done, worker_failed) = worker.unwrap();
        done += worker_done;
        failed += worker_failed;
    }
    eprintln!("terminate: {kills} connections ended, {done} calls succeeded, {failed} failed");
    assert!(failed > 0 && done > 0);
    assert!(connections_max <= i64::from(backend.settings.pool_size), "{connections_max}");
    let StoreStats { documents: held, chunks } = store.stats().await.unwrap();
    assert_eq!(chunks, 50 * held);
    store.commit(&documents).await.unwrap();
    assert_eq!(store.stats().await.unwrap(), StoreStats { documents: 2, chunks: 100 });
}

/// The most connections of ours that are seen at once while nobody ends any.
async fn connections_max(backend: &Backend) -> i64 {
    let mut admin = admin(backend).await;
    let mut most = 0;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE application_name = 'retake' AND datname = current_database()",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        most = most.max(now);
    }
    most
}

/// Ends all connections of ours `rounds` times; says how many those were.
async fn terminate(backend: &Backend, rounds: usize) -> usize {
    let mut admin = admin(backend).await;
    let mut kills = 0;
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let ended: Vec<bool> = sqlx::query_scalar(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = 'retake' AND datname = current_database()",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        kills += ended.len();
    }
    kills
}

/// Guarantees: V1 - a statement that takes too long is ended by the server.
#[tokio::test]
async fn the_statement_timeout_is_set_on_every_connection() {
    let Some(mut backend) = Backend::postgres("timeout") else { return };
    backend.settings.statement_timeout_ms = 1000;
    let store = store(&backend, "timeout", 2).await;
    let mut admin = admin(&backend).await;
    let mut blocker = admin.begin().await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock(8243122654733991936 + id) FROM retake.collections
                WHERE name = 'timeout'";
    blocker.execute(lock).await.unwrap();
    let error = store.commit(&[document("a", &[("a", &[1.0, 0.0])])]).await.unwrap_err();
    assert_eq!(error.error_type(), "store");
    assert!(error.to_string().contains("statement timeout"), "{error}");
    blocker.rollback().await.unwrap();
    store.commit(&[document("a", &[("a", &[1.0, 0.0])])]).await.unwrap();
}

/// Scenario: a database without pgvector, and a role that may not make anything.
/// Guarantees: V2 - a clear message that says what to run, without the password.
#[tokio::test]
async fn a_role_without_rights_is_told_what_to_do() {
    let Some(backend) = Backend::postgres("rights") else { return };
    let mut admin = admin(&backend).await;
    for statement in [
        "CREATE ROLE reader LOGIN PASSWORD 's3cret'",
        "CREATE DATABASE bare",
        "REVOKE CREATE ON DATABASE bare FROM PUBLIC",
    ] {
        // Left over when tests run twice on one server.
        let _ = admin.execute(statement).await;
    }
    let url = backend.settings.url.clone().unwrap();
    let url = url.replace("//rag@", "//reader:s3cret@").replace("/postgres?", "/bare?");
    let error = PostgresStore::connect(&url, &backend.settings).await.map(drop).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.error_type(), "configuration", "{text}");
    assert!(text.contains("CREATE EXTENSION vector") && !text.contains("s3cret"), "{text}");

    let as_owner = url.replace("reader:s3cret@", "rag@");
    PostgresStore::connect(&as_owner, &backend.settings).await.unwrap();
    let store = PostgresStore::connect(&url, &backend.settings).await.unwrap();
    let error = store.open_collection(&spec("c", 2)).await.unwrap_err();
    assert_eq!(error.error_type(), "store");
    assert!(error.to_string().contains("permission denied"), "{error}");
    assert!(!store.open_existing(&spec("c", 2)).await.unwrap());
}

/// Guarantees: P1 - a server that cannot be reached is an error without the password.
#[tokio::test]
async fn an_unreachable_server_does_not_show_the_password() {
    let settings = VectorSettings::default();
    for url in ["postgres://u:s3cret@127.0.0.1:1/d", "postgres://u:s3cret@127.0.0.1:99999999/d"] {
        let error = PostgresStore::connect(url, &settings).await.map(drop).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
