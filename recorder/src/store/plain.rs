//! Only plain files and folders: a run that came from elsewhere must not lead out of its folder.
//!
//! A link in the place of a segment would have retake read another file, one in the place of the
//! journal would have it delete another folder, and a pipe would have it wait for ever. So a run
//! with anything but plain files and folders is refused before a byte of it is used.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, Kind};
use crate::reader::JOURNAL_DIR;

/// Whether a manifest may name this: a file right inside the run's folder.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

/// The first entry of a run's folder, or of its journal, that is neither file nor folder.
pub(super) fn first_stranger(disk: &dyn Disk, folder: &Path) -> io::Result<Option<PathBuf>> {
    if let Some(stranger) = first_stranger_in(disk, folder)? {
        return Ok(Some(stranger));
    }
    match first_stranger_in(disk, &folder.join(JOURNAL_DIR)) {
        // A finished run has none, and a live writer may remove it while we look.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other,
    }
}

fn first_stranger_in(disk: &dyn Disk, folder: &Path) -> io::Result<Option<PathBuf>> {
    let entries = disk.list(folder)?;
    let stranger = entries.into_iter().find(|entry| entry.kind == Kind::Other);
    Ok(stranger.map(|entry| folder.join(entry.name)))
}

#[cfg(test)]
mod tests;
