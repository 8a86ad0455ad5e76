//! The carry file: spans that were open at a seal, with what they must remember of their sealed
//! children, and what the journal's numbers mean, so that the journal behind the seal can go.

use std::path::Path;

use retake_schemas::manifest::FileEntry;
use retake_schemas::{Digest, EventSeq};

use crate::disk::{Disk, write_whole};
use crate::fold::Carried;
use crate::journal::{Frame, write_frame};
use crate::store::StoreError;

const MAGIC: &[u8; 8] = b"RETAKEC\0";

pub(super) fn write(
    disk: &dyn Disk,
    folder: &Path,
    number: u64,
    items: &[Carried],
) -> Result<FileEntry, StoreError> {
    let mut bytes = MAGIC.to_vec();
    for (index, item) in items.iter().enumerate() {
        let payload = rmp_serde::to_vec_named(item).map_err(|error| StoreError::Io {
            action: "encode open spans for",
            path: folder.to_owned(),
            source: std::io::Error::other(error),
        })?;
        write_frame(&mut bytes, EventSeq(index as u64), 0, &payload);
    }
    let file = format!("carry-{number:06}.bin");
    let path = folder.join(&file);
    write_whole(disk, &path, &bytes).map_err(StoreError::io("write open spans", &path))?;
    Ok(FileEntry { file, bytes: bytes.len() as u64, blake3: Digest::of(&bytes) })
}

/// Reads the carry file back. `Err` says what is wrong with it.
pub(crate) fn read_carry(
    disk: &dyn Disk,
    folder: &Path,
    entry: &FileEntry,
) -> Result<Vec<Carried>, String> {
    let bytes = disk.read(&folder.join(&entry.file)).map_err(|e| format!("{}: {e}", entry.file))?;
    let found = Digest::of(&bytes);
    if found != entry.blake3 {
        return Err(format!("{}: digest is {found}, manifest says {}", entry.file, entry.blake3));
    }
    let frames = bytes.strip_prefix(MAGIC).ok_or_else(|| format!("{}: wrong magic", entry.file))?;
    let (mut spans, mut offset) = (Vec::new(), 0);
    while let Some(frame) = Frame::decode(frames, offset).map_err(|e| e.to_string())? {
        spans.push(rmp_serde::from_slice(frame.payload).map_err(|e| e.to_string())?);
        offset = frame.next_offset(offset);
    }
    Ok(spans)
}
