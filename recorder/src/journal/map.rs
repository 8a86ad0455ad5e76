//! A journal file mapped into memory: bytes copied into it belong to the kernel, so they outlive a
//! killed process without a system call per event.
//!
//! The one place in this crate with `unsafe` code.

#![expect(unsafe_code, reason = "memory-mapped files have no safe interface")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::MmapMut;

use super::frame::{ALIGN, FRAME_HEADER_BYTES, HEADER_BYTES, JournalHeader};

/// A journal file open for appending.
#[derive(Debug)]
pub(crate) struct MappedJournal {
    path: PathBuf,
    file: File,
    map: MmapMut,
    /// Where the next frame goes.
    end: usize,
}

impl MappedJournal {
    /// Makes the file with all its blocks allocated: a mapped write to a block the disk cannot
    /// give would kill the process with SIGBUS, so a full disk must show here, as an error.
    pub(crate) fn create(path: &Path, header: &JournalHeader, bytes: usize) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let allocate = || -> io::Result<MmapMut> {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes as u64)?;
            // SAFETY: the file is new, private to this process by its lock on the run's folder,
            // and never truncated while the map lives.
            unsafe { MmapMut::map_mut(&file) }
        };
        let mut map = allocate().inspect_err(|_| {
            // Half a journal is worse than none: recovery would have to explain it.
            let _ = std::fs::remove_file(path);
        })?;
        map[..HEADER_BYTES].copy_from_slice(&header.encode());
        Ok(Self { path: path.to_owned(), file, map, end: HEADER_BYTES })
    }

    /// Whether a frame of this size still fits, leaving a zero length behind it.
    pub(crate) fn has_room_for(&self, frame_bytes: usize) -> bool {
        self.end + frame_bytes + FRAME_HEADER_BYTES <= self.map.len()
    }

    /// Appends a frame: everything but the length first, then the length, so that a process
    /// killed in between leaves no half frame.
    ///
    /// # Panics
    /// The frame does not fit; [`MappedJournal::has_room_for`] must have said so.
    pub(crate) fn append(&mut self, header: &[u8; FRAME_HEADER_BYTES], payload: &[u8]) {
        let start = self.end;
        let body = start + FRAME_HEADER_BYTES;
        self.map[start + 4..body].copy_from_slice(&header[4..]);
        self.map[body..body + payload.len()].copy_from_slice(payload);
        let mut length = [0; 4];
        length.copy_from_slice(&header[..4]);
        let place = self.map[start..start + 4].as_mut_ptr().cast::<u32>();
        debug_assert!(start.is_multiple_of(ALIGN));
        // SAFETY: the place is inside the map, aligned to 8 by construction, and nobody else in
        // this process holds a reference into the map while `self` is borrowed mutably.
        let published = unsafe { AtomicU32::from_ptr(place) };
        published.store(u32::from_le_bytes(length).to_le(), Ordering::Release);
        self.end = (body + payload.len()).next_multiple_of(ALIGN);
    }

    /// Bytes used, header included.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A handle for flushing to the disk from another thread.
    pub(crate) fn sync_handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}
