//! Databases, folders and models that tests share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use retake_pipeline::document::{Chunk, Format};
use retake_pipeline::embed::hashing::HashingEmbedder;
use retake_pipeline::embed::{Embedder, Embeddings};
use retake_pipeline::error::PipelineError;
use retake_pipeline::ingest::IngestDeps;
use retake_pipeline::store::{self, CollectionSpec, EmbeddedDocument, VectorStore};
use retake_schemas::Digest;
use retake_schemas::settings::{RagSettings, VectorSettings};

use crate::postgres::TestPostgres;

/// A place for a store, which can be opened many times.
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) settings: VectorSettings,
    folder: tempfile::TempDir,
    _server: Option<Arc<TestPostgres>>,
}

impl Backend {
    pub(crate) fn sqlite() -> Self {
        Self {
            name: "sqlite",
            settings: VectorSettings::default(),
            folder: tempfile::tempdir().unwrap(),
            _server: None,
        }
    }

    pub(crate) fn postgres(test: &str) -> Option<Self> {
        let server = TestPostgres::shared(test)?;
        Some(Self {
            name: "postgres",
            // Tests share the server, so each has its own collection.
            settings: VectorSettings {
                url: Some(server.url()),
                collection: test.to_owned(),
                ..VectorSettings::default()
            },
            folder: tempfile::tempdir().unwrap(),
            _server: Some(server),
        })
    }

    /// The same server, but a database of its own.
    pub(crate) async fn in_database(mut self, name: &'static str) -> Self {
        use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
        let url = self.settings.url.clone().unwrap();
        let mut admin = sqlx::PgConnection::connect(&url).await.unwrap();
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        self.settings.url = Some(url.replace("/postgres?", &format!("/{name}?")));
        self
    }

    /// SQLite, and PostgreSQL when there is one.
    pub(crate) fn all(test: &str) -> Vec<Self> {
        std::iter::once(Self::sqlite()).chain(Self::postgres(test)).collect()
    }

    pub(crate) fn sqlite_file(&self) -> PathBuf {
        self.folder.path().join("rag.sqlite")
    }

    pub(crate) async fn open(&self) -> Arc<dyn VectorStore> {
        store::open(&self.settings, &self.sqlite_file()).await.unwrap()
    }

    pub(crate) async fn open_with(&self, spec: &CollectionSpec) -> Arc<dyn VectorStore> {
        let store = self.open().await;
        store.open_collection(spec).await.unwrap();
        store
    }
}

pub(crate) fn spec(name: &str, dim: usize) -> CollectionSpec {
    CollectionSpec {
        name: name.to_owned(),
        model: "test".to_owned(),
        dim,
        chunking: "c1".to_owned(),
    }
}

pub(crate) fn document(id: &str, chunks: &[(&str, &[f32])]) -> EmbeddedDocument {
    let text: String = chunks.iter().map(|(text, _)| *text).collect();
    let chunk = |(ordinal, (text, vector)): (usize, &(&str, &[f32]))| {
        let chunk = Chunk {
            id: format!("{id}#{ordinal}"),
            document_id: id.to_owned(),
            ordinal: u32::try_from(ordinal).unwrap(),
            text: (*text).to_owned(),
            start_char: 3,
            end_char: 3 + text.chars().count() as u64,
            tokens: 7,
        };
        (chunk, vector.to_vec())
    };
    EmbeddedDocument {
        id: id.to_owned(),
        digest: Digest::of(text.as_bytes()),
        path: format!("/docs/{id}"),
        kind: Some(Format::Markdown),
        modified_ms: None,
        chunks: chunks.iter().enumerate().map(chunk).collect(),
    }
}

/// A folder with `count` small documents.
pub(crate) fn corpus(count: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..count {
        write_document(folder.path(), number, "first");
    }
    folder
}

pub(crate) fn write_document(folder: &Path, number: usize, version: &str) {
    let text = format!(
        "# Topic {number}\n\nThe {version} version of document number {number} speaks of \
         subject{number} and of nothing else.\n\nA second paragraph about topic {number}, which \
         takes some more words so that chunks are not all of one length.\n"
    );
    std::fs::write(folder.join(format!("doc{number:03}.md")), text).unwrap();
}

pub(crate) fn settings() -> RagSettings {
    let mut settings = RagSettings::default();
    settings.chunk.size = 24;
    settings.chunk.overlap = 4;
    settings.embed.dim = 64;
    settings.embed.batch_size = 8;
    settings
}

/// What an ingest into `backend` needs, with an embedder that can be watched.
pub(crate) async fn deps(backend: &Backend, settings: &RagSettings) -> (IngestDeps, Arc<Watched>) {
    let embedder = Arc::new(Watched::new(settings.embed.dim));
    let deps = IngestDeps {
        embedder: embedder.clone(),
        store: backend.open().await,
        cache: None,
        settings: RagSettings { vectors: backend.settings.clone(), ..settings.clone() },
    };
    (deps, embedder)
}

/// The hashing embedder, counted, slowed down, and made to fail on a word.
pub(crate) struct Watched {
    inner: HashingEmbedder,
    pub(crate) texts: AtomicUsize,
    pub(crate) delay: parking_lot::Mutex<Duration>,
    pub(crate) poison: parking_lot::Mutex<Option<&'static str>>,
}

impl Watched {
    pub(crate) fn new(dim: usize) -> Self {
        Self {
            inner: HashingEmbedder::new(dim).unwrap(),
            texts: AtomicUsize::new(0),
            delay: parking_lot::Mutex::new(Duration::ZERO),
            poison: parking_lot::Mutex::new(None),
        }
    }

    pub(crate) fn take_count(&self) -> usize {
        self.texts.swap(0, Ordering::Relaxed)
    }
}

#[async_trait]
impl Embedder for Watched {
    fn provider(&self) -> &str {
        self.inner.provider()
    }

    fn model(&self) -> &str {
        self.inner.model()
    }

    fn dim(&self) -> Option<usize> {
        self.inner.dim()
    }

    async fn embed(&self, texts: &[&str]) -> Result<Embeddings, PipelineError> {
        let delay = *self.delay.lock();
        tokio::time::sleep(delay).await;
        let poison = *self.poison.lock();
        if poison.is_some_and(|poison| texts.iter().any(|text| text.contains(poison))) {
            return Err(PipelineError::Service {
                service: "fake".to_owned(),
                status: Some(500),
                reason: "poison".to_owned(),
            });
        }
        self.texts.fetch_add(texts.len(), Ordering::Relaxed);
        self.inner.embed(texts).await
    }
}

/// Pseudo-random numbers in 0..1, the same in every run (`SplitMix64`).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 24) as f32
    }
}
