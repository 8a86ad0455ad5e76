//! One sealed file: opened, and found to be what was sealed before anything of it is used.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parquet::file::metadata::ParquetMetaData;
use retake_schemas::manifest::Segment;
use retake_schemas::version::FormatVersion;
use retake_schemas::{Digest, RunId};

use crate::reader::{ReadError, TABLES_VERSION};
use crate::store::{NO_LINKS, digest_file, digest_of};

/// A sealed file of a run, as its manifest names it. Nobody has looked into it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedFile {
    run_id: RunId,
    path: PathBuf,
    segment: Segment,
}

impl SealedFile {
    pub(crate) fn new(run_id: &RunId, folder: &Path, segment: &Segment) -> Self {
        Self { run_id: run_id.clone(), path: folder.join(&segment.file), segment: segment.clone() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the manifest says of it.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Opens it. A link is an error: in a run's folder it may lead anywhere.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] when it is missing or cannot be opened.
    pub fn open(&self) -> Result<File, ReadError> {
        let opened = OpenOptions::new().read(true).custom_flags(NO_LINKS).open(&self.path);
        opened.map_err(|error| self.damaged(error.to_string()))
    }

    /// Reads the whole of it and checks it, without a second look at the disk.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] when it cannot be read or is not what was sealed.
    pub fn read_checked(&self, file: &mut File) -> Result<Vec<u8>, ReadError> {
        let read = |file: &mut File| {
            let bytes_sealed = self.segment.bytes;
            let bytes = file.metadata()?.len();
            if bytes != bytes_sealed {
                // Not read, however long it is now.
                return Ok((Vec::new(), bytes));
            }
            let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
            file.take(bytes_sealed).read_to_end(&mut content)?;
            let bytes = content.len() as u64;
            Ok((content, bytes))
        };
        let (content, bytes) = read(file).map_err(|error| self.unreadable(&error))?;
        let digest = Digest::from_bytes(*blake3::hash(&content).as_bytes());
        compare(&self.segment, digest, bytes).map_err(|reason| self.damaged(reason))?;
        Ok(content)
    }

    /// Reads it from where `file` stands to its end and checks it, keeping nothing.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] when it cannot be read or is not what was sealed.
    pub fn check(&self, file: &mut File) -> Result<(), ReadError> {
        let (digest, bytes) = digest_of(file).map_err(|error| self.unreadable(&error))?;
        compare(&self.segment, digest, bytes).map_err(|reason| self.damaged(reason))
    }

    /// Whether this retake may read tables of its version.
    ///
    /// # Errors
    /// [`ReadError::Newer`].
    pub fn check_footer(&self, footer: &ParquetMetaData) -> Result<(), ReadError> {
        let facts = footer.file_metadata().key_value_metadata().into_iter().flatten();
        let version =
            facts.filter(|fact| fact.key == TABLES_VERSION).find_map(|fact| fact.value.clone());
        match version.and_then(|version| version.parse::<FormatVersion>().ok()) {
            Some(version) => Ok(version.check_readable_by(FormatVersion::TABLES, "tables")?),
            // Not one of ours; its columns decide.
            None => Ok(()),
        }
    }

    /// The error that a failure to read it is.
    #[must_use]
    pub fn unreadable(&self, error: &io::Error) -> ReadError {
        self.damaged(error.to_string())
    }

    fn damaged(&self, reason: String) -> ReadError {
        ReadError::Damaged { run_id: self.run_id.clone(), file: self.segment.file.clone(), reason }
    }
}

/// Checks a sealed file against its manifest entry; `Err` says what is wrong.
pub(crate) fn check_segment(path: &Path, segment: &Segment) -> Result<(), String> {
    let (digest, bytes) = digest_file(path).map_err(|error| error.to_string())?;
    compare(segment, digest, bytes)
}

fn compare(segment: &Segment, digest: Digest, bytes: u64) -> Result<(), String> {
    if bytes != segment.bytes {
        return Err(format!("it has {bytes} bytes, the manifest says {}", segment.bytes));
    }
    if digest != segment.blake3 {
        return Err(format!("its digest is {digest}, the manifest says {}", segment.blake3));
    }
    Ok(())
}
