//! Documents in the shapes that instrumentations write them.

use std::borrow::Cow;

use retake_schemas::Digest;
use retake_schemas::event::RetrievedDocument;
use serde_json::Value as Json;

use super::contents::{Collected, Piece};

/// A document out of flattened attributes.
pub(super) fn document(
    rank: usize,
    piece: &Piece<'_>,
    content: Option<Digest>,
) -> RetrievedDocument {
    let metadata: Option<Json> = piece.metadata.map(|value| match value.as_text() {
        Some(text) => serde_json::from_str(text).unwrap_or_default(),
        None => value.to_json(),
    });
    RetrievedDocument {
        rank: u32::try_from(rank).unwrap_or(u32::MAX),
        id: piece.id.as_deref().unwrap_or_default().to_owned(),
        score: piece.score,
        source: metadata.as_ref().and_then(source),
        start_char: None,
        end_char: None,
        content,
    }
}

/// A document found in a JSON content.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) score: Option<f64>,
    pub(super) source: Option<String>,
    pub(super) content: Option<String>,
}

impl Found {
    pub(super) fn into_document(self, rank: usize, content: Option<Digest>) -> RetrievedDocument {
        RetrievedDocument {
            rank: u32::try_from(rank).unwrap_or(u32::MAX),
            id: self.id,
            score: self.score,
            source: self.source,
            start_char: None,
            end_char: None,
            content,
        }
    }
}

/// Documents of a retrieval that states them as JSON: OpenTelemetry's `gen_ai.retrieval.documents`,
/// or the output of a Traceloop retriever.
pub(super) fn in_contents(contents: &Collected<'_>) -> Vec<Found> {
    let stated = contents.content("gen_ai.retrieval.documents");
    let output = || {
        // Only a key that names documents: a list of anything else is not one of documents.
        contents
            .content("traceloop.entity.output")
            .or_else(|| contents.content("gen_ai.task.output"))
    };
    let (text, is_stated): (Cow<'_, str>, _) = match stated {
        Some(text) => (text, true),
        None => match output() {
            Some(text) => (text, false),
            None => return Vec::new(),
        },
    };
    let Ok(json) = serde_json::from_str::<Json>(&text) else { return Vec::new() };
    let list = match &json {
        Json::Array(items) if is_stated => Some(items),
        Json::Object(entries) => entries.get("documents").and_then(Json::as_array),
        _ => None,
    };
    list.into_iter().flatten().filter_map(|item| found(item, 0)).collect()
}

fn found(item: &Json, depth: usize) -> Option<Found> {
    let Json::Object(entries) = item else { return None };
    // A document with its score around it (LlamaIndex), or its constructor (LangChain).
    for wrapper in ["node", "document", "kwargs"] {
        if depth < 3
            && let Some(inner @ Json::Object(_)) = entries.get(wrapper)
        {
            let inner = found(inner, depth + 1)?;
            return Some(Found { score: inner.score.or_else(|| score(entries)), ..inner });
        }
    }
    let text = |names: &[&str]| names.iter().find_map(|name| entries.get(*name)?.as_str());
    let id =
        ["id", "document_id", "doc_id", "node_id", "id_"].iter().find_map(|name| {
            match entries.get(*name)? {
                Json::String(id) => Some(id.clone()),
                Json::Number(id) => Some(id.to_string()),
                _ => None,
            }
        });
    Some(Found {
        id: id.unwrap_or_default(),
        score: score(entries),
        source: entries.get("metadata").and_then(source),
        content: text(&["page_content", "content", "text"]).map(str::to_owned),
    })
}

fn score(entries: &serde_json::Map<String, Json>) -> Option<f64> {
    ["score", "relevance_score", "similarity"].iter().find_map(|name| entries.get(*name)?.as_f64())
}

/// Where a document comes from, by the names frameworks use in its metadata.
fn source(metadata: &Json) -> Option<String> {
    let names = ["source", "file_path", "url", "file_name", "filename", "path", "title"];
    names.iter().find_map(|name| metadata.get(*name)?.as_str().map(str::to_owned))
}
