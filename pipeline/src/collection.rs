//! Which collection the settings mean.

use retake_schemas::settings::RagSettings;

use crate::chunk::Chunker;
use crate::embed::Embedder;
use crate::error::PipelineError;
use crate::store::CollectionSpec;

/// The collection of `settings` as `embedder` would fill it.
///
/// # Errors
/// The chunking settings cannot work, or a service that has to be asked for the width of its
/// vectors failed.
pub(crate) async fn spec(
    settings: &RagSettings,
    embedder: &dyn Embedder,
) -> Result<CollectionSpec, PipelineError> {
    let dim = match embedder.dim() {
        Some(dim) => dim,
        // The width must be known before the first document is looked up, so one word is spent.
        None => embedder.embed(&["width"]).await?.dim,
    };
    Ok(CollectionSpec {
        name: settings.vectors.collection.clone(),
        model: embedder.model().to_owned(),
        dim,
        chunking: chunking(settings)?,
    })
}

/// Names everything chunks depend on besides the files.
fn chunking(settings: &RagSettings) -> Result<String, PipelineError> {
    let fingerprint = Chunker::new(&settings.chunk)?.fingerprint();
    let fields = &settings.load.jsonl_fields;
    // Without the setting the name stays what it was before there was one.
    Ok(if fields.is_empty() { fingerprint } else { format!("{fingerprint} fields={fields:?}") })
}
