//! Searches among chunks of which something has to hold.

use retake_pipeline::document::{Chunk, Format, Hit};
use retake_pipeline::query::{AskOptions, Engine};
use retake_pipeline::store::postgres::{PostgresStore, SearchMode};
use retake_pipeline::store::{EmbeddedDocument, VectorStore as _, Wanted};
use retake_schemas::settings::filter::{Comparison, Condition, Filter, FilterField, FilterValue};

use crate::fixtures::{Backend, Random, document, settings, spec};
use crate::query::{database, engine};

const DAY_MS: i64 = 86_400_000;

fn filter(text: &str) -> Filter {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Documents of several kinds, dates and paths; of some of them little is known.
fn documents(count: usize) -> Vec<EmbeddedDocument> {
    let mut random = Random(3);
    let kinds = [Some(Format::Markdown), Some(Format::Code), Some(Format::Html), None];
    (0..count)
        .map(|number| {
            let vectors: Vec<Vec<f32>> =
                (0..3).map(|_| (0..8).map(|_| random.next() - 0.5).collect()).collect();
            let chunks: Vec<(&str, &[f32])> =
                vectors.iter().map(|vector| ("gull", vector.as_slice())).collect();
            let mut made = document(&format!("d{number:03}"), &chunks);
            made.kind = kinds[number % 4];
            made.path = format!("/docs/{}/\u{e4}'{number:03}.md", number % 5);
            made.modified_ms = (number % 7 != 0).then_some(number as i64 * DAY_MS / 3);
            for (chunk, _) in &mut made.chunks {
                chunk.tokens = (number % 10) as u32;
            }
            made
        })
        .collect()
}

/// What a field has of a chunk, if that is known.
#[derive(PartialEq, PartialOrd)]
enum Fact {
    Text(String),
    Whole(i64),
}

fn fact(field: FilterField, document: &EmbeddedDocument, chunk: &Chunk) -> Option<Fact> {
    Some(match field {
        FilterField::Document => Fact::Text(document.id.clone()),
        FilterField::Path => Fact::Text(document.path.clone()),
        FilterField::Kind => Fact::Text(document.kind?.as_str().to_owned()),
        FilterField::Modified => Fact::Whole(document.modified_ms?),
        FilterField::Ordinal => Fact::Whole(chunk.ordinal.into()),
        FilterField::Tokens => Fact::Whole(chunk.tokens.into()),
    })
}

fn compares(fact: &Fact, comparison: Comparison, value: &FilterValue) -> bool {
    let (least, end) = match value {
        FilterValue::Text(text) => (Fact::Text(text.clone()), Fact::Text(format!("{text}\0"))),
        FilterValue::Whole(number) => (Fact::Whole(*number), Fact::Whole(number + 1)),
        FilterValue::Date { from_ms, until_ms, .. } => {
            (Fact::Whole(*from_ms), Fact::Whole(*until_ms))
        }
    };
    match comparison {
        Comparison::Equal => *fact >= least && *fact < end,
        Comparison::NotEqual => *fact < least || *fact >= end,
        Comparison::Less => *fact < least,
        Comparison::AtMost => *fact < end,
        Comparison::More => *fact >= end,
        Comparison::AtLeast => *fact >= least,
    }
}

/// What a filter means, without a database.
fn holds(condition: &Condition, document: &EmbeddedDocument, chunk: &Chunk) -> bool {
    match condition {
        Condition::All(parts) => parts.iter().all(|part| holds(part, document, chunk)),
        Condition::Any(parts) => parts.iter().any(|part| holds(part, document, chunk)),
        Condition::Compare { field, comparison, value } => {
            fact(*field, document, chunk).is_some_and(|fact| compares(&fact, *comparison, value))
        }
        Condition::In { field, values, is_negated } => {
            fact(*field, document, chunk).is_some_and(|fact| {
                let is = |value: &FilterValue| compares(&fact, Comparison::Equal, value);
                values.iter().any(is) != *is_negated
            })
        }
        Condition::StartsWith { field, start } => matches!(
            fact(*field, document, chunk),
            Some(Fact::Text(text)) if text.starts_with(start.as_str())
        ),
    }
}

const FILTERS: [&str; 22] = [
    "kind = markdown",
    "kind != markdown",
    "kind in (code, html)",
    "kind not in (code, html)",
    "document = 'd007'",
    "document <> 'd007' and document < 'd02'",
    "document in ('d001', 'd002', 'nothing')",
    "path starts with '/docs/3/'",
    "path starts with '%'",
    "path starts with '/docs/3/\u{e4}''0'",
    "path > '/docs/3' and path <= '/docs/4/\u{e4}''014.md'",
    "path = ''' OR 1=1 --'",
    "modified < 1970-01-05",
    "modified <= 1970-01-05",
    "modified = 1970-01-05 or modified = '1970-01-09T08:00:00Z'",
    "modified != 1970-01-05",
    "modified in (1970-01-05, 1970-01-06)",
    "modified not in (1970-01-05, 1970-01-06)",
    "modified > 1970-01-05 and modified >= 1970-01-06",
    "ordinal = 1 and tokens >= 7",
    "tokens < -5",
    "(kind = code or kind = html and ordinal = 0) and (tokens <= 3 or modified > 1970-01-10)",
];

/// Scenario: filters of every kind, also ones that let nothing through, on texts with quotes and
/// documents of which nothing is known; from SQLite's file and from memory; by vectors and by words.
/// Guarantees: exactly the chunks are found of which the filter holds, the best of them first, as
/// many as are wanted.
#[tokio::test]
async fn a_search_finds_the_best_of_what_a_filter_lets_through() {
    let documents = documents(60);
    let query: Vec<f32> = (0..8).map(|n| n as f32 - 3.5).collect();
    for backend in Backend::all("filters") {
        let store = backend.open_with(&spec("filters", 8)).await;
        store.commit(&documents).await.unwrap();
        let all = store.search(&query, 999).await.unwrap();
        assert_eq!(all.len(), 180);
        for text in FILTERS {
            let filter = filter(text);
            let of = |hit: &Hit| documents.iter().find(|d| d.id == hit.chunk.document_id).unwrap();
            let expected: Vec<&str> = all
                .iter()
                .filter(|hit| holds(filter.condition(), of(hit), &hit.chunk))
                .map(|hit| hit.chunk.id.as_str())
                .collect();
            for top_k in [5, 999] {
                let wanted = Wanted { top_k, filter: Some(&filter) };
                let found = store.search_within(&query, wanted).await.unwrap();
                let ids: Vec<&str> = found.iter().map(|hit| hit.chunk.id.as_str()).collect();
                let best = &expected[..expected.len().min(top_k)];
                assert_eq!(ids, best, "{}: {text}", backend.name);
                let by_words = store.search_text_within("gulls", wanted).await.unwrap();
                let mut ids: Vec<&str> = by_words.iter().map(|hit| hit.chunk.id.as_str()).collect();
                assert_eq!(ids.len(), best.len(), "{}: {text}", backend.name);
                ids.retain(|id| !expected.contains(id));
                assert!(ids.is_empty(), "{}: {text}: {ids:?}", backend.name);
            }
        }
        // Another commit, so that the next search reads SQLite's file again.
        store.commit(&documents[..1]).await.unwrap();
        let filter = filter("kind = code and ordinal = 2");
        let wanted = Wanted { top_k: 4, filter: Some(&filter) };
        let from_file = store.search_within(&query, wanted).await.unwrap();
        let again = store.search_within(&query, wanted).await.unwrap();
        assert_eq!((from_file.len(), again.len()), (4, 4));
        assert!(from_file.iter().zip(&again).all(|(one, other)| one.chunk == other.chunk));
    }
}

/// Scenario: 3,000 vectors with an HNSW index, and filters of which 1 chunk in 100 is let through,
/// that are far from the question or near it.
/// Guarantees: as many as are wanted are found, and they are those of the exact scan.
#[tokio::test]
async fn a_selective_filter_still_finds_as_many_as_are_wanted() {
    let Some(backend) = Backend::postgres("selective") else { return };
    let url = backend.settings.url.as_deref().unwrap();
    let store = PostgresStore::connect(url, &backend.settings).await.unwrap();
    store.open_collection(&spec("selective", 32)).await.unwrap();
    let mut random = Random(9);
    let made: Vec<EmbeddedDocument> = (0..100)
        .map(|number| {
            let vectors: Vec<Vec<f32>> = (0..30)
                .map(|_| {
                    (0..32)
                        .map(|d| random.next() - 0.5 + if d == number % 32 { 2.0 } else { 0.0 })
                        .collect()
                })
                .collect();
            let chunks: Vec<(&str, &[f32])> =
                vectors.iter().map(|vector| ("t", vector.as_slice())).collect();
            document(&format!("d{number:03}"), &chunks)
        })
        .collect();
    store.commit(&made).await.unwrap();
    store.finish_load().await.unwrap();
    assert_eq!(store.search_mode(), SearchMode::Indexed);
    let (mut found, mut all) = (0, 0);
    for number in 0..40 {
        // The filter's chunks are near the question in one case of two, and far in the other.
        let filter = filter(&format!("document = 'd{:03}'", (number * 2 + number % 2 * 17) % 100));
        let query = &made[number * 2].chunks[0].1;
        let wanted = Wanted { top_k: 10, filter: Some(&filter) };
        let exact = store.search_by(SearchMode::Exact, query, wanted).await.unwrap();
        let hits = store.search_within(query, wanted).await.unwrap();
        assert_eq!((exact.len(), hits.len()), (10, 10), "{filter}");
        assert!(hits.iter().all(|hit| filter.to_string().contains(&hit.chunk.document_id)));
        all += 10;
        found +=
            hits.iter().filter(|hit| exact.iter().any(|one| one.chunk.id == hit.chunk.id)).count();
        // More than there are: all there are.
        let wanted = Wanted { top_k: 50, filter: Some(&filter) };
        assert_eq!(store.search_within(query, wanted).await.unwrap().len(), 30);
    }
    eprintln!(
        "selective: recall@10 = {:.3} with filters of 1 %",
        f64::from(found as u32) / f64::from(all)
    );
    assert!(found * 100 >= all as usize * 95, "{found} of {all}");
}

/// Guarantees: what a question may find is in the settings, for every kind of search, and what was
/// ingested is known by kind, path and date.
#[tokio::test]
async fn a_question_is_answered_from_what_the_filter_lets_through() {
    for backend in Backend::all("ask-filter") {
        let mut settings = settings();
        settings.retrieve.filter = None;
        let _ = engine(&backend, &settings).await;
        for mode in ["dense", "text", "hybrid"] {
            let asked = |filter: &str| {
                let mut settings = database(&backend, &settings);
                settings.set(&format!("retrieve.mode={mode}")).unwrap();
                settings.set(&format!("retrieve.filter={filter}")).unwrap();
                let file = backend.sqlite_file();
                async move {
                    let engine = Engine::from_settings(&settings, &file).await.unwrap();
                    let question = "What does document 7 say about subject7?";
                    engine.ask(question, AskOptions::default(), &mut |_| {}).await.unwrap().hits
                }
            };
            let hits = asked("document in ('doc003.md', 'doc004.md') and kind = markdown").await;
            assert!(!hits.is_empty(), "{} {mode}", backend.name);
            assert!(
                hits.iter()
                    .all(|hit| ["doc003.md", "doc004.md"].contains(&&*hit.chunk.document_id))
            );
            assert!(asked("kind = code").await.is_empty());
            assert!(asked("modified < 2001-01-01").await.is_empty());
            assert!(!asked("null").await.is_empty(), "no filter");
        }
    }
}
