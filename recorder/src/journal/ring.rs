//! The memory that lanes write into: files of chunks, mapped, so that a killed process loses
//! nothing.
//!
//! A chunk is handed to one lane at a time, filled, drained, sealed, and used again; using the
//! same pages again keeps them mapped, allocated and in the cache. Files are allocated in full and
//! touched when they are made, by the writer thread and ahead of need: a mapped write to a block
//! that the disk cannot give would kill the process with SIGBUS, so a full disk must show here.
//!
//! Where files cannot be mapped (some network and overlay file systems), chunks come from the heap.
//! Recording works as before, but what is not sealed dies with the process; the run says so.

#![expect(unsafe_code, reason = "memory-mapped files have no safe interface")]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memmap2::{MmapMut, MmapOptions};
use retake_schemas::version::FormatVersion;

use super::{handover, record};

/// A chunk of 8-byte words, owned by whoever holds it.
///
/// Not `Clone`: the holder is the only one who may write. Readers get [`ChunkView`]s.
#[derive(Debug)]
pub(crate) struct Chunk {
    base: *mut u64,
    words: usize,
    /// Where its memory stands among the ring's.
    backing: usize,
}

// SAFETY: a chunk is a place in memory that lives as long as its `Ring`; holding it is what gives
// the right to write, and only one holder exists.
unsafe impl Send for Chunk {}

/// Who writes in a chunk, and from which point of its lane on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkHeader {
    /// Which use of the chunk this is; no two uses in a run share one.
    pub(crate) epoch: u32,
    pub(crate) lane: u32,
    /// Sequence number in the lane of the first record.
    pub(crate) first_seq: u64,
    /// Spans the lane had opened before the first record.
    pub(crate) first_open: u64,
}

impl ChunkHeader {
    /// The seed of the checksums of its records.
    pub(crate) fn seed(&self) -> u64 {
        record::seed(self.lane, self.epoch)
    }

    pub(crate) fn words(&self) -> [u64; 4] {
        let body = [u64::from(self.lane), self.first_seq, self.first_open];
        let seed = CHUNK_MAGIC ^ u64::from(self.epoch);
        let check = record::header(seed, record::Kind::Thread, 0, &body) >> 32;
        [u64::from(self.epoch) << 32 | CHUNK_MAGIC, body[0] | check << 32, body[1], body[2]]
    }

    /// Reads the header of a chunk; `None` when it is unused or damaged.
    pub(crate) fn decode(words: &[u64]) -> Option<Self> {
        let &[magic, lane, first_seq, first_open] = words.first_chunk::<4>()?;
        if magic & 0xFFFF_FFFF != CHUNK_MAGIC {
            return None;
        }
        let lane32 = lane as u32;
        let header = Self { epoch: (magic >> 32) as u32, lane: lane32, first_seq, first_open };
        (header.words() == [magic, lane, first_seq, first_open]).then_some(header)
    }
}

impl Chunk {
    /// Starts a use of the chunk: nothing in it counts any more, then the header does.
    pub(crate) fn begin(&self, header: &ChunkHeader) {
        assert!(self.words > CHUNK_HEADER_WORDS);
        // SAFETY: who holds a chunk may write to it.
        unsafe { handover::begin(self.base, CHUNK_HEADER_WORDS, header.words()) };
    }

    /// Ends its use: what is in it is sealed and must not be read again.
    pub(crate) fn retire(&self) {
        // SAFETY: as in `begin`.
        unsafe { handover::retire(self.base) };
    }

    /// The first word a record may take.
    pub(crate) fn start(&self) -> *mut u64 {
        // SAFETY: every chunk is larger than its header.
        unsafe { self.base.add(CHUNK_HEADER_WORDS) }
    }

    /// The last word.
    pub(crate) fn last(&self) -> *mut u64 {
        // SAFETY: every chunk is larger than its header.
        unsafe { self.base.add(self.words - 1) }
    }

    /// A view for the thread that drains. The ring outlives it.
    pub(crate) fn view(&self) -> ChunkView {
        ChunkView { base: self.base, words: self.words }
    }
}

/// What a reader may see of a chunk that its owner still writes: the published records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkView {
    base: *mut u64,
    words: usize,
}

// SAFETY: as for `Chunk`; a view only reads what was published.
unsafe impl Send for ChunkView {}

impl ChunkView {
    /// Words from `from` (at least the first record's place) up to the end of what is published.
    ///
    /// # Safety
    /// The ring must live, and the chunk must not be retired, while the slice is used.
    pub(crate) unsafe fn published(&self, from: usize) -> &[u64] {
        let from = from.max(CHUNK_HEADER_WORDS);
        // SAFETY: the chunk lives and is not retired, as the caller says.
        let end = unsafe { handover::published(self.base, from, self.words) };
        // SAFETY: published words are never written again before the chunk is retired, which the
        // caller excludes.
        unsafe { std::slice::from_raw_parts(self.base.add(from), end - from) }
    }
}

/// Where chunks come from.
#[derive(Debug)]
pub(crate) struct Ring {
    folder: Option<PathBuf>,
    /// Keeps the memory of all chunks alive.
    backings: Vec<Option<Backing>>,
    free: Vec<Chunk>,
    next_file: u32,
    bytes: u64,
}

#[derive(Debug)]
enum Backing {
    Mapped { _map: MmapMut, path: PathBuf },
    Heap { _words: Box<[u64]> },
}

/// The facts at the start of a ring file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RingHeader {
    /// Bytes of one chunk; the first starts at [`RING_HEADER_BYTES`].
    pub(crate) chunk_bytes: u32,
    /// Chunks in the file.
    pub(crate) chunks: u32,
    /// The clock when the run started.
    pub(crate) clock: crate::clock::Anchor,
    /// First estimate of the clock's rate; anchors in the journal refine it.
    pub(crate) ticks_per_ns: f64,
}

impl RingHeader {
    pub(crate) fn encode(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        let parts: [&[u8]; 8] = [
            &RING_MAGIC,
            &FormatVersion::JOURNAL.major.to_le_bytes(),
            &FormatVersion::JOURNAL.minor.to_le_bytes(),
            &self.chunk_bytes.to_le_bytes(),
            &self.chunks.to_le_bytes(),
            &self.clock.ticks.to_le_bytes(),
            &self.clock.unix_ns.to_le_bytes(),
            &self.ticks_per_ns.to_le_bytes(),
        ];
        let mut at = 0;
        for part in parts {
            if let Some(place) = bytes.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
            at += part.len();
        }
        let check = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads the header of a ring file.
    ///
    /// # Errors
    /// In words: not a ring file, damaged, or of a newer format.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.first_chunk::<64>().ok_or("it is shorter than its header")?;
        if !bytes.starts_with(&RING_MAGIC) {
            return Err("wrong magic bytes".to_owned());
        }
        if crc32c::crc32c(&bytes[..60]) != u32::from_le_bytes(part(bytes, 60)) {
            return Err("its header has a wrong checksum".to_owned());
        }
        let version = FormatVersion {
            major: u16::from_le_bytes(part(bytes, 8)),
            minor: u16::from_le_bytes(part(bytes, 10)),
        };
        version
            .check_readable_by(FormatVersion::JOURNAL, "journal")
            .map_err(|error| error.to_string())?;
        let header = Self {
            chunk_bytes: u32::from_le_bytes(part(bytes, 12)),
            chunks: u32::from_le_bytes(part(bytes, 16)),
            clock: crate::clock::Anchor {
                ticks: u64::from_le_bytes(part(bytes, 20)),
                unix_ns: i64::from_le_bytes(part(bytes, 28)),
            },
            ticks_per_ns: f64::from_le_bytes(part(bytes, 36)),
        };
        let is_sane = header.chunk_bytes as usize > CHUNK_HEADER_WORDS * 8
            && header.chunk_bytes.is_multiple_of(8)
            && header.ticks_per_ns.is_finite()
            && header.ticks_per_ns > 0.0;
        if is_sane { Ok(header) } else { Err("its header makes no sense".to_owned()) }
    }
}

impl Ring {
    /// A ring whose files go into `folder`; on the heap without one.
    pub(crate) fn new(folder: Option<&Path>) -> Self {
        Self {
            folder: folder.map(Path::to_owned),
            backings: Vec::new(),
            free: Vec::new(),
            next_file: 0,
            bytes: 0,
        }
    }

    /// Whether what is written survives the death of the process.
    pub(crate) fn is_mapped(&self) -> bool {
        self.folder.is_some()
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Chunks nobody uses.
    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// A chunk to use.
    pub(crate) fn take(&mut self) -> Option<Chunk> {
        self.free.pop()
    }

    /// A chunk to use again. It must have been retired. The memory of one that was made for a
    /// large record is given back to the system.
    pub(crate) fn give_back(&mut self, chunk: Chunk) {
        if chunk.words * 8 == CHUNK_BYTES {
            self.free.push(chunk);
            return;
        }
        self.bytes = self.bytes.saturating_sub((RING_HEADER_BYTES + chunk.words * 8) as u64);
        let backing = self.backings.get_mut(chunk.backing).and_then(Option::take);
        if let Some(Backing::Mapped { path, .. }) = backing {
            // A file left behind holds nothing that its manifest does not say is sealed.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Where the next file would go, so that it can be made without holding the ring.
    pub(crate) fn next_path(&mut self) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        let path = folder.join(format!("ring-{:04}.lanes", self.next_file));
        self.next_file += 1;
        Some(path)
    }

    /// Adds memory made by [`Memory::map`] or [`Memory::heap`]; its first chunk comes back when
    /// the memory was made for one large record.
    pub(crate) fn add(&mut self, memory: Memory) -> Option<Chunk> {
        self.bytes += memory.bytes;
        // Places of memory that was given back are used again, or large records would leave one
        // each.
        let free = self.backings.iter().position(Option::is_none);
        let place = free.unwrap_or(self.backings.len());
        match self.backings.get_mut(place) {
            Some(backing) => *backing = Some(memory.backing),
            None => self.backings.push(Some(memory.backing)),
        }
        let mut chunks = memory.chunks;
        for chunk in &mut chunks {
            chunk.backing = place;
        }
        if memory.is_for_one {
            return chunks.pop();
        }
        self.free.append(&mut chunks);
        None
    }

    /// The ring's files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.backings
            .iter()
            .flatten()
            .filter_map(|backing| match backing {
                Backing::Mapped { path, .. } => Some(path.clone()),
                Backing::Heap { .. } => None,
            })
            .collect()
    }
}

/// Fresh chunks, not yet in a ring.
#[derive(Debug)]
pub(crate) struct Memory {
    backing: Backing,
    chunks: Vec<Chunk>,
    bytes: u64,
    is_for_one: bool,
}

impl Memory {
    /// A mapped file with `chunks` chunks of `chunk_bytes`.
    ///
    /// # Errors
    /// The disk is full, the folder is gone, or its file system cannot map files.
    pub(crate) fn map(path: &Path, header: &RingHeader) -> io::Result<Self> {
        let bytes = RING_HEADER_BYTES + header.chunk_bytes as usize * header.chunks as usize;
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let allocate = || -> io::Result<MmapMut> {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes as u64)?;
            // SAFETY: the file is new, private to this process by its lock on the run's folder,
            // and never truncated while the map lives.
            unsafe { MmapOptions::new().populate().map_mut(&file) }
        };
        let mut map = allocate().inspect_err(|_| {
            // Half a file is worse than none: recovery would have to explain it.
            let _ = std::fs::remove_file(path);
        })?;
        map[..64].copy_from_slice(&header.encode());
        // Populated pages of a shared map can only be read: the first write to each would fault,
        // and that on the instrumented thread.
        map.iter_mut().step_by(PAGE_BYTES).skip(1).for_each(|byte| *byte = 0);
        let base = map.as_mut_ptr();
        let chunk_words = header.chunk_bytes as usize / 8;
        let chunks = (0..header.chunks as usize)
            .map(|index| {
                // SAFETY: inside the map; page-aligned plus multiples of 8 bytes.
                let base = unsafe { base.add(RING_HEADER_BYTES + index * chunk_words * 8) };
                Chunk { base: base.cast(), words: chunk_words, backing: 0 }
            })
            .collect();
        let backing = Backing::Mapped { _map: map, path: path.to_owned() };
        Ok(Self { backing, chunks, bytes: bytes as u64, is_for_one: header.chunks == 1 })
    }

    /// The same on the heap.
    pub(crate) fn heap(header: &RingHeader) -> Self {
        let chunk_words = header.chunk_bytes as usize / 8;
        let mut words = vec![0; chunk_words * header.chunks as usize].into_boxed_slice();
        let base = words.as_mut_ptr();
        let chunks = (0..header.chunks as usize)
            .map(|index| {
                // SAFETY: inside the allocation.
                let base = unsafe { base.add(index * chunk_words) };
                Chunk { base, words: chunk_words, backing: 0 }
            })
            .collect();
        let bytes = (RING_HEADER_BYTES + words.len() * 8) as u64;
        let is_for_one = header.chunks == 1;
        Self { backing: Backing::Heap { _words: words }, chunks, bytes, is_for_one }
    }
}

fn part<const N: usize>(bytes: &[u8; 64], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

/// Smallest page of any machine.
const PAGE_BYTES: usize = 4096;
/// First bytes of a ring file.
const RING_MAGIC: [u8; 8] = *b"RETAKER\0";
/// Bytes before the first chunk: a page, so that chunks are page-aligned.
pub(crate) const RING_HEADER_BYTES: usize = 4096;
/// Size of a chunk: some 700 spans. Small, because every thread holds one; large enough that
/// fetching the next one costs nothing per span.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// Words of a chunk before its first record.
pub(crate) const CHUNK_HEADER_WORDS: usize = 8;
const CHUNK_MAGIC: u64 = 0x4B4E_4843;
