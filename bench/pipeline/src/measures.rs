//! The measures. Each returns figures by name; their units end the names.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use retake_pipeline::cache::VectorCache;
use retake_pipeline::chunk::Chunker;
use retake_pipeline::document::{Chunk, Document, Format};
use retake_pipeline::eval::judge::Judges;
use retake_pipeline::eval::{EvalRequest, evaluate};
use retake_pipeline::ingest::{IngestDeps, IngestReport, IngestRequest, Silent, ingest};
use retake_pipeline::query::{AskOptions, Engine};
use retake_pipeline::store::postgres::{PostgresStore, SearchMode};
use retake_pipeline::store::sqlite::SqliteStore;
use retake_pipeline::store::{CollectionSpec, EmbeddedDocument, VectorStore as _, Wanted};
use retake_pipeline::tokens;
use retake_recorder::{RecorderBuilder, RecorderLayer, Store};
use retake_schemas::Digest;
use retake_schemas::event::RunStatus;
use retake_schemas::settings::{RagSettings, VectorSettings};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::mocks::{MockEmbedder, MockLlm};
use crate::postgres::TestPostgres;

type Measured = Result<Value, Box<dyn Error>>;

/// Runs the measure of a name.
pub(crate) async fn run(name: &str, folder: Option<&Path>) -> Measured {
    let folder = || folder.ok_or("this measure needs the folder of the documents");
    match name {
        "split" => split(folder()?),
        "ingest" => ingested(folder()?).await,
        "cache" => cached(folder()?).await,
        "eval" => evaluated().await,
        "tokens" => counted(folder()?),
        "query" => asked(folder()?).await,
        "nearest" => nearest().await,
        "pgvector" => pgvector().await,
        other => Err(format!("there is no measure {other:?}").into()),
    }
}

fn texts(folder: &Path) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    let read = |path: PathBuf| -> Result<(String, String), Box<dyn Error>> {
        Ok((path.display().to_string(), std::fs::read_to_string(&path)?))
    };
    paths.into_iter().map(read).collect()
}

fn document(id: &str, text: &str) -> Document {
    Document {
        id: id.to_owned(),
        path: id.into(),
        format: Format::Text,
        text: text.to_owned(),
        digest: Digest::of(text.as_bytes()),
        bytes: text.len() as u64,
        modified_ms: None,
    }
}

/// Documents cut into chunks of 256 tokens, each counted, on one thread.
fn split(folder: &Path) -> Measured {
    let documents: Vec<Document> =
        texts(folder)?.iter().map(|(id, text)| document(id, text)).collect();
    let chunker = Chunker::new(&RagSettings::default().chunk)?;
    // The tokenizer's tables are made on first use.
    chunker.chunk(&documents[0])?;
    let started = Instant::now();
    let mut chunks = 0;
    for document in &documents {
        chunks += chunker.chunk(document)?.len();
    }
    let secs = started.elapsed().as_secs_f64();
    Ok(json!({ "docs_per_s": documents.len() as f64 / secs, "chunks": chunks }))
}

fn settings(file: &Path, collection: &str) -> RagSettings {
    let mut settings = RagSettings::default();
    settings.vectors.url = Some(format!("sqlite:{}", file.display()));
    settings.vectors.collection = collection.to_owned();
    settings
}

async fn deps(
    file: &Path,
    collection: &str,
    cache: Option<Arc<VectorCache>>,
) -> Result<IngestDeps, Box<dyn Error>> {
    Ok(IngestDeps {
        embedder: Arc::new(MockEmbedder { dim: 384 }),
        store: Arc::new(SqliteStore::new(file)?),
        cache,
        settings: settings(file, collection),
    })
}

/// Documents per second, and what the ingest says of itself.
async fn timed(folder: &Path, deps: &IngestDeps) -> Result<(f64, IngestReport), Box<dyn Error>> {
    let request = IngestRequest { roots: vec![folder.to_owned()], ..IngestRequest::default() };
    let started = Instant::now();
    let report = ingest(request, deps, &Silent, CancellationToken::new()).await?;
    Ok((report.found as f64 / started.elapsed().as_secs_f64(), report))
}

/// From files to a committed SQLite file; then again, with nothing changed.
async fn ingested(folder: &Path) -> Measured {
    let scratch = tempfile::tempdir()?;
    let deps = deps(&scratch.path().join("rag.sqlite"), "c", None).await?;
    let (first, report) = timed(folder, &deps).await?;
    let (unchanged, again) = timed(folder, &deps).await?;
    assert_eq!((report.failed, again.unchanged), (0, report.found));
    Ok(json!({ "docs_per_s": first, "unchanged_docs_per_s": unchanged, "chunks": report.chunks }))
}

/// With the cache of vectors: into another collection, and after one document changed.
async fn cached(folder: &Path) -> Measured {
    let scratch = tempfile::tempdir()?;
    let documents = scratch.path().join("docs");
    std::fs::create_dir(&documents)?;
    let all = texts(folder)?;
    for (path, text) in &all {
        std::fs::write(documents.join(Path::new(path).file_name().unwrap_or_default()), text)?;
    }
    let file = scratch.path().join("rag.sqlite");
    let cache = Arc::new(VectorCache::open(&scratch.path().join("cache.sqlite"), 1 << 30).await?);
    let (cold, report) =
        timed(&documents, &deps(&file, "one", Some(Arc::clone(&cache))).await?).await?;
    let (warm, other) =
        timed(&documents, &deps(&file, "two", Some(Arc::clone(&cache))).await?).await?;
    assert_eq!(other.chunks_cached, report.chunks);
    let (path, text) = &all[all.len() / 2];
    let changed = documents.join(Path::new(path).file_name().unwrap_or_default());
    std::fs::write(changed, format!("{text} One changed sentence."))?;
    let (one, report) = timed(&documents, &deps(&file, "one", Some(cache)).await?).await?;
    assert_eq!(report.committed, 1);
    Ok(json!({
        "cold_docs_per_s": cold, "warm_docs_per_s": warm, "one_changed_docs_per_s": one,
        "chunks_embedded_after_one_change": report.chunks - report.chunks_cached,
    }))
}

/// 1,000 given responses, no evaluator, a line written for each.
async fn evaluated() -> Measured {
    let scratch = tempfile::tempdir()?;
    let lines: String = (0..ITEMS)
        .map(|n| {
            let question = format!("question {n}");
            let line = json!({ "id": n, "question": question, "response": "answer" });
            format!("{line}\n")
        })
        .collect();
    let questions = scratch.path().join("q.jsonl");
    std::fs::write(&questions, lines)?;
    let file = scratch.path().join("rag.sqlite");
    let engine = engine(&file, &[document("d", "A text.")]).await?;
    let mut best = f64::MAX;
    for round in 0..5 {
        let request = EvalRequest {
            questions: questions.clone(),
            output: scratch.path().join(format!("out{round}.jsonl")),
            workers: 8,
            judges: Judges::default(),
        };
        let started = Instant::now();
        let report = evaluate(&request, &engine, &Silent, CancellationToken::new()).await?;
        assert_eq!(report.ok, ITEMS);
        best = best.min(started.elapsed().as_secs_f64() * 1e6 / ITEMS as f64);
    }
    Ok(json!({ "us_per_item": best }))
}

/// The prompt of the peer's measure: the first document.
fn counted(folder: &Path) -> Measured {
    let prompt = texts(folder)?.into_iter().next().ok_or("no document")?.1;
    let count = tokens::count(&prompt);
    let started = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(tokens::count(std::hint::black_box(&prompt)));
    }
    let us = started.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS);
    let usage = json!({ "usage": { "prompt_tokens": 900, "completion_tokens": 64 } });
    let started = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(retake_pipeline::usage::Usage::read(std::hint::black_box(&usage)));
    }
    let reported = started.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS);
    Ok(json!({ "us_per_prompt": us, "us_with_usage": reported, "prompt_tokens": count }))
}

async fn engine(file: &Path, documents: &[Document]) -> Result<Engine, Box<dyn Error>> {
    let mut settings = settings(file, "c");
    settings.embed.dim = 384;
    let chunker = Chunker::new(&settings.chunk)?;
    let store = SqliteStore::new(file)?;
    let embedder = retake_pipeline::embed::from_settings(&settings)?;
    let spec = CollectionSpec {
        name: "c".to_owned(),
        model: embedder.model().to_owned(),
        dim: 384,
        chunking: chunker.fingerprint(),
    };
    store.open_collection(&spec).await?;
    for document in documents {
        let chunks = chunker.chunk(document)?;
        let texts: Vec<&str> = chunks.iter().map(|chunk| chunk.text.as_str()).collect();
        let vectors = embedder.embed(&texts).await?.vectors;
        let chunks = chunks.into_iter().zip(vectors).collect();
        store.commit(&[embedded(&document.id, chunks)]).await?;
    }
    Ok(Engine::from_settings(&settings, file).await?.with_llm(Arc::new(MockLlm)))
}

fn embedded(id: &str, chunks: Vec<(Chunk, Vec<f32>)>) -> EmbeddedDocument {
    EmbeddedDocument {
        id: id.to_owned(),
        digest: Digest::of(id.as_bytes()),
        path: id.to_owned(),
        kind: None,
        modified_ms: None,
        chunks,
    }
}

/// A query over some 200 chunks, top 4, everything recorded with its texts.
async fn asked(folder: &Path) -> Measured {
    let scratch = tempfile::tempdir()?;
    let documents: Vec<Document> = texts(folder)?
        .iter()
        .take(CHUNKS_ASKED / CHUNKS_PER_DOCUMENT)
        .map(|(id, text)| document(id, text))
        .collect();
    let engine = engine(&scratch.path().join("rag.sqlite"), &documents).await?;
    let question = "How does the cache of the vector index answer a query?";
    let mut ask = async |count: u32| -> Result<f64, Box<dyn Error>> {
        let started = Instant::now();
        for _ in 0..count {
            engine.ask(question, AskOptions::default(), &mut |_| {}).await?;
        }
        Ok(started.elapsed().as_secs_f64() * 1e6 / f64::from(count))
    };
    ask(QUERIES / 10).await?;
    let unrecorded = ask(QUERIES).await?;
    let layer = RecorderLayer::default();
    tracing_subscriber::registry().with(layer.clone()).try_init()?;
    let store = Store::create(&scratch.path().join("store"))?;
    let mut builder = RecorderBuilder::new("bench", "pipeline-bench");
    let mut record = retake_schemas::settings::RecordSettings::default();
    record.capture = retake_schemas::event::Capture::Full;
    builder = builder.record_settings(record);
    let recorder = builder.start(&store)?;
    layer.attach(Some(recorder.dispatcher()));
    ask(QUERIES / 10).await?;
    let recorded = ask(QUERIES).await?;
    layer.attach(None);
    let summary = recorder.finish(RunStatus::Finished);
    Ok(json!({
        "us_per_query": recorded, "us_unrecorded": unrecorded, "dropped": summary.dropped,
    }))
}

/// Unit vectors around 500 centres, the same in every run.
fn clustered(count: usize, dim: usize) -> Vec<Vec<f32>> {
    let mut state = 42_u64;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    };
    let centres: Vec<Vec<f32>> = (0..500).map(|_| (0..dim).map(|_| next()).collect()).collect();
    (0..count)
        .map(|n| {
            let around = &centres[n % centres.len()];
            let vector: Vec<f32> = around.iter().map(|value| value + 0.6 * next()).collect();
            let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
            vector.into_iter().map(|value| value / length).collect()
        })
        .collect()
}

fn documents_of(vectors: &[Vec<f32>]) -> Vec<EmbeddedDocument> {
    vectors
        .chunks(50)
        .enumerate()
        .map(|(number, vectors)| {
            let id = format!("d{number:05}");
            let chunks = vectors.iter().enumerate().map(|(ordinal, vector)| {
                let chunk = Chunk {
                    id: format!("{id}#{ordinal}"),
                    document_id: id.clone(),
                    ordinal: u32::try_from(ordinal).unwrap_or_default(),
                    text: "x".repeat(700),
                    start_char: 0,
                    end_char: 700,
                    tokens: 100,
                };
                (chunk, vector.clone())
            });
            embedded(&id, chunks.collect())
        })
        .collect()
}

fn spec() -> CollectionSpec {
    CollectionSpec {
        name: "bench".to_owned(),
        model: "mock".to_owned(),
        dim: DIM,
        chunking: "c".to_owned(),
    }
}

/// The exact ten nearest of 58,703 vectors of 384 dimensions, with their texts.
async fn nearest() -> Measured {
    let scratch = tempfile::tempdir()?;
    let store = SqliteStore::new(&scratch.path().join("rag.sqlite"))?;
    store.open_collection(&spec()).await?;
    let vectors = clustered(ROWS, DIM);
    let started = Instant::now();
    for documents in documents_of(&vectors).chunks(20) {
        store.commit(documents).await?;
    }
    let load = ROWS as f64 / started.elapsed().as_secs_f64();
    let started = Instant::now();
    store.search(&vectors[0], 10).await?;
    let first = started.elapsed().as_secs_f64() * 1e3;
    let started = Instant::now();
    store.search(&vectors[0], 10).await?;
    let second = started.elapsed().as_secs_f64() * 1e3;
    let mut ms = Vec::new();
    for query in vectors.iter().step_by(ROWS / SEARCHES) {
        let started = Instant::now();
        let hits = store.search(query, 10).await?;
        ms.push(started.elapsed().as_secs_f64() * 1e3);
        assert!(hits[0].similarity > 0.999);
    }
    Ok(json!({
        "ms_p50": percentile(&mut ms, 50), "ms_p95": percentile(&mut ms, 95), "first_ms": first,
        "second_ms": second,
        "load_rows_per_s": load,
    }))
}

/// The same rows in PostgreSQL with pgvector: loaded by COPY, indexed, searched by the index.
async fn pgvector() -> Measured {
    let Some(server) = TestPostgres::shared("pgvector") else {
        return Err("RETAKE_TEST_PG_BIN names no PostgreSQL".into());
    };
    let store = PostgresStore::connect(&server.url(), &VectorSettings::default()).await?;
    store.open_collection(&spec()).await?;
    let vectors = clustered(ROWS, DIM);
    let documents = documents_of(&vectors);
    let started = Instant::now();
    for documents in documents.chunks(100) {
        store.commit(documents).await?;
    }
    let load = ROWS as f64 / started.elapsed().as_secs_f64();
    let started = Instant::now();
    store.finish_load().await?;
    let index = started.elapsed().as_secs_f64();
    let (mut ms, mut found, mut wanted) = (Vec::new(), 0, 0);
    for query in vectors.iter().step_by(ROWS / SEARCHES) {
        let query: Vec<f32> =
            query.iter().enumerate().map(|(n, v)| v + 0.01 * (n % 3) as f32).collect();
        let started = Instant::now();
        let indexed = store.search_by(SearchMode::Indexed, &query, Wanted::of_all(10)).await?;
        ms.push(started.elapsed().as_secs_f64() * 1e3);
        let exact = store.search_by(SearchMode::Exact, &query, Wanted::of_all(10)).await?;
        let is_exact = |id: &str| exact.iter().any(|hit| hit.chunk.id == id);
        found += indexed.iter().filter(|hit| is_exact(&hit.chunk.id)).count();
        wanted += exact.len();
    }
    Ok(json!({
        "load_rows_per_s": load, "index_s": index, "ms_p50": percentile(&mut ms, 50),
        "ms_p95": percentile(&mut ms, 95), "recall_at_10": found as f64 / wanted as f64,
    }))
}

/// By nearest rank.
fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent).div_ceil(100).max(1) - 1]
}

const ITEMS: u64 = 1_000;
const CALLS: u32 = 300;
const QUERIES: u32 = 300;
const CHUNKS_ASKED: usize = 200;
/// Of the documents that `bench.py` writes.
const CHUNKS_PER_DOCUMENT: usize = 5;
const ROWS: usize = 58_703;
const DIM: usize = 384;
const SEARCHES: usize = 200;
