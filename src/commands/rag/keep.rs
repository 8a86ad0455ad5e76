//! `retake rag save`, `restore` and `cache`: what the pipeline keeps, beside its runs.

use retake_pipeline::cache::VectorCache;
use retake_pipeline::ingest::CACHE_FILE;
use retake_pipeline::query_cache::QueryCache;
use retake_pipeline::storage::{Manifest, Storage};
use serde_json::json;

use super::{ANSWERS_FILE, settings};
use crate::cli::{CacheAction, CachePart, Format, RagFolder};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, row, table, unsupported};
use crate::units::bytes;

/// Saves everything.
pub(super) async fn save(context: &Context, args: &RagFolder) -> Result<Code, Failure> {
    let storage = storage(context, &args.set)?;
    let manifest = storage.save(&args.folder).await?;
    report(context, "saved", &manifest)
}

/// Restores everything.
pub(super) async fn restore(context: &Context, args: &RagFolder) -> Result<Code, Failure> {
    let storage = storage(context, &args.set)?;
    let manifest = storage.restore(&args.folder).await?;
    report(context, "restored", &manifest)
}

fn storage(context: &Context, set: &[String]) -> Result<Storage, Failure> {
    let settings = settings(&context.config.settings.rag, set)?;
    let documents = context.default_sqlite();
    Ok(Storage {
        vectors: settings.vectors,
        cache: documents.with_file_name(CACHE_FILE),
        answers: documents.with_file_name(ANSWERS_FILE),
        default_sqlite: documents,
    })
}

fn report(context: &Context, what: &str, manifest: &Manifest) -> Result<Code, Failure> {
    match context.format_or(Format::Table) {
        Format::Json => print_json(&json!({
            "schema_version": 1, "collections": manifest.collections, "files": manifest.files,
        }))?,
        format => {
            let mut shown =
                table(format, &["collection", "model", "dimensions", "documents", "chunks"], 2);
            for held in &manifest.collections {
                let numbers = [held.dim as u64, held.documents, held.chunks].map(|n| n.to_string());
                let texts = [held.name.clone(), held.model.clone()];
                row(&mut shown, texts.into_iter().chain(numbers));
            }
            print(&shown.to_string())?;
        }
    }
    for file in &manifest.files {
        context.say(&format!("{what} {}, {}", file.name, bytes(file.bytes)));
    }
    Ok(Code::Ok)
}

/// The caches, opened if they are there: to look at one makes none.
struct Caches {
    vectors: Option<VectorCache>,
    answers: Option<QueryCache>,
}

impl Caches {
    async fn open(context: &Context) -> Result<Self, Failure> {
        let rag = &context.config.settings.rag;
        let documents = context.default_sqlite();
        let (vectors, answers) =
            (documents.with_file_name(CACHE_FILE), documents.with_file_name(ANSWERS_FILE));
        Ok(Self {
            vectors: match vectors.exists() {
                true => Some(VectorCache::open(&vectors, rag.cache.bytes_max).await?),
                false => None,
            },
            answers: match answers.exists() {
                true => Some(QueryCache::open(&answers, &rag.query_cache).await?),
                false => None,
            },
        })
    }
}

/// Looks at the caches, or makes them smaller.
pub(super) async fn cache(context: &Context, action: Option<CacheAction>) -> Result<Code, Failure> {
    let format = context.format_or(Format::Table);
    if !matches!(format, Format::Json | Format::Table | Format::Markdown) {
        return Err(unsupported(format, "caches"));
    }
    let caches = Caches::open(context).await?;
    match action.unwrap_or(CacheAction::Show) {
        CacheAction::Show => show(&caches, format).await?,
        CacheAction::Clear { only, collection } => {
            if collection.is_some() && only == Some(CachePart::Answers) {
                let message = "clear answers of a collection: answers are kept by their documents' \
                               state, not by collection";
                return Err(Failure::new(Code::Usage, message).help("leave out --collection"));
            }
            // A collection has vectors only.
            let clears = |part| only.is_none_or(|only| only == part);
            let vectors = match &caches.vectors {
                Some(cache) if clears(CachePart::Vectors) => {
                    cache.clear(collection.as_deref()).await?
                }
                _ => 0,
            };
            let answers = match &caches.answers {
                Some(cache) if clears(CachePart::Answers) && collection.is_none() => {
                    cache.clear().await?
                }
                _ => 0,
            };
            removed(vectors, answers, format)?;
        }
        CacheAction::Evict { bytes, answers } => {
            let vectors = match (&caches.vectors, bytes) {
                (Some(cache), Some(bytes)) => cache.evict(bytes).await?,
                _ => 0,
            };
            let answers = match (&caches.answers, answers) {
                (Some(cache), Some(answers)) => cache.evict(answers).await?,
                _ => 0,
            };
            removed(vectors, answers, format)?;
        }
    }
    Ok(Code::Ok)
}

fn removed(vectors: u64, answers: u64, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => {
            let removed = json!({ "vectors": vectors, "answers": answers });
            print_json(&json!({ "schema_version": 1, "removed": removed }))
        }
        _ => print(&format!("removed {vectors} vectors and {answers} answers")),
    }
}

async fn show(caches: &Caches, format: Format) -> Result<(), Failure> {
    let vectors = match &caches.vectors {
        Some(cache) => cache.collections().await?,
        None => Vec::new(),
    };
    let answers = match &caches.answers {
        Some(cache) => Some(cache.stats().await?),
        None => None,
    };
    if format == Format::Json {
        let vectors: Vec<_> = vectors
            .iter()
            .map(|(name, entries, bytes)| {
                json!({ "collection": name, "entries": entries, "bytes": bytes })
            })
            .collect();
        let answers = answers.map(|answers| {
            json!({
                "entries": answers.entries, "bytes": answers.bytes, "expired": answers.expired,
                "oldest_unix_secs": answers.oldest_unix_secs,
            })
        });
        return print_json(&json!({ "schema_version": 1, "vectors": vectors, "answers": answers }));
    }
    let mut shown = table(format, &["cache", "entries", "size"], 1);
    for (name, entries, size) in vectors {
        row(&mut shown, [format!("vectors of {name}"), entries.to_string(), bytes(size)]);
    }
    if let Some(answers) = answers {
        row(&mut shown, ["answers".to_owned(), answers.entries.to_string(), bytes(answers.bytes)]);
        if answers.expired > 0 {
            row(
                &mut shown,
                ["of these too old".to_owned(), answers.expired.to_string(), String::new()],
            );
        }
    }
    print(&shown.to_string())
}
