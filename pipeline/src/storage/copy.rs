//! A collection from one store into another, whatever databases they are.

use std::collections::BTreeMap;

use crate::error::PipelineError;
use crate::store::{CollectionSpec, EmbeddedDocument, StoreStats, VectorStore};

/// Copies the collection that `source` has open. In `target` it takes the place of one of its name
/// when it is whole, with the same revision.
///
/// # Errors
/// A database failed, or the collection changed all the while.
pub(super) async fn copy(
    source: &dyn VectorStore,
    target: &dyn VectorStore,
    spec: &CollectionSpec,
) -> Result<StoreStats, PipelineError> {
    let scratch = CollectionSpec { name: format!("{SCRATCH}{}", spec.name), ..spec.clone() };
    for _ in 0..ATTEMPTS_MAX {
        let revision = source.revision().await?;
        // Of a copy that was cut short.
        target.open_collection(&scratch).await?;
        target.drop_collection().await?;
        target.open_collection(&scratch).await?;
        copy_documents(source, target, &scratch).await?;
        // Read page by page; if nothing changed in between, it is what was there at the beginning.
        if source.revision().await? == revision {
            target.open_collection(&scratch).await?;
            target.finish_load().await?;
            target.take_name(&spec.name, &revision).await?;
            return target.stats().await;
        }
    }
    target.drop_collection().await?;
    Err(PipelineError::Store {
        action: "copy collection",
        reason: format!(
            "{:?} changed while it was read, {ATTEMPTS_MAX} times; try again when nothing is ingested",
            spec.name
        ),
    })
}

/// Whether a collection is one that is being copied, or was when its copy was cut short.
pub(super) fn is_scratch(name: &str) -> bool {
    name.starts_with(SCRATCH)
}

async fn copy_documents(
    source: &dyn VectorStore,
    target: &dyn VectorStore,
    scratch: &CollectionSpec,
) -> Result<(), PipelineError> {
    let mut after: Option<String> = None;
    loop {
        let page = source.read_documents(after.as_deref(), PAGE_DOCUMENTS).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.document.id.clone());
        // A collection may hold documents that were cut by other settings; each keeps its own.
        let mut by_chunking: BTreeMap<String, Vec<EmbeddedDocument>> = BTreeMap::new();
        for kept in page {
            by_chunking.entry(kept.chunking).or_default().push(kept.document);
        }
        for (chunking, documents) in by_chunking {
            target.open_collection(&CollectionSpec { chunking, ..scratch.clone() }).await?;
            target.commit(&documents).await?;
        }
    }
}

/// How the name of a collection begins that is being copied; no setting begins with a blank.
const SCRATCH: &str = " copying ";
/// Documents read at a time: some thousand chunks, a few MB.
const PAGE_DOCUMENTS: usize = 64;
/// An ingest commits every few moments, and a third look that finds another state will not be the
/// last.
const ATTEMPTS_MAX: usize = 3;
