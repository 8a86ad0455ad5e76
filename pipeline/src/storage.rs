//! Everything a pipeline keeps, saved into a folder and restored from it: documents and vectors of
//! all collections, the cache of vectors, and the cache of answers.
//!
//! A folder of a save is complete or it is not there: it is made under another name, synced, and
//! renamed. It holds SQLite files whatever the database is, so a save of one is restored into the
//! other. Each collection is saved as of one moment.
//!
//! A restore checks every digest before it changes anything. Each collection is loaded beside the
//! one it replaces and then takes its name in one transaction. A restore that is cut short leaves
//! every collection as it was or as it was saved; and that some are the one and some the other does
//! no harm, because a cached answer is found only for the very state of its collection and a cached
//! vector only for its text. The same command goes on.

mod caches;
mod copy;
mod manifest;

use std::fs;
use std::path::{Path, PathBuf};

use retake_schemas::settings::VectorSettings;

pub use self::manifest::{Manifest, SavedCollection, SavedFile};

use crate::error::PipelineError;
use crate::store::sqlite::SqliteStore;
use crate::store::{self, CollectionSpec, VectorStore as _};

/// What is to be saved, or restored into.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Where documents and vectors are.
    pub vectors: VectorSettings,
    /// The file of documents and vectors, if the settings name no other place.
    pub default_sqlite: PathBuf,
    /// The file of the cache of vectors; it need not be there.
    pub cache: PathBuf,
    /// The file of the cache of answers; it need not be there.
    pub answers: PathBuf,
}

impl Storage {
    /// Saves everything into `folder`, which must not be there yet.
    ///
    /// # Errors
    /// The folder is there, a collection changed all the while, or a database or the disk failed;
    /// then there is no folder.
    pub async fn save(&self, folder: &Path) -> Result<Manifest, PipelineError> {
        if folder.exists() {
            return Err(PipelineError::Configuration(format!(
                "save into {}: it is there already; name a folder that is not",
                folder.display()
            )));
        }
        let parent = parent_of(folder);
        fs::create_dir_all(&parent).map_err(|source| io(&parent, source))?;
        let part = part_of(folder);
        // Left over from a save that was killed.
        let _ = fs::remove_dir_all(&part);
        make_private_folder(&part)?;
        let saved = self.save_into(&part).await;
        let placed = saved.and_then(|manifest| {
            sync(&part)?;
            fs::rename(&part, folder).map_err(|source| io(folder, source))?;
            sync(&parent)?;
            Ok(manifest)
        });
        if placed.is_err() {
            let _ = fs::remove_dir_all(&part);
        }
        placed
    }

    async fn save_into(&self, part: &Path) -> Result<Manifest, PipelineError> {
        let source = store::open(&self.vectors, &self.default_sqlite).await?;
        let target = SqliteStore::new(&part.join(DOCUMENTS))?;
        let mut collections = Vec::new();
        for spec in source.collections().await? {
            if copy::is_scratch(&spec.name) || !source.open_existing(&spec).await? {
                continue;
            }
            let copied = copy::copy(source.as_ref(), &target, &spec).await?;
            collections.push(SavedCollection::new(&spec, copied));
        }
        // Nothing of the file must still stand in its log.
        target.close().await?;
        for (file, name) in [(&self.cache, CACHE), (&self.answers, ANSWERS)] {
            caches::save(file, &part.join(name)).await?;
        }
        let mut files = Vec::new();
        for name in [DOCUMENTS, CACHE, ANSWERS] {
            let path = part.join(name);
            if path.exists() {
                sync(&path)?;
                files.push(SavedFile::of(&path, name)?);
            }
        }
        let manifest = Manifest::new(collections, files);
        manifest.write(&part.join(MANIFEST))?;
        Ok(manifest)
    }

    /// Restores what `folder` holds. Collections that are not in it, and caches when it has none,
    /// stay.
    ///
    /// # Errors
    /// The folder is no save, a file in it is damaged (then nothing has changed), or a database
    /// failed; then the same restore goes on.
    pub async fn restore(&self, folder: &Path) -> Result<Manifest, PipelineError> {
        let manifest = Manifest::read(&folder.join(MANIFEST))?;
        for file in &manifest.files {
            file.check(folder)?;
        }
        let has = |name: &str| manifest.files.iter().any(|file| file.name == name);
        // A database is never opened where it is saved: it would be changed by that.
        let scratch = tempfile::tempdir().map_err(|source| io(folder, source))?;
        for file in &manifest.files {
            let from = folder.join(&file.name);
            let to = scratch.path().join(&file.name);
            fs::copy(&from, &to).map_err(|source| io(&from, source))?;
        }
        for (name, target) in [(CACHE, &self.cache), (ANSWERS, &self.answers)] {
            if has(name) {
                caches::restore(&scratch.path().join(name), target).await?;
            }
        }
        if has(DOCUMENTS) {
            let source = SqliteStore::new(&scratch.path().join(DOCUMENTS))?;
            let target = store::open(&self.vectors, &self.default_sqlite).await?;
            for saved in &manifest.collections {
                let spec = CollectionSpec::from(saved.clone());
                if !source.open_existing(&spec).await? {
                    return Err(PipelineError::Damaged {
                        folder: folder.to_owned(),
                        reason: format!("it lacks the collection {:?} that it names", spec.name),
                    });
                }
                copy::copy(&source, target.as_ref(), &spec).await?;
            }
            source.close().await?;
        }
        Ok(manifest)
    }
}

fn parent_of(folder: &Path) -> PathBuf {
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Where a save is made, beside where it will be: a rename must not cross file systems.
fn part_of(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    parent_of(folder).join(format!(".{name}.part"))
}

fn make_private_folder(folder: &Path) -> Result<(), PipelineError> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(folder).map_err(|source| io(folder, source))
}

/// Has the disk keep a file, or a folder's names.
fn sync(path: &Path) -> Result<(), PipelineError> {
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(|source| io(path, source))
}

fn io(path: &Path, source: std::io::Error) -> PipelineError {
    PipelineError::Io { path: path.to_owned(), source }
}

const MANIFEST: &str = "manifest.json";
const DOCUMENTS: &str = "rag.sqlite";
const CACHE: &str = "rag-cache.sqlite";
const ANSWERS: &str = "rag-answers.sqlite";
