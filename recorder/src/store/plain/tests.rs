//! Runs with links, pipes and strange names in them.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_schemas::manifest::FileEntry;
use retake_schemas::tables::SpanRow;

use crate::store::{ManifestError, RunLock, Store, StoreError, write_manifest};
use crate::{RecorderBuilder, RunReader};

/// A store with one finished run, and a folder beside it with a file that must stay as it is.
struct Bench {
    folder: tempfile::TempDir,
    store: Store,
    run_id: RunId,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store")).unwrap();
        let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
        let run_id = recorder.run_id().clone();
        let _ = recorder.finish(RunStatus::Finished);
        std::fs::create_dir(folder.path().join("outside")).unwrap();
        let bench = Self { folder, store, run_id };
        std::fs::write(bench.outside(), "untouched").unwrap();
        bench
    }

    fn outside(&self) -> PathBuf {
        self.folder.path().join("outside").join("file")
    }

    fn run(&self) -> PathBuf {
        self.store.run_dir(&self.run_id)
    }

    /// The run in place of which `replace` put a link is refused by everything that would read,
    /// write or delete through it.
    fn assert_refused(&self, what: &str) {
        assert!(RunReader::open(&self.store, &self.run_id).is_err(), "{what}: read");
        assert!(self.store.update_manifest(&self.run_id, |_| {}).is_err(), "{what}: written");
        let verified = self.store.verify(&self.run_id);
        assert!(verified.is_err() || !verified.unwrap().is_sound(), "{what}: verified");
        let recovered = self.store.recover().unwrap();
        assert!(recovered.repaired.is_empty(), "{what}: recovered");
        self.assert_untouched(what);
    }

    fn assert_untouched(&self, what: &str) {
        assert_eq!(std::fs::read(self.outside()).unwrap(), b"untouched", "{what}");
        let outside = self.folder.path().join("outside");
        assert_eq!(std::fs::read_dir(outside).unwrap().count(), 1, "{what}: made outside");
    }
}

fn replace_by_link(path: &Path, target: &Path) {
    if path.exists() {
        std::fs::remove_file(path).unwrap();
    }
    symlink(target, path).unwrap();
}

/// Scenario: each file of a run in turn is a link to a file outside, and the journal a link to a
/// folder outside.
/// Guarantees: P3 - nothing is read, written, or deleted through any of them.
#[test]
fn links_in_a_run_are_not_followed() {
    let names: Vec<String> = std::fs::read_dir(Bench::new().run())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .chain(["manifest.json.tmp", "spans-000099.parquet", "carry-000009.bin"].map(str::to_owned))
        .collect();
    assert!(names.iter().any(|name| name == "manifest.json"), "{names:?}");
    for name in names {
        let bench = Bench::new();
        replace_by_link(&bench.run().join(&name), &bench.outside());
        bench.assert_refused(&name);
    }
    let bench = Bench::new();
    symlink(bench.folder.path().join("outside"), bench.run().join("journal")).unwrap();
    bench.assert_refused("journal");
    let bench = Bench::new();
    std::fs::create_dir(bench.run().join("journal")).unwrap();
    symlink(bench.outside(), bench.run().join("journal/0.journal")).unwrap();
    bench.assert_refused("journal file");
}

/// Scenario: a run is itself a link to a folder outside, and is removed.
/// Guarantees: P3 - it is no run, and what it leads to stays.
#[test]
fn a_run_that_is_a_link_is_none() {
    let bench = Bench::new();
    let linked: RunId = "linked".parse().unwrap();
    symlink(bench.folder.path().join("outside"), bench.store.run_dir(&linked)).unwrap();
    assert!(!bench.store.run_ids().unwrap().contains(&linked));
    assert!(matches!(bench.store.manifest(&linked), Err(StoreError::NoRun(_))));
    assert!(matches!(bench.store.remove(&linked), Err(StoreError::NoRun(_))));
    bench.assert_untouched("linked run");
}

/// Scenario: a run with links in it is removed.
/// Guarantees: P3 - the links go, what they lead to stays.
#[test]
fn removing_a_run_removes_links_and_not_what_they_lead_to() {
    let bench = Bench::new();
    symlink(bench.folder.path().join("outside"), bench.run().join("quarantine")).unwrap();
    bench.store.remove(&bench.run_id).unwrap();
    assert!(!bench.run().exists());
    bench.assert_untouched("removed");
}

/// Scenario: the lock file and the temporary manifest are links to files that do not exist.
/// Guarantees: P3 - nothing is created through them.
#[test]
fn nothing_is_created_through_a_dangling_link() {
    let bench = Bench::new();
    let absent = bench.folder.path().join("outside/absent");
    replace_by_link(&bench.run().join("writer.lock"), &absent);
    assert!(RunLock::take(&bench.run(), &bench.run_id).is_err());
    replace_by_link(&bench.run().join("manifest.json.tmp"), &absent);
    let facts = retake_schemas::event::RunFacts::default();
    let manifest = retake_schemas::manifest::Manifest::new(bench.run_id.clone(), facts);
    assert!(write_manifest(&bench.run(), &manifest).is_err());
    bench.assert_untouched("dangling");
}

/// Scenario: a manifest, its digest right, names files outside its folder.
/// Guarantees: P3 - it is refused before any of them is opened.
#[test]
fn a_manifest_names_only_files_of_its_folder() {
    for name in ["../outside/file", "/etc/passwd", "..", "", "a/b", "a\\b", "a\0"] {
        let bench = Bench::new();
        let mut manifest = bench.store.manifest(&bench.run_id).unwrap();
        let blake3 = retake_schemas::Digest::of(b"untouched");
        manifest.carry = Some(FileEntry { file: name.to_owned(), bytes: 9, blake3 });
        write_manifest(&bench.run(), &manifest).unwrap();
        let error = bench.store.manifest(&bench.run_id).unwrap_err();
        assert!(
            matches!(error, StoreError::Manifest(ManifestError::Damaged { .. })),
            "{name:?}: {error}"
        );
    }
}

/// Guarantees: P3 - only the owner may look into a store.
#[test]
fn files_are_0600_and_folders_0700() {
    let bench = Bench::new();
    let mut folders = vec![bench.store.root().to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(metadata.permissions().mode() & 0o777, expected, "{}", path.display());
            seen += 1;
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    assert!(seen >= 4, "{seen} entries");
    let rows: Vec<SpanRow> = RunReader::open(&bench.store, &bench.run_id).unwrap().rows().unwrap();
    assert_eq!(rows.len(), 0);
}
