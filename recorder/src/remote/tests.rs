//! Copies of runs there and back, with everything that can go wrong on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::memory::InMemory;
use object_store::{ObjectStoreExt as _, PutPayload};
use retake_schemas::event::RunStatus;
use retake_schemas::tables::{EventRow, SpanRow};

use super::failing::Failing;
use super::*;
use crate::reader::RunReader;
use crate::store::{MANIFEST_FILE, Store, select_among};
use crate::upkeep::testing::{finished_run, store};
use crate::upkeep::{compact, sweep};

/// Small enough that the files of a test run go up in parts.
const PART: usize = 4096;

fn remote(objects: Arc<dyn ObjectStore>, part_bytes: usize) -> Remote {
    let remote = Remote::with_objects(objects, Path::from("team/a"), "memory:///team/a");
    Remote { part_bytes, ..remote }
}

fn silent(_: TransferProgress) {}

fn rows(store: &Store, run_id: &RunId) -> (Vec<SpanRow>, Vec<EventRow>) {
    let reader = RunReader::open(store, run_id).unwrap();
    (reader.rows().unwrap(), reader.rows().unwrap())
}

async fn visible(objects: &Arc<InMemory>) -> Vec<RunId> {
    let listing = remote(objects.clone(), PART).runs_there().await.unwrap();
    listing.runs.into_iter().map(|(run_id, manifest)| manifest.map(|_| run_id).unwrap()).collect()
}

/// Scenario: runs go to another place and come back into an empty store, in one piece and in
/// parts, through memory and through a folder.
/// Guarantees: every row is there with its content, the layout is that of a store, and what is
/// complete is not copied twice.
#[tokio::test]
async fn runs_go_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = Remote::create(&format!("file://{}", folder.path().display())).unwrap();
    let in_memory = remote(Arc::new(InMemory::new()), usize::MAX);
    let in_parts = remote(Arc::new(InMemory::new()), PART);
    for remote in [in_folder, in_memory, in_parts] {
        let (_here, here) = store();
        let run_id = finished_run(&here, "a", 3);
        let bytes = AtomicU64::new(0);
        let count = |progress: TransferProgress| {
            assert!(progress.bytes_done <= progress.bytes_total);
            bytes.fetch_max(progress.bytes_done, Ordering::Relaxed);
        };
        let pushed = remote.push(&here, &run_id, &count).await.unwrap();
        assert_eq!((pushed.files_sent, pushed.files_there), (9, 0));
        assert_eq!(bytes.load(Ordering::Relaxed), pushed.bytes_sent);
        assert!(remote.push(&here, &run_id, &silent).await.unwrap().was_complete);

        let (_there, there) = store();
        let pulled = remote.pull(&there, &run_id, &silent).await.unwrap();
        assert_eq!((pulled.files_fetched, pulled.bytes_fetched), (9, pushed.bytes_sent));
        assert_eq!(rows(&there, &run_id), rows(&here, &run_id));
        assert!(there.verify(&run_id).unwrap().is_sound());
        assert!(remote.pull(&there, &run_id, &silent).await.unwrap().was_complete);
    }
    let run = std::fs::read_dir(folder.path().join("runs")).unwrap().next().unwrap().unwrap();
    assert!(run.path().join(MANIFEST_FILE).is_file());
    let (_mine, mine) = store();
    let copy = Store::open(folder.path()).unwrap();
    assert!(copy.verify(&copy.select("last").unwrap()).unwrap().is_sound(), "read in place");
    assert!(mine.run_ids().unwrap().is_empty());
}

/// Scenario: the line breaks at every operation of a push in turn, before the operation took
/// effect and after.
/// Guarantees: no reader sees the run before it is complete; the next push completes it.
#[tokio::test]
async fn a_push_that_fails_anywhere_shows_nothing_and_is_completed_by_the_next() {
    let (_here, here) = store();
    let run_id = finished_run(&here, "a", 2);
    let mut failures = 0;
    for (part_bytes, takes_effect) in
        [(usize::MAX, false), (usize::MAX, true), (PART, false), (PART, true)]
    {
        for n in 0.. {
            let objects = Arc::new(InMemory::new());
            let failing = Arc::new(Failing::at(n, takes_effect, &objects));
            let broken = remote(failing.clone(), part_bytes);
            let outcome = broken.push(&here, &run_id, &silent).await;
            if !failing.has_failed() {
                outcome.unwrap();
                assert!(n > 6, "only {n} operations");
                break;
            }
            failures += 1;
            let error = outcome.unwrap_err();
            assert!(matches!(error, RemoteError::Objects { .. }), "{n}: {error}");
            let seen = visible(&objects).await;
            if !seen.is_empty() {
                // Only the answer to the very last step was lost.
                assert!(takes_effect, "operation {n}");
                assert_complete(&objects, &here, &run_id).await;
            }
            remote(objects.clone(), part_bytes).push(&here, &run_id, &silent).await.unwrap();
            assert_eq!(visible(&objects).await, std::slice::from_ref(&run_id));
            assert_complete(&objects, &here, &run_id).await;
        }
    }
    assert!(failures > 40, "{failures}");
}

async fn assert_complete(objects: &Arc<InMemory>, here: &Store, run_id: &RunId) {
    let (_there, there) = store();
    remote(objects.clone(), PART).pull(&there, run_id, &silent).await.unwrap();
    assert_eq!(rows(&there, run_id), rows(here, run_id));
}

/// Scenario: the line breaks at every operation of a pull in turn.
/// Guarantees: the store shows nothing of the run before it is complete; the next pull goes on
/// where the first stopped.
#[tokio::test]
async fn a_pull_that_fails_anywhere_shows_nothing_and_is_completed_by_the_next() {
    let (_here, here) = store();
    let run_id = finished_run(&here, "a", 2);
    let objects = Arc::new(InMemory::new());
    remote(objects.clone(), PART).push(&here, &run_id, &silent).await.unwrap();
    let mut continued = 0;
    for n in 0.. {
        let (_there, there) = store();
        let failing = Arc::new(Failing::at(n, false, &objects));
        let outcome = remote(failing.clone(), PART).pull(&there, &run_id, &silent).await;
        if !failing.has_failed() {
            outcome.unwrap();
            assert_eq!(n, 7, "a manifest and six files");
            break;
        }
        assert!(matches!(outcome, Err(RemoteError::Objects { .. })), "{outcome:?}");
        assert!(there.run_ids().unwrap().is_empty());
        sweep(&there).unwrap();
        let pulled = remote(objects.clone(), PART).pull(&there, &run_id, &silent).await.unwrap();
        assert_eq!(pulled.files_fetched + pulled.files_there, 6);
        continued += pulled.files_there;
        assert_eq!(rows(&there, &run_id), rows(&here, &run_id));
        assert_eq!(std::fs::read_dir(there.runs_dir()).unwrap().count(), 1, "nothing is left");
    }
    assert!(continued > 0, "nothing was ever continued");
}

/// Scenario: a file of the copy is changed, cut, missing, or longer than it should be.
/// Guarantees: J5 - the pull names it, and the store shows nothing of the run.
#[tokio::test]
async fn a_damaged_copy_is_found_before_it_appears() {
    let (_here, here) = store();
    let run_id = finished_run(&here, "a", 1);
    let objects = Arc::new(InMemory::new());
    let remote = remote(objects.clone(), usize::MAX);
    remote.push(&here, &run_id, &silent).await.unwrap();
    let path = remote.path(&run_id, "spans-000001.parquet");
    let good = objects.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    let longer = [good.as_slice(), b"more"].concat();
    for bad in [Some(flipped), Some(good[..50].to_vec()), Some(longer), None] {
        match bad {
            Some(bytes) => objects.put(&path, PutPayload::from(bytes)).await.map(|_| ()).unwrap(),
            None => objects.delete(&path).await.unwrap(),
        }
        let (_there, there) = store();
        let error = remote.pull(&there, &run_id, &silent).await.unwrap_err();
        let is_named =
            matches!(&error, RemoteError::Damaged { file, .. } if file.starts_with("spans-"));
        assert!(is_named, "{error}");
        assert!(there.run_ids().unwrap().is_empty());
        objects.put(&path, PutPayload::from(good.clone())).await.unwrap();
        remote.pull(&there, &run_id, &silent).await.unwrap();
        assert_eq!(rows(&there, &run_id), rows(&here, &run_id));
    }
}

/// Scenario: a local file is damaged, in one piece and in parts; a run is still being recorded.
/// Guarantees: J5 - nothing damaged or unfinished is ever shown elsewhere.
#[tokio::test]
async fn damaged_and_live_runs_are_not_pushed() {
    for part_bytes in [PART, usize::MAX] {
        let (_here, here) = store();
        let run_id = finished_run(&here, "a", 1);
        let path = here.run_dir(&run_id).join("spans-000001.parquet");
        let mut bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() > PART);
        bytes[PART + 1] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let objects = Arc::new(InMemory::new());
        let remote = remote(objects.clone(), part_bytes);
        let error = remote.push(&here, &run_id, &silent).await.unwrap_err();
        assert!(matches!(error, RemoteError::Damaged { .. }), "{error}");
        assert!(objects.head(&remote.path(&run_id, "spans-000001.parquet")).await.is_err());
        assert!(visible(&objects).await.is_empty());

        let recorder = crate::RecorderBuilder::new("t", "svc").start(&here).unwrap();
        let error = remote.push(&here, recorder.run_id(), &silent).await.unwrap_err();
        assert!(matches!(error, RemoteError::NotClosed(_)), "{error}");
        let _ = recorder.finish(RunStatus::Finished);
    }
}

/// Scenario: a run is labelled and compacted after its push, and pushed again; then an older
/// revision is pushed over it, and pulled over a newer one.
/// Guarantees: the newer revision replaces the older one and leaves none of its files behind;
/// never the other way round.
#[tokio::test]
async fn a_newer_revision_replaces_an_older_one_and_never_the_other_way() {
    let (_here, here) = store();
    let run_id = finished_run(&here, "a", 3);
    let objects = Arc::new(InMemory::new());
    let remote = remote(objects.clone(), PART);
    remote.push(&here, &run_id, &silent).await.unwrap();
    let (_old, old) = store();
    remote.pull(&old, &run_id, &silent).await.unwrap();

    let label = |key: &str| (key.to_owned(), "x".to_owned());
    here.update_manifest(&run_id, |m| m.facts.labels.extend([label("ci")])).unwrap();
    let pushed = remote.push(&here, &run_id, &silent).await.unwrap();
    assert_eq!((pushed.files_sent, pushed.files_there), (0, 9));
    compact::compact(&here, &run_id, &mut |_| {}).unwrap();
    let pushed = remote.push(&here, &run_id, &silent).await.unwrap();
    assert_eq!((pushed.files_sent, pushed.files_there), (3, 0));
    let folder = remote.runs().join(run_id.as_str());
    let there = objects.list_with_delimiter(Some(&folder)).await.unwrap();
    assert_eq!(there.objects.len(), 4, "three files and a manifest");

    for error in [
        remote.push(&old, &run_id, &silent).await.unwrap_err(),
        remote.pull(&old, &run_id, &silent).await.unwrap_err(),
    ] {
        assert!(matches!(error, RemoteError::Conflict { .. }), "{error}");
    }
    old.remove(&run_id).unwrap();
    remote.pull(&old, &run_id, &silent).await.unwrap();
    assert_eq!(rows(&old, &run_id), rows(&here, &run_id));
}

/// Scenario: something else lies where a file of a run would go.
/// Guarantees: it is not replaced, the message names it, and the run does not appear.
#[tokio::test]
async fn nothing_that_is_there_is_replaced() {
    let (_here, here) = store();
    let run_id = finished_run(&here, "a", 1);
    for part_bytes in [PART, usize::MAX] {
        let objects = Arc::new(InMemory::new());
        let remote = remote(objects.clone(), part_bytes);
        let path = remote.path(&run_id, "spans-000001.parquet");
        objects.put(&path, PutPayload::from_static(b"precious")).await.unwrap();
        let error = remote.push(&here, &run_id, &silent).await.unwrap_err();
        assert!(matches!(&error, RemoteError::Conflict { file, .. } if file.starts_with("spans-")));
        assert_eq!(objects.get(&path).await.unwrap().bytes().await.unwrap(), "precious");
        let listing = remote.runs_there().await.unwrap();
        assert!(listing.runs.is_empty());
        assert_eq!(listing.incomplete, std::slice::from_ref(&run_id));
    }
}

/// Scenario: a copy's manifest names a file outside the run's folder, or a lock, or itself.
/// Guarantees: nothing is fetched, and nothing appears anywhere.
#[tokio::test]
async fn a_hostile_manifest_reaches_nothing_outside_its_run() {
    let (_here, here) = store();
    let run_id = finished_run(&here, "a", 1);
    for name in ["../../../x.parquet", "/x.parquet", ".x.parquet", "manifest.json", "writer.lock"] {
        let objects = Arc::new(InMemory::new());
        let remote = remote(objects.clone(), usize::MAX);
        let (_evil, evil) = store();
        let source = here.run_dir(&run_id);
        let folder = evil.run_dir(&run_id);
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(source.join(MANIFEST_FILE), folder.join(MANIFEST_FILE)).unwrap();
        evil.update_manifest(&run_id, |m| m.segments[0].file = name.to_owned()).unwrap();
        let bytes = std::fs::read(folder.join(MANIFEST_FILE)).unwrap();
        objects.put(&remote.path(&run_id, MANIFEST_FILE), PutPayload::from(bytes)).await.unwrap();
        let (_there, there) = store();
        let error = remote.pull(&there, &run_id, &silent).await.unwrap_err();
        let said = error.to_string();
        let is_named = ["no file of a run is called that", "no file of this folder"];
        assert!(is_named.iter().any(|reason| said.contains(reason)), "{said}");
        assert_eq!(std::fs::read_dir(there.runs_dir()).unwrap().count(), 0);
    }
}

/// Scenario: a place with two runs, one of them with a damaged manifest, and an unfinished push.
/// Guarantees: one damaged run does not hide the others, and selectors work as they do at home.
#[tokio::test]
async fn listings_show_complete_copies_and_name_the_others() {
    let (_here, here) = store();
    let (first, second) = (finished_run(&here, "first", 1), finished_run(&here, "second", 1));
    let objects = Arc::new(InMemory::new());
    let remote = remote(objects.clone(), PART);
    assert!(remote.runs_there().await.unwrap().runs.is_empty());
    for run_id in [&first, &second] {
        remote.push(&here, run_id, &silent).await.unwrap();
    }
    let damaged: RunId = "damaged".parse().unwrap();
    let half: RunId = "half".parse().unwrap();
    let torn = || PutPayload::from_static(b"{");
    objects.put(&remote.path(&damaged, MANIFEST_FILE), torn()).await.unwrap();
    objects.put(&remote.path(&half, "spans-000001.parquet"), torn()).await.unwrap();
    let listing = remote.runs_there().await.unwrap();
    assert_eq!(listing.incomplete, std::slice::from_ref(&half));
    assert_eq!(listing.runs.iter().filter(|(_, manifest)| manifest.is_ok()).count(), 2);
    assert!(listing.runs.iter().any(|(id, manifest)| *id == damaged && manifest.is_err()));
    let entries = list_entries(&listing);
    assert_eq!(select_among(&entries, "last").unwrap(), second);
    assert_eq!(select_among(&entries, "first").unwrap(), first);
    let error = remote.pull(&here, &half, &silent).await.unwrap_err();
    assert!(matches!(error, RemoteError::NoRun { .. }), "{error}");
}
