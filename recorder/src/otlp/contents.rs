//! Contents of a span: attributes that hold texts, and those that came in indexed pieces.
//!
//! OpenInference and older Traceloop versions flatten lists of objects into attributes
//! (`llm.input_messages.0.message.content`). They are put together again, so that a prompt is one
//! content with one digest, and governed by the capture policy like any other.

use std::borrow::Cow;
use std::collections::BTreeMap;

use retake_schemas::event::DocumentRole;
use serde_json::Value as Json;

use super::model::{AnyValue, Text, is_vector};

/// Rest of the key and value of each attribute of one item.
type Pieces<'a> = Vec<(&'a str, &'a AnyValue<'a>)>;

/// Contents found on a span so far.
#[derive(Debug, Default)]
pub(super) struct Collected<'a> {
    whole: Vec<(Cow<'a, str>, &'a AnyValue<'a>)>,
    /// Media types that are stated, by the content they are of.
    media_types: Vec<(&'static str, &'a str)>,
    /// By name of the list, by index, the rest of the key and its value.
    lists: BTreeMap<&'static str, BTreeMap<usize, Pieces<'a>>>,
}

/// What a document's attributes say.
#[derive(Debug, Default)]
pub(super) struct Piece<'a> {
    pub(super) id: Option<Text<'a>>,
    pub(super) score: Option<f64>,
    pub(super) content: Option<&'a str>,
    pub(super) metadata: Option<&'a AnyValue<'a>>,
}

impl<'a> Collected<'a> {
    /// Takes an attribute that is a piece of a list; `false` when it is not.
    pub(super) fn take(&mut self, name: &'a str, value: &'a AnyValue<'a>) -> bool {
        let Some((list, rest)) = LISTS.iter().find_map(|list| {
            let rest = name.strip_prefix(list)?.strip_prefix('.')?;
            Some((*list, rest))
        }) else {
            return false;
        };
        let (index, rest) = rest.split_once('.').unwrap_or((rest, ""));
        let Ok(index) = index.parse::<usize>() else { return false };
        self.lists.entry(list).or_default().entry(index).or_default().push((rest, value));
        true
    }

    /// Takes an attribute that states the media type of a content; `false` when it is not one.
    pub(super) fn media_type(&mut self, name: &str, value: &'a AnyValue<'a>) -> bool {
        let of = match name {
            "input.mime_type" => "input.value",
            "output.mime_type" => "output.value",
            _ => return false,
        };
        self.media_types.extend(value.as_text().map(|media_type| (of, media_type)));
        true
    }

    /// Takes an attribute that is a content by itself.
    pub(super) fn whole(&mut self, name: Cow<'a, str>, value: &'a AnyValue<'a>) {
        self.whole.push((name, value));
    }

    /// Documents by role, in order of their index.
    pub(super) fn documents(&self) -> Vec<(DocumentRole, BTreeMap<usize, Piece<'a>>)> {
        let mut found = Vec::new();
        for (list, role) in DOCUMENT_LISTS {
            let Some(items) = self.lists.get(list) else { continue };
            let mut documents = BTreeMap::new();
            for (index, pieces) in items {
                let mut document = Piece::default();
                for (rest, value) in pieces {
                    match rest.strip_prefix("document.").unwrap_or(rest) {
                        "id" => document.id = Some(value.to_content()),
                        "score" => document.score = value.to_value().as_float(),
                        "content" => document.content = value.as_text(),
                        "metadata" => document.metadata = Some(value),
                        _ => {}
                    }
                }
                documents.insert(*index, document);
            }
            found.push((role, documents));
        }
        found
    }

    /// Vectors made, and how many numbers each has.
    pub(super) fn embeddings(&self) -> (i64, i64) {
        let Some(items) = self.lists.get(EMBEDDINGS) else { return (0, 0) };
        let dimensions = items.values().flatten().find_map(|(rest, value)| match value {
            _ if !is_vector(rest) => None,
            AnyValue::Vector(dimensions) => Some(*dimensions),
            AnyValue::List(numbers) => Some(numbers.len()),
            // Some SDKs cannot hold lists of floats and write them as text.
            AnyValue::Text(text) => Some(text.split(',').count()),
            _ => None,
        });
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        (number(items.len()), number(dimensions.unwrap_or(0)))
    }

    /// Texts that were embedded.
    pub(super) fn embedded_texts(&self) -> Vec<String> {
        let items = self.lists.get(EMBEDDINGS).into_iter().flat_map(BTreeMap::values);
        items
            .flatten()
            .filter(|(rest, _)| *rest == "embedding.text")
            .filter_map(|(_, value)| value.as_text().map(str::to_owned))
            .collect()
    }

    /// Every content: name, media type, text.
    pub(super) fn contents(&self) -> Vec<(Cow<'a, str>, &'a str, Cow<'a, str>)> {
        let mut contents: Vec<_> = self
            .whole
            .iter()
            .map(|(name, value)| {
                let stated = self.media_types.iter().find(|(of, _)| of == name);
                let media_type = match stated {
                    Some((_, media_type)) => media_type,
                    None if value.as_text().is_some() => "text/plain",
                    None => JSON,
                };
                (name.clone(), media_type, value.to_content())
            })
            .collect();
        for (list, items) in &self.lists {
            if DOCUMENT_LISTS.iter().any(|(documents, _)| documents == list) {
                continue;
            }
            let items = items.values().map(|pieces| nested(pieces)).collect::<Vec<_>>();
            if items.iter().any(|item| !item.is_null()) {
                let text = Json::Array(items).to_string();
                contents.push((Cow::Borrowed(*list), JSON, Cow::Owned(text)));
            }
        }
        contents
    }

    /// A content by its name.
    pub(super) fn content(&self, name: &str) -> Option<Cow<'a, str>> {
        let (_, value) = self.whole.iter().find(|(found, _)| found == name)?;
        Some(value.to_content())
    }

    /// The words a model was given, for counting.
    pub(super) fn input_text(&self) -> Option<String> {
        self.prompts()
            .or_else(|| self.messages("llm.input_messages"))
            .or_else(|| self.messages("gen_ai.prompt"))
            .or_else(|| self.content("gen_ai.input.messages").map(|text| parts(&text)))
            .or_else(|| self.content("gen_ai.prompt").map(Cow::into_owned))
            .or_else(|| self.content("input.value").map(|text| words(&text)))
    }

    /// The words it answered with, for counting.
    pub(super) fn output_text(&self) -> Option<String> {
        self.messages("llm.output_messages")
            .or_else(|| self.messages("gen_ai.completion"))
            .or_else(|| self.content("gen_ai.output.messages").map(|text| parts(&text)))
            .or_else(|| self.content("gen_ai.completion").map(Cow::into_owned))
            .or_else(|| self.content("output.value").map(|text| words(&text)))
    }

    fn prompts(&self) -> Option<String> {
        let (_, value) = self.whole.iter().find(|(name, _)| name == "llm.prompts")?;
        match value {
            AnyValue::List(items) => {
                Some(items.iter().filter_map(AnyValue::as_text).collect::<Vec<_>>().join("\n"))
            }
            other => Some(other.to_content().into_owned()),
        }
    }

    /// Messages of a flattened list, a line each as `role: content`.
    fn messages(&self, list: &str) -> Option<String> {
        let items = self.lists.get(list)?;
        let lines = items.values().map(|pieces| {
            let find = |wanted: &str| {
                let is_wanted =
                    |rest: &str| rest.strip_prefix("message.").unwrap_or(rest) == wanted;
                pieces.iter().find(|(rest, _)| is_wanted(rest)).and_then(|(_, v)| v.as_text())
            };
            let content = find("content").unwrap_or_default();
            find("role").map_or_else(|| content.to_owned(), |role| format!("{role}: {content}"))
        });
        Some(lines.collect::<Vec<_>>().join("\n"))
    }
}

/// A text, or those in a JSON object that stands for the arguments of a call (`{"text": "why?"}`):
/// names and punctuation were not given to any model.
fn words(text: &str) -> String {
    let object = Some(text.trim_start()).filter(|text| text.starts_with('{'));
    let Some(Ok(json)) = object.map(serde_json::from_str::<Json>) else { return text.to_owned() };
    let mut texts = Vec::new();
    strings(&json, 0, &mut texts);
    texts.join("\n")
}

fn strings<'j>(value: &'j Json, depth: usize, texts: &mut Vec<&'j str>) {
    match value {
        Json::String(text) => texts.push(text),
        Json::Array(items) if depth < JSON_DEPTH_MAX => {
            items.iter().for_each(|item| strings(item, depth + 1, texts));
        }
        Json::Object(entries) if depth < JSON_DEPTH_MAX => {
            entries.values().for_each(|item| strings(item, depth + 1, texts));
        }
        _ => {}
    }
}

/// The text parts of messages as OpenTelemetry's GenAI conventions write them.
fn parts(messages: &str) -> String {
    let mut texts = Vec::new();
    if let Ok(messages) = serde_json::from_str::<Json>(messages) {
        collect_texts(&messages, 0, &mut texts);
    }
    if texts.is_empty() { messages.to_owned() } else { texts.join("\n") }
}

fn collect_texts(value: &Json, depth: usize, texts: &mut Vec<String>) {
    if depth > JSON_DEPTH_MAX {
        return;
    }
    match value {
        Json::Array(items) => items.iter().for_each(|item| collect_texts(item, depth + 1, texts)),
        Json::Object(entries) => {
            for (name, value) in entries {
                match value {
                    Json::String(text) if name == "content" || name == "text" => {
                        texts.push(text.clone());
                    }
                    Json::Array(_) | Json::Object(_) => collect_texts(value, depth + 1, texts),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// One item of a flattened list as the object it was. Keys that contradict each other (`a` and
/// `a.b`) keep the first.
fn nested(pieces: &[(&str, &AnyValue<'_>)]) -> Json {
    let mut item = Json::Null;
    for (key, value) in pieces {
        if is_vector(key) {
            continue;
        }
        let mut place = &mut item;
        for part in key.split('.').filter(|part| !part.is_empty()).take(KEY_PARTS_MAX) {
            if place.is_null() {
                *place = Json::Object(serde_json::Map::new());
            }
            let Json::Object(entries) = place else { break };
            place = entries.entry(part.to_owned()).or_insert(Json::Null);
        }
        if place.is_null() {
            *place = value.to_json();
        }
    }
    item
}

const JSON: &str = "application/json";
const EMBEDDINGS: &str = "embedding.embeddings";
/// Messages in messages; deeper texts are not what was said.
const JSON_DEPTH_MAX: usize = 8;
const KEY_PARTS_MAX: usize = 16;
/// Lists of documents, and what the documents are in them.
const DOCUMENT_LISTS: [(&str, DocumentRole); 3] = [
    ("retrieval.documents", DocumentRole::Retrieved),
    ("reranker.input_documents", DocumentRole::RerankInput),
    ("reranker.output_documents", DocumentRole::RerankOutput),
];
/// Lists that come flattened. Longer names before those they begin with.
const LISTS: [&str; 14] = [
    "retrieval.documents",
    "reranker.input_documents",
    "reranker.output_documents",
    EMBEDDINGS,
    "llm.input_messages",
    "llm.output_messages",
    "llm.prompts",
    "llm.choices",
    "llm.completions",
    "llm.tools",
    "llm.request.functions",
    "gen_ai.request.functions",
    "gen_ai.prompt",
    "gen_ai.completion",
];
