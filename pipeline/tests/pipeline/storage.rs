//! Saving everything and restoring it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use retake_pipeline::cache::{CacheKey, VectorCache};
use retake_pipeline::embed::hashing::HashingEmbedder;
use retake_pipeline::query::Engine;
use retake_pipeline::query_cache::QueryCache;
use retake_pipeline::storage::Storage;
use retake_pipeline::store::{CollectionSpec, StoreStats, VectorStore as _};
use retake_schemas::settings::QueryCacheMode;

use crate::fixtures::{Backend, Random, document, settings, spec};
use crate::query::{database, engine, options};

fn storage(backend: &Backend) -> Storage {
    let file = backend.sqlite_file();
    Storage {
        vectors: backend.settings.clone(),
        cache: file.with_file_name("rag-cache.sqlite"),
        answers: file.with_file_name("rag-answers.sqlite"),
        default_sqlite: file,
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

const QUESTION: &str = "What does document 7 say about subject7?";

/// Scenario: documents, vectors, both caches; saved, everything changed, restored.
/// Guarantees: all of it is back, on every backend, also the answers of the cache, which belong to
/// the very state of the documents; nothing lies in the folder that the manifest does not name.
#[tokio::test]
async fn everything_is_back_after_a_restore_also_the_answers() {
    for backend in Backend::all("storage") {
        let mut settings = settings();
        settings.query_cache.mode = QueryCacheMode::Exact;
        let engine = engine(&backend, &settings).await;
        let storage = storage(&backend);
        let answers = || async {
            Arc::new(QueryCache::open(&storage.answers, &settings.query_cache).await.unwrap())
        };
        let caching = engine.with_query_cache(answers().await);
        let first = caching.ask(QUESTION, options("storage-1"), &mut |_| {}).await.unwrap();
        assert!(first.cached.is_none());
        let vectors = VectorCache::open(&storage.cache, 1 << 20).await.unwrap();
        let key = CacheKey::of(&HashingEmbedder::new(8).unwrap(), "text");
        vectors.put("c", &[(key, &[1.0; 8])]).await.unwrap();

        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("deep/saved");
        let manifest = storage.save(&saved).await.unwrap();
        assert_eq!(
            files(&saved),
            ["manifest.json", "rag-answers.sqlite", "rag-cache.sqlite", "rag.sqlite"]
        );
        let held = manifest.collections.iter().find(|c| c.name == backend.settings.collection);
        assert_eq!(held.unwrap().documents, 20, "{}", backend.name);
        let again = storage.save(&saved).await.unwrap_err();
        assert!(again.to_string().contains("is there already"), "{again}");

        // Other documents, an empty cache, other answers.
        let store = backend.open().await;
        let spec = CollectionSpec {
            name: backend.settings.collection.clone(),
            ..CollectionSpec::from(held.unwrap().clone())
        };
        store.open_collection(&spec).await.unwrap();
        store.delete_documents(&["doc007.md".to_owned()]).await.unwrap();
        store.commit(&[document("new.md", &[("new", &[0.5; 64])])]).await.unwrap();
        vectors.clear(None).await.unwrap();
        drop(vectors);

        assert_eq!(storage.restore(&saved).await.unwrap(), manifest);
        let database = database(&backend, &settings);
        let engine = Engine::from_settings(&database, &backend.sqlite_file()).await.unwrap();
        let caching = engine.with_query_cache(answers().await);
        let kept = caching.ask(QUESTION, options("storage-2"), &mut |_| {}).await.unwrap();
        assert_eq!((kept.cached, &kept.text), (Some(1.0), &first.text), "{}", backend.name);
        let vectors = VectorCache::open(&storage.cache, 1 << 20).await.unwrap();
        assert_eq!(vectors.get(&[key], 8).await.unwrap(), [Some(vec![1.0; 8])]);
        assert_eq!(vectors.stats().await.unwrap().bytes, 32);
        let store = backend.open().await;
        assert!(store.open_existing(&spec).await.unwrap());
        assert_eq!(store.stats().await.unwrap().documents, 20);
        assert!(store.documents().await.unwrap().iter().any(|held| held.id == "doc007.md"));
        // Untouched by having been restored.
        assert_eq!(files(&saved).len(), 4);
    }
}

/// Scenario: a save of one database restored into the other, with documents of two chunkings.
/// Guarantees: the same documents, dates, chunks, vectors, and what "unchanged" means for each.
#[tokio::test]
async fn a_save_of_one_database_is_restored_into_the_other() {
    let Some(postgres) = Backend::postgres("move") else { return };
    let postgres = postgres.in_database("move").await;
    let sqlite = Backend::sqlite();
    let mut random = Random(3);
    let mut vector = || -> Vec<f32> { (0..3).map(|_| random.next() - 0.5).collect() };
    let old = CollectionSpec { chunking: "c0".to_owned(), ..spec("move", 3) };
    let store = sqlite.open_with(&old).await;
    let mut first = document("old", &[("o", &vector())]);
    first.modified_ms = Some(1_234);
    store.commit(&[first.clone()]).await.unwrap();
    let store = sqlite.open_with(&spec("move", 3)).await;
    let documents: Vec<_> = (0..150)
        .map(|n| document(&format!("d{n:03}"), &[("a", &vector()), ("b", &vector())]))
        .collect();
    store.commit(&documents).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there");
    storage(&sqlite).save(&there).await.unwrap();
    storage(&postgres).restore(&there).await.unwrap();
    let moved = postgres.open().await;
    assert!(moved.open_existing(&spec("move", 3)).await.unwrap());
    assert_eq!(moved.stats().await.unwrap(), StoreStats { documents: 151, chunks: 301 });
    assert_eq!(moved.committed_digest("old").await.unwrap(), None, "cut by other settings");
    assert_eq!(moved.committed_digest("d000").await.unwrap(), Some(documents[0].digest));
    assert_eq!(moved.modified_ms(&["old".to_owned()]).await.unwrap()["old"], 1_234);
    assert_eq!(moved.revision().await.unwrap(), store.revision().await.unwrap());

    let back = folder.path().join("back");
    storage(&postgres).save(&back).await.unwrap();
    let other = Backend::sqlite();
    storage(&other).restore(&back).await.unwrap();
    let twice = other.open_with(&spec("move", 3)).await;
    let ids: Vec<String> = (0..150).map(|n| format!("d{n:03}#1")).collect();
    assert_eq!(twice.vectors(&ids).await.unwrap(), store.vectors(&ids).await.unwrap());
    assert_eq!(twice.chunks(&ids).await.unwrap(), store.chunks(&ids).await.unwrap());
    assert_eq!(twice.revision().await.unwrap(), store.revision().await.unwrap());
    let query = vector();
    assert_eq!(twice.search(&query, 9).await.unwrap().len(), 9);
}

/// Scenario: a save with one flipped bit in one file, one that lacks a file, one whose manifest
/// leads out of the folder, one of a later version, and a folder that is none.
/// Guarantees: each is refused before anything is changed.
#[tokio::test]
async fn a_damaged_save_changes_nothing() {
    let backend = Backend::sqlite();
    let spec = spec("damage", 2);
    let store = backend.open_with(&spec).await;
    store.commit(&[document("a", &[("a", &[1.0, 0.0])])]).await.unwrap();
    let storage = storage(&backend);
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    storage.save(&whole).await.unwrap();
    store.commit(&[document("b", &[("b", &[1.0, 0.0])])]).await.unwrap();
    let before = store.revision().await.unwrap();
    let manifest = std::fs::read_to_string(whole.join("manifest.json")).unwrap();
    let damaged = |name: &str, damage: &dyn Fn(&Path)| -> PathBuf {
        let copy = folder.path().join(name);
        std::fs::create_dir(&copy).unwrap();
        for file in files(&whole) {
            std::fs::copy(whole.join(&file), copy.join(&file)).unwrap();
        }
        damage(&copy);
        copy
    };
    let flipped = damaged("flipped", &|folder| {
        let path = folder.join("rag.sqlite");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    });
    let lacking = damaged("lacking", &|folder| {
        std::fs::remove_file(folder.join("rag.sqlite")).unwrap();
    });
    let outside = damaged("outside", &|folder| {
        let manifest = manifest.replace("\"rag.sqlite\"", "\"../whole/rag.sqlite\"");
        std::fs::write(folder.join("manifest.json"), manifest).unwrap();
    });
    let later = damaged("later", &|folder| {
        let manifest = manifest.replace("\"schema_version\": 1", "\"schema_version\": 9");
        std::fs::write(folder.join("manifest.json"), manifest).unwrap();
    });
    for (folder, class, word) in [
        (flipped, "damaged", "not as it was saved"),
        (lacking, "io", "rag.sqlite"),
        (outside, "damaged", "no name of a file"),
        (later, "damaged", "layout 9"),
        (folder.path().join("nothing"), "not_found", "manifest.json"),
    ] {
        let error = storage.restore(&folder).await.unwrap_err();
        assert_eq!(error.error_type(), class, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(store.revision().await.unwrap(), before);
    assert_eq!(store.stats().await.unwrap(), StoreStats { documents: 2, chunks: 2 });
}

/// Scenario: documents are committed while a save reads, page after page.
/// Guarantees: what is saved is one state of the collection, never a mixture: the documents of one
/// commit are all there or none of them; a save that finds no quiet moment says so and leaves no
/// folder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_holds_one_moment_of_a_collection_that_changes() {
    let backend = Backend::sqlite();
    let spec = spec("moment", 2);
    let store = backend.open_with(&spec).await;
    // Every commit changes the first and the last document of the order alike.
    let pair = |version: usize| {
        let text = format!("version {version}");
        ["a", "z"].map(|id| document(id, &[(text.as_str(), &[1.0, 0.0][..])]))
    };
    let filler: Vec<_> =
        (0..600).map(|n| document(&format!("m{n:03}"), &[("m", &[0.0, 1.0])])).collect();
    store.commit(&filler).await.unwrap();
    store.commit(&pair(0)).await.unwrap();
    let storage = storage(&backend);
    let folder = tempfile::tempdir().unwrap();
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for version in 1..60 {
                store.commit(&pair(version)).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(version as u64 * 4)).await;
            }
        }
    });
    let (mut saved, mut refused) = (0, 0);
    for number in 0..20 {
        let target = folder.path().join(format!("s{number}"));
        match storage.save(&target).await {
            Ok(_) => {
                saved += 1;
                let file =
                    retake_pipeline::store::sqlite::SqliteStore::new(&target.join("rag.sqlite"))
                        .unwrap();
                assert!(file.open_existing(&spec).await.unwrap());
                let ids = ["a#0".to_owned(), "z#0".to_owned()];
                let chunks = file.chunks(&ids).await.unwrap();
                assert_eq!(chunks["a#0"].text, chunks["z#0"].text);
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("changed while it was read"), "{error}");
                assert!(!target.exists());
            }
        }
        if writer.is_finished() {
            break;
        }
    }
    writer.abort();
    eprintln!("moment: {saved} saves, {refused} refused");
    assert!(saved > 0);
    let left = files(folder.path()).into_iter().filter(|name| name.starts_with('.'));
    assert_eq!(left.count(), 0, "no half of a save is left");
}
