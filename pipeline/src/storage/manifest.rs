//! What a save holds: its collections, and its files with their digests.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use retake_schemas::Digest;
use serde::{Deserialize, Serialize};

use super::io;
use crate::error::PipelineError;
use crate::store::CollectionSpec;

/// `manifest.json` of a save.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout.
    pub schema_version: u32,
    /// The collections.
    pub collections: Vec<SavedCollection>,
    /// The files.
    pub files: Vec<SavedFile>,
}

/// A collection in a save.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCollection {
    /// Name.
    pub name: String,
    /// Model of its vectors.
    pub model: String,
    /// Their width.
    pub dim: usize,
    /// Fingerprint of its chunking.
    pub chunking: String,
    /// Documents in it.
    pub documents: u64,
    /// Chunks in it.
    pub chunks: u64,
}

/// A file in a save.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFile {
    /// Its name in the folder.
    pub name: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its BLAKE3 digest.
    pub digest: Digest,
}

impl SavedCollection {
    pub(super) fn new(spec: &CollectionSpec, stats: crate::store::StoreStats) -> Self {
        Self {
            name: spec.name.clone(),
            model: spec.model.clone(),
            dim: spec.dim,
            chunking: spec.chunking.clone(),
            documents: stats.documents,
            chunks: stats.chunks,
        }
    }
}

impl From<SavedCollection> for CollectionSpec {
    fn from(saved: SavedCollection) -> Self {
        let SavedCollection { name, model, dim, chunking, .. } = saved;
        Self { name, model, dim, chunking }
    }
}

impl SavedFile {
    pub(super) fn of(path: &Path, name: &str) -> Result<Self, PipelineError> {
        let bytes = fs::read(path).map_err(|source| io(path, source))?;
        Ok(Self { name: name.to_owned(), bytes: bytes.len() as u64, digest: Digest::of(&bytes) })
    }

    /// Checks that the file in `folder` is the one that was saved.
    pub(super) fn check(&self, folder: &Path) -> Result<(), PipelineError> {
        // A name from a file must not lead out of the folder.
        if Path::new(&self.name).components().count() != 1 || self.name.contains(['/', '\\']) {
            return Err(damaged(folder, &format!("{:?} is no name of a file", self.name)));
        }
        let found = Self::of(&folder.join(&self.name), &self.name)?;
        if found == *self {
            return Ok(());
        }
        Err(damaged(folder, &format!("{} is not as it was saved", self.name)))
    }
}

impl Manifest {
    pub(super) fn new(collections: Vec<SavedCollection>, files: Vec<SavedFile>) -> Self {
        Self { schema_version: SCHEMA_VERSION, collections, files }
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), PipelineError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|e| io(path, e.into()))?;
        text.push(b'\n');
        let mut file = fs::File::create(path).map_err(|source| io(path, source))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(|source| io(path, source))
    }

    pub(super) fn read(path: &Path) -> Result<Self, PipelineError> {
        let text = fs::read(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => PipelineError::NotFound(path.to_owned()),
            _ => io(path, source),
        })?;
        let folder = path.parent().unwrap_or(path);
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| damaged(folder, &format!("manifest.json: {error}")))?;
        if manifest.schema_version != SCHEMA_VERSION {
            return Err(damaged(
                folder,
                &format!(
                    "it has layout {}, this retake reads {SCHEMA_VERSION}",
                    manifest.schema_version
                ),
            ));
        }
        Ok(manifest)
    }
}

fn damaged(folder: &Path, reason: &str) -> PipelineError {
    PipelineError::Damaged { folder: folder.to_owned(), reason: reason.to_owned() }
}

const SCHEMA_VERSION: u32 = 1;
