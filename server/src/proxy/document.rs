//! Documents of a rerank call.

use retake_recorder::Dispatcher;
use retake_schemas::event::{DocumentRole, Retrieved, RetrievedDocument};
use retake_schemas::{Digest, SpanKey};
use serde_json::Value as Json;

/// What was given to the reranker.
pub(crate) fn given(span: SpanKey, json: &Json, dispatcher: &Dispatcher) -> Option<Retrieved> {
    let documents = json.get("documents")?.as_array()?;
    let documents = documents.iter().take(DOCUMENTS_MAX).zip(0..).map(|(document, rank)| {
        let content = text(document).and_then(|text| keep(text, dispatcher));
        RetrievedDocument { rank, id: id(document, rank), content, ..RetrievedDocument::default() }
    });
    let documents = documents.collect();
    Some(Retrieved { span, role: DocumentRole::RerankInput, documents })
}

/// What it kept, in its order. The ids are those of the documents given.
pub(crate) fn kept(span: SpanKey, json: &Json, dispatcher: &Dispatcher) -> Option<Retrieved> {
    let results = ["results", "data"].iter().find_map(|name| json.get(name)?.as_array())?;
    let documents = results.iter().take(DOCUMENTS_MAX).zip(0..).map(|(result, rank)| {
        let number = |name: &str| result.get(name).and_then(Json::as_f64);
        let index = result.get("index").and_then(Json::as_u64);
        let document = result.get("document");
        RetrievedDocument {
            rank,
            id: document
                .and_then(own_id)
                .or_else(|| index.map(|index| index.to_string()))
                .unwrap_or_else(|| rank.to_string()),
            score: number("relevance_score").or_else(|| number("score")),
            content: document.and_then(text).and_then(|text| keep(text, dispatcher)),
            ..RetrievedDocument::default()
        }
    });
    let documents = documents.collect();
    Some(Retrieved { span, role: DocumentRole::RerankOutput, documents })
}

/// A document is a text, or an object with one.
fn text(document: &Json) -> Option<&str> {
    document.as_str().or_else(|| document.get("text")?.as_str())
}

/// Most documents have no id but their place.
fn id(document: &Json, place: u32) -> String {
    own_id(document).unwrap_or_else(|| place.to_string())
}

fn own_id(document: &Json) -> Option<String> {
    match document.get("id")? {
        Json::String(id) => Some(id.clone()),
        Json::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

fn keep(text: &str, dispatcher: &Dispatcher) -> Option<Digest> {
    dispatcher.keep_content("text/plain", text)
}

/// Rerankers take some hundreds.
const DOCUMENTS_MAX: usize = 4096;
