//! What follows from several attributes together, or from the name of a span event.

use retake_schemas::mapping::{BUILT_IN, seconds_to_ns};
use retake_schemas::{Attributes, Value};

use super::model::{AnyValue, KeyValues};

/// The kind of a span that names none but a Haystack component, or talks to a database: a
/// retriever, if it searches.
///
/// General databases count only when the statement searches by similarity or full text; what is
/// made for searching counts unless the operation writes.
pub(super) fn kind(attributes: &KeyValues<'_>, span_name: &str) -> Option<&'static str> {
    let text = |names: &[&str]| {
        let found = attributes.iter().find(|(name, _)| names.contains(&name.as_ref()));
        found.and_then(|(_, value)| value.as_text())
    };
    if attributes.iter().any(|(name, value)| {
        BUILT_IN.places(name).any(|place| place.column == "kind")
            && value.as_text().is_some_and(|text| BUILT_IN.is_kind(text))
    }) {
        return None;
    }
    if let Some(component) = text(&["haystack.component.type"]) {
        let found = COMPONENTS.iter().find(|(part, _)| component.contains(part));
        return found.map(|(_, kind)| *kind);
    }
    let system = text(&["db.system.name", "db.system"])?.to_ascii_lowercase();
    let statement = text(&["db.query.text", "db.statement"]).unwrap_or_default();
    let operation = text(&["db.operation.name", "db.operation"])
        .or_else(|| statement.split_whitespace().next())
        .or_else(|| span_name.split([' ', '.', '_']).next_back())
        .unwrap_or_default()
        .to_ascii_lowercase();
    if WRITES.iter().any(|write| operation.starts_with(write)) {
        return None;
    }
    let statement = statement.to_ascii_lowercase();
    let searches = || SIMILARITY.iter().any(|mark| statement.contains(mark));
    (!GENERAL.contains(&system.as_str()) || searches()).then_some("retriever")
}

/// What OTLP calls a span's kind, where it says more than "internal".
pub(super) fn span_kind(number: i32) -> Option<&'static str> {
    match number {
        2 => Some("server"),
        3 => Some("client"),
        4 => Some("producer"),
        5 => Some("consumer"),
        _ => None,
    }
}

/// A span event that only carries attributes of its span: contents, mostly.
pub(super) fn is_detail(event: &str) -> bool {
    DETAILS.contains(&event)
}

/// A span event that stands for one chunk of a streamed answer.
pub(super) fn is_chunk(event: &str) -> bool {
    CHUNKS.contains(&event)
}

/// A span event that stands for the first chunk alone.
pub(super) fn is_first_token(event: &str) -> bool {
    FIRST_TOKENS.iter().any(|name| name.eq_ignore_ascii_case(event))
}

/// Time from a call's start to its first chunk, ns, where an attribute states it in seconds.
pub(super) fn time_to_first_token_ns(attributes: &Attributes) -> Option<i64> {
    let is_ttft = |name: &str| BUILT_IN.places(name).any(|place| place.column == "ttft_ns");
    let (_, value) = attributes.iter().find(|(name, _)| is_ttft(name))?;
    seconds_to_ns(value)
}

/// Whether a count of tokens cannot be one: negative, or no number.
pub(super) fn is_bad_count(name: &str, value: &AnyValue<'_>) -> bool {
    BUILT_IN
        .places(name)
        .any(|place| place.column.ends_with("_tokens") && place.column != "max_tokens")
        && Value::as_count(&value.to_value()).is_none()
}

/// Parts of the class names of Haystack's components.
const COMPONENTS: [(&str, &str); 6] = [
    ("Retriever", "retriever"),
    ("Generator", "llm"),
    ("Embedder", "embedding"),
    ("Ranker", "reranker"),
    ("PromptBuilder", "prompt"),
    ("Agent", "agent"),
];
const DETAILS: [&str; 3] = [
    "gen_ai.client.inference.operation.details",
    "gen_ai.content.prompt",
    "gen_ai.content.completion",
];
const WRITES: [&str; 17] = [
    "insert", "upsert", "update", "delete", "create", "drop", "alter", "add", "put", "set",
    "write", "index", "bulk", "copy", "begin", "commit", "rollback",
];
/// Databases whose reads are mostly not searches.
const GENERAL: [&str; 22] = [
    "postgresql",
    "mysql",
    "mariadb",
    "mssql",
    "microsoft.sql_server",
    "sqlite",
    "oracle",
    "oracle.db",
    "db2",
    "ibm.db2",
    "mongodb",
    "redis",
    "memcached",
    "cassandra",
    "dynamodb",
    "aws.dynamodb",
    "cosmosdb",
    "azure.cosmosdb",
    "couchdb",
    "hbase",
    "other_sql",
    "clickhouse",
];
/// What a statement that searches contains.
const SIMILARITY: [&str; 14] = [
    "<->",
    "<=>",
    "<#>",
    "<+>",
    "vector",
    "embedding",
    "tsquery",
    "match",
    "ft.search",
    "knn",
    "cosine",
    "l2distance",
    "distance(",
    "similarity",
];
const CHUNKS: [&str; 4] = [
    "gen_ai.content.completion.chunk",
    "llm.content.completion.chunk",
    "gen_ai.content.chunk",
    "gen_ai.choice.chunk",
];
const FIRST_TOKENS: [&str; 3] =
    ["First Token Stream Event", "gen_ai.first_token", "llm.first_token"];

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(&'static str, &'static str)]) -> KeyValues<'static> {
        pairs.iter().map(|(k, v)| ((*k).into(), AnyValue::Text((*v).into()))).collect()
    }

    /// Scenario: spans of database clients, which no GenAI convention names.
    /// Guarantees: a search is a retriever, a write and an ordinary query are not, and a kind that
    /// is stated stays.
    #[test]
    fn a_search_in_a_database_is_a_retriever() {
        let kind = |pairs: &[_], name: &str| kind(&attributes(pairs), name);
        assert_eq!(kind(&[("db.system.name", "qdrant")], "query_points"), Some("retriever"));
        assert_eq!(
            kind(&[("db.system.name", "qdrant"), ("db.operation.name", "upsert")], ""),
            None
        );
        assert_eq!(kind(&[("db.system", "postgresql"), ("db.statement", "SELECT 1")], ""), None);
        let search = "SELECT id FROM chunks ORDER BY embedding <=> $1 LIMIT 8";
        assert_eq!(
            kind(&[("db.system", "postgresql"), ("db.statement", search)], ""),
            Some("retriever")
        );
        assert_eq!(
            kind(&[("db.system.name", "inmemory"), ("db.collection.name", "docs")], "rag.retrieve"),
            Some("retriever")
        );
        assert_eq!(
            kind(&[("db.system.name", "qdrant"), ("openinference.span.kind", "CHAIN")], ""),
            None
        );
        assert_eq!(kind(&[("http.route", "/")], ""), None);
        let ranker = "haystack.components.rankers.LostInTheMiddleRanker";
        assert_eq!(kind(&[("haystack.component.type", ranker)], ""), Some("reranker"));
    }
}
