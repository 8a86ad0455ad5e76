//! The contract of a store, kept by SQLite and by PostgreSQL.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use retake_pipeline::error::PipelineError;
use retake_pipeline::store::sqlite::SqliteStore;
use retake_pipeline::store::{CollectionSpec, EmbeddedDocument, StoreStats, VectorStore as _};
use retake_schemas::Digest;

use crate::fixtures::{Backend, Random, document, spec};

fn ids(hits: &[retake_pipeline::document::Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.chunk.id.as_str()).collect()
}

fn stats(documents: u64, chunks: u64) -> StoreStats {
    StoreStats { documents, chunks }
}

/// Scenario: a document is committed, looked up by another handle, and replaced by a shorter one.
/// Guarantees: "seen" means committed, and nothing of the old version is left.
#[tokio::test]
async fn a_new_version_replaces_the_old_one_whole() {
    for backend in Backend::all("replace") {
        let spec = spec("replace", 2);
        let store = backend.open_with(&spec).await;
        let old = document("a.md", &[("one", &[1.0, 0.0]), ("two", &[0.0, 1.0])]);
        store.commit(&[old.clone(), document("b.md", &[("b", &[-1.0, 0.0])])]).await.unwrap();
        let other = backend.open_with(&spec).await;
        assert_eq!(other.committed_digest("a.md").await.unwrap(), Some(old.digest));
        assert_eq!(other.committed_digest("c.md").await.unwrap(), None);
        assert_eq!(other.stats().await.unwrap(), stats(2, 3), "{}", backend.name);

        let new = document("a.md", &[("three", &[1.0, 0.0])]);
        other.commit(std::slice::from_ref(&new)).await.unwrap();
        assert_eq!(store.committed_digest("a.md").await.unwrap(), Some(new.digest));
        assert_eq!(store.stats().await.unwrap(), stats(2, 2));
        let hits = store.search(&[1.0, 0.0], 9).await.unwrap();
        assert_eq!(ids(&hits), ["a.md#0", "b.md#0"]);
        assert_eq!(hits[0].chunk, new.chunks[0].0);
        assert!((hits[0].similarity - 1.0).abs() < 1e-6 && (hits[1].similarity + 1.0).abs() < 1e-6);

        store.finish_load().await.unwrap();
        let changed = CollectionSpec { chunking: "c2".to_owned(), ..spec };
        let rechunked = backend.open_with(&changed).await;
        assert_eq!(rechunked.committed_digest("a.md").await.unwrap(), None, "{}", backend.name);
    }
}

#[tokio::test]
async fn the_best_come_first_and_equals_by_id() {
    for backend in Backend::all("order") {
        let store = backend.open_with(&spec("order", 2)).await;
        let documents = [
            document("c", &[("", &[0.6, 0.8])]),
            document("B", &[("", &[0.6, 0.8])]),
            document("ä", &[("", &[0.6, 0.8])]),
            document("a", &[("", &[0.8, 0.6]), ("", &[0.6, 0.8])]),
            // Without a direction, neither near nor far.
            document("zero", &[("", &[0.0, 0.0])]),
            document("far", &[("", &[-0.6, -0.8])]),
        ];
        store.commit(&documents).await.unwrap();
        let hits = store.search(&[1.2, 1.6], 9).await.unwrap();
        let expected = ["B#0", "a#1", "c#0", "ä#0", "a#0", "zero#0", "far#0"];
        assert_eq!(ids(&hits), expected, "{}", backend.name);
        assert!(hits.iter().all(|hit| hit.similarity.is_finite()));
        assert_eq!(hits[5].similarity, 0.0);
        assert_eq!(ids(&store.search(&[1.2, 1.6], 3).await.unwrap()), expected[..3]);
    }
}

/// Guarantees: V2 - NaN, infinity, a wrong width, and what a database cannot hold are refused
/// before anything is sent; a refused batch changes nothing.
#[tokio::test]
async fn bad_vectors_and_texts_are_refused_whole() {
    for backend in Backend::all("refuse") {
        let store = backend.open_with(&spec("refuse", 2)).await;
        let good = document("good", &[("g", &[1.0, 0.0])]);
        for (bad, error_type) in [
            (document("x", &[("x", &[f32::NAN, 0.0])]), "not_finite"),
            (document("x", &[("x", &[0.0, f32::NEG_INFINITY])]), "not_finite"),
            (document("x", &[("x", &[1.0])]), "model_mismatch"),
            (document("x", &[("x", &[])]), "model_mismatch"),
            (document("x", &[("a\0b", &[1.0, 0.0])]), "store"),
            (document("x\0", &[]), "store"),
        ] {
            let error = store.commit(&[good.clone(), bad]).await.unwrap_err();
            assert_eq!(error.error_type(), error_type, "{}: {error}", backend.name);
        }
        // Two documents that claim one chunk: the database itself refuses, in the middle.
        let mut thief = document("thief", &[("t", &[0.0, 1.0])]);
        thief.chunks[0].0.id = "good#0".to_owned();
        let error = store.commit(&[good.clone(), thief]).await.unwrap_err();
        assert_eq!(error.error_type(), "store");
        assert_eq!(store.stats().await.unwrap(), stats(0, 0), "{}", backend.name);

        for (vector, error_type) in
            [(vec![1.0; 3], "model_mismatch"), (vec![f32::NAN, 1.0], "not_finite")]
        {
            assert_eq!(store.search(&vector, 1).await.unwrap_err().error_type(), error_type);
        }
        store.commit(&[good]).await.unwrap();
        assert_eq!(store.stats().await.unwrap(), stats(1, 1));
    }
}

/// Guarantees: V3 - vectors of another model are never mixed in.
#[tokio::test]
async fn another_model_is_refused_by_name() {
    for backend in Backend::all("model") {
        let made = spec("model", 2);
        let _ = backend.open_with(&made).await;
        let store = backend.open().await;
        for wanted in [
            CollectionSpec { model: "other".to_owned(), ..made.clone() },
            CollectionSpec { dim: 3, ..made.clone() },
        ] {
            for error in [
                store.open_collection(&wanted).await.unwrap_err(),
                store.open_existing(&wanted).await.unwrap_err(),
            ] {
                let PipelineError::ModelMismatch { expected, expected_model, .. } = &error else {
                    panic!("{error}")
                };
                assert_eq!((*expected, expected_model.as_str()), (2, "test"));
            }
        }
        assert!(store.stats().await.is_err(), "nothing is open");
    }
}

/// Scenario: 200 texts made to break out of SQL, of JSON, or of a terminal, as collection names,
/// ids, paths and contents.
/// Guarantees: V2 - they come back byte for byte.
#[tokio::test]
async fn hostile_texts_round_trip() {
    for backend in Backend::all("hostile") {
        let texts = hostile_texts();
        assert!(texts.len() >= 200);
        for (number, name) in texts.iter().enumerate().step_by(40) {
            let store = backend.open_with(&spec(name, 2)).await;
            let mine = document(name, &[(name.as_str(), &[1.0, 0.0])]);
            store.commit(&[mine]).await.unwrap();
            assert_eq!(store.stats().await.unwrap(), stats(1, 1), "collection {number}");
        }
        let store = backend.open_with(&spec("hostile", 2)).await;
        let documents: Vec<EmbeddedDocument> =
            texts.iter().map(|text| document(text, &[(text.as_str(), &[1.0, 0.0])])).collect();
        store.commit(&documents).await.unwrap();
        let hits = store.search(&[1.0, 0.0], 1000).await.unwrap();
        assert_eq!(hits.len(), texts.len());
        for document in &documents {
            let committed = store.committed_digest(&document.id).await.unwrap();
            assert_eq!(committed, Some(document.digest), "{:?}", document.id);
            let chunk = &document.chunks[0].0;
            assert!(hits.iter().any(|hit| hit.chunk == *chunk), "{:?}", document.id);
        }
    }
}

fn hostile_texts() -> Vec<String> {
    let seeds = [
        "'; DROP TABLE chunks; --",
        "\"; DROP SCHEMA retake CASCADE; --",
        "' OR '1'='1",
        "\\'",
        "$1",
        "$$",
        "$tag$x$tag$",
        "?1",
        ":name",
        "@p",
        "%s %n",
        "{}",
        "{\"a\":\"b\"}",
        "\\x41",
        "\\",
        "\\.",
        "\t\t\\N\n",
        "\u{1b}[31mred\u{1b}[0m",
        "\r\n",
        "\u{202e}desrever",
        "\u{feff}bom",
        "🦀",
        "👩‍👩‍👧‍👦",
        "e\u{301}",
        "é",
        "\u{10ffff}",
        "\u{1}",
        "\u{7f}",
        "../../etc/passwd",
        "C:\\con",
        "<script>alert(1)</script>",
        "=cmd|' /C calc'!A0",
        "NULL",
        "NaN",
        "a;b",
        "--",
        "/* */",
        "ß",
        "İ",
        " ",
    ];
    let wraps = [("", ""), ("'", "'"), ("x\"", "\"y"), ("\u{202a}", "\n"), ("\\", ";")];
    let mut texts: Vec<String> = seeds
        .iter()
        .flat_map(|seed| wraps.iter().map(move |(before, after)| format!("{before}{seed}{after}")))
        .collect();
    texts.sort();
    texts.dedup();
    texts.push("long ".repeat(400));
    texts
}

#[tokio::test]
async fn collections_do_not_meet_and_can_be_dropped() {
    for backend in Backend::all("isolated") {
        let (left, right) = (spec("left", 2), spec("right", 3));
        let reader = backend.open().await;
        assert!(!reader.open_existing(&left).await.unwrap(), "looking makes nothing");
        let first = backend.open_with(&left).await;
        let second = backend.open_with(&right).await;
        first.commit(&[document("d", &[("l", &[1.0, 0.0])])]).await.unwrap();
        second.commit(&[document("d", &[("r", &[1.0, 0.0, 0.0])])]).await.unwrap();
        assert_eq!(first.search(&[1.0, 0.0], 9).await.unwrap()[0].chunk.text, "l");
        assert!(reader.open_existing(&left).await.unwrap());
        first.drop_collection().await.unwrap();
        assert!(!backend.open().await.open_existing(&left).await.unwrap());
        assert_eq!(second.stats().await.unwrap(), stats(1, 1), "{}", backend.name);
        assert!(reader.commit(&[document("e", &[("l", &[1.0, 0.0])])]).await.is_err());
        let again = backend.open_with(&left).await;
        assert_eq!(again.stats().await.unwrap(), stats(0, 0));
    }
}

/// Guarantees: of two with one id in a batch the last wins, as between batches.
#[tokio::test]
async fn duplicates_in_a_batch_are_one() {
    for backend in Backend::all("duplicates") {
        let store = backend.open_with(&spec("duplicates", 2)).await;
        let mut twice = document("a", &[("old", &[1.0, 0.0]), ("new", &[0.0, 1.0])]);
        twice.chunks[1].0.id = "a#0".to_owned();
        let first = document("b", &[("first", &[1.0, 0.0]), ("first", &[1.0, 0.0])]);
        let last = document("b", &[("last", &[1.0, 0.0])]);
        store.commit(&[first, twice, last.clone()]).await.unwrap();
        assert_eq!(store.stats().await.unwrap(), stats(2, 2), "{}", backend.name);
        assert_eq!(store.committed_digest("b").await.unwrap(), Some(last.digest));
        let hits = store.search(&[0.0, 1.0], 9).await.unwrap();
        let texts: Vec<&str> = hits.iter().map(|hit| hit.chunk.text.as_str()).collect();
        assert_eq!(texts, ["new", "last"]);
    }
}

/// Scenario: four handles commit the same documents at the same time, while another reads.
/// Guarantees: nobody fails, every document is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_do_not_disturb_each_other() {
    for backend in Backend::all("writers") {
        let spec = spec("writers", 2);
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let store = backend.open_with(&spec).await;
            writers.spawn(async move {
                for number in 0..25 {
                    let id = format!("d{number}");
                    store.commit(&[document(&id, &[("t", &[1.0, 0.0])])]).await.unwrap();
                    store.search(&[1.0, 0.0], 3).await.unwrap();
                }
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended.unwrap();
        }
        let store = backend.open_with(&spec).await;
        assert_eq!(store.stats().await.unwrap(), stats(25, 25), "{}", backend.name);
    }
}

/// Scenario: a process that commits documents of 50 chunks is killed, ten times.
/// Guarantees: the file opens, and every document in it is whole.
#[tokio::test]
async fn a_killed_writer_leaves_whole_documents() {
    if let Some(path) = std::env::var_os(CHILD_STORE) {
        return commit_until_killed(std::path::Path::new(&path)).await;
    }
    let backend = Backend::sqlite();
    let spec = spec("killed", 2);
    for kill in 0..10_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["stores::a_killed_writer_leaves_whole_documents", "--exact", "--nocapture"])
            .env(CHILD_STORE, backend.sqlite_file())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Long enough to have begun, and another moment every time.
        std::thread::sleep(Duration::from_millis(150 + 13 * kill));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = backend.open_with(&spec).await;
        let StoreStats { documents, chunks } = store.stats().await.unwrap();
        assert_eq!(chunks, 50 * documents, "after kill {kill}");
    }
    let store = backend.open_with(&spec).await;
    assert!(store.stats().await.unwrap().documents > 0, "no child came to commit anything");
}

/// Where the child of that test commits; set only for it.
const CHILD_STORE: &str = "RETAKE_TEST_CHILD_STORE";

async fn commit_until_killed(path: &std::path::Path) {
    let store = SqliteStore::new(path).unwrap();
    store.open_collection(&spec("killed", 2)).await.unwrap();
    let chunks: Vec<(&str, &[f32])> = vec![("text", &[1.0, 0.0]); 50];
    for number in 0..1_000_000 {
        store.commit(&[document(&format!("d{}", number % 200), &chunks)]).await.unwrap();
    }
}

/// Guarantees: the file is not readable by others: it holds the texts of private documents.
#[cfg(unix)]
#[tokio::test]
async fn the_file_belongs_to_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let backend = Backend::sqlite();
    let _ = backend.open_with(&spec("private", 2)).await;
    let mode = std::fs::metadata(backend.sqlite_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Not a limit: prints how fast rows go in and come out, for the record.
#[tokio::test]
async fn load_and_search_rates_are_printed() {
    for backend in Backend::all("rates") {
        let store = backend.open_with(&spec("rates", 384)).await;
        let mut random = Random(42);
        let documents: Vec<EmbeddedDocument> =
            (0..100).map(|number| wide_document(number, &mut random)).collect();
        let started = Instant::now();
        for group in documents.chunks(32) {
            store.commit(group).await.unwrap();
        }
        let rows_per_sec = 5000.0 / started.elapsed().as_secs_f64();
        let query = &documents[7].chunks[7].1;
        let started = Instant::now();
        for _ in 0..10 {
            assert_eq!(store.search(query, 10).await.unwrap()[0].chunk.id, "d7#7");
        }
        let search_ms = started.elapsed().as_secs_f64() * 100.0;
        eprintln!(
            "{}: {rows_per_sec:.0} rows/s, exact 10-NN of 5,000 x 384 in {search_ms:.2} ms",
            backend.name
        );
    }
}

fn wide_document(number: usize, random: &mut Random) -> EmbeddedDocument {
    let text = "seven hundred characters of text, or close to it. ".repeat(14);
    let vectors: Vec<Vec<f32>> =
        (0..50).map(|_| (0..384).map(|_| random.next() - 0.5).collect()).collect();
    let chunks: Vec<(&str, &[f32])> =
        vectors.iter().map(|vector| (text.as_str(), vector.as_slice())).collect();
    EmbeddedDocument {
        digest: Digest::of(&number.to_le_bytes()),
        ..document(&format!("d{number}"), &chunks)
    }
}

/// Scenario: documents are added, changed, refused, deleted, and the collection made again.
/// Guarantees: every change has a revision that was never before, in the same transaction; what
/// changes nothing, or another collection, changes no revision.
#[tokio::test]
async fn every_change_has_a_revision_of_its_own() {
    for backend in Backend::all("revision") {
        let spec = spec("revision", 2);
        let store = backend.open_with(&spec).await;
        let mut seen = vec![store.revision().await.unwrap()];
        let a = document("a", &[("a", &[1.0, 0.0])]);
        for change in 0..5 {
            match change {
                0 | 1 => store.commit(std::slice::from_ref(&a)).await.unwrap(),
                2 => store.commit(&[document("a", &[("x", &[1.0, 0.0])])]).await.unwrap(),
                3 => store.delete_documents(&["a".to_owned()]).await.unwrap(),
                _ => {
                    store.drop_collection().await.unwrap();
                    store.open_collection(&spec).await.unwrap();
                }
            }
            let now = store.revision().await.unwrap();
            assert!(!seen.contains(&now), "{}: change {change}", backend.name);
            seen.push(now);
        }
        let last = seen.pop().unwrap();
        store.commit(&[document("b", &[("b", &[f32::NAN, 0.0])])]).await.unwrap_err();
        store.open_collection(&spec).await.unwrap();
        store.search(&[1.0, 0.0], 1).await.unwrap();
        let other_name = CollectionSpec { name: "revision2".to_owned(), ..spec.clone() };
        let other = backend.open_with(&other_name).await;
        other.commit(&[a]).await.unwrap();
        assert_eq!(store.revision().await.unwrap(), last, "{}", backend.name);
        assert_ne!(other.revision().await.unwrap(), last);
        let reader = backend.open().await;
        assert!(reader.open_existing(&spec).await.unwrap());
        assert_eq!(reader.revision().await.unwrap(), last);
    }
}

/// Guarantees: chunks and dates come by their ids; what is not there, or not known, is left out.
#[tokio::test]
async fn chunks_and_dates_come_by_their_ids() {
    for backend in Backend::all("byid") {
        let store = backend.open_with(&spec("byid", 2)).await;
        let mut dated = document("a", &[("one", &[1.0, 0.0]), ("two", &[0.0, 1.0])]);
        dated.modified_ms = Some(-5);
        let undated = document("b", &[("b", &[1.0, 0.0])]);
        store.commit(&[dated.clone(), undated]).await.unwrap();
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let chunks = store.chunks(&ids(&["a#1", "b#0", "a#9", "c#0"])).await.unwrap();
        assert_eq!(chunks.len(), 2, "{}", backend.name);
        assert_eq!(chunks["a#1"], dated.chunks[1].0);
        let dates = store.modified_ms(&ids(&["a", "b", "c"])).await.unwrap();
        assert_eq!(dates.into_iter().collect::<Vec<_>>(), [("a".to_owned(), -5)]);
        assert!(store.chunks(&[]).await.unwrap().is_empty());
    }
}

/// Scenario: stores as earlier versions made them, without revisions and dates.
/// Guarantees: they open for reading and for writing, and have both from then on.
#[tokio::test]
async fn stores_of_earlier_versions_get_what_they_lack() {
    use sqlx::{Connection as _, Executor as _};
    for backend in Backend::all("older") {
        let backend = match backend.name {
            "postgres" => backend.in_database("older").await,
            _ => backend,
        };
        let spec = spec("older", 2);
        let store = backend.open_with(&spec).await;
        store.commit(&[document("a", &[("a", &[1.0, 0.0])])]).await.unwrap();
        drop(store);
        if let Some(url) = &backend.settings.url {
            let mut admin = sqlx::PgConnection::connect(url).await.unwrap();
            for statement in [
                "DROP INDEX retake.documents_by_content",
                "ALTER TABLE retake.documents DROP COLUMN modified_ms",
                "ALTER TABLE retake.documents DROP COLUMN kind",
                "ALTER TABLE retake.collections DROP COLUMN revision",
                "ALTER TABLE retake.collections DROP COLUMN words_revision",
            ] {
                admin.execute(statement).await.unwrap();
            }
        } else {
            let url = format!("sqlite:{}", backend.sqlite_file().display());
            let mut admin = sqlx::SqliteConnection::connect(&url).await.unwrap();
            for statement in [
                "ALTER TABLE documents DROP COLUMN modified_ms",
                "ALTER TABLE documents DROP COLUMN kind",
                "ALTER TABLE collections DROP COLUMN revision",
                "ALTER TABLE collections DROP COLUMN words_revision",
            ] {
                admin.execute(statement).await.unwrap();
            }
            admin.close().await.unwrap();
        }
        let reader = backend.open().await;
        assert!(reader.open_existing(&spec).await.unwrap(), "{}", backend.name);
        let before = reader.revision().await.unwrap();
        assert!(!before.as_str().is_empty());
        assert!(reader.modified_ms(&["a".to_owned()]).await.unwrap().is_empty());
        let writer = backend.open_with(&spec).await;
        assert_eq!(writer.revision().await.unwrap(), before);
        let mut dated = document("a", &[("a", &[1.0, 0.0])]);
        dated.modified_ms = Some(7);
        writer.commit(&[dated]).await.unwrap();
        assert_ne!(writer.revision().await.unwrap(), before);
        assert_eq!(reader.modified_ms(&["a".to_owned()]).await.unwrap()["a"], 7);
    }
}

/// Scenario: the same questions while documents come and go, through two handles, some searches
/// from the file and some from memory.
/// Guarantees: every search sees what was committed last, whoever committed it, and finds the same
/// either way.
#[tokio::test]
async fn a_search_in_memory_sees_every_commit() {
    let backend = Backend::sqlite();
    let spec = spec("memory", 8);
    let (store, other) = (backend.open_with(&spec).await, backend.open_with(&spec).await);
    let mut random = Random(11);
    let mut vector = || -> Vec<f32> { (0..8).map(|_| random.next() - 0.5).collect() };
    let query = vector();
    for round in 0..12 {
        let (one, two) = (vector(), vector());
        let changed = document(&format!("d{}", round % 5), &[("a", &one), ("b", &two)]);
        let writer = if round % 2 == 0 { &store } else { &other };
        writer.commit(&[changed]).await.unwrap();
        if round == 8 {
            other.delete_documents(&["d0".to_owned()]).await.unwrap();
        }
        // From the file, while it is loaded, and from memory.
        let first = store.search(&query, 20).await.unwrap();
        for _ in 0..2 {
            let again = store.search(&query, 20).await.unwrap();
            assert_eq!(ids(&again), ids(&first), "round {round}");
            let differs = |(one, two): (&retake_pipeline::document::Hit, _)| {
                let two: &retake_pipeline::document::Hit = two;
                (one.similarity - two.similarity).abs() > 1e-6 || one.chunk != two.chunk
            };
            assert!(!first.iter().zip(&again).any(differs), "round {round}");
        }
        assert_eq!(first.len() as u64, store.stats().await.unwrap().chunks);
    }
    store.drop_collection().await.unwrap();
    store.open_collection(&spec).await.unwrap();
    assert!(store.search(&query, 20).await.unwrap().is_empty());
    assert!(store.search(&query, 20).await.unwrap().is_empty());
}
