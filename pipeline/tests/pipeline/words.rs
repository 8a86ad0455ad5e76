//! Searching by words, alone and together with vectors.

use std::collections::BTreeMap;

use retake_pipeline::query::{AskOptions, Engine};
use retake_pipeline::store::{EmbeddedDocument, TextHit, VectorStore};
use retake_pipeline::words::meaningful_words;
use retake_schemas::settings::{Fusion, RetrieveMode};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::capture::{self, named};
use crate::fixtures::{Backend, Random, document, settings, spec};
use crate::query::{database, engine, options};

fn ids(hits: &[TextHit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.chunk.id.as_str()).collect()
}

/// Documents of words of which some are much rarer than others.
fn texts(count: usize) -> Vec<EmbeddedDocument> {
    let mut random = Random(5);
    let mut text = |words: usize| {
        let word = |_| format!("w{}", (random.next().powi(3) * 60.0) as u32);
        (0..words).map(word).collect::<Vec<_>>().join(" ")
    };
    (0..count)
        .map(|number| {
            let chunks = [text(5 + number % 40), text(30)];
            let chunks: Vec<(&str, &[f32])> =
                chunks.iter().map(|text| (text.as_str(), &[1.0, 0.0][..])).collect();
            document(&format!("d{number:03}"), &chunks)
        })
        .collect()
}

/// Okapi BM25 as the books have it, over all chunks.
fn bm25(documents: &[EmbeddedDocument], query: &str) -> Vec<(String, f64)> {
    let chunks = documents.iter().flat_map(|document| &document.chunks);
    let all: Vec<(&str, Vec<String>)> =
        chunks.map(|(chunk, _)| (chunk.id.as_str(), meaningful_words(&chunk.text))).collect();
    let mean = all.iter().map(|(_, words)| words.len()).sum::<usize>() as f64 / all.len() as f64;
    let mut scores: BTreeMap<&str, f64> = BTreeMap::new();
    for wanted in meaningful_words(query) {
        let having = all.iter().filter(|(_, words)| words.contains(&wanted)).count() as f64;
        let idf = ((all.len() as f64 - having + 0.5) / (having + 0.5)).ln().max(1e-6);
        for (id, words) in &all {
            let often = words.iter().filter(|word| **word == wanted).count() as f64;
            if often > 0.0 {
                let length = 1.2 * (0.25 + 0.75 * words.len() as f64 / mean);
                *scores.entry(id).or_default() += idf * often * 2.2 / (often + length);
            }
        }
    }
    let mut scored: Vec<(String, f64)> =
        scores.into_iter().map(|(id, score)| (id.to_owned(), score)).collect();
    scored.sort_by(|one, other| other.1.total_cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    scored
}

/// Scenario: questions of one word and of several, common ones and rare ones.
/// Guarantees: both databases give the BM25 of a plain computation, in its order.
#[tokio::test]
async fn both_databases_score_words_the_same() {
    let documents = texts(60);
    for backend in Backend::all("bm25") {
        let store = backend.open_with(&spec("bm25", 2)).await;
        store.commit(&documents).await.unwrap();
        for query in ["w0", "w59", "w1 w40", "w3 w17 w25 w58", "what of w2 and of w200?"] {
            let expected = bm25(&documents, query);
            for top_k in [1, 10, 500] {
                let found = store.search_text(query, top_k).await.unwrap();
                assert_eq!(found.len(), expected.len().min(top_k), "{}: {query}", backend.name);
                for (hit, (_, score)) in found.iter().zip(&expected) {
                    assert!((hit.score - score).abs() < 1e-6, "{}: {query}", backend.name);
                }
                let by_score = |one: &TextHit, other: &TextHit| {
                    other
                        .score
                        .total_cmp(&one.score)
                        .then_with(|| one.chunk.id.cmp(&other.chunk.id))
                };
                assert!(found.is_sorted_by(|one, other| by_score(one, other).is_lt()));
            }
        }
    }
}

/// Scenario: what people type, and what they should not: quotes, operators of both query languages,
/// nothing, stop words only, other scripts, a whole page.
/// Guarantees: none is an error; words are found whatever stands around them.
#[tokio::test]
async fn whatever_is_typed_is_words_or_nothing() {
    let page = "page ".repeat(50_000) + "sea";
    for backend in Backend::all("typed") {
        let store = backend.open_with(&spec("typed", 2)).await;
        let sea = document(
            "sea",
            &[("The sea, the ship and the caf\u{e9} in \u{6771}\u{4eac}", &[1.0, 0.0])],
        );
        let empty = document("empty", &[("the of and", &[0.0, 1.0])]);
        store.commit(&[sea, empty]).await.unwrap();
        for query in [
            "sea",
            "\"sea",
            "sea\"*",
            "'sea' | '",
            "sea AND ship OR NOT",
            "NEAR(sea ship, 2)",
            "words:sea",
            "-sea +ship",
            "(sea",
            "sea & !ship <-> x:*",
            "sea\\",
            "sea\0ship",
            "'; DROP TABLE retake.collections; -- sea",
            "caf\u{e9}",
            "\u{4eac}",
            "SHIPS?",
            page.as_str(),
        ] {
            let found = store.search_text(query, 5).await;
            let found =
                found.unwrap_or_else(|error| panic!("{}: {query:?}: {error}", backend.name));
            assert_eq!(ids(&found), ["sea#0"], "{}: {query:?}", backend.name);
        }
        for nothing in
            ["", " ", "\"\"", "*", "the of and", "'", "()", "\u{1F600}", "NOT", "lighthouse"]
        {
            let found = store.search_text(nothing, 5).await;
            let found =
                found.unwrap_or_else(|error| panic!("{}: {nothing:?}: {error}", backend.name));
            assert!(found.is_empty(), "{}: {nothing:?}", backend.name);
        }
        assert!(store.search_text("sea", 0).await.unwrap().is_empty());
    }
}

async fn found(store: &dyn VectorStore, word: &str) -> Vec<String> {
    let hits = store.search_text(word, 99).await.unwrap();
    hits.iter().map(|hit| hit.chunk.id.clone()).collect()
}

/// Scenario: a text index that is made before, between and after commits, while documents are
/// replaced, deleted, and the collection made again; through two handles.
/// Guarantees: a search finds what is committed, no more and no less.
#[tokio::test]
async fn the_text_index_follows_every_commit() {
    for backend in Backend::all("follow") {
        let spec = spec("follow", 2);
        let (store, other) = (backend.open_with(&spec).await, backend.open_with(&spec).await);
        let text = |id: &str, text: &str| document(id, &[(text, &[1.0, 0.0])]);
        store.commit(&[text("a", "gull"), text("b", "gull tern")]).await.unwrap();
        assert_eq!(found(store.as_ref(), "gull").await.len(), 2, "{}", backend.name);
        other.index_words().await.unwrap();
        other.commit(&[text("a", "tern"), text("c", "gull")]).await.unwrap();
        assert_eq!(found(store.as_ref(), "gull").await, ["c#0", "b#0"]);
        assert_eq!(found(store.as_ref(), "tern").await, ["a#0", "b#0"]);
        store.delete_documents(&["b".to_owned(), "none".to_owned()]).await.unwrap();
        assert_eq!(found(other.as_ref(), "gull").await, ["c#0"]);
        let refused = document("d", &[("gull", &[f32::NAN, 0.0])]);
        store.commit(&[refused]).await.unwrap_err();
        assert_eq!(found(other.as_ref(), "gull").await, ["c#0"]);
        store.drop_collection().await.unwrap();
        store.open_collection(&spec).await.unwrap();
        assert!(found(store.as_ref(), "gull").await.is_empty());
        store.commit(&[text("e", "gull")]).await.unwrap();
        assert_eq!(found(store.as_ref(), "gull").await, ["e#0"]);
    }
}

/// Scenario: a retake from before there was a text index adds a document to a collection that has
/// one; SQLite's file is vacuumed.
/// Guarantees: the index is made anew and nothing is missed; a vacuum changes nothing.
#[tokio::test]
async fn an_index_that_others_left_behind_is_made_anew() {
    for backend in Backend::all("behind") {
        let backend = match backend.name {
            "postgres" => backend.in_database("behind").await,
            _ => backend,
        };
        let store = backend.open_with(&spec("behind", 2)).await;
        let text = |id: &str, text: &str| document(id, &[(text, &[1.0, 0.0])]);
        store.commit(&[text("a", "gull"), text("b", "tern"), text("c", "gull")]).await.unwrap();
        assert_eq!(found(store.as_ref(), "gull").await, ["a#0", "c#0"]);
        store.delete_documents(&["a".to_owned()]).await.unwrap();
        if let Some(url) = &backend.settings.url {
            let mut admin = sqlx::PgConnection::connect(url).await.unwrap();
            let id: i64 = sqlx::query_scalar("SELECT id FROM retake.collections")
                .fetch_one(&mut admin)
                .await
                .unwrap();
            for statement in [
                format!("UPDATE retake.chunks_{id} SET text = 'gull' WHERE id = 'b#0'"),
                "UPDATE retake.collections SET revision = gen_random_uuid()".to_owned(),
            ] {
                admin.execute(AssertSqlSafe(statement)).await.unwrap();
            }
        } else {
            let url = format!("sqlite:{}", backend.sqlite_file().display());
            let mut admin = sqlx::SqliteConnection::connect(&url).await.unwrap();
            admin.execute("VACUUM").await.unwrap();
            assert_eq!(found(store.as_ref(), "gull").await, ["c#0"]);
            assert_eq!(found(store.as_ref(), "tern").await, ["b#0"]);
            for statement in [
                "UPDATE chunks SET text = 'gull' WHERE id = 'b#0'",
                "UPDATE collections SET revision = randomblob(16)",
            ] {
                admin.execute(statement).await.unwrap();
            }
            admin.close().await.unwrap();
        }
        assert_eq!(found(store.as_ref(), "gull").await, ["b#0", "c#0"], "{}", backend.name);
        assert!(found(store.as_ref(), "tern").await.is_empty());
        let revision = store.revision().await.unwrap();
        assert_eq!(found(store.as_ref(), "gull").await.len(), 2);
        assert_eq!(store.revision().await.unwrap(), revision, "a search changes no revision");
    }
}

const QUESTION: &str = "What does document 7 say about subject7?";

/// Scenario: the same question by vectors, by words, and by both in both ways of fusion.
/// Guarantees: results say which search found them and where; each search of a hybrid one is a span
/// of its own under the whole, with its scores; the similarity of a chunk is the same whichever
/// search found it.
#[tokio::test]
async fn a_hybrid_search_says_which_search_found_what() {
    capture::install();
    for backend in Backend::all("hybrid") {
        let mut settings = settings();
        settings.retrieve.top_k = 6;
        let dense = engine(&backend, &settings).await;
        let asked = |mode, fusion| {
            let mut settings = database(&backend, &settings);
            (settings.retrieve.mode, settings.retrieve.fusion) = (mode, fusion);
            let file = backend.sqlite_file();
            let id = format!("hybrid-{}-{mode:?}-{fusion:?}", backend.name);
            async move {
                let engine = Engine::from_settings(&settings, &file).await.unwrap();
                let answer = engine.ask(QUESTION, options(&id), &mut |_| {}).await.unwrap();
                (answer.hits, capture::trace(&id))
            }
        };
        let answer = dense.ask(QUESTION, AskOptions::default(), &mut |_| {}).await.unwrap();
        let near = answer.hits;
        assert!(near.iter().zip(0..).all(|(hit, rank)| {
            hit.found.dense.is_some_and(|place| place.rank == rank && place.score == hit.similarity)
                && hit.found.text.is_none()
        }));
        let (words, spans) = asked(RetrieveMode::Text, Fusion::Rrf).await;
        assert!(words.iter().all(|hit| hit.found.text.is_some() && hit.found.dense.is_none()));
        assert!(words[0].chunk.text.contains("subject7"), "{}", backend.name);
        assert_eq!(named(&spans, "retrieve")[0].fields["retake.retrieve.mode"], "text");
        assert!(named(&spans, "retrieve_text").is_empty(), "one search is one span");
        for hit in &words {
            if let Some(same) = near.iter().find(|near| near.chunk.id == hit.chunk.id) {
                assert!((same.similarity - hit.similarity).abs() < 1e-5, "{}", backend.name);
            }
        }
        for fusion in [Fusion::Rrf, Fusion::RelativeScore] {
            let (hits, spans) = asked(RetrieveMode::Hybrid, fusion).await;
            assert_eq!(hits.len(), 6);
            let score = |hit: &retake_pipeline::document::Hit| hit.found.fused.unwrap();
            assert!(hits.is_sorted_by(|one, other| score(one) >= score(other)));
            assert!(hits[0].found.dense.is_some() && hits[0].found.text.is_some());
            let (whole, dense, text) = (
                named(&spans, "retrieve")[0],
                named(&spans, "retrieve_dense")[0],
                named(&spans, "retrieve_text")[0],
            );
            let place = spans.iter().position(|span| span.name == "retrieve");
            assert_eq!((dense.parent, text.parent), (place, place));
            assert_eq!(dense.fields["gen_ai.retrieval.top_k"], "20");
            assert_eq!(whole.events.len(), 6);
            for (arm, which) in [(dense, "dense"), (text, "text")] {
                for hit in &hits {
                    let of_arm = if which == "dense" { hit.found.dense } else { hit.found.text };
                    // A new connection is an event too.
                    let is_of = |of: &capture::Fields| of.get("id") == Some(&hit.chunk.id);
                    let event = arm.events.iter().find(|(_, of)| is_of(of));
                    assert_eq!(event.is_some(), of_arm.is_some(), "{which}");
                    if let (Some((_, of)), Some(place)) = (event, of_arm) {
                        assert_eq!(of["rank"], place.rank.to_string());
                        assert_eq!(of["score"], format!("{:?}", place.score));
                    }
                }
            }
            assert_eq!(whole.events[0].1["score"], format!("{:?}", score(&hits[0])));
        }
    }
}

/// Scenario: a question without any meaningful word.
/// Guarantees: a hybrid search finds what vectors find; a search for words finds nothing, and the
/// answer says that it is not known.
#[tokio::test]
async fn a_question_of_stop_words_is_no_error() {
    for backend in Backend::all("stop") {
        let mut settings = settings();
        settings.retrieve.mode = RetrieveMode::Hybrid;
        let hybrid = engine(&backend, &settings).await;
        let question = "what is it that they do?";
        let answer = hybrid.ask(question, AskOptions::default(), &mut |_| {}).await.unwrap();
        assert_eq!(answer.hits.len(), 4, "{}", backend.name);
        assert!(answer.hits.iter().all(|hit| hit.found.text.is_none()));
        settings.retrieve.mode = RetrieveMode::Text;
        let settings = database(&backend, &settings);
        let text = Engine::from_settings(&settings, &backend.sqlite_file()).await.unwrap();
        let answer = text.ask(question, AskOptions::default(), &mut |_| {}).await.unwrap();
        assert!(answer.hits.is_empty() && answer.text.contains("do not know"), "{}", answer.text);
    }
}
